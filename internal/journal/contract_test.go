package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
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

func factsAreKeptOnce(t *testing.T, f *fixture) {
	ctx := within(t)
	first, err := f.Append(ctx, fact("a", 1))
	check(t, err)
	again, err := f.second(t).Append(ctx, fact("a", 1))
	check(t, err)
	if again != first {
		t.Errorf("the same fact is at %d and %d", first, again)
	}
	last, err := f.Append(ctx, fact("a", 1), gone("a", 1), outcome("a", 5, 0), outcome("a", 5, 0), outcome("a", 5, 1), vouch(), vouch(), fact("b", 1))
	check(t, err)
	if want := first + 6; last != want {
		t.Errorf("last at %d, want %d: a deletion is no observation, attempts differ, vouches have no identity", last, want)
	}
}

func orderIsKept(t *testing.T, f *fixture) {
	const n = 3000
	var entries []*shiplogv1.Entry
	for i := range n {
		entries = append(entries, factOf("a", i, 300+i%700))
	}
	last, err := f.Append(within(t), entries...)
	check(t, err)
	if last != n {
		t.Fatalf("last at %d, want %d", last, n)
	}
	for i, r := range take(t, reads(t, f, From{}), n) {
		if r.Sequence != uint64(i+1) || !proto.Equal(r.Entry, entries[i]) {
			t.Fatalf("position %d holds %v", r.Sequence, r.Entry)
		}
		if since := time.Since(r.Time); since < -time.Second || since > time.Minute {
			t.Fatalf("time is off by %s", since)
		}
		if r.Subject != "shiplog.local.fact.core.pods.default.a" {
			t.Fatalf("subject %q", r.Subject)
		}
	}
	state, err := f.State(within(t))
	check(t, err)
	if state.FirstSequence != 1 || state.LastSequence != n || state.Bytes == 0 || state.Compacted != 0 {
		t.Errorf("state %+v", state)
	}
}

