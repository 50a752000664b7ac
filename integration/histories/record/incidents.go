package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// incident is something that goes wrong, or could. It happens in a namespace of its name.
type incident struct {
	name string
	play func(context.Context, *stage) error
}

// cloneSet is the workload of an incident.
type cloneSet struct {
	name                string
	replicas, partition int
	image               string
	minReady            int
	strategy            string // more of updateStrategy
	more                string // more of the spec
	env                 string // value of the env entry TOKEN; empty: there is none
}

// hollow nodes carry the Pods of incidents in which no container has to run for real.
const real, hollow = "false", "true"

func (c cloneSet) manifest() string {
	nodes := hollow
	if strings.Contains(c.image, "crash") || strings.Contains(c.image, "missing") || c.name == "shop" {
		nodes = real
	}
	env := ""
	if c.env != "" {
		env = fmt.Sprintf("        env: [{name: TOKEN, value: %q}]\n", c.env)
	}
	return fmt.Sprintf(`apiVersion: apps.kruise.io/v1alpha1
kind: CloneSet
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  minReadySeconds: %[5]d
  updateStrategy: {type: InPlaceIfPossible, maxUnavailable: 1, partition: %[3]d%[6]s}
%[7]s  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      nodeSelector: {shiplog.dev/hollow: %[9]q}
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: %[4]s
%[8]s`, c.name, c.replicas, c.partition, c.image, c.minReady, c.strategy, c.more, env, nodes)
}

// steps plays one after the other.
func steps(all ...func(context.Context, *stage) error) func(context.Context, *stage) error {
	return func(ctx context.Context, s *stage) error {
		for i, step := range all {
			if err := step(ctx, s); err != nil {
				return fmt.Errorf("step %d: %w", i+1, err)
			}
		}
		return nil
	}
}

func apply(set cloneSet) func(context.Context, *stage) error {
	return func(ctx context.Context, s *stage) error { return s.apply(ctx, set) }
}

func settles(set cloneSet) func(context.Context, *stage) error {
	return func(ctx context.Context, s *stage) error {
		if err := s.apply(ctx, set); err != nil {
			return err
		}
		return s.settled(ctx, set)
	}
}

// updated waits until so many Pods are updated.
func updated(name string, pods int) func(context.Context, *stage) error {
	return func(ctx context.Context, s *stage) error {
		return s.await(ctx, name, ".status.updatedReplicas", fmt.Sprint(pods))
	}
}

func kubectl(arguments ...string) func(context.Context, *stage) error {
	return func(ctx context.Context, s *stage) error {
		_, err := s.kubectl(ctx, arguments...)
		return err
	}
}

