package journal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

func pull(node, image string) *shiplogv1.Entry {
	return &shiplogv1.Entry{Writer: "planner/test", Cause: 1, Kind: &shiplogv1.Entry_Command{Command: &shiplogv1.Command{
		Object: pod("a"), Node: node, Effect: &shiplogv1.Command_PullImage{PullImage: &shiplogv1.PullImage{Image: image}}}}}
}

func called(node string, command uint64, state shiplogv1.CallObserved_State) *shiplogv1.Entry {
	return &shiplogv1.Entry{Writer: "nodeagent/test", Cause: command, Skippable: true, Kind: &shiplogv1.Entry_CallObserved{
		CallObserved: &shiplogv1.CallObserved{Node: node, State: state}}}
}

func callOutcome(node string, command uint64, reason string) *shiplogv1.Entry {
	return &shiplogv1.Entry{Writer: "nodeagent/test", Cause: command, Kind: &shiplogv1.Entry_Outcome{Outcome: &shiplogv1.Outcome{
		Result: shiplogv1.Outcome_RESULT_REFUSED, Object: pod("a"), Node: node, Reason: &shiplogv1.Reason{Code: reason}}}}
}

func hears(t *testing.T, j Journal, intake Intake) {
	if intake.Heard == nil {
		intake.Heard = func(string) {}
	}
	if intake.Alive == nil {
		intake.Alive = func(ctx context.Context, node string) (uint64, error) { return 7, j.Admit(ctx, node) }
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := j.Hear(ctx, intake); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
}

func joins(t *testing.T, j Journal, node string) Node {
	t.Helper()
	n, err := j.Join(within(t), node)
	check(t, err)
	t.Cleanup(func() { n.Close() })
	alive(t, n) // the first ear may not be there yet
	return n
}

// nodesTakeTheirCommands: each node gets its own, no executor does, and they stand in order among the others.
func nodesTakeTheirCommands(t *testing.T, f *fixture) {
	ctx := within(t)
	hears(t, f.Journal, Intake{})
	one, two := joins(t, f.Journal, "n.1"), joins(t, f.second(t), "n")
	writes, err := f.Commands(ctx, "executor")
	check(t, err)
	defer writes.Close()
	batch := []*shiplogv1.Entry{pull("n.1", "nginx:1"), write("a"), pull("n", "b.c/d@sha256:1"), pull("n.1", "nginx:2")}
	_, err = f.AppendCommands(ctx, 0, batch...)
	check(t, err)
	for _, want := range []struct {
		node      Node
		sequences []uint64
	}{{one, []uint64{1, 4}}, {two, []uint64{3}}} {
		work, err := want.node.Commands(ctx)
		check(t, err)
		defer work.Close()
		for _, sequence := range want.sequences {
			task, err := work.Next(ctx)
			check(t, err)
			if task.Sequence != sequence || !proto.Equal(task.Entry, batch[sequence-1]) {
				t.Errorf("%d: %v, want %d", task.Sequence, task.Entry, sequence)
			}
			check(t, task.Done(ctx))
		}
	}
	task, err := writes.Next(ctx)
	check(t, err)
	if task.Sequence != 2 {
		t.Errorf("an executor was given %v", task.Entry)
	}
	for i, r := range take(t, reads(t, f, From{}), len(batch)) {
		if !proto.Equal(r.Entry, batch[i]) {
			t.Errorf("position %d holds %v", r.Sequence, r.Entry)
		}
	}
	for what, bad := range map[string]*shiplogv1.Entry{"of no node": pull("", "a"), "about nothing": pull("n", ""), "no call": func() *shiplogv1.Entry {
		x := write("a")
		x.GetCommand().Node = "n"
		return x
	}()} {
		if _, err := f.AppendCommands(ctx, 0, bad); err == nil {
			t.Errorf("a command %s was taken", what)
		}
	}
}

// wordsAreHeard: the intake's answer reaches the agent; refusals are told from trouble.
func wordsAreHeard(t *testing.T, f *fixture) {
	ctx := within(t)
	var lives sync.Map
	hears(t, f.second(t), Intake{
		Heard: func(node string) { lives.Store(node, true) },
		Word: func(_ context.Context, node string, word *shiplogv1.Entry) (Said, error) {
			switch {
			case node != "n.1":
				return Said{}, errors.New("another node")
			case word.GetNodeObserved() != nil:
				return Said{Sequence: 3, Begun: "somebody"}, nil
			case word.GetOutcome() != nil:
				return Said{}, fmt.Errorf("%w: it lies", ErrRefused)
			}
			return Said{}, ErrFull
		},
	})
	n := joins(t, f.Journal, "n.1")
	if said, err := n.Say(ctx, nodeFact("n.1", "containerd")); err != nil || said != (Said{3, "somebody"}) {
		t.Errorf("%+v, %v", said, err)
	}
	_, err := n.Say(ctx, callOutcome("n.1", 3, "x"))
	wantError(t, err, ErrRefused)
	if said := fmt.Sprint(err); strings.Count(said, "refused") != 1 || !strings.HasSuffix(said, "it lies") {
		t.Errorf("it says %s", said)
	}
	_, err = n.Say(ctx, called("n.1", 3, shiplogv1.CallObserved_STATE_TAKEN))
	wantError(t, err, ErrUnavailable)
	if newest, err := n.Alive(ctx); err != nil || newest != 7 {
		t.Errorf("%d, %v", newest, err)
	}
	if _, heard := lives.Load("n.1"); !heard {
		t.Error("a sign of life was not heard")
	}
	if state, err := f.State(ctx); err != nil || state.LastSequence != 0 {
		t.Errorf("what an agent says is in the log by itself: %+v, %v", state, err)
	}
}

// callsEndOnce: a call that ended is begun by nobody, and one that was begun is given up by nobody who did not hear of that.
func callsEndOnce(t *testing.T, f *fixture) {
	ctx := within(t)
	const running = shiplogv1.CallObserved_STATE_RUNNING
	_, err := f.AppendCommands(ctx, 0, pull("n", "a"), pull("n", "b"), pull("n", "b"))
	check(t, err)
	began, err := f.AppendWord(ctx, called("n", 1, running))
	check(t, err)
	_, err = f.second(t).AppendSilence(ctx, callOutcome("n", 1, "NoAgent"), 0)
	wantError(t, err, ErrSettled)
	ended, err := f.AppendWord(ctx, callOutcome("n", 1, "PullFailed"))
	check(t, err)
	_, err = f.AppendWord(ctx, called("n", 1, running))
	wantError(t, err, ErrSettled)
	_, err = f.AppendSilence(ctx, callOutcome("n", 1, "AgentSilent"), began)
	wantError(t, err, ErrSettled)
	_, err = f.AppendWord(ctx, callOutcome("n", 1, "Other"))
	wantError(t, err, ErrSettled)
	word, ending, err := f.LastOfCall(ctx, "n", 1)
	check(t, err)
	if word.Sequence != began || ending.Sequence != ended || ending.Entry.GetOutcome().GetReason().GetCode() != "PullFailed" {
		t.Errorf("%v, %v", word, ending)
	}
	given, err := f.AppendSilence(ctx, callOutcome("n", 2, "NoAgent"), 0)
	check(t, err)
	_, err = f.AppendWord(ctx, called("n", 2, running))
	wantError(t, err, ErrSettled)
	if word, outcome, err := f.LastOfCall(ctx, "n", 2); err != nil || word != nil || outcome.Sequence != given {
		t.Errorf("%v, %v, %v", word, outcome, err)
	}
	if word, outcome, err := f.LastOfCall(ctx, "n", 3); err != nil || word != nil || outcome != nil {
		t.Errorf("%v, %v, %v", word, outcome, err)
	}
	for sequence, want := range map[uint64]bool{2: true, given: true, given + 1: false} {
		if r, err := f.At(ctx, sequence); err != nil || (r != nil) != want || want && r.Sequence != sequence {
			t.Errorf("at %d: %v, %v", sequence, r, err)
		}
	}
	for _, bad := range []*shiplogv1.Entry{called("", 1, running), called("n", 0, running), nodeFact("n", "a"), outcome("a", 1, 0)} {
		if _, err := f.AppendWord(ctx, bad); err == nil {
			t.Errorf("a word about a call: %v", bad)
		}
	}
}

// callsComeBackLater: what is let go of comes again after a while, to anybody.
func callsComeBackLater(t *testing.T, f *fixture) {
	ctx := within(t)
	one, err := f.Calls(ctx, "calls")
	check(t, err)
	_, err = f.AppendCommands(ctx, 0, pull("n", "a"), write("a"), pull("m", "b"))
	check(t, err)
	began := time.Now()
	first, err := one.Next(ctx)
	check(t, err)
	first.Later(1500 * time.Millisecond)
	second, err := one.Next(ctx)
	check(t, err)
	if first.Sequence != 1 || first.Again || second.Sequence != 3 {
		t.Errorf("%d, again %v, and %d", first.Sequence, first.Again, second.Sequence)
	}
	check(t, second.Done(ctx))
	one.Close()
	other, err := f.second(t).Calls(ctx, "calls")
	check(t, err)
	defer other.Close()
	again, err := other.Next(ctx)
	check(t, err)
	if after := time.Since(began); again.Sequence != 1 || !again.Again || after < 1400*time.Millisecond {
		t.Errorf("%d, again %v, after %s", again.Sequence, again.Again, after)
	}
	check(t, again.Done(ctx))
}
