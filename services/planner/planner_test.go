package planner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/journal/embedded"
	"shiplog.dev/internal/world"
)

// within bounds every wait of these tests; it is never reached when they pass.
const within = 20 * time.Second

// openLog opens an embedded log of its own.
func openLog(t *testing.T) journal.Journal {
	t.Helper()
	log, err := journal.Open(t.Context(), journal.Options{Server: &embedded.Server{Directory: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log
}

// start runs a planner until stop is called or the test ends; stop returns what Run returned.
func start(t *testing.T, log journal.Journal, name string, options Options) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	options.Journal, options.Writer, options.Logger = log, name, zerolog.New(zerolog.NewTestWriter(t))
	go func() { done <- Run(ctx, options) }()
	ended := false
	stop = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		return <-done
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

func cloneSet(name string, replicas, version int) *shiplogv1.Entry {
	tree := map[string]any{
		"metadata": map[string]any{"name": name, "namespace": "default", "uid": "uid-" + name, "generation": version, "resourceVersion": fmt.Sprint(version)},
		"spec": map[string]any{
			"replicas": replicas, "selector": map[string]any{"matchLabels": map[string]any{"app": name}},
			"template": map[string]any{
				"metadata": map[string]any{"labels": map[string]any{"app": name}},
				"spec":     map[string]any{"containers": []any{map[string]any{"name": "main", "image": "v1"}}},
			},
		},
	}
	data, err := json.Marshal(tree)
	if err != nil {
		panic(err)
	}
	return &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
		Object:          &shiplogv1.ObjectRef{Group: world.GroupKruise, Version: "v1beta1", Resource: world.ResourceCloneSets, Namespace: "default", Name: name, Uid: "uid-" + name},
		ResourceVersion: fmt.Sprint(version), Json: data,
	}}}
}

func vouch() *shiplogv1.Entry {
	vouched := &shiplogv1.Vouched{}
	for _, resource := range world.Watched {
		vouched.Complete = append(vouched.Complete, &shiplogv1.Completeness{Group: resource.Group, Resource: resource.Resource, ResourceVersion: "1"})
	}
	return &shiplogv1.Entry{Kind: &shiplogv1.Entry_Vouched{Vouched: vouched}}
}

func appendTo(t *testing.T, log journal.Journal, entries ...*shiplogv1.Entry) {
	t.Helper()
	if _, err := log.Append(t.Context(), entries...); err != nil {
		t.Fatal(err)
	}
}

