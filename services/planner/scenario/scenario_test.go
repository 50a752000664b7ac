// Package scenario tests the planner's rules with scenarios that read as text: testdata holds one file per theme. Each
// step changes the cluster, lets the rules decide, and shows the commands with their reasons. `go test -rewrite` writes the
// files anew; commit such a change only if you understand what caused it.
//
// Verbs, all on the workload named first, with key=value arguments:
//
//	cloneset web replicas=3 image=v2 ...  create or edit a CloneSet (also JSON below the line: a merge patch of the object)
//	service web                           a Service that selects the Pods of the CloneSet web
//	apply [only=pods]                     carry out the commands under way, of one resource or of all
//	refuse CODE message...                refuse the commands under way
//	kubelet [except=web-a]                schedule, start, restart, remove Pods as a node would
//	fail web-a [phase=Failed]             the containers of a Pod stop being ready
//	fail web-a waiting=CrashLoopBackOff   and the kubelet does not start them
//	starts web-a image=v2                 the kubelet starts an image that is no longer wanted, and it gets ready
//	delete web-a                          somebody deletes a Pod by hand
//	label web-a key=value                 somebody labels a Pod; key=- takes the label away
//	annotate web-a key                    somebody annotates a Pod with the text below the line; without text takes it away
//	finalizer web-a key [remove]          somebody adds or removes a finalizer
//	node n1 zone=a ready=true             a node with labels; ready says whether it is, from now on
//	imagepulljob warm                     create or edit an ImagePullJob, by a merge patch of the object below the line; likewise
//	                                      imagelistpulljob, nodeimage, and restart for a ContainerRecreateRequest
//	agentat n1                            the agent of a node reports for the first time
//	call n1 nginx:1 taken                 what the agent of a node says of a call, by its target or the start of it: taken, running
//	                                      (done=1 total=2), applied (id=..., took=1s, plain=1, env=2), refused (code=..., missing=...)
//	restarts web-a main [ready=false]     the kubelet starts a container again; ended=0: it ended with that code and stays down
//	terminate imagepulljob warm           somebody deletes an object that has finalizers
//	remove node n1                        an object is gone
//	object pods web-1                     an object that is there, as JSON below the line
//	place web-a n2                        the scheduler puts a Pod on a node
//	agent [restart]                       node agents report what runs; with restart they restart what has other env than it should
//	resize web-a infeasible why...        the kubelet does not resize the containers of a Pod
//	gates NAME...                         another planner leads, with these feature gates beside the default ones
//	tick +30s                             time passes
//	stale / fresh                         the watcher stops, or resumes, vouching
//	run                                   apply and kubelet until nothing is commanded any more, at one moment
//	show imagepulljob warm status         a part of an object
//	pods, status, claims, revisions       show Pods, the status of CloneSets, claims, or ControllerRevisions
//	pod web-a                             show one Pod's metadata and conditions
//	why web-a, timeline, lanes            what tools tell about a Pod, and about the CloneSet web, from the log so far
//	held                                  what the rules would do and do not do yet, and why
package scenario

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/narrate"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/rollout"
	"shiplog.dev/services/planner/rules"
)

func TestScenarios(t *testing.T) {
	time.Local = time.UTC // the tools tell times in the zone of their reader
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var c *cluster
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "new" || c == nil {
				c = newCluster(t)
			}
			c.t = t
			out := c.step(d)
			c.proveFold(t)
			return out
		})
	})
}

// recording returns the log that the last scenario of a file leaves.
func recording(t *testing.T, path string) []record {
	t.Helper()
	c := newCluster(t)
	datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
		c.t = t
		return c.step(d)
	})
	return c.entries
}

