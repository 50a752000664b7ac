// Command demo walks through the job of a CloneSet as a new user would, on a real cluster on this machine: it says what it
// does, shows Pods as they change, checks what was promised, and ends with the log's own account. It changes nothing outside
// its state directory but what the local cluster needs, and cleans up after itself.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"shiplog.dev/integration/testbed"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var d demo
	command := &cobra.Command{
		Use: "demo", Short: "Walk through the job of a CloneSet on a real cluster on this machine",
		SilenceUsage: true, SilenceErrors: true,
		Example: "  make demo\n  make demo DEMO='--min-ready-seconds 3 --keep'",
		RunE:    func(command *cobra.Command, _ []string) error { return d.run(command.Context()) },
	}
	command.Flags().IntVar(&d.minReadySeconds, "min-ready-seconds", 30, "minReadySeconds in the manifests; less for the impatient")
	command.Flags().StringVar(&d.stateDir, "state-dir", ".shiplog-demo", "`DIRECTORY` for the log and the cluster")
	command.Flags().BoolVar(&d.keep, "keep", false, "leave Shiplog's log and the cluster when done")
	if err := command.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

type demo struct {
	minReadySeconds int
	stateDir        string
	keep            bool

	ctx     context.Context
	cluster *testbed.Cluster
	began   time.Time
}

const name = "nginxweb1"

func (d *demo) run(ctx context.Context) (err error) {
	d.ctx, d.began = ctx, time.Now()
	d.say("Starting a real cluster on this machine, and Shiplog beside it: shiplog up --local --state-dir %s", d.stateDir)
	shiplog, err := testbed.Program("shiplog")
	if err != nil {
		return err
	}
	process, err := testbed.StartShiplog("up", "--local", "--state-dir", d.stateDir)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			fmt.Println(process.Output())
		}
		stopped := process.Stop()
		if d.keep {
			fmt.Printf("\nKept: %s (end it with: bin/shiplog down --state-dir %s)\n", d.stateDir, d.stateDir)
		} else if out, failed := exec.Command(shiplog, "down", "--state-dir", d.stateDir).CombinedOutput(); failed != nil {
			err = errors.Join(err, fmt.Errorf("clean up: %w: %s", failed, out))
		} else {
			err = errors.Join(err, os.RemoveAll(d.stateDir))
		}
		err = errors.Join(err, stopped)
	}()
	starting, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if err := process.Ready(starting); err != nil {
		return err
	}
	if d.cluster, err = testbed.RunningCluster(filepath.Join(d.stateDir, "cluster")); err != nil {
		return err
	}
	nodes, err := d.cluster.Kubectl(ctx, "", "get", "nodes")
	if err != nil {
		return err
	}
	fmt.Print(nodes)
	for _, step := range []func() error{d.create, d.scaleUp, d.deleteNamed, d.updateInPlace, d.rollBackPartly} {
		if err := step(); err != nil {
			return err
		}
	}
	return d.account(shiplog)
}

func (d *demo) say(format string, arguments ...any) {
	text := fmt.Sprintf(format, arguments...)
	if info, err := os.Stdout.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == "" {
		text = "\033[1m" + text + "\033[0m"
	}
	fmt.Printf("\n%s\n", text)
}

// apply shows a manifest as a user would write it for OpenKruise, and applies it.
func (d *demo) apply(s settings) error {
	manifest := s.manifest()
	fmt.Printf("$ kubectl apply -f - <<EOF\n%sEOF\n", manifest)
	out, err := d.cluster.Kubectl(d.ctx, manifest, "apply", "-f", "-")
	fmt.Print(out)
	return err
}

// settings are what the steps change in the manifest.
type settings struct {
	replicas, minReadySeconds, partition int
	image                                string
	limited                              bool
	podsToDelete                         string
}