// follow calls see with every entry from the beginning until it returns true.
func follow(t *testing.T, log journal.Journal, see func(journal.Record) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	reader, err := log.Read(ctx, journal.From{Sequence: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for {
		records, err := reader.Next(ctx)
		if err != nil {
			t.Fatalf("the log does not show what was waited for: %v", err)
		}
		for _, record := range records {
			if see(record) {
				return
			}
		}
	}
}

func awaitFence(t *testing.T, log journal.Journal, nth int) {
	t.Helper()
	follow(t, log, func(r journal.Record) bool {
		if r.Entry.GetFenceRaised() != nil {
			nth--
		}
		return nth == 0
	})
}

// TestDecidesOnlyOnVouchedFacts: facts alone give no command; a vouch newer than the fence does.
func TestDecidesOnlyOnVouchedFacts(t *testing.T) {
	log := openLog(t)
	appendTo(t, log, vouch(), cloneSet("early", 1, 1))
	start(t, log, "planner/a", Options{})
	awaitFence(t, log, 1)
	appendTo(t, log, cloneSet("late", 2, 2), vouch())
	pods, vouches := map[string]int{}, 0
	follow(t, log, func(r journal.Record) bool {
		if r.Entry.GetVouched() != nil {
			vouches++
		}
		if command := r.Entry.GetCommand(); command != nil {
			if vouches < 2 {
				t.Fatalf("command %d comes before a vouch that is newer than the fence", r.Sequence)
			}
			if command.GetObject().GetResource() == world.ResourcePods {
				pods[string(world.WorkloadOf(r.Entry.GetRollout()))]++
			}
		}
		return pods["uid-early"] == 1 && pods["uid-late"] == 2
	})
}

// TestStandbyTakesOver: the second planner waits while the first leads, takes over when it is gone, and repeats nothing of
// what is under way.
func TestStandbyTakesOver(t *testing.T) {
	log := openLog(t)
	first := start(t, log, "planner/a", Options{})
	awaitFence(t, log, 1)
	appendTo(t, log, cloneSet("web", 3, 1), vouch())
	created := map[string]bool{}
	follow(t, log, func(r journal.Record) bool {
		if command := r.Entry.GetCommand(); command.GetCreate() != nil && command.GetObject().GetResource() == world.ResourcePods {
			created[command.GetObject().GetName()] = true
		}
		return len(created) == 3
	})
	start(t, log, "planner/b", Options{})
	if err := first(); err != nil {
		t.Fatal(err)
	}
	awaitFence(t, log, 2)
	appendTo(t, log, cloneSet("web", 5, 2), vouch())
	names := map[string]bool{}
	follow(t, log, func(r journal.Record) bool {
		if command := r.Entry.GetCommand(); command.GetCreate() != nil && command.GetObject().GetResource() == world.ResourcePods {
			if names[command.GetObject().GetName()] {
				t.Errorf("Pod %s is created twice", command.GetObject().GetName())
			}
			names[command.GetObject().GetName()] = true
		}
		return len(names) == 5
	})
}

// TestLeadsAgain: a planner that was fenced out leads again when whoever did that is silent.
func TestLeadsAgain(t *testing.T) {
	log := openLog(t)
	start(t, log, "planner/a", Options{})
	awaitFence(t, log, 1)
	for nth := 3; nth <= 5; nth += 2 {
		if _, err := log.RaiseFence(t.Context(), "planner/b", "v1", nil); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		awaitFence(t, log, nth)
		if took := time.Since(began); took < patience {
			t.Errorf("fence %d came after %s, before the silence was long enough", nth, took)
		}
	}
}

// vacant is a log on which nobody is ever heard to lead.
type vacant struct {
	journal.Journal
	asked atomic.Int32
}

func (v *vacant) AwaitVacancy(context.Context, time.Duration) error {
	v.asked.Add(1)
	return nil
}

// TestLeaderListensForNobody: silence from before a planner was fenced out says nothing of who leads now, so it does not listen while it leads.
func TestLeaderListensForNobody(t *testing.T) {
	log := &vacant{Journal: openLog(t)}
	start(t, log, "planner/a", Options{})
	awaitFence(t, log, 1)
	appendTo(t, log, cloneSet("web", 1, 1), vouch())
	follow(t, log, func(r journal.Record) bool { return r.Entry.GetCommand() != nil })
	if asked := log.asked.Load(); asked != 1 {
		t.Errorf("it listened %d times for a leader, once before it led", asked)
	}
}

// TestLargeAnswer: more commands than one batch takes all arrive, each once.
func TestLargeAnswer(t *testing.T) {
	log := openLog(t)
	start(t, log, "planner/a", Options{})
	awaitFence(t, log, 1)
	appendTo(t, log, cloneSet("web", 1200, 1), vouch())
	names := map[string]bool{}
	follow(t, log, func(r journal.Record) bool {
		if command := r.Entry.GetCommand(); command.GetObject().GetResource() == world.ResourcePods {
			names[command.GetObject().GetName()] = true
		}
		return len(names) == 1200
	})
}

// TestUndecodable: an entry that cannot be folded stops the planner and is named.
func TestUndecodable(t *testing.T) {
	log := openLog(t)
	bad := cloneSet("web", 1, 1)
	bad.GetObjectObserved().ResourceVersion = "not-a-number"
	appendTo(t, log, vouch(), bad)
	err := Run(t.Context(), Options{Journal: log, Writer: "planner/a"})
	if !errors.Is(err, journal.ErrUndecodable) {
		t.Fatalf("got %v, want ErrUndecodable", err)
	}
	if want := `entry 2: clonesets.apps.kruise.io default/web: resource version "not-a-number" is not a number`; !strings.Contains(err.Error(), want) {
		t.Errorf("%q does not say %q", err, want)
	}
}

// TestCompactedStart: a planner that starts from the compacted view decides as one that saw everything.
func TestCompactedStart(t *testing.T) {
	log := openLog(t)
	stop := start(t, log, "planner/a", Options{CompactAfter: 10})
	awaitFence(t, log, 1)
	for i := range 30 {
		appendTo(t, log, cloneSet("web", 1, i+1))
	}
	appendTo(t, log, vouch())
	testbed.Eventually(t, within, func() error {
		appendTo(t, log, vouch())
		state, err := log.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if state.Compacted == 0 {
			return errors.New("no compacted view was made")
		}
		return nil
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// An append that was under way when the planner stopped may still arrive; both readings end at one position.
	state, err := log.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	last := state.LastSequence
	whole, compacted := foldFrom(t, log, journal.From{Sequence: 1}, last), foldFrom(t, log, journal.From{Compacted: true}, last)
	if whole != compacted {
		t.Errorf("the compacted start gives another world\n--- whole\n%s\n--- compacted\n%s", whole, compacted)
	}
}

// foldFrom describes the world at a position.
func foldFrom(t *testing.T, log journal.Journal, from journal.From, last uint64) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	reader, err := log.Read(ctx, from)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	w := world.New()
	for w.Sequence() < last {
		records, err := reader.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, record := range records {
			change, err := world.Decode(record.Sequence, record.Time, record.Entry)
			if err != nil {
				t.Fatal(err)
			}
			if record.Sequence <= last {
				w.Fold(change)
			}
		}
	}
	return w.Describe()
}