func (c *cluster) step(d *datadriven.TestData) string {
	switch d.Cmd {
	case "new":
		return ""
	case "cloneset":
		c.cloneset(d)
	case "service":
		name := d.CmdArgs[0].Key
		c.store(object{
			&shiplogv1.ObjectRef{Version: "v1", Resource: "services", Namespace: "default", Name: name},
			map[string]any{"metadata": map[string]any{"name": name, "namespace": "default"}, "spec": map[string]any{"selector": map[string]any{"app": name}}},
		}, 0)
	case "apply":
		only := c.argument(d, "only")
		for _, r := range c.pending() {
			if only == nil || slices.Contains(only, r.entry.GetCommand().GetObject().GetResource()) {
				c.apply(r)
			}
		}
	case "refuse":
		for _, r := range c.pending() {
			c.outcome(r, shiplogv1.Outcome_RESULT_REFUSED, d.CmdArgs[0].Key, strings.Join(keys(d.CmdArgs[1:]), " "))
		}
	case "kubelet":
		c.kubelet(c.argument(d, "except"))
	case "fail":
		for _, name := range c.names(d) {
			o := c.objects[podRef(name)]
			status := child(o.tree, "status")
			if phase := c.argument(d, "phase"); phase != nil {
				status["phase"] = phase[0]
			}
			if waiting := c.argument(d, "waiting"); waiting != nil {
				for _, held := range status["containerStatuses"].([]any) {
					held.(map[string]any)["state"] = map[string]any{"waiting": map[string]any{"reason": waiting[0], "message": "so the kubelet says"}}
				}
			}
			for _, held := range status["conditions"].([]any) {
				if kind := held.(map[string]any)["type"]; kind == "Ready" || kind == "ContainersReady" {
					held.(map[string]any)["status"] = "False"
					held.(map[string]any)["lastTransitionTime"] = c.now.Format(time.RFC3339)
				}
			}
			c.store(o, 0)
		}
	case "starts":
		o := c.objects[podRef(c.names(d)[0])]
		for _, held := range child(o.tree, "status")["containerStatuses"].([]any) {
			image := c.argument(d, "image")[0]
			held.(map[string]any)["image"], held.(map[string]any)["imageID"] = image, "id-of-"+image
		}
		c.store(o, 0)
	case "delete":
		for _, name := range c.names(d) {
			o := c.objects[podRef(name)]
			child(o.tree, "metadata")["deletionTimestamp"] = c.now.Format(time.RFC3339)
			c.store(o, 0)
		}
	case "label":
		o := c.objects[podRef(c.real(d.CmdArgs[0].Key))]
		for _, argument := range d.CmdArgs[1:] {
			labels := child(child(o.tree, "metadata"), "labels")
			if labels[argument.Key] = strings.Join(argument.Vals, ","); labels[argument.Key] == "-" {
				delete(labels, argument.Key)
			}
		}
		c.store(o, 0)
	case "annotate":
		o := c.objects[podRef(c.real(d.CmdArgs[0].Key))]
		annotations := child(child(o.tree, "metadata"), "annotations")
		if annotations[d.CmdArgs[1].Key] = c.realAll(d.Input); d.Input == "" {
			delete(annotations, d.CmdArgs[1].Key)
		}
		c.store(o, 0)
	case "finalizer":
		o := c.objects[podRef(c.real(d.CmdArgs[0].Key))]
		metadata := child(o.tree, "metadata")
		held, _ := metadata["finalizers"].([]any)
		if len(d.CmdArgs) > 2 {
			held = slices.DeleteFunc(held, func(one any) bool { return one == d.CmdArgs[1].Key })
		} else {
			held = append(held, d.CmdArgs[1].Key)
		}
		metadata["finalizers"] = held
		c.store(o, 0)
	case "node":
		c.node(d)
	case "imagepulljob", "imagelistpulljob", "nodeimage", "restart":
		c.custom(d)
	case "call":
		c.call(d)
	case "restarts":
		c.restarts(d)
	case "agentat":
		c.append(&shiplogv1.Entry{Skippable: true, Kind: &shiplogv1.Entry_NodeObserved{NodeObserved: &shiplogv1.NodeObserved{Node: d.CmdArgs[0].Key}}})
	case "terminate":
		o := c.objects[c.ref(d.CmdArgs[0].Key, d.CmdArgs[1].Key)]
		child(o.tree, "metadata")["deletionTimestamp"] = c.now.Format(time.RFC3339)
		c.store(o, 0)
	case "remove":
		c.vanish(c.ref(d.CmdArgs[0].Key, d.CmdArgs[1].Key))
	case "show":
		data, _ := json.MarshalIndent(c.objects[c.ref(d.CmdArgs[0].Key, d.CmdArgs[1].Key)].tree[d.CmdArgs[2].Key], "", "  ")
		return c.alias(string(data)) + "\n"
	case "object":
		resource, name := d.CmdArgs[0].Key, d.CmdArgs[1].Key
		ref := &shiplogv1.ObjectRef{Version: "v1", Resource: resource, Namespace: "default", Name: name}
		ref.Group = map[string]string{world.ResourceCloneSets: world.GroupKruise, world.ResourceRevisions: world.GroupApps}[resource]
		tree := map[string]any{}
		if err := json.Unmarshal([]byte(d.Input), &tree); err != nil {
			d.Fatalf(c.t, "%v", err)
		}
		metadata := child(tree, "metadata")
		metadata["name"], metadata["namespace"] = name, "default"
		if resource == world.ResourceCloneSets {
			ref.Version = "v1alpha1"
		}
		c.store(object{ref, tree}, 0)
	case "place":
		o := c.objects[podRef(c.real(d.CmdArgs[0].Key))]
		child(o.tree, "spec")["nodeName"] = d.CmdArgs[1].Key
		c.store(o, 0)
	case "agent":
		c.agents(len(d.CmdArgs) > 0)
	case "resize":
		o := c.objects[podRef(c.real(d.CmdArgs[0].Key))]
		status := child(o.tree, "status")
		conditions, _ := status["conditions"].([]any)
		conditions = slices.DeleteFunc(conditions, func(held any) bool { return held.(map[string]any)["type"] == "PodResizePending" })
		status["conditions"] = append(conditions, map[string]any{
			"type": "PodResizePending", "status": "True", "reason": d.CmdArgs[1].Key, "message": strings.Join(keys(d.CmdArgs[2:]), " "),
		})
		c.store(o, 0)
	case "gates":
		c.raiseFence(keys(d.CmdArgs)...)
	case "tick":
		by, err := time.ParseDuration(strings.TrimPrefix(d.CmdArgs[0].Key, "+"))
		if err != nil {
			d.Fatalf(c.t, "%v", err)
		}
		if !c.tick(by) {
			return "no tick was asked for\n"
		}
	case "stale":
		c.stale = true
		return ""
	case "fresh":
		c.stale = false
	case "run":
		return c.run(d)
	case "pods":
		return c.showPods()
	case "pod":
		return c.showPod(d.CmdArgs[0].Key)
	case "status":
		return c.showStatus()
	case "events":
		return c.showEvents()
	case "claims", "revisions":
		return c.showObjects(map[string]string{"claims": world.ResourceClaims, "revisions": world.ResourceRevisions}[d.Cmd])
	case "why":
		return c.tellWhy(d.CmdArgs[0].Key)
	case "timeline":
		return c.tellTimeline()
	case "lanes":
		return c.alias(narrate.Lanes(c.account().View(history.Moment{}, 0), 100, false))
	case "held":
		return c.showHeld()
	default:
		d.Fatalf(c.t, "unknown verb %q", d.Cmd)
	}
	return c.decide()
}

