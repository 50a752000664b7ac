package journal

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// TestServicesHaveWhatTheyNeed: with the documented configuration each service does its work, and not another's.
func TestServicesHaveWhatTheyNeed(t *testing.T) {
	t.Parallel()
	issuer, err := nkeys.CreateAccount()
	check(t, err)
	public, err := issuer.PublicKey()
	check(t, err)
	seed, err := issuer.Seed()
	check(t, err)
	said := &lines{}
	address := serve(t, public, said).ClientURL()
	ctx := within(t)
	open := func(user string) Journal {
		o := Options{URL: as(address, user), Patience: testPatience, ClusterUID: "uid-1", Retention: time.Hour}
		if user == "executor" {
			o.CalloutSeed = seed
		}
		return mustOpen(t, o)
	}
	planner := open("planner")
	watcher, executor := open("watcher"), open("executor")
	dashboard, err := nats.Connect(as(address, "dashboard"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	check(t, err)
	defer dashboard.Close()
	events := make(chan *nats.Msg, 10)
	_, err = dashboard.ChanSubscribe("shiplog.local.event.>", events)
	check(t, err)
	check(t, dashboard.Flush())

	_, err = watcher.Append(ctx, fact("a", 1))
	check(t, err)
	fence, err := planner.RaiseFence(ctx, "planner/test", "v1", &shiplogv1.FenceRaised{})
	check(t, err)
	command, err := planner.AppendCommands(ctx, fence, write("a"), pull("n1", "nginx:1"), wish("w", time.Now()))
	check(t, err)
	check(t, planner.AppendEvents(ctx, fence, rolloutEvent("a", 1, 0)))
	select {
	case <-events:
	case <-ctx.Done():
		t.Error("the dashboard hears no event")
	}
	leading, stop := context.WithCancel(ctx)
	planner.Lead(leading, "planner/test")
	stop()
	check(t, planner.AwaitVacancy(ctx, 600*time.Millisecond))
	check(t, planner.Compact(ctx, command, func(uint64) bool { return true }))
	for _, j := range []Journal{watcher, planner, executor} {
		r, err := j.Read(ctx, From{Compacted: true})
		check(t, err)
		_, err = r.Next(ctx)
		check(t, err)
		r.Close()
	}

	work, err := executor.Commands(ctx, "executor")
	check(t, err)
	task, err := work.Next(ctx)
	check(t, err)
	_, err = executor.Append(ctx, fact("a", 2))
	check(t, err)
	check(t, task.Done(ctx))
	work.Close()
	_, err = executor.LastOutcome(ctx, pod("a"))
	check(t, err)
	calls, err := executor.Calls(ctx, "calls")
	check(t, err)
	call, err := calls.Next(ctx)
	check(t, err)
	call.Later(time.Minute)
	calls.Close()
	hears(t, executor, Intake{})
	agent, err := executor.Join(ctx, "n1")
	check(t, err)
	defer agent.Close()
	alive(t, agent)
	_, err = executor.AppendWord(ctx, called("n1", call.Sequence, shiplogv1.CallObserved_STATE_RUNNING))
	check(t, err)
	_, _, err = executor.LastOfCall(ctx, "n1", call.Sequence)
	check(t, err)
	if text := said.String(); strings.Contains(text, "Violation") {
		t.Errorf("the server refused:\n%s", text)
	}

	// Another's work.
	for what, try := range map[string]func(context.Context) error{
		"a watcher commands": func(ctx context.Context) error { _, err := watcher.AppendCommands(ctx, fence, write("b")); return err },
		"a watcher leads": func(ctx context.Context) error {
			_, err := watcher.RaiseFence(ctx, "x", "v1", &shiplogv1.FenceRaised{})
			return err
		},
		"an executor commands":   func(ctx context.Context) error { _, err := executor.AppendCommands(ctx, fence, write("b")); return err },
		"a planner states facts": func(ctx context.Context) error { _, err := planner.Append(ctx, fact("b", 1)); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if err := try(ctx); err == nil || errors.Is(err, ErrFenced) {
			t.Errorf("%s: %v", what, err)
		}
		cancel()
	}
	check(t, dashboard.Publish("shiplog.local.event.CloneSet.d.x.t", nil))
	check(t, dashboard.Flush())
	if text := said.String(); strings.Count(text, "Publish Violation") < 5 {
		t.Errorf("the server said:\n%s", text)
	}
}
