package journal

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal/embedded"
)

// TestContract runs the same behaviours against every make of the log.
func TestContract(t *testing.T) {
	t.Parallel()
	behaviours := []struct {
		name string
		l    limits
		run  func(t *testing.T, f *fixture)
	}{
		{"FactsAreKeptOnce", limits{}, factsAreKeptOnce},
		{"OrderIsKept", limits{}, orderIsKept},
		{"ConcurrentAppends", limits{}, concurrentAppends},
		{"OnlyTheNewestFenceWrites", limits{}, onlyTheNewestFenceWrites},
		{"CommandsGoInTogether", limits{}, commandsGoInTogether},
		{"TicksComeWhenDue", limits{}, ticksComeWhenDue},
		{"TicksSurviveReopening", limits{}, ticksSurviveReopening},
		{"ReadFromAnywhere", limits{}, readFromAnywhere},
		{"ReadFollows", limits{}, readFollows},
		{"NotesAreNoGap", limits{}, notesAreNoGap},
		{"CompactionKeepsTheLiving", limits{}, compactionKeepsTheLiving},
		{"CompactionRefusesThePast", limits{}, compactionRefusesThePast},
		{"CompactionOfNothing", limits{}, compactionOfNothing},
		{"WorkComesBackUntilDone", limits{}, workComesBackUntilDone},
		{"WorkSurvivesReopening", limits{}, workSurvivesReopening},
		{"BacklogIsWhatWaits", limits{}, backlogIsWhatWaits},
		{"WorkIsShared", limits{}, workIsShared},
		{"OldWorkIsMarked", limits{}, oldWorkIsMarked},
		{"LastOutcome", limits{}, lastOutcome},
		{"NodeFacts", limits{}, nodeFacts},
		{"NodesTakeTheirCommands", limits{}, nodesTakeTheirCommands},
		{"WordsAreHeard", limits{}, wordsAreHeard},
		{"CallsEndOnce", limits{}, callsEndOnce},
		{"CallsComeBackLater", limits{}, callsComeBackLater},
		{"EventsAreCloudEvents", limits{}, eventsAreCloudEvents},
		{"EventsAreFencedAndKeptOnce", limits{}, eventsAreFencedAndKeptOnce},
		{"EventsAreWork", limits{}, eventsAreWork},
		{"Vacancy", limits{}, vacancy},
		{"Full", limits{store: 1 << 20}, full},
		{"TooLarge", limits{}, tooLarge},
		{"Undecodable", limits{}, undecodable},
		{"Gap", limits{max: 128 << 10}, gap},
		{"MissingAfterCompaction", limits{max: 128 << 10}, missingAfterCompaction},
		{"Unavailable", limits{}, unavailableLog},
		{"Closing", limits{}, closing},
	}
	for _, m := range makes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			for _, b := range behaviours {
				t.Run(b.name, func(t *testing.T) {
					t.Parallel()
					b.run(t, m.start(t, b.l))
				})
			}
		})
	}
}

func lastOutcome(t *testing.T, f *fixture) {
	ctx := within(t)
	if r, err := f.LastOutcome(ctx, pod("a")); err != nil || r != nil {
		t.Fatalf("%v, %v", r, err)
	}
	_, err := f.Append(ctx, outcome("a", 1, 0), outcome("a", 2, 1), outcome("b", 3, 0), fact("a", 1))
	check(t, err)
	r, err := f.LastOutcome(ctx, pod("a"))
	check(t, err)
	if r == nil || r.Sequence != 2 || r.Entry.Cause != 2 || r.Time.IsZero() {
		t.Errorf("last outcome is %+v", r)
	}
	if r, err = f.LastFact(ctx, pod("a")); err != nil || r == nil || r.Sequence != 4 {
		t.Errorf("last fact is %+v, %v", r, err)
	}
	if r, err = f.LastFact(ctx, pod("b")); err != nil || r != nil {
		t.Errorf("of an object without one the last fact is %+v, %v", r, err)
	}
}

// nodeFacts: each is kept, also one like another, and the newest of a node is found.
func nodeFacts(t *testing.T, f *fixture) {
	ctx := within(t)
	if r, err := f.LastOfNode(ctx, "n.1"); err != nil || r != nil {
		t.Fatalf("%v, %v", r, err)
	}
	entries := []*shiplogv1.Entry{nodeFact("n.1", "a"), nodeFact("n.1", "b"), nodeFact("n.1", "a"), nodeFact("n", "c"), fact("a", 1)}
	last, err := f.Append(ctx, entries...)
	check(t, err)
	if last != uint64(len(entries)) {
		t.Errorf("last at %d of %d: a node that is again as it was is a fact too", last, len(entries))
	}
	r, err := f.LastOfNode(ctx, "n.1")
	check(t, err)
	if r == nil || r.Sequence != 3 || !proto.Equal(r.Entry, entries[2]) || r.Subject != "shiplog.local.node.n%2E1.fact.runtime" {
		t.Errorf("last of the node is %+v", r)
	}
	if _, err := f.Append(ctx, nodeFact("", "a")); err == nil {
		t.Error("the fact of a node without a name was taken")
	}
	for i, r := range take(t, reads(t, f, From{}), len(entries)) {
		if !proto.Equal(r.Entry, entries[i]) {
			t.Errorf("position %d holds %v", r.Sequence, r.Entry)
		}
	}
}