// cloneset creates or edits a CloneSet from arguments, or from a merge patch given as input.
func (c *cluster) cloneset(d *datadriven.TestData) {
	name := d.CmdArgs[0].Key
	ref := &shiplogv1.ObjectRef{Group: world.GroupKruise, Version: "v1alpha1", Resource: world.ResourceCloneSets, Namespace: "default", Name: name}
	held, exists := c.objects[world.RefOf(ref)]
	if !exists {
		held = object{ref, map[string]any{
			"metadata": map[string]any{"name": name, "namespace": "default", "generation": float64(0)},
			"spec": map[string]any{
				"selector": map[string]any{"matchLabels": map[string]any{"app": name}},
				"template": map[string]any{
					"metadata": map[string]any{"labels": map[string]any{"app": name}},
					"spec":     map[string]any{"containers": []any{map[string]any{"name": "main", "image": "v1"}}},
				},
			},
		}}
	}
	spec := child(held.tree, "spec")
	for _, argument := range d.CmdArgs[1:] {
		value := strings.Join(argument.Vals, ",")
		var number any = value
		if n, err := strconv.Atoi(value); err == nil {
			number = float64(n)
		}
		update, scale := child(spec, "updateStrategy"), child(spec, "scaleStrategy")
		switch argument.Key {
		case "replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds":
			spec[argument.Key] = number
		case "image":
			child(child(spec, "template"), "spec")["containers"].([]any)[0].(map[string]any)["image"] = value
		case "type", "partition", "maxUnavailable", "maxSurge":
			update[argument.Key] = number
		case "paused":
			update["paused"] = value == "true"
		case "scaleMaxUnavailable":
			scale["maxUnavailable"] = number
		case "grace":
			child(update, "inPlaceUpdateStrategy")["gracePeriodSeconds"] = number
		case "scatter":
			update["scatterStrategy"] = pairs(argument.Vals, func(key, value string) any { return map[string]any{"key": key, "value": value} })
		case "weights":
			child(update, "priorityStrategy")["weightPriority"] = pairs(argument.Vals, func(label, weight string) any {
				n, _ := strconv.Atoi(weight)
				return map[string]any{"weight": float64(n), "matchSelector": map[string]any{"matchLabels": map[string]any{"role": label}}}
			})
		case "order":
			var terms []any
			for _, key := range argument.Vals {
				terms = append(terms, map[string]any{"orderedKey": key})
			}
			child(update, "priorityStrategy")["orderPriority"] = terms
		case "reuseClaims":
			scale["disablePVCReuse"] = value == "false"
		case "podsToDelete":
			var names []any
			for _, name := range argument.Vals {
				names = append(names, c.real(name))
			}
			scale["podsToDelete"] = names
		default:
			d.Fatalf(c.t, "unknown argument %q", argument.Key)
		}
	}
	if d.Input != "" {
		before, _ := json.Marshal(held.tree)
		after, err := jsonpatch.MergePatch(before, []byte(d.Input))
		if err != nil {
			d.Fatalf(c.t, "%v", err)
		}
		held.tree = map[string]any{}
		if err := json.Unmarshal(after, &held.tree); err != nil {
			d.Fatalf(c.t, "%v", err)
		}
	}
	metadata := child(held.tree, "metadata")
	metadata["generation"] = metadata["generation"].(float64) + 1
	c.store(held, 0)
}