func concurrentAppends(t *testing.T, f *fixture) {
	const writers, each = 8, 200
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := 0; i < each; i += 4 {
				var entries []*shiplogv1.Entry
				for k := range 4 {
					entries = append(entries, fact(fmt.Sprint(w), i+k))
				}
				if _, err := f.Append(context.Background(), entries...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	seen := map[string]int{}
	for _, r := range take(t, reads(t, f, From{}), writers*each) {
		o := r.Entry.GetObjectObserved()
		if want := fmt.Sprint(seen[o.GetObject().GetName()]); o.GetResourceVersion() != want {
			t.Fatalf("version %s of %s came, want %s", o.GetResourceVersion(), o.GetObject().GetName(), want)
		}
		seen[o.GetObject().GetName()]++
	}
	wg.Wait()
}

func onlyTheNewestFenceWrites(t *testing.T, f *fixture) {
	ctx := within(t)
	other := f.second(t)
	_, err := f.AppendCommands(ctx, 0, write("early"))
	check(t, err) // nobody ever raised one, and the caller says so
	mine, err := f.RaiseFence(ctx, "planner/one", "v1", nil)
	check(t, err)
	last, err := f.AppendCommands(ctx, mine, write("a"))
	check(t, err)
	if last != mine+1 {
		t.Errorf("command at %d, want %d", last, mine+1)
	}
	last, err = f.AppendCommands(ctx, mine, write("a"), write("b"), write("a"))
	check(t, err)
	if last != mine+4 {
		t.Errorf("last command at %d, want %d", last, mine+4)
	}
	theirs, err := other.RaiseFence(ctx, "planner/two", "v1", nil)
	check(t, err)
	for _, commands := range [][]*shiplogv1.Entry{{write("a")}, {write("a"), write("b")}, {wish("x", time.Now())}} {
		_, err = f.AppendCommands(ctx, mine, commands...)
		wantError(t, err, ErrFenced)
	}
	_, err = f.AppendCommands(ctx, 0, write("early"))
	wantError(t, err, ErrFenced)
	last, err = other.AppendCommands(ctx, theirs, write("c"))
	check(t, err)
	if last != theirs+1 {
		t.Errorf("a deposed planner's append left something: command at %d after fence %d", last, theirs)
	}
	// After an unknown result a planner raises its fence again and reads up to it.
	again, err := f.RaiseFence(ctx, "planner/one", "v1", nil)
	check(t, err)
	_, err = other.AppendCommands(ctx, theirs, write("d"))
	wantError(t, err, ErrFenced)
	_, err = f.AppendCommands(ctx, again, write("e"), write("f"))
	check(t, err)
	records := take(t, reads(t, f, From{Sequence: mine}), int(again+2-mine)+1)
	if records[0].Entry.GetFenceRaised() == nil || records[0].Entry.Writer != "planner/one" || records[0].Entry.WriterVersion != "v1" {
		t.Errorf("fence reads %v", records[0].Entry)
	}
}

func commandsGoInTogether(t *testing.T, f *fixture) {
	ctx := within(t)
	fence, err := f.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	var commands []*shiplogv1.Entry
	for i := range MaxCommands {
		if i%2 == 0 {
			commands = append(commands, write(fmt.Sprint(i)))
		} else {
			commands = append(commands, wish(fmt.Sprint(i), time.Now().Add(time.Hour)))
		}
	}
	last, err := f.AppendCommands(ctx, fence, commands...)
	check(t, err)
	records := take(t, reads(t, f, From{Sequence: fence + 1}), MaxCommands)
	if records[len(records)-1].Sequence != last {
		t.Errorf("last command at %d, said to be at %d", records[len(records)-1].Sequence, last)
	}
	for i, r := range records {
		if !proto.Equal(r.Entry, commands[i]) {
			t.Fatalf("command %d reads %v", i, r.Entry)
		}
	}
	for _, bad := range [][]*shiplogv1.Entry{nil, append(commands, write("one more")), {fact("a", 1)}} {
		if _, err := f.AppendCommands(ctx, fence, bad...); err == nil {
			t.Errorf("%d entries were taken", len(bad))
		}
	}
	if _, err := f.Append(ctx, write("a")); err == nil {
		t.Error("a command was taken without a fence")
	}
}

// wantTick says that a tick answers the wish and came no more than a second late, plus what a busy machine takes.
func wantTick(t *testing.T, r Record, id string, due time.Time) {
	t.Helper()
	tick := r.Entry.GetTicked()
	if tick.GetId() != id || !tick.GetDue().AsTime().Equal(due) || r.Entry.Writer != "log" || r.Entry.Cause != 7 || r.Entry.Rollout != "u/1" {
		t.Errorf("tick reads %v", r.Entry)
	}
	if late := r.Time.Sub(due); late < 0 || late > 1500*time.Millisecond {
		t.Errorf("tick %s came %s after it was due", id, late)
	}
	if !strings.HasPrefix(r.Subject, "shiplog.local.tick.") {
		t.Errorf("subject %q", r.Subject)
	}
}

func ticksComeWhenDue(t *testing.T, f *fixture) {
	ctx := within(t)
	fence, err := f.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	r := reads(t, f, From{Sequence: fence + 1})
	now := time.Now()
	soon, later, past := now.Add(700*time.Millisecond), now.Add(1500*time.Millisecond), now.Add(-time.Hour)
	_, err = f.AppendCommands(ctx, fence,
		wish("default/a.b *>", soon), write("a"),
		wish("twice", now.Add(time.Hour)), wish("twice", later),
		wish("brought forward", now.Add(time.Hour)),
		wish("put off", soon))
	check(t, err)
	_, err = f.AppendCommands(ctx, fence, wish("brought forward", later))
	check(t, err)
	_, err = f.AppendCommands(ctx, fence, wish("put off", now.Add(time.Hour)))
	check(t, err)
	asked := time.Now()
	_, err = f.AppendCommands(ctx, fence, wish("past", past))
	check(t, err)
	came := map[string]Record{}
	until(t, r, func(r Record) bool {
		if tick := r.Entry.GetTicked(); tick != nil {
			if _, again := came[tick.Id]; again {
				t.Errorf("tick %q came twice", tick.Id)
			}
			came[tick.Id] = r
		}
		return len(came) == 4
	})
	wantTick(t, came["default/a.b *>"], "default/a.b *>", soon)
	wantTick(t, came["twice"], "twice", later)
	wantTick(t, came["brought forward"], "brought forward", later)
	if late := came["past"].Time.Sub(asked); late > time.Second {
		t.Errorf("a tick that was overdue came %s after it was asked for", late)
	}
	// The same identity can be asked for again once its tick came.
	due := time.Now().Add(10 * time.Millisecond)
	_, err = f.AppendCommands(ctx, fence, wish("twice", due))
	check(t, err)
	records := until(t, r, ticked("twice"))
	wantTick(t, records[len(records)-1], "twice", due)
}

func ticksSurviveReopening(t *testing.T, f *fixture) {
	ctx := within(t)
	fence, err := f.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	past, due := time.Now().Add(50*time.Millisecond), time.Now().Add(2*time.Second)
	_, err = f.AppendCommands(ctx, fence, wish("overdue", past), wish("due", due))
	check(t, err)
	f.reopen(t)
	r := reads(t, f, From{Sequence: fence})
	came := map[string]int{}
	records := until(t, r, func(r Record) bool {
		if tick := r.Entry.GetTicked(); tick != nil {
			came[tick.Id]++
		}
		return len(came) == 2
	})
	if came["overdue"] != 1 || came["due"] != 1 {
		t.Errorf("ticks %v", came)
	}
	wantTick(t, records[len(records)-1], "due", due)
}

func readFromAnywhere(t *testing.T, f *fixture) {
	ctx := within(t)
	for i := range 10 {
		_, err := f.Append(ctx, fact("a", i))
		check(t, err)
	}
	all := take(t, reads(t, f, From{}), 10)
	middle := all[5].Time
	want := slices.IndexFunc(all, func(r Record) bool { return !r.Time.Before(middle) })
	for _, c := range []struct {
		from  From
		first uint64
	}{
		{From{}, 1}, {From{Sequence: 1}, 1}, {From{Sequence: 4}, 4}, {From{Sequence: 10}, 10},
		{From{Time: middle}, uint64(want + 1)}, {From{Time: time.Now().Add(-time.Hour)}, 1}, {From{Compacted: true}, 1},
	} {
		if got := take(t, reads(t, f, c.from), int(11-c.first)); got[0].Sequence != c.first {
			t.Errorf("from %+v: begins at %d, want %d", c.from, got[0].Sequence, c.first)
		}
	}
	end := reads(t, f, From{Sequence: 11})
	future := reads(t, f, From{Time: time.Now().Add(time.Minute)})
	_, err := f.Append(ctx, fact("b", 1))
	check(t, err)
	if got := take(t, end, 1); got[0].Sequence != 11 {
		t.Errorf("the end is at %d", got[0].Sequence)
	}
	_ = future // what a reader from the future sees is not fixed, but it must not break
	if _, err := f.Read(ctx, From{Sequence: 13}); !errors.Is(err, ErrGap) {
		t.Errorf("a position beyond the end: %v", err)
	}
}

func readFollows(t *testing.T, f *fixture) {
	r := reads(t, f, From{})
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing to read: %v", err)
	}
	go func() {
		for i := range 200 {
			if _, err := f.Append(context.Background(), fact("a", i)); err != nil {
				t.Error(err)
			}
		}
	}()
	take(t, r, 200)
	r.Close()
	if _, err := r.Next(within(t)); err == nil {
		t.Error("a closed reader reads")
	}
}

// notesAreNoGap: what the log keeps for itself, and drops, is neither seen nor missed.
func notesAreNoGap(t *testing.T, f *fixture) {
	ctx := within(t)
	fence, err := f.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	for range 20 {
		_, err = f.AppendCommands(ctx, fence, wish("again and again", time.Now().Add(time.Hour)), write("a"))
		check(t, err)
	}
	_, err = f.AppendCommands(ctx, fence, wish("now", time.Now()))
	check(t, err)
	until(t, reads(t, f, From{Sequence: fence}), ticked("now"))
	for _, r := range take(t, reads(t, f, From{Sequence: fence}), 1+40+2) {
		if strings.HasPrefix(r.Subject, "shiplog.local.wake") {
			t.Errorf("a note was handed out at %d", r.Sequence)
		}
	}
}

func compactionKeepsTheLiving(t *testing.T, f *fixture) {
	ctx := within(t)
	var original []Record
	fill := func(n int) {
		for i := range n {
			_, err := f.Append(ctx, fact("a", len(original)+i), fact("b", len(original)+i))
			check(t, err)
		}
		original = take(t, reads(t, f, From{}), len(original)+2*n)
	}
	compact := func(at uint64, live func(uint64) bool) {
		before := uint64(0)
		check(t, f.Compact(ctx, at, func(s uint64) bool {
			if s <= before || s > at {
				t.Errorf("asked for %d after %d, compacting at %d", s, before, at)
			}
			before = s
			return live(s)
		}))
		state, err := f.State(ctx)
		check(t, err)
		if state.Compacted != at || state.Missing != 0 {
			t.Errorf("state %+v, compacted at %d", state, at)
		}
	}
	want := func(sequences ...uint64) {
		t.Helper()
		state, err := f.State(ctx)
		check(t, err)
		reader := reads(t, f, From{Compacted: true})
		if reader.Compacted() != state.Compacted {
			t.Errorf("the reader begins with a view at %d, the newest is at %d", reader.Compacted(), state.Compacted)
		}
		for i, r := range take(t, reader, len(sequences)) {
			o := original[sequences[i]-1]
			if r.Sequence != o.Sequence || !r.Time.Equal(o.Time) || r.Subject != o.Subject || r.Size != o.Size || !proto.Equal(r.Entry, o.Entry) {
				t.Fatalf("record %d of the compacted view is %+v, want %+v", i, r, o)
			}
		}
	}
	fill(5)
	compact(8, func(s uint64) bool { return s == 2 || s == 5 })
	want(2, 5, 8, 9, 10)
	fill(5)
	compact(16, func(s uint64) bool { return s == 5 || s == 9 || s == 12 })
	want(5, 9, 12, 16, 17, 18, 19, 20)
	compact(16, func(s uint64) bool { return s == 9 }) // the same position again
	want(9, 16, 17, 18, 19, 20)
	f.reopen(t)
	compact(20, func(uint64) bool { return false })
	want(20)
	r := reads(t, f, From{Compacted: true})
	take(t, r, 1)
	_, err := f.Append(ctx, fact("c", 1))
	check(t, err)
	if got := take(t, r, 1); got[0].Sequence != 21 {
		t.Errorf("after the view comes %d", got[0].Sequence)
	}
}

func compactionRefusesThePast(t *testing.T, f *fixture) {
	ctx := within(t)
	_, err := f.Append(ctx, fact("a", 1), fact("a", 2), fact("a", 3))
	check(t, err)
	all := func(uint64) bool { return true }
	check(t, f.Compact(ctx, 2, all))
	for _, at := range []uint64{0, 1, 4} {
		if err := f.Compact(ctx, at, all); err == nil {
			t.Errorf("compacted at %d", at)
		}
	}
	take(t, reads(t, f, From{Compacted: true}), 3)
}

func compactionOfNothing(t *testing.T, f *fixture) {
	if err := f.Compact(within(t), 1, func(uint64) bool { return true }); err == nil {
		t.Error("an empty log was compacted")
	}
	r := reads(t, f, From{Compacted: true})
	_, err := f.Append(within(t), fact("a", 1))
	check(t, err)
	take(t, r, 1)
}

func works(t *testing.T, j Journal, name string) Work {
	t.Helper()
	w, err := j.Commands(within(t), name)
	check(t, err)
	t.Cleanup(w.Close)
	return w
}

func next(t *testing.T, w Work) *Task {
	t.Helper()
	task, err := w.Next(within(t))
	check(t, err)
	return task
}

func wantIdle(t *testing.T, w Work) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if task, err := w.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("there should be nothing to do: %v, %v", task, err)
	}
}

