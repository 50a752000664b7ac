package scenario

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/api/rolloutevent/schematest"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner"
	"shiplog.dev/services/planner/rollout"
)

// showEvents is one line for each rollout event that nobody was shown.
func (c *cluster) showEvents() string {
	var out strings.Builder
	for _, event := range c.events {
		encoded, err := journal.CloudEvent("local", event.Entry())
		if err != nil {
			c.t.Fatal(err)
		}
		schematest.Event(c.t, encoded)
		message := reflect.ValueOf(event.Data).FieldByName("Message").String()
		fmt.Fprintf(&out, "%s %s  %s\n", event.Workload.GetName(), event.Type, message)
	}
	c.events = nil
	if out.Len() == 0 {
		return "no events\n"
	}
	return c.alias(out.String())
}

// proveEvents checks, once the log has been folded again, that it gave the same memory of rollouts, and that this memory
// follows from the live entries alone, as the world does.
func (c *cluster) proveEvents(t *testing.T, again *rollout.Tracker, live []uint64) {
	t.Helper()
	if got, want := again.Describe(), c.tracker.Describe(); got != want {
		t.Fatalf("folding again gives another memory of rollouts\n--- want\n%s\n--- got\n%s", want, got)
	}
	if !c.tracker.Settled() {
		return // no compacted view is made now
	}
	w, compacted := world.New(), rollout.New()
	live = append(slices.Clone(live), c.tracker.Live()...)
	slices.Sort(live)
	for _, sequence := range slices.Compact(live) {
		compacted.Fold(w, decode(t, c.entries[sequence-1]))
	}
	if got, want := compacted.Describe(), c.tracker.Describe(); got != want {
		t.Fatalf("the live entries give another memory of rollouts\n--- want\n%s\n--- got\n%s", want, got)
	}
	if got, want := w.Describe(), c.world.Describe(); got != want {
		t.Fatalf("the live entries of world and rollouts give another world\n--- want\n%s\n--- got\n%s", want, got)
	}
}

// TestWhoeverLeads: the log holds each rollout event once, wherever in a recorded log the leader changes, whether or not it has
// told what it owed, and whether or not the next one begins with a compacted view made at that moment.
func TestWhoeverLeads(t *testing.T) {
	for _, path := range []string{"testdata/events/inplace.txt", "testdata/events/recreate.txt", "testdata/events/partition.txt"} {
		entries := recording(t, path)
		w, tracker := world.New(), rollout.New()
		var want []string
		for _, r := range entries {
			for _, event := range tracker.Fold(w, decode(t, r)) {
				want = append(want, line(event.Entry()))
			}
		}
		if len(want) < 10 {
			t.Fatalf("%s has %d events", path, len(want))
		}
		for _, last := range []lastDeed{{}, {tells: true}, {compacts: true}, {tells: true, compacts: true}, {silent: 10, compacts: true}} {
			for at := range entries {
				if got := retell(t, entries, at, last); !slices.Equal(got, want) {
					t.Fatalf("%s: a leader that ends at entry %d (%+v) and its successor tell\n%s\n\nwant\n%s", path, at+1, last, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			}
		}
	}
}

// lastDeed is what a leader does before it ends.
type lastDeed struct {
	tells, compacts bool
	// silent is for how many entries it has told nothing.
	silent int
}

// line is what must be the same of an event wherever it stands.
func line(entry *shiplogv1.Entry) string {
	event := entry.GetRolloutEvent()
	return fmt.Sprintf("%d %s %s %s %s", event.GetIndex(), event.GetType(), entry.GetRollout(), event.GetTime().AsTime().Format(time.RFC3339Nano), event.GetData())
}

// witness is a log whose leaders need not be heard. It notes what is told, also what the log has already and leaves out.
type witness struct {
	*journal.Memory
	told *[]string
}

func (witness) Lead(context.Context, string) {}

func (w witness) AppendEvents(ctx context.Context, fence uint64, events ...*shiplogv1.Entry) error {
	for _, event := range events {
		*w.told = append(*w.told, line(event))
	}
	return w.Memory.AppendEvents(ctx, fence, events...)
}

// leader is a planner that tells and decides nothing.
type leader struct {
	t       *testing.T
	log     witness
	reader  journal.Reader
	stepper *planner.Stepper
}

func newLeader(t *testing.T, log witness) *leader {
	reader, err := log.Read(t.Context(), journal.From{Compacted: true})
	if err != nil {
		t.Fatal(err)
	}
	l := &leader{t, log, reader, planner.NewStepper(planner.Options{Journal: log, Writer: "planner/test"}, time.Now, reader.Compacted())}
	l.read()
	l.stepper.Lead(t.Context())
	l.read()
	return l
}

// read folds what the log holds.
func (l *leader) read() {
	l.t.Helper()
	state, err := l.log.State(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	for l.stepper.World().Sequence() < state.LastSequence {
		records, err := l.reader.Next(l.t.Context())
		if err != nil {
			l.t.Fatal(err)
		}
		for _, r := range records {
			change, err := world.Decode(r.Sequence, r.Time, r.Entry)
			if err != nil {
				l.t.Fatal(err)
			}
			l.stepper.Fold([]world.Change{change})
		}
	}
}

// retell appends recorded entries, but for fences and ticks, to a log of its own, with a leader that ends after one of them and
// a successor, and returns the events that they tell.
func retell(t *testing.T, entries []record, end int, last lastDeed) []string {
	t.Helper()
	now := entries[0].time
	var told []string
	log := witness{journal.NewMemory(func() time.Time { return now }), &told}
	l := newLeader(t, log)
	positions := map[uint64]uint64{}
	for i, r := range entries {
		now = r.time
		entry := proto.Clone(r.entry).(*shiplogv1.Entry)
		entry.Cause = positions[entry.GetCause()]
		var err error
		switch {
		case entry.GetFenceRaised() != nil || entry.GetTicked() != nil:
			positions[r.sequence] = l.stepper.World().Sequence()
		case entry.GetCommand() != nil:
			positions[r.sequence], err = log.AppendCommands(t.Context(), l.stepper.World().Fence(), entry)
			if next := i + 1; err == nil && next < len(entries) && entries[next].entry.GetCommand() != nil && entries[next].entry.GetCause() == r.entry.GetCause() {
				continue // the commands of one decision go together
			}
		default:
			positions[r.sequence], err = log.Append(t.Context(), entry)
		}
		if err != nil {
			t.Fatal(err)
		}
		l.read()
		if i > end || i < end-last.silent || i == end && last.tells {
			l.tell()
		}
		if i == end {
			if live, may := l.stepper.MayCompact(); may && last.compacts {
				err := log.Compact(t.Context(), l.stepper.World().Sequence(), func(sequence uint64) bool { return slices.Contains(live, sequence) })
				if err != nil {
					t.Fatal(err)
				}
			}
			l.reader.Close()
			l = newLeader(t, log)
		}
	}
	l.tell()
	return told
}

func (l *leader) tell() {
	l.t.Helper()
	if err := l.stepper.Tell(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
}
