package nodeagent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"k8s.io/client-go/kubernetes"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal"
	"shiplog.dev/services/executor/credentials"
	"shiplog.dev/services/executor/intake"
)

// What the Pods of these tests run.
const (
	image         = "docker.io/library/app:v1"
	containerName = "main"
)

// quick makes a look every 100 ms.
var quick = pace{
	period: 100 * time.Millisecond, settle: 20 * time.Millisecond, apart: 50 * time.Millisecond,
	retry: 20 * time.Millisecond, retryMax: 200 * time.Millisecond, beat: 100 * time.Millisecond,
	progress: 200 * time.Millisecond,
}

// machine is a node under test: a runtime, and what makes it run Pods.
type machine interface {
	endpoint() string
	// run starts a Pod of one container, with a command that ignores SIGTERM if one is given; remove ends it; the runtime may take a while to follow.
	run(t *testing.T, pod string, command ...string)
	remove(t *testing.T, pod string)
	// serve starts a Pod with an HTTP server that sends everybody elsewhere; asked is how it was asked last: host, path and header X-Who.
	serve(t *testing.T, pod string) (port uint32, asked func() string)
	// restart ends the runtime, without its containers, and starts it again.
	restart(t *testing.T)
}

// TestContract runs the same behaviours against an imagined runtime and the containerd of a real node.
func TestContract(t *testing.T) {
	behaviours := []struct {
		name string
		run  func(*testing.T, machine)
	}{
		{"ReportsWhatRuns", reportsWhatRuns},
		{"IdleAddsNothing", idleAddsNothing},
		{"SurvivesTheRuntime", survivesTheRuntime},
		{"SurvivesTheLog", survivesTheLog},
		{"Pulls", pulls},
		{"PullsWithSecrets", pullsWithSecrets},
		{"TellsProgress", tellsProgress},
		{"TimesOut", timesOut},
		{"LosesTheRuntimeInAPull", losesTheRuntimeInAPull},
		{"LosesTheRuntimeInAStop", losesTheRuntimeInAStop},
		{"Stops", stops},
		{"RunsHooks", runsHooks},
		{"HooksOverTheNetwork", hooksOverTheNetwork},
		{"Inspects", inspects},
	}
	for name, start := range map[string]func(*testing.T) machine{
		"imagined":   func(t *testing.T) machine { return startFake(t, "v2.1.0") },
		"eventless":  func(t *testing.T) machine { return startFake(t, "1.6.20") },
		"containerd": func(t *testing.T) machine { return startContainerd(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, behaviour := range behaviours {
				t.Run(behaviour.name, func(t *testing.T) { behaviour.run(t, start(t)) })
			}
		})
	}
}

// running is an agent at work.
type running struct {
	log  *journal.Memory
	said *lines
	// registry holds its metrics.
	registry *prometheus.Registry
	stop     func()
}

type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

func start(t *testing.T, m machine, log *journal.Memory, pace pace) *running {
	return startWith(t, m, log, pace, nil)
}

// startWith has an executor that reads Secrets of a cluster.
func startWith(t *testing.T, m machine, log *journal.Memory, pace pace, secrets kubernetes.Interface) *running {
	return startOptions(t, m, log, pace, Options{}, secrets)
}

// startOptions has an agent with options of its own; those that each needs are filled in.
func startOptions(t *testing.T, m machine, log *journal.Memory, pace pace, options Options, secrets kubernetes.Interface) *running {
	var answer func(context.Context, string, journal.CredentialsRequest) (journal.SealedCredentials, error)
	if secrets != nil {
		answer = credentials.New(secrets, log).Answer
	}
	r := &running{log: log, said: &lines{}, registry: prometheus.NewRegistry()}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	own, err := log.Join(ctx, "node-1")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for ctx.Err() == nil { // as somebody starts an executor again whose log was not there
			_ = intake.Run(ctx, intake.Options{Journal: log, Credentials: answer, Logger: zerolog.New(r.said), Writer: "executor/test", Version: "v1"})
			sleep(ctx, 10*time.Millisecond)
		}
	}()
	go func() {
		options.Node, options.Endpoint, options.Log, options.Logger = "node-1", m.endpoint(), own, zerolog.New(r.said)
		options.Registry, options.Writer, options.Version = r.registry, "nodeagent/test", "v1"
		ended <- run(ctx, options, pace)
	}()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(5 * time.Second):
			t.Error("the agent does not stop")
		}
	})
	t.Cleanup(r.stop)
	return r
}