func backlogIsWhatWaits(t *testing.T, f *fixture) {
	ctx := within(t)
	fence, err := f.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	one := works(t, f, "executor")
	_, err = f.AppendCommands(ctx, fence, write("a"), wish("x", time.Now().Add(time.Hour)), write("b"), write("c"))
	check(t, err)
	waits := func(want uint64) {
		t.Helper()
		for {
			backlog, err := f.Backlog(ctx)
			check(t, err)
			if len(backlog) == 1 && backlog["executor"] == want {
				return
			}
			if time.Sleep(10 * time.Millisecond); ctx.Err() != nil {
				t.Fatalf("the backlog is %v, %d are to wait", backlog, want)
			}
		}
	}
	waits(3)
	task := next(t, one)
	waits(3)
	check(t, task.Done(ctx))
	waits(2)
}

func workComesBackUntilDone(t *testing.T, f *fixture) {
	ctx := within(t)
	fence, err := f.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	one := works(t, f, "executor")
	_, err = f.AppendCommands(ctx, fence, write("a"), wish("x", time.Now().Add(time.Hour)), write("b"), write("c"))
	check(t, err)
	a, b := next(t, one), next(t, one)
	if a.Again || b.Again || a.Entry.GetCommand().GetObject().GetName() != "a" || b.Entry.GetCommand().GetObject().GetName() != "b" {
		t.Errorf("tasks %+v, %+v", a, b)
	}
	check(t, a.Done(ctx))
	check(t, a.Done(ctx)) // twice is harmless
	one.Close()
	if _, err := one.Next(ctx); err == nil {
		t.Error("a closed taker takes")
	}
	died := time.Now()
	two := works(t, f.second(t), "executor")
	again := map[string]bool{}
	for range 2 {
		task := next(t, two)
		again[task.Entry.GetCommand().GetObject().GetName()] = task.Again
		check(t, task.Done(ctx))
	}
	if took := time.Since(died); took > 8*time.Second {
		t.Errorf("work came back after %s", took)
	}
	if mark, came := again["b"]; !came || !mark {
		t.Errorf("what was under way came back as %v", again)
	}
	if _, came := again["c"]; !came {
		t.Errorf("what was not under way is lost: %v", again)
	}
	wantIdle(t, two)
	other := works(t, f, "another name")
	if task := next(t, other); task.Sequence != a.Sequence {
		t.Errorf("another name begins at %d", task.Sequence)
	}
}