// pairs reads arguments of the form key:value.
func pairs(arguments []string, make func(key, value string) any) []any {
	var out []any
	for _, argument := range arguments {
		key, value, _ := strings.Cut(argument, ":")
		out = append(out, make(key, value))
	}
	return out
}

// run goes on until nothing is commanded any more; time stands still, so ticks do not come.
func (c *cluster) run(d *datadriven.TestData) string {
	var out strings.Builder
	out.WriteString(c.decide())
	for turn := 0; ; turn++ {
		if turn > 100 {
			d.Fatalf(c.t, "no end after 100 turns:\n%s", out.String())
		}
		for _, r := range c.pending() {
			c.apply(r)
		}
		decided := c.decide()
		if decided == "no commands\n" {
			before := len(c.entries)
			c.kubelet(c.argument(d, "except"))
			if len(c.entries) == before {
				return out.String()
			}
			if decided = c.decide(); decided == "no commands\n" {
				continue
			}
		}
		fmt.Fprintf(&out, "--\n%s", decided)
	}
}

// showPod shows what Kubernetes keeps of a Pod beside its containers.
func (c *cluster) showPod(name string) string {
	tree := c.objects[podRef(c.real(name))].tree
	var out strings.Builder
	metadata := child(tree, "metadata")
	for _, field := range []string{"labels", "annotations"} {
		values := child(metadata, field)
		for _, key := range slices.Sorted(maps.Keys(values)) {
			fmt.Fprintf(&out, "%s %s: %v\n", strings.TrimSuffix(field, "s"), key, values[key])
		}
	}
	if finalizers, _ := metadata["finalizers"].([]any); len(finalizers) > 0 {
		fmt.Fprintf(&out, "finalizers: %v\n", finalizers)
	}
	conditions, _ := child(tree, "status")["conditions"].([]any)
	for _, held := range conditions {
		condition := held.(map[string]any)
		fmt.Fprintf(&out, "condition %v: %v", condition["type"], condition["status"])
		for _, key := range []string{"reason", "message"} {
			if text, has := condition[key]; has {
				fmt.Fprintf(&out, " %s=%v", key, text)
			}
		}
		out.WriteByte('\n')
	}
	return c.alias(out.String())
}

