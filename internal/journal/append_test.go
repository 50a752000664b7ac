package journal

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

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