func vacancy(t *testing.T, f *fixture) {
	ctx := within(t)
	check(t, f.AwaitVacancy(ctx, 10*time.Millisecond))
	leading, resign := context.WithCancel(ctx)
	f.second(t).Lead(leading, "planner/one")
	vacant := make(chan error, 1)
	go func() { vacant <- f.AwaitVacancy(ctx, 3*heartbeat) }()
	select {
	case err := <-vacant:
		t.Fatalf("vacant while somebody leads: %v", err)
	case <-time.After(4 * heartbeat):
	}
	resign()
	check(t, <-vacant)
	again, cancel := context.WithCancel(ctx)
	f.Lead(again, "planner/two")
	cancel()
	ended, cancel := context.WithCancel(ctx)
	cancel()
	wantError(t, f.AwaitVacancy(ended, time.Hour), context.Canceled)
}

func full(t *testing.T, f *fixture) {
	ctx := within(t)
	fence, err := f.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	for i := range 1000 {
		if _, err = f.Append(ctx, factOf("a", i, 10<<10)); err != nil {
			break
		}
	}
	wantError(t, err, ErrFull)
	big := write("a")
	big.GetCommand().Effect = &shiplogv1.Command_Create{Create: &shiplogv1.CreateObject{Json: filler(64 << 10)}}
	_, err = f.AppendCommands(ctx, fence, big)
	wantError(t, err, ErrFull)
	_, err = f.AppendCommands(ctx, fence, big, big)
	wantError(t, err, ErrFull)
}

func tooLarge(t *testing.T, f *fixture) {
	ctx := within(t)
	_, err := f.Append(ctx, fact("a", 1), factOf("a", 2, embedded.MaxPayload+1))
	wantError(t, err, ErrTooLarge)
	fence, err := f.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	if fence != 1 {
		t.Errorf("something was appended before %d", fence)
	}
	big := write("a")
	big.GetCommand().Effect = &shiplogv1.Command_Create{Create: &shiplogv1.CreateObject{Json: make([]byte, embedded.MaxPayload+1)}}
	_, err = f.AppendCommands(ctx, fence, write("b"), big)
	wantError(t, err, ErrTooLarge)
	_, err = f.Append(ctx, fact(strings.Repeat("x", 3000), 1))
	wantError(t, err, ErrTooLarge)
	_, err = f.Append(ctx, factOf("large", 1, 3<<20))
	check(t, err)
	take(t, reads(t, f, From{}), 2)
}

func unavailableLog(t *testing.T, f *fixture) {
	ctx := within(t)
	fence, err := f.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	r := reads(t, f, From{Sequence: fence + 1})
	w := works(t, f, "executor")
	f.down(t)
	var calls sync.WaitGroup
	for name, call := range map[string]func() error{
		"Append":         func() error { _, err := f.Append(ctx, fact("a", 1)); return err },
		"RaiseFence":     func() error { _, err := f.RaiseFence(ctx, "planner", "v1", nil); return err },
		"AppendCommands": func() error { _, err := f.AppendCommands(ctx, fence, write("a")); return err },
		"several":        func() error { _, err := f.AppendCommands(ctx, fence, write("a"), write("b")); return err },
		"Read":           func() error { _, err := f.Read(ctx, From{}); return err },
		"Commands":       func() error { _, err := f.Commands(ctx, "another"); return err },
		"LastOutcome":    func() error { _, err := f.LastOutcome(ctx, pod("a")); return err },
		"Compact":        func() error { return f.Compact(ctx, 1, func(uint64) bool { return true }) },
		"State":          func() error { _, err := f.State(ctx); return err },
		"reader.Next":    func() error { _, err := r.Next(ctx); return err },
		"work.Next":      func() error { _, err := w.Next(ctx); return err },
	} {
		calls.Go(func() {
			began := time.Now()
			if err := call(); !errors.Is(err, ErrUnavailable) {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(began); took > 2*testPatience+5*time.Second {
				t.Errorf("%s took %s", name, took)
			}
		})
	}
	calls.Wait()
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = f.Append(ended, fact("a", 1))
	wantError(t, err, ErrUnavailable)
}

func closing(t *testing.T, f *fixture) {
	ctx := within(t)
	r := reads(t, f, From{})
	w := works(t, f, "executor")
	results := make(chan error, 3)
	go func() { _, err := r.Next(ctx); results <- err }()
	go func() { _, err := w.Next(ctx); results <- err }()
	go func() { results <- f.AwaitVacancy(ctx, time.Hour) }()
	check(t, f.Close())
	for range 3 {
		wantError(t, <-results, ErrUnavailable)
	}
	check(t, f.Close())
}