func workSurvivesReopening(t *testing.T, f *fixture) {
	ctx := within(t)
	fence, err := f.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	w := works(t, f, "executor")
	_, err = f.AppendCommands(ctx, fence, write("a"), write("b"))
	check(t, err)
	check(t, next(t, w).Done(ctx))
	held := next(t, w)
	f.reopen(t)
	began := time.Now()
	task := next(t, works(t, f, "executor"))
	if task.Sequence != held.Sequence || !task.Again {
		t.Errorf("%d comes back as %d, again %v", held.Sequence, task.Sequence, task.Again)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("work came back after %s", took)
	}
}

// workIsShared: every command goes to one of two takers, to each in the order of the log; one that is held long stays held.
func workIsShared(t *testing.T, f *fixture) {
	ctx := within(t)
	fence, err := f.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	const n = 300
	takers := []Work{works(t, f, "executor"), works(t, f.second(t), "executor")}
	_, err = f.AppendCommands(ctx, fence, write("held"))
	check(t, err)
	var slow *Task
	for slow == nil {
		for _, w := range takers {
			short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			task, err := w.Next(short)
			cancel()
			if err == nil {
				slow = task
				break
			}
		}
	}
	heldSince := time.Now()
	for range n / 100 {
		var commands []*shiplogv1.Entry
		for i := range 100 {
			commands = append(commands, write(fmt.Sprint(i)))
		}
		_, err := f.AppendCommands(ctx, fence, commands...)
		check(t, err)
	}
	var mu sync.Mutex
	takenBy := map[uint64]int{}
	var wg sync.WaitGroup
	all, finish := context.WithCancel(ctx)
	defer finish()
	for i, w := range takers {
		wg.Go(func() {
			var last uint64
			for {
				task, err := w.Next(all)
				if err != nil {
					return
				}
				if task.Again || task.Sequence <= last {
					t.Errorf("%d, again %v, came after %d", task.Sequence, task.Again, last)
				}
				last = task.Sequence
				mu.Lock()
				if before, again := takenBy[task.Sequence]; again {
					t.Errorf("%d was given to %d and %d", task.Sequence, before, i)
				}
				takenBy[task.Sequence] = i
				done := len(takenBy) == n
				mu.Unlock()
				if err := task.Done(ctx); err != nil {
					t.Error(err)
				}
				if done {
					finish()
				}
			}
		})
	}
	wg.Wait()
	if len(takenBy) != n {
		t.Fatalf("%d of %d commands were handed out", len(takenBy), n)
	}
	// The held one outlives the time after which the log would think its holder dead.
	short, cancel := context.WithDeadline(ctx, heldSince.Add(ackWait+ackWait/2))
	defer cancel()
	var idle sync.WaitGroup
	for _, w := range takers {
		idle.Go(func() {
			if task, err := w.Next(short); err == nil {
				t.Errorf("%d was handed out while it was held", task.Sequence)
			}
		})
	}
	idle.Wait()
	check(t, slow.Done(ctx))
}