// metric returns the sum of a metric over its labels.
func (r *running) metric(t *testing.T, name string) (sum float64) {
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, one := range family.GetMetric() {
			if family.GetName() == name {
				sum += one.GetCounter().GetValue() + one.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// awaitLooks waits until it has looked so many times more.
func (r *running) awaitLooks(t *testing.T, more float64) {
	t.Helper()
	before := r.metric(t, "shiplog_nodeagent_looks_total")
	testbed.Eventually(t, 10*time.Second, func() error {
		if looks := r.metric(t, "shiplog_nodeagent_looks_total") - before; looks < more {
			return fmt.Errorf("%v looks", looks)
		}
		return nil
	})
}

func last(t *testing.T, log journal.Journal) *shiplogv1.Entry {
	record, err := log.LastOfNode(t.Context(), "node-1")
	if err != nil {
		t.Fatal(err)
	}
	if record == nil {
		return nil
	}
	return record.Entry
}

// containersOf returns the containers of a Pod in the last fact.
func containersOf(t *testing.T, log journal.Journal, pod string) (found []*shiplogv1.RuntimeContainer) {
	for _, container := range last(t, log).GetNodeObserved().GetContainers() {
		if container.PodName == pod && container.PodNamespace == "default" {
			found = append(found, container)
		}
	}
	return found
}

// containerOf returns the only container of a Pod in the last fact, or nil.
func containerOf(t *testing.T, log journal.Journal, pod string) *shiplogv1.RuntimeContainer {
	found := containersOf(t, log, pod)
	if len(found) > 1 {
		t.Errorf("%d containers of Pod %s", len(found), pod)
	}
	if len(found) == 0 {
		return nil
	}
	return found[0]
}

// wantStopped waits until a container of a Pod does not run; the kubelet may have started another one.
func wantStopped(t *testing.T, log journal.Journal, pod, id string) {
	t.Helper()
	testbed.Eventually(t, 30*time.Second, func() error {
		for _, container := range containersOf(t, log, pod) {
			if container.Id == id && container.State == shiplogv1.RuntimeContainer_STATE_RUNNING {
				return fmt.Errorf("container %v", container)
			}
		}
		return nil
	})
}

// wantRunning waits until the last fact says that a Pod runs.
func wantRunning(t *testing.T, log journal.Journal, pod string) *shiplogv1.RuntimeContainer {
	t.Helper()
	testbed.Eventually(t, 30*time.Second, func() error {
		if c := containerOf(t, log, pod); c.GetState() != shiplogv1.RuntimeContainer_STATE_RUNNING || c.GetStartedAt() == nil {
			return fmt.Errorf("container of %s: %v", pod, c)
		}
		return nil
	})
	return containerOf(t, log, pod)
}

func wantGone(t *testing.T, log journal.Journal, pod string) {
	t.Helper()
	testbed.Eventually(t, 60*time.Second, func() error {
		if left := containersOf(t, log, pod); len(left) > 0 {
			return fmt.Errorf("containers of %s: %v", pod, left)
		}
		return nil
	})
}

// quiet waits until nothing was appended for a while, and returns the last sequence. That nothing comes shows only in time that passes.
func quiet(t *testing.T, log journal.Journal) uint64 {
	t.Helper()
	for range 60 {
		before := end(t, log)
		if time.Sleep(time.Second); end(t, log) == before && before > 0 {
			return before
		}
	}
	t.Fatal("facts keep coming")
	return 0
}

func end(t *testing.T, log journal.Journal) uint64 {
	state, err := log.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return state.LastSequence
}

func reportsWhatRuns(t *testing.T, m machine) {
	log := journal.NewMemory(time.Now)
	start(t, m, log, quick)
	m.run(t, "reported")
	c := wantRunning(t, log, "reported")
	if c.Name != containerName || c.Id == "" || c.PodUid == "" || c.Image != image || c.ImageId == "" || c.Attempt != 0 || c.PlainHash == 0 ||
		c.CreatedAt.AsTime().After(c.StartedAt.AsTime()) || time.Since(c.CreatedAt.AsTime()) > time.Minute {
		t.Errorf("container %v", c)
	}
	entry := last(t, log)
	seen := entry.GetNodeObserved()
	if !entry.Skippable || !strings.HasPrefix(entry.Writer, "nodeagent/test-") || entry.WriterVersion != "v1" || seen.RuntimeName != "containerd" || seen.RuntimeVersion == "" {
		t.Errorf("entry %v", entry)
	}
	found := false
	for _, held := range seen.Images {
		if held.Id == c.ImageId {
			found = len(held.Tags) == 1 && held.Tags[0] == image && len(held.Digests) == 1 && held.SizeBytes > 0
		}
	}
	if !found {
		t.Errorf("image %s is not among %v", c.ImageId, seen.Images)
	}
	m.remove(t, "reported")
	wantGone(t, log, "reported")
}

func idleAddsNothing(t *testing.T, m machine) {
	log := journal.NewMemory(time.Now)
	first := start(t, m, log, quick)
	m.run(t, "idle-1")
	m.run(t, "idle-2")
	wantRunning(t, log, "idle-1")
	wantRunning(t, log, "idle-2")
	before := quiet(t, log)
	first.awaitLooks(t, 10)
	first.stop()
	start(t, m, log, quick).awaitLooks(t, 10)
	if after := end(t, log); after != before {
		t.Errorf("%d facts about nothing: %v", after-before, last(t, log))
	}
	m.remove(t, "idle-1")
	m.remove(t, "idle-2")
	wantGone(t, log, "idle-1")
	wantGone(t, log, "idle-2")
}

func survivesTheRuntime(t *testing.T, m machine) {
	log := journal.NewMemory(time.Now)
	agent := start(t, m, log, quick)
	m.run(t, "before")
	before := wantRunning(t, log, "before")
	quiet(t, log)
	m.restart(t)
	testbed.Eventually(t, 30*time.Second, func() error {
		if agent.metric(t, "shiplog_nodeagent_runtime_lost_total") != 1 || agent.metric(t, "shiplog_nodeagent_runtime_up") != 1 {
			return errors.New("not lost and found")
		}
		return nil
	})
	m.run(t, "after")
	wantRunning(t, log, "after")
	if now := containerOf(t, log, "before"); now.GetId() != before.Id || now.GetState() != before.State {
		t.Errorf("container %v, before the runtime started again %v", now, before)
	}
	if lost, found := agent.said.count("does not answer"), agent.said.count("answers again"); lost != 1 || found != 1 {
		t.Errorf("lost was said %d times, found %d times", lost, found)
	}
	m.remove(t, "before")
	m.remove(t, "after")
	wantGone(t, log, "before")
	wantGone(t, log, "after")
}

func survivesTheLog(t *testing.T, m machine) {
	log := journal.NewMemory(time.Now)
	log.SetDown(true)
	agent := start(t, m, log, quick)
	testbed.Eventually(t, 30*time.Second, func() error {
		if agent.metric(t, "shiplog_nodeagent_append_failures_total") < 1 {
			return errors.New("nothing is tried")
		}
		return nil
	})
	log.SetDown(false)
	testbed.Eventually(t, 5*time.Second, func() error {
		if last(t, log) == nil {
			return errors.New("nothing is reported")
		}
		return nil
	})
	quiet(t, log)
	before := agent.metric(t, "shiplog_nodeagent_append_failures_total")
	log.SetDown(true)
	m.run(t, "unheard")
	testbed.Eventually(t, 30*time.Second, func() error {
		if agent.metric(t, "shiplog_nodeagent_append_failures_total") < before+2 {
			return errors.New("nothing is tried")
		}
		return nil
	})
	log.SetDown(false)
	wantRunning(t, log, "unheard")
	if said := agent.said.count("the log does not"); said != 2 {
		t.Errorf("the trouble with the log was said %d times", said)
	}
	m.remove(t, "unheard")
	wantGone(t, log, "unheard")
}

// slow looks every hour: what is reported was prompted.
var slow = pace{period: time.Hour, settle: time.Millisecond, apart: time.Millisecond, retry: time.Millisecond, retryMax: 10 * time.Millisecond}

func TestEventsPrompt(t *testing.T) {
	t.Parallel()
	f, log := startFake(t, "v2.1.0"), journal.NewMemory(time.Now)
	start(t, f, log, slow)
	for i := range 5 {
		pod := fmt.Sprint("p", i)
		f.run(t, pod)
		wantRunning(t, log, pod)
	}
	f.restart(t)
	f.run(t, "after")
	wantRunning(t, log, "after")
	if f.asked > 6+1 {
		t.Errorf("the runtime was asked %d times for 6 containers", f.asked)
	}
}

// TestEventsAreLeftToTheKubelet: an old containerd gives each event to one listener only.
func TestEventsAreLeftToTheKubelet(t *testing.T) {
	t.Parallel()
	f, log := startFake(t, "v1.7.28"), journal.NewMemory(time.Now)
	start(t, f, log, quick)
	f.run(t, "p")
	wantRunning(t, log, "p")
	if f.streams != 0 {
		t.Error("its events were taken")
	}
}

func TestTooLargeIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	f, log := startFake(t, "v2.1.0"), journal.NewMemory(time.Now)
	log.SetLimits(journal.MemoryLimits{EntryBytes: 100})
	f.run(t, "p")
	agent := start(t, f, log, quick)
	agent.awaitLooks(t, 10)
	if failed := agent.metric(t, "shiplog_nodeagent_append_failures_total"); failed != 1 {
		t.Errorf("%v appends failed", failed)
	}
	log.SetLimits(journal.MemoryLimits{})
	f.run(t, "q")
	wantRunning(t, log, "q")
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{Endpoint: "unix:///x"}, {Node: "n", Endpoint: "/x"}, {Node: "n", Endpoint: "tcp://x"}, {Node: "n"}} {
		if err := Run(t.Context(), o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}