// showObjects shows the metadata of claims or revisions that people look at.
func (c *cluster) showObjects(resource string) string {
	var out strings.Builder
	for _, ref := range slices.SortedFunc(maps.Keys(c.objects), func(a, b world.Ref) int { return strings.Compare(c.alias(a.Name), c.alias(b.Name)) }) {
		if ref.Resource != resource {
			continue
		}
		metadata := child(c.objects[ref].tree, "metadata")
		var owners []string
		references, _ := metadata["ownerReferences"].([]any)
		for _, owner := range references {
			owners = append(owners, fmt.Sprint(owner.(map[string]any)["kind"], "/", owner.(map[string]any)["name"]))
		}
		fmt.Fprintf(&out, "%s owners=%s labels=%s", ref.Name, strings.Join(owners, ","), show(child(metadata, "labels")))
		if resource == world.ResourceRevisions {
			data, _ := json.Marshal(c.objects[ref].tree["data"])
			fmt.Fprintf(&out, " revision=%v annotations=%s data=%s", c.objects[ref].tree["revision"], show(child(metadata, "annotations")), data)
		}
		out.WriteByte('\n')
	}
	if out.Len() == 0 {
		return "none\n"
	}
	return c.alias(out.String())
}

func show(values map[string]any) string {
	data, _ := json.Marshal(values)
	return string(data)
}

func (c *cluster) showPods() string {
	var out strings.Builder
	for _, ref := range slices.SortedFunc(maps.Keys(c.objects), func(a, b world.Ref) int { return strings.Compare(c.alias(a.Name), c.alias(b.Name)) }) {
		if ref.Resource != world.ResourcePods {
			continue
		}
		data, _ := json.Marshal(c.objects[ref].tree)
		var pod struct {
			Metadata struct {
				Labels            map[string]string
				DeletionTimestamp string
			}
			Spec   struct{ Containers []world.Container }
			Status struct {
				Phase             string
				ContainerStatuses []world.ContainerStatus
				Conditions        []world.Condition
			}
		}
		if err := json.Unmarshal(data, &pod); err != nil {
			c.t.Fatal(err)
		}
		ready := "not ready"
		for _, condition := range pod.Status.Conditions {
			if condition.Type == "Ready" && condition.Status == "True" {
				ready = "ready"
			}
		}
		restarts := int32(0)
		for _, status := range pod.Status.ContainerStatuses {
			restarts += status.RestartCount
		}
		image := pod.Spec.Containers[0].Image
		for _, container := range pod.Spec.Containers[1:] {
			image += "," + container.Image
		}
		if pod.Status.Phase == "Failed" || pod.Status.Phase == "Succeeded" {
			ready = strings.ToLower(pod.Status.Phase)
		}
		fmt.Fprintf(&out, "%s image=%s %s restarts=%d revision=%s state=%s", ref.Name, image, ready, restarts,
			pod.Metadata.Labels["controller-revision-hash"], pod.Metadata.Labels["lifecycle.apps.kruise.io/state"])
		if pod.Metadata.DeletionTimestamp != "" {
			out.WriteString(" terminating")
		}
		out.WriteByte('\n')
	}
	return c.alias(out.String())
}