func oldWorkIsMarked(t *testing.T, f *fixture) {
	ctx := within(t)
	fence, err := f.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	_, err = f.AppendCommands(ctx, fence, write("a"))
	check(t, err)
	time.Sleep(time.Millisecond) // the clocks of the command and of the taker must differ
	w := works(t, f, "executor")
	if task := next(t, w); !task.Again {
		t.Error("a command older than its first taker is not marked")
	}
	_, err = f.AppendCommands(ctx, fence, write("b"))
	check(t, err)
	if task := next(t, w); task.Again {
		t.Error("a new command is marked")
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
	_, err := f.Append(ctx, fact("a", 1), factOf("a", 2, embeddedPayload+1))
	wantError(t, err, ErrTooLarge)
	fence, err := f.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	if fence != 1 {
		t.Errorf("something was appended before %d", fence)
	}
	big := write("a")
	big.GetCommand().Effect = &shiplogv1.Command_Create{Create: &shiplogv1.CreateObject{Json: make([]byte, embeddedPayload+1)}}
	_, err = f.AppendCommands(ctx, fence, write("b"), big)
	wantError(t, err, ErrTooLarge)
	_, err = f.Append(ctx, fact(strings.Repeat("x", 3000), 1))
	wantError(t, err, ErrTooLarge)
	_, err = f.Append(ctx, factOf("large", 1, 3<<20))
	check(t, err)
	take(t, reads(t, f, From{}), 2)
}

func undecodable(t *testing.T, f *fixture) {
	ctx := within(t)
	_, err := f.Append(ctx, fact("a", 1))
	check(t, err)
	skippable, err := proto.Marshal(&shiplogv1.Entry{Writer: "from the future", Skippable: true})
	check(t, err)
	f.inject(t, "shiplog.local.fact.core.pods.default.a", skippable)
	unknown, err := proto.Marshal(&shiplogv1.Entry{Writer: "from the future", WriterVersion: "v99"})
	check(t, err)
	at := f.inject(t, "shiplog.local.fact.core.pods.default.a", unknown)
	r := reads(t, f, From{})
	records := take(t, r, 2)
	if e := records[1].Entry; e.Kind != nil || e.Writer != "from the future" {
		t.Errorf("a skippable entry reads %v", e)
	}
	for range 2 {
		_, err = r.Next(ctx)
		wantError(t, err, ErrUndecodable)
		for _, part := range []string{fmt.Sprintf("sequence %d", at), "from the future", "v99"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not say %q", err, part)
			}
		}
	}
	at = f.inject(t, "shiplog.local.cmd.0.core.pods.default.a", []byte("no protobuf"))
	_, err = works(t, f, "executor").Next(ctx)
	wantError(t, err, ErrUndecodable)
	if !strings.Contains(err.Error(), fmt.Sprintf("sequence %d", at)) {
		t.Errorf("%q does not name %d", err, at)
	}
}

