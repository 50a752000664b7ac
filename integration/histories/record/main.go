// Command record makes the histories of integration/histories anew: it starts a real cluster on this machine, lets each incident
// happen under the real program, and exports what the log holds of it, redacted. Histories are recorded again when a change of
// decisions is meant (go run ./integration/histories/record, or with the names of some); a diff of decisions is what their test
// shows.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"shiplog.dev/deploy/crd"
	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/journal/embedded"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var running string
	command := &cobra.Command{
		Use: "record [NAME...]", Short: "Record incidents on a real cluster on this machine", SilenceUsage: true, SilenceErrors: true,
		Example: "  make build && go run ./integration/histories/record\n  go run ./integration/histories/record crash-loop stuck-hook",
		RunE: func(command *cobra.Command, names []string) error {
			return record(command.Context(), running, names)
		},
	}
	command.Flags().StringVar(&running, "cluster", "", "`DIRECTORY` of a cluster that runs (bin/shiplog-cluster up); default: one is started")
	if err := command.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
}

func record(ctx context.Context, running string, names []string) (err error) {
	for _, name := range names {
		if !slices.ContainsFunc(incidents, func(i incident) bool { return i.name == name }) {
			return fmt.Errorf("there is no incident %q", name)
		}
	}
	root, err := testbed.Root()
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "shiplog-histories-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	cluster, err := testbed.RunningCluster(running)
	if running == "" {
		if cluster, err = testbed.StartCluster(ctx, filepath.Join(scratch, "cluster"), 2, 4, os.Stderr); err == nil {
			defer func() { err = errors.Join(err, cluster.Down()) }()
		}
	}
	if err != nil {
		return err
	}
	config, err := cluster.Config()
	if err != nil {
		return err
	}
	if err := crd.Install(ctx, config, nil); err != nil {
		return err
	}
	for _, incident := range incidents {
		if len(names) > 0 && !slices.Contains(names, incident.name) {
			continue
		}
		began := time.Now()
		stage := &stage{cluster: cluster, namespace: incident.name, directory: filepath.Join(scratch, incident.name), services: map[string]*testbed.Process{}}
		err := stage.play(ctx, incident, filepath.Join(root, "integration", "histories", incident.name+".shiplog"))
		if err != nil {
			return fmt.Errorf("record %s: %w", incident.name, err)
		}
		fmt.Printf("%s is recorded in %s\n", incident.name, time.Since(began).Round(time.Second))
	}
	return nil
}

// stage is where one incident happens: a namespace, a log of its own, and each service as a process.
type stage struct {
	cluster   *testbed.Cluster
	namespace string
	directory string
	url       string
	services  map[string]*testbed.Process
}

// patience bounds every wait for the cluster.
const patience = 2 * time.Minute

func (s *stage) play(ctx context.Context, incident incident, path string) (err error) {
	log, err := journal.Open(ctx, journal.Options{Server: &embedded.Server{Directory: filepath.Join(s.directory, "log"), Listen: "127.0.0.1:0"}})
	if err != nil {
		return err
	}
	defer log.Close()
	state, err := log.State(ctx)
	if err != nil {
		return err
	}
	s.url = state.URL
	defer func() {
		for _, process := range s.services {
			process.Kill()
		}
	}()
	for _, service := range []string{"watcher", "executor", "planner"} {
		if err := s.start(ctx, service); err != nil {
			return err
		}
	}
	if _, err := s.cluster.Kubectl(ctx, "", "create", "namespace", s.namespace); err != nil {
		return err
	}
	defer func() {
		// Without this the CloneSets of one incident would be found by the Shiplog of the next.
		_, gone := s.cluster.Kubectl(context.WithoutCancel(ctx), "", "delete", "namespace", s.namespace, "--wait=true")
		err = errors.Join(err, gone)
	}()
	if err := incident.play(ctx, s); err != nil {
		return err
	}
	for _, service := range []string{"planner", "executor", "watcher"} {
		if err := s.services[service].Stop(); err != nil {
			return err
		}
		delete(s.services, service)
	}
	if err := log.Close(); err != nil {
		return err
	}
	out, err := testbed.Output("export", path, "--log", s.directory, "--namespace", s.namespace)
	fmt.Print(out)
	return err
}

func (s *stage) start(ctx context.Context, service string) error {
	process, err := testbed.StartShiplog(service, "--kubeconfig", s.cluster.Kubeconfig, "--nats-url", s.url)
	if err != nil {
		return err
	}
	s.services[service] = process
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return process.Ready(ctx)
}

// restart kills a service with nothing cleaned up, and starts it again after a while.
func (s *stage) restart(ctx context.Context, service string, after time.Duration) error {
	s.services[service].Kill()
	time.Sleep(after) // the incident: it is down for so long
	return s.start(ctx, service)
}

func (s *stage) kubectl(ctx context.Context, arguments ...string) (string, error) {
	return s.cluster.Kubectl(ctx, "", append([]string{"-n", s.namespace}, arguments...)...)
}

// apply writes a CloneSet as a person would.
func (s *stage) apply(ctx context.Context, set cloneSet) error {
	_, err := s.cluster.Kubectl(ctx, set.manifest(), "-n", s.namespace, "apply", "-f", "-")
	return err
}

// await waits until a field of a CloneSet, by JSON path, has a value.
func (s *stage) await(ctx context.Context, name, field, want string) error {
	_, err := s.kubectl(ctx, "wait", "cloneset/"+name, "--for=jsonpath={"+field+"}="+want, "--timeout="+patience.String())
	return err
}

// settled waits until a CloneSet is as its spec wants it.
func (s *stage) settled(ctx context.Context, set cloneSet) error {
	if err := s.await(ctx, set.name, ".spec.replicas", fmt.Sprint(set.replicas)); err != nil {
		return err
	}
	generation, err := s.kubectl(ctx, "get", "cloneset/"+set.name, "-o", "jsonpath={.metadata.generation}")
	if err != nil {
		return err
	}
	return errors.Join(
		s.await(ctx, set.name, ".status.observedGeneration", generation),
		s.await(ctx, set.name, ".status.replicas", fmt.Sprint(set.replicas)),
		s.await(ctx, set.name, ".status.updatedAvailableReplicas", fmt.Sprint(set.replicas-set.partition)),
		s.await(ctx, set.name, ".status.availableReplicas", fmt.Sprint(set.replicas)),
	)
}