// lasts lets an incident go on for a while: time is a part of it.
func lasts(d time.Duration) func(context.Context, *stage) error {
	return func(ctx context.Context, _ *stage) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func killed(service string, down time.Duration) func(context.Context, *stage) error {
	return func(ctx context.Context, s *stage) error { return s.restart(ctx, service, down) }
}

// eachPod runs kubectl on the first so many Pods of a CloneSet; POD in the arguments is the name.
func eachPod(name string, most int, arguments ...string) func(context.Context, *stage) error {
	return func(ctx context.Context, s *stage) error {
		out, err := s.kubectl(ctx, "get", "pods", "-l", "app="+name, "-o", "name")
		if err != nil {
			return err
		}
		for i, pod := range strings.Fields(out) {
			if i == most {
				break
			}
			one := make([]string, len(arguments))
			for j, argument := range arguments {
				one[j] = strings.ReplaceAll(argument, "POD", pod)
			}
			if _, err := s.kubectl(ctx, one...); err != nil {
				return err
			}
		}
		return nil
	}
}

// nodeOf runs kubectl on the node of the first Pod of a CloneSet; NODE in the arguments is its name.
func nodeOf(name string, arguments ...string) func(context.Context, *stage) error {
	return func(ctx context.Context, s *stage) error {
		node, err := s.kubectl(ctx, "get", "pods", "-l", "app="+name, "-o", "jsonpath={.items[0].spec.nodeName}")
		if err != nil {
			return err
		}
		one := make([]string, len(arguments))
		for i, argument := range arguments {
			one[i] = strings.ReplaceAll(argument, "NODE", node)
		}
		_, err = s.kubectl(ctx, one...)
		return err
	}
}

// healed gives lost nodes back.
func healed(ctx context.Context, s *stage) error {
	nodes, err := s.kubectl(ctx, "get", "nodes", "-o", `jsonpath={.items[?(@.spec.taints[*].key=="example.com/lost")].metadata.name}`)
	for _, node := range strings.Fields(nodes) {
		if err == nil {
			_, err = s.kubectl(ctx, "taint", "node", node, "example.com/lost-")
		}
	}
	return err
}

func (c cloneSet) with(change func(*cloneSet)) cloneSet {
	change(&c)
	return c
}

func image(name string) func(*cloneSet) { return func(c *cloneSet) { c.image = name } }

var (
	// web runs on hollow nodes, shop in real containers.
	web  = cloneSet{name: "web", replicas: 6, image: "nginx:1.20", minReady: 1}
	shop = cloneSet{name: "shop", replicas: 3, image: "nginx:1.20", minReady: 3}
	// hooked holds each Pod before it is updated.
	hooked = cloneSet{name: "web", replicas: 3, image: "nginx:1.20", more: "  lifecycle: {inPlaceUpdate: {labelsHandler: {example.com/hook: \"true\"}}}\n"}
)

var incidents = []incident{
	// A new version crashes: the budget stops the rollout at the first Pod; then the version is mended.
	{"crash-loop", steps(settles(shop), apply(shop.with(image("nginx:crash"))), updated("shop", 1), lasts(8*time.Second), settles(shop.with(image("nginx:1.21"))))},
	// An image that does not exist, and back to the one before.
	{"wrong-image-and-rollback", steps(settles(shop), apply(shop.with(image("nginx:missing"))), updated("shop", 1), lasts(6*time.Second), settles(shop))},
	// The pull hangs and fails, again and again, while new Pods are asked for.
	{"stuck-pull", steps(settles(shop), apply(shop.with(func(c *cloneSet) { c.image, c.replicas = "nginx:missing", 5 })), lasts(10*time.Second),
		settles(shop.with(func(c *cloneSet) { c.image, c.replicas = "nginx:1.21", 5 })))},
	// A node is lost in mid-rollout: its Pods are evicted.
	{"node-lost", steps(settles(web), apply(web.with(image("nginx:1.21"))), updated("web", 2), nodeOf("web", "taint", "node", "NODE", "example.com/lost=true:NoExecute"),
		lasts(2*time.Second), settles(web.with(image("nginx:1.21"))), healed)},
	// A person deletes Pods in mid-rollout.
	{"deleted-by-hand", steps(settles(web), apply(web.with(image("nginx:1.21"))), updated("web", 2), eachPod("web", 3, "delete", "POD", "--wait=false"), settles(web.with(image("nginx:1.21"))))},
	{"watcher-killed", steps(settles(web), apply(web.with(image("nginx:1.21"))), updated("web", 2), killed("watcher", 3*time.Second), settles(web.with(image("nginx:1.21"))))},
	{"planner-killed", steps(settles(web), apply(web.with(image("nginx:1.21"))), updated("web", 2), killed("planner", time.Second), settles(web.with(image("nginx:1.21"))))},
	{"executor-killed", steps(settles(web), apply(web.with(image("nginx:1.21"))), updated("web", 2), killed("executor", 2*time.Second), settles(web.with(image("nginx:1.21"))))},
	// A hook's controller does not answer; then a person takes the hook out of the spec.
	{"stuck-hook", steps(settles(hooked), eachPod("web", 3, "label", "POD", "example.com/hook=true"), apply(hooked.with(image("nginx:1.21"))), lasts(6*time.Second),
		settles(hooked.with(func(c *cloneSet) { c.image, c.more = "nginx:1.21", "" })))},
	// A canary that waits under a partition, is paused, and then goes on.
	{"canary-and-pause", steps(settles(web), apply(web.with(func(c *cloneSet) { c.image, c.partition = "nginx:1.21", 4 })), updated("web", 2), lasts(time.Second),
		apply(web.with(func(c *cloneSet) { c.image, c.strategy = "nginx:1.21", ", paused: true" })), lasts(2*time.Second), settles(web.with(image("nginx:1.21"))))},
	// Fewer Pods are wanted in the middle of a rollout.
	{"scaled-in-mid-rollout", steps(settles(web), apply(web.with(image("nginx:1.21"))), updated("web", 2), kubectl("scale", "cloneset/web", "--replicas=4"),
		settles(web.with(func(c *cloneSet) { c.image, c.replicas = "nginx:1.21", 4 })))},
	// A secret in the template changes: Pods are made anew, with one more than wanted.
	{"secret-rotated", steps(settles(web.with(func(c *cloneSet) { c.env = "first-secret" })),
		settles(web.with(func(c *cloneSet) { c.env, c.strategy = "second-secret", ", maxSurge: 1" })))},
}