// overflow appends until entries have left the front of the log up to at least position upTo.
func overflow(t *testing.T, f *fixture, upTo uint64) {
	t.Helper()
	ctx := within(t)
	for i := 0; ; i++ {
		_, err := f.Append(ctx, factOf("overflow", i, 8<<10))
		check(t, err)
		state, err := f.State(ctx)
		check(t, err)
		if state.FirstSequence > upTo {
			return
		}
	}
}

func gap(t *testing.T, f *fixture) {
	ctx := within(t)
	_, err := f.Append(ctx, fact("a", 1), fact("a", 2), fact("a", 3))
	check(t, err)
	overflow(t, f, 2)
	r := reads(t, f, From{Sequence: 2})
	_, err = r.Next(ctx)
	wantError(t, err, ErrGap)
	records, err := reads(t, f, From{}).Next(ctx)
	check(t, err)
	if records[0].Sequence < 3 {
		t.Errorf("what is left begins at %d", records[0].Sequence)
	}
	state, err := f.State(ctx)
	check(t, err)
	if state.MaxBytes != 128<<10 {
		t.Errorf("state %+v", state)
	}
}

// missingAfterCompaction: retention went past the compacted view; a start is still possible, and known to be incomplete.
func missingAfterCompaction(t *testing.T, f *fixture) {
	ctx := within(t)
	_, err := f.Append(ctx, fact("a", 1), fact("a", 2), fact("a", 3))
	check(t, err)
	check(t, f.Compact(ctx, 2, func(uint64) bool { return true }))
	overflow(t, f, 5)
	state, err := f.State(ctx)
	check(t, err)
	if state.Missing != state.FirstSequence-3 {
		t.Errorf("state %+v", state)
	}
	r := reads(t, f, From{Compacted: true})
	records := take(t, r, int(2+state.LastSequence-state.FirstSequence+1))
	if records[1].Sequence != 2 || records[2].Sequence != state.FirstSequence {
		t.Errorf("sequences %v, the log begins at %d", sequences(records), state.FirstSequence)
	}
	check(t, f.Compact(ctx, state.LastSequence, func(uint64) bool { return true }))
	if state, err = f.State(ctx); err != nil || state.Missing != 0 {
		t.Errorf("state %+v, %v", state, err)
	}
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

func eventsAreCloudEvents(t *testing.T, f *fixture) {
	ctx := within(t)
	fence, err := f.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	want := rolloutEvent("web.1", 1<<40, 2)
	_, err = f.AppendEvents(ctx, fence, want)
	check(t, err)
	r := take(t, reads(t, f, From{Sequence: fence}), 2)[1]
	if !proto.Equal(r.Entry, want) || r.Subject != "shiplog.local.event.CloneSet.default.web%2E1.pod-updated" {
		t.Errorf("at %s reads %v, want %v", r.Subject, r.Entry, want)
	}
	at := f.inject(t, r.Subject, []byte(`{"specversion":"0.3"}`))
	reader := reads(t, f, From{Sequence: at})
	_, err = reader.Next(ctx)
	wantError(t, err, ErrUndecodable)
	if _, err := f.Append(ctx, rolloutEvent("web", 3, 0)); err == nil {
		t.Error("a rollout event was taken without a fence")
	}
	if _, err := f.AppendCommands(ctx, fence, rolloutEvent("web", 3, 0)); err == nil {
		t.Error("a rollout event was taken for a command")
	}
	if _, err := f.AppendEvents(ctx, fence, write("a")); err == nil {
		t.Error("a command was taken for a rollout event")
	}
}

func eventsAreFencedAndKeptOnce(t *testing.T, f *fixture) {
	ctx := within(t)
	mine, err := f.RaiseFence(ctx, "planner/one", "v1", nil)
	check(t, err)
	first, err := f.AppendEvents(ctx, mine, rolloutEvent("a", 1, 0), rolloutEvent("a", 1, 1), rolloutEvent("a", 2, 0))
	check(t, err)
	if first != mine+3 {
		t.Errorf("the last of three events is at %d after fence %d", first, mine)
	}
	again, err := f.AppendEvents(ctx, mine, rolloutEvent("a", 1, 1), rolloutEvent("a", 2, 0))
	check(t, err)
	if again != first {
		t.Errorf("the same events are at %d and %d", first, again)
	}
	more, err := f.AppendEvents(ctx, mine, rolloutEvent("a", 2, 0), rolloutEvent("a", 2, 1))
	check(t, err)
	if more != first+1 {
		t.Errorf("the event behind one that the log has is at %d, want %d", more, first+1)
	}
	theirs, err := f.second(t).RaiseFence(ctx, "planner/two", "v1", nil)
	check(t, err)
	_, err = f.AppendEvents(ctx, mine, rolloutEvent("a", 3, 0))
	wantError(t, err, ErrFenced)
	_, err = f.AppendEvents(ctx, mine, rolloutEvent("a", 3, 0), rolloutEvent("a", 3, 1))
	wantError(t, err, ErrFenced)
	last, err := f.second(t).AppendEvents(ctx, theirs, rolloutEvent("a", 3, 0))
	check(t, err)
	if last != theirs+1 {
		t.Errorf("a deposed planner left something: event at %d after fence %d", last, theirs)
	}
}

func eventsAreWork(t *testing.T, f *fixture) {
	ctx := within(t)
	fence, err := f.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	_, err = f.AppendEvents(ctx, fence, rolloutEvent("a", 1, 0))
	check(t, err)
	_, err = f.AppendCommands(ctx, fence, write("a"))
	check(t, err)
	_, err = f.AppendEvents(ctx, fence, rolloutEvent("a", 2, 0), rolloutEvent("a", 3, 0))
	check(t, err)
	w, err := f.Events(ctx, "teller")
	check(t, err)
	t.Cleanup(w.Close)
	for want := uint64(1); want <= 2; want++ {
		task := next(t, w)
		if task.Entry.GetRolloutEvent() == nil || task.Entry.GetCause() != want {
			t.Fatalf("handed out %v, want the event of %d", task.Entry, want)
		}
		check(t, task.Done(ctx))
	}
	f.reopen(t)
	w, err = f.Events(ctx, "teller")
	check(t, err)
	t.Cleanup(w.Close)
	if task := next(t, w); task.Entry.GetCause() != 3 {
		t.Errorf("after a restart comes the event of %d, want that of 3", task.Entry.GetCause())
	}
	if task := next(t, works(t, f, "executor")); task.Entry.GetCommand() == nil {
		t.Errorf("a taker of commands got %v", task.Entry)
	}
}
