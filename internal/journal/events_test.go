package journal

import (
	"testing"

	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

func eventsAreCloudEvents(t *testing.T, f *fixture) {
	ctx := within(t)
	fence, err := f.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	want := rolloutEvent("web.1", 1<<40, 2)
	check(t, f.AppendEvents(ctx, fence, want))
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
	if err := f.AppendEvents(ctx, fence, write("a")); err == nil {
		t.Error("a command was taken for a rollout event")
	}
}

func eventsAreFencedAndKeptOnce(t *testing.T, f *fixture) {
	ctx := within(t)
	mine, err := f.RaiseFence(ctx, "planner/one", "v1", nil)
	check(t, err)
	a, b, c, d := rolloutEvent("a", 1, 0), rolloutEvent("a", 1, 1), rolloutEvent("a", 2, 0), rolloutEvent("a", 2, 1)
	for _, part := range [][]*shiplogv1.Entry{{a, b, c}, {b, c}, {c, d}, {c}} {
		check(t, f.AppendEvents(ctx, mine, part...))
	}
	theirs, err := f.second(t).RaiseFence(ctx, "planner/two", "v1", nil)
	check(t, err)
	wantError(t, f.AppendEvents(ctx, mine, rolloutEvent("a", 3, 0)), ErrFenced)
	wantError(t, f.AppendEvents(ctx, mine, rolloutEvent("a", 3, 0), rolloutEvent("a", 3, 1)), ErrFenced)
	e := rolloutEvent("a", 3, 1)
	check(t, f.second(t).AppendEvents(ctx, theirs, e))
	want := []*shiplogv1.Entry{a, b, c, d, nil, e}
	for i, r := range take(t, reads(t, f, From{Sequence: mine}), 1+len(want))[1:] {
		if want[i] != nil && !proto.Equal(r.Entry, want[i]) {
			t.Errorf("%d behind the fence reads %v, want %v", i+1, r.Entry, want[i])
		}
	}
}

func eventsAreWork(t *testing.T, f *fixture) {
	ctx := within(t)
	fence, err := f.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	check(t, f.AppendEvents(ctx, fence, rolloutEvent("a", 1, 0)))
	_, err = f.AppendCommands(ctx, fence, write("a"))
	check(t, err)
	check(t, f.AppendEvents(ctx, fence, rolloutEvent("a", 2, 0), rolloutEvent("a", 3, 0)))
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