func (s settings) manifest() string {
	var out strings.Builder
	fmt.Fprintf(&out, "apiVersion: apps.kruise.io/v1alpha1\nkind: CloneSet\nmetadata:\n  name: %s\nspec:\n  replicas: %d\n", name, s.replicas)
	if s.minReadySeconds > 0 {
		fmt.Fprintf(&out, "  minReadySeconds: %d\n", s.minReadySeconds)
	}
	if s.limited || s.podsToDelete != "" {
		out.WriteString("  scaleStrategy:\n")
		if s.limited {
			out.WriteString("    maxUnavailable: 1\n")
		}
		if s.podsToDelete != "" {
			fmt.Fprintf(&out, "    podsToDelete:\n    - %s\n", s.podsToDelete)
		}
	}
	fmt.Fprintf(&out, "  updateStrategy:\n    type: InPlaceIfPossible\n")
	if s.partition > 0 {
		fmt.Fprintf(&out, "    partition: %d\n", s.partition)
	}
	fmt.Fprintf(&out, "  selector:\n    matchLabels:\n      app: %s\n  template:\n    metadata:\n      labels:\n        app: %s\n    spec:\n      containers:\n      - name: nginx\n        image: %s\n", name, name, s.image)
	return out.String()
}

// until shows Pods as they change, until what is wanted holds. A check that can never hold ends in an error.
func (d *demo) until(what string, holds func([]pod) error) ([]pod, error) {
	deadline := time.Now().Add(time.Duration(d.minReadySeconds)*6*time.Second + 90*time.Second)
	shown := map[string]string{}
	for {
		pods, err := d.pods()
		if err != nil {
			return nil, err
		}
		d.show(pods, shown)
		failed := holds(pods)
		if failed == nil {
			fmt.Printf("%s  ✓ %s\n", d.clock(), what)
			return pods, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("waited too long for: %s: %w", what, failed)
		}
		select {
		case <-d.ctx.Done():
			return nil, d.ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (d *demo) show(pods []pod, shown map[string]string) {
	present := map[string]bool{}
	for _, p := range pods {
		present[p.name] = true
		if line := p.String(); shown[p.name] != line {
			shown[p.name] = line
			fmt.Printf("%s  %s  %s\n", d.clock(), p.name, line)
		}
	}
	for podName := range shown {
		if !present[podName] {
			delete(shown, podName)
			fmt.Printf("%s  %s  gone\n", d.clock(), podName)
		}
	}
}

func (d *demo) clock() string {
	return fmt.Sprintf("%7s", time.Since(d.began).Round(100*time.Millisecond))
}

func (d *demo) create() error {
	d.say("(a) A CloneSet of three Pods of nginx:1.20")
	if err := d.apply(settings{replicas: 3, image: "nginx:1.20"}); err != nil {
		return err
	}
	if _, err := d.until("three Pods are ready", allReady(3)); err != nil {
		return err
	}
	out, err := d.cluster.Kubectl(d.ctx, "", "get", "cloneset", name)
	fmt.Printf("$ kubectl get cloneset %s\n%s", name, out)
	return err
}

func (d *demo) scaleUp() error {
	d.say("(b) Five replicas, each new Pod to be ready for %d s before the next comes: one Pod at a time", d.minReadySeconds)
	if err := d.apply(settings{replicas: 5, image: "nginx:1.20", minReadySeconds: d.minReadySeconds, limited: true}); err != nil {
		return err
	}
	most := 0
	_, err := d.until("five Pods are ready, and never was more than one of them on its way", func(pods []pod) error {
		onTheWay := 0
		for _, p := range pods {
			if !p.ready {
				onTheWay++
			}
		}
		if most = max(most, onTheWay); most > 1 {
			return fmt.Errorf("%d Pods were on their way at once", most)
		}
		return allReady(5)(pods)
	})
	return err
}

func (d *demo) deleteNamed() error {
	pods, err := d.pods()
	if err != nil {
		return err
	}
	victim := pods[1].name
	d.say("(c) Four replicas, and %s is the Pod to go", victim)
	if err := d.apply(settings{replicas: 4, image: "nginx:1.20", minReadySeconds: d.minReadySeconds, limited: true, podsToDelete: victim}); err != nil {
		return err
	}
	kept := slices.DeleteFunc(slices.Clone(pods), func(p pod) bool { return p.name == victim })
	_, err = d.until("exactly that Pod is gone", func(now []pod) error {
		if err := allReady(4)(now); err != nil {
			return err
		}
		return sameUIDs(kept, now)
	})
	return err
}

func (d *demo) updateInPlace() error {
	before, err := d.pods()
	if err != nil {
		return err
	}
	d.say("(d) nginx:latest, in place: the same Pods, UIDs and addresses, each container restarted once")
	if err := d.apply(settings{replicas: 4, image: "nginx:latest", minReadySeconds: d.minReadySeconds, limited: true}); err != nil {
		return err
	}
	after, err := d.until("four Pods run nginx:latest, with one restart each", func(now []pod) error {
		for _, p := range now {
			if p.restarts != 1 || p.running != "latest" {
				return fmt.Errorf("%s: %s", p.name, p)
			}
		}
		return allReady(4)(now)
	})
	if err != nil {
		return err
	}
	if err := sameUIDs(before, after); err != nil {
		return err
	}
	for i := range after {
		if after[i].ip != before[i].ip {
			return fmt.Errorf("%s had address %s and has %s", after[i].name, before[i].ip, after[i].ip)
		}
		out, err := d.version(after[i].name)
		if err != nil {
			return err
		}
		fmt.Printf("$ kubectl exec %s -- nginx -v\n%s\n", after[i].name, out)
		if !strings.Contains(out, "latest") {
			return fmt.Errorf("%s answers %q", after[i].name, out)
		}
	}
	return nil
}

func (d *demo) rollBackPartly() error {
	d.say("(e) Back to nginx:1.20 with partition 2: exactly two Pods change")
	before, err := d.pods()
	if err != nil {
		return err
	}
	if err := d.apply(settings{replicas: 4, image: "nginx:1.20", minReadySeconds: d.minReadySeconds, limited: true, partition: 2}); err != nil {
		return err
	}
	changed := func(now []pod) int {
		n := 0
		for _, p := range now {
			if p.restarts == 2 {
				n++
			}
		}
		return n
	}
	if _, err := d.until("the status says that two of two are updated and available", func(now []pod) error {
		out, err := d.cluster.Kubectl(d.ctx, "", "get", "cloneset", name, "-o",
			"jsonpath={.status.observedGeneration}/{.metadata.generation} {.status.updatedAvailableReplicas} {.status.updatedReplicas} {.status.expectedUpdatedReplicas}")
		if err != nil {
			return err
		}
		generations, counts, _ := strings.Cut(out, " ")
		observed, generation, _ := strings.Cut(generations, "/")
		if observed != generation || counts != "2 2 2" {
			return fmt.Errorf("status %s", out)
		}
		if n := changed(now); n != 2 {
			return fmt.Errorf("%d Pods changed", n)
		}
		return sameUIDs(before, now)
	}); err != nil {
		return err
	}
	now, err := d.pods()
	if err != nil {
		return err
	}
	for _, p := range now {
		out, err := d.version(p.name)
		if err != nil {
			return err
		}
		fmt.Printf("$ kubectl exec %s -- nginx -v\n%s\n", p.name, out)
	}
	return nil
}

func (d *demo) account(shiplog string) error {
	d.say("What the log says about it: shiplog timeline cloneset/%s --log %s", name, d.stateDir)
	command := exec.CommandContext(d.ctx, shiplog, "timeline", "cloneset/"+name, "--log", d.stateDir)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	return command.Run()
}

func (d *demo) version(podName string) (string, error) {
	out, err := d.cluster.Kubectl(d.ctx, "", "exec", podName, "--", "sh", "-c", "nginx -v 2>&1")
	return strings.TrimSpace(out), err
}