func (c *cluster) showStatus() string {
	var out strings.Builder
	for _, ref := range c.world.Workloads() {
		if ref.Resource != world.ResourceCloneSets {
			continue // these are shown by themselves
		}
		data, _ := json.MarshalIndent(c.objects[ref].tree["status"], "", "  ")
		fmt.Fprintf(&out, "%s %s\n", ref.Name, data)
	}
	return c.alias(out.String())
}

func (c *cluster) showHeld() string {
	var out strings.Builder
	for _, ref := range c.world.Workloads() {
		for _, held := range rules.Explain(c.world, ref).Held {
			fmt.Fprintf(&out, "%s %s: %s", ref.Name, held.Code, held.Message)
			if len(held.Pods) > 0 {
				fmt.Fprintf(&out, "; holds %s", strings.Join(held.Pods, ", "))
			}
			if len(held.By) > 0 {
				fmt.Fprintf(&out, "; for %s", strings.Join(held.By, ", "))
			}
			if held.Until != nil {
				fmt.Fprintf(&out, "; until %s", held.Until.UTC().Format(time.TimeOnly))
			}
			fmt.Fprintf(&out, "; released by %s\n", held.Release)
		}
	}
	if out.Len() == 0 {
		return "nothing is held back\n"
	}
	return c.alias(out.String())
}

// proveFold checks after every step that the log gives the same world when folded again: with every entry delivered twice,
// and from the live entries alone. Two worlds are the same when they show and decide the same.
func (c *cluster) proveFold(t *testing.T) {
	t.Helper()
	twice, compacted := world.New(), world.New()
	live := c.world.Live()
	again := rollout.New()
	for _, r := range c.entries {
		again.Fold(twice, decode(t, r))
		if events := again.Fold(twice, decode(t, r)); len(events) > 0 {
			t.Fatalf("entry %d, delivered again, causes %v", r.sequence, events)
		}
		if slices.Contains(live, r.sequence) {
			fold(t, compacted, r)
		}
	}
	c.proveEvents(t, again, live)
	want := c.world.Describe()
	for how, other := range map[string]*world.World{"every entry twice": twice, "from the live entries": compacted} {
		if got := other.Describe(); got != want {
			t.Fatalf("folding %s gives another world\n--- want\n%s\n--- got\n%s", how, want, got)
		}
	}
}

func (c *cluster) argument(d *datadriven.TestData, key string) []string {
	for _, argument := range d.CmdArgs {
		if argument.Key == key {
			names := make([]string, len(argument.Vals))
			for i, name := range argument.Vals {
				names[i] = c.real(name)
			}
			return names
		}
	}
	return nil
}

func (c *cluster) names(d *datadriven.TestData) []string {
	var names []string
	for _, argument := range d.CmdArgs {
		if len(argument.Vals) == 0 {
			names = append(names, c.real(argument.Key))
		}
	}
	return names
}

func keys(arguments []datadriven.CmdArg) []string {
	var out []string
	for _, argument := range arguments {
		out = append(out, argument.Key)
	}
	return out
}

func podRef(name string) world.Ref {
	return world.Ref{Resource: world.ResourcePods, Namespace: "default", Name: name}
}
