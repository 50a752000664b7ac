package journal

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"shiplog.dev/integration/testbed"
)

// overhear returns what is said about who leads, until the end of the test.
func overhear(t *testing.T, j Journal) <-chan *nats.Msg {
	t.Helper()
	said := make(chan *nats.Msg, 1000)
	stream := j.(*logStream)
	_, err := stream.nc.ChanSubscribe(stream.subject(spaceLead), said)
	check(t, err)
	check(t, stream.nc.Flush())
	return said
}

// heardIn counts questions and answers of a while.
func heardIn(said <-chan *nats.Msg, while time.Duration) (questions, answers int) {
	end := time.After(while)
	for {
		select {
		case m := <-said:
			if len(m.Data) == 0 {
				questions++
			} else {
				answers++
			}
		case <-end:
			return questions, answers
		}
	}
}

// TestLeaderWithoutStandbyIsSilent: a leader says once that it leads, and then only when somebody wants to know.
func TestLeaderWithoutStandbyIsSilent(t *testing.T) {
	t.Parallel()
	f := startExternal(t, limits{})
	said := overhear(t, f.second(t))
	f.Lead(within(t), "planner/one")
	if questions, answers := heardIn(said, 4*heartbeat); questions != 0 || answers != 1 {
		t.Errorf("%d questions and %d answers, want none and one", questions, answers)
	}
	standby, leave := context.WithCancel(within(t))
	vacant := make(chan error, 1)
	second := f.second(t)
	go func() { vacant <- second.AwaitVacancy(standby, 3*heartbeat) }()
	if questions, answers := heardIn(said, 5*heartbeat); questions < 2 || answers < 2 {
		t.Errorf("%d questions and %d answers while there is a standby", questions, answers)
	}
	leave()
	wantError(t, <-vacant, context.Canceled)
	heardIn(said, heartbeat/2) // what was under way
	if questions, answers := heardIn(said, 3*heartbeat); questions+answers != 0 {
		t.Errorf("%d questions and %d answers after the standby has left", questions, answers)
	}
}

// TestHeldIsKept: a taker says that it works on what it holds, also on what comes after a time in which it held nothing, and in such a time
// it says nothing.
func TestHeldIsKept(t *testing.T) {
	t.Parallel()
	f := startExternal(t, limits{})
	ctx := within(t)
	fence, err := f.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	holder, other := works(t, f, "executor"), f.second(t)
	keeping := func() bool {
		w := holder.(*work)
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.keeping
	}
	if keeping() {
		t.Error("a taker that never held anything keeps something")
	}
	for _, name := range []string{"a", "b"} {
		_, err = f.AppendCommands(ctx, fence, write(name))
		check(t, err)
		task := next(t, holder)
		if !keeping() {
			t.Error("a command that is held is not kept")
		}
		if name == "b" {
			rival, err := other.Commands(ctx, "executor")
			check(t, err)
			defer rival.Close()
			short, cancel := context.WithTimeout(ctx, ackWait+ackWait/2)
			defer cancel()
			if stolen, err := rival.Next(short); err == nil {
				t.Errorf("%d was handed out while it was held", stolen.Sequence)
			}
		}
		check(t, task.Done(ctx))
		testbed.Eventually(t, 3*keepAlive, func() error {
			if keeping() {
				return errors.New("a taker that holds nothing keeps something")
			}
			return nil
		})
	}
}

// TestAloneSaysWhatItForgets: a server that keeps the log alone gives few signs of life, and a consumer that it lost, or that was lost with it, is
// noticed long before two of them are missed.
func TestAloneSaysWhatItForgets(t *testing.T) {
	t.Parallel()
	const soonEnough = 2 * pullPulse
	s := startTestServer(t, 0)
	j := mustOpen(t, Options{URL: s.url, Patience: testPatience, Log: testLog(t)})
	l := j.(*logStream)
	own := startEmbedded(t, limits{}).Journal.(*logStream)
	ctx := within(t)
	for _, j := range []*logStream{l, own} {
		_, err := j.State(ctx)
		check(t, err)
		if j.pulse() != alonePulse {
			t.Errorf("a server at %q gives a sign of life every %s", j.options.URL, j.pulse())
		}
	}
	r := reads(t, j, From{})
	fence, err := j.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	take(t, r, 1)
	w := works(t, j, "executor")

	var forgotten []string
	for info := range l.stream.ListConsumers(ctx).Info() {
		forgotten = append(forgotten, info.Name)
	}
	if len(forgotten) != 2 {
		t.Fatalf("consumers %v, want the reader's and the taker's", forgotten)
	}
	for _, name := range forgotten {
		testbed.Eventually(t, time.Minute, func() error {
			consumer, err := l.stream.Consumer(ctx, name)
			if err == nil && consumer.CachedInfo().NumWaiting == 0 {
				err = errors.New("nobody asks " + name)
			}
			return err
		})
		check(t, l.stream.DeleteConsumer(ctx, name))
	}
	began := time.Now()
	wantError(t, func() error { _, err := w.Next(ctx); return err }(), ErrUnavailable)
	_, err = j.Append(ctx, fact("a", 1))
	check(t, err)
	take(t, r, 1)
	if took := time.Since(began); took > soonEnough {
		t.Errorf("lost consumers were noticed after %s", took)
	}

	s.Stop()
	s.start(t)
	began = time.Now()
	testbed.Eventually(t, soonEnough, func() error {
		if l.nc.Stats().Reconnects == 0 {
			return errors.New("not connected again")
		}
		return nil
	})
	_, err = j.AppendCommands(ctx, fence, write("a"))
	check(t, err)
	take(t, r, 1)
	next(t, w)
	if took := time.Since(began); took > soonEnough {
		t.Errorf("reader and taker were back %s after the server", took)
	}
}

// TestTakerOfNothing: who asks a consumer that went before it was asked is told so, and takes again from a new one.
func TestTakerOfNothing(t *testing.T) {
	t.Parallel()
	l := startEmbedded(t, limits{}).Journal.(*logStream)
	ctx := within(t)
	goes := true
	w, err := l.take(ctx, "take what nobody hands out", keepAlive, func(ctx context.Context) (jetstream.Consumer, error) {
		consumer, err := l.stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Name: "gone", AckPolicy: jetstream.AckExplicitPolicy})
		if err == nil && goes {
			err = l.stream.DeleteConsumer(ctx, "gone")
		}
		goes = false
		return consumer, err
	}, l.ends, func() time.Duration { return pullPulse / 2 })
	check(t, err)
	defer w.Close()
	_, err = w.Next(ctx)
	wantError(t, err, ErrUnavailable)
	sequence, err := l.AppendCommands(ctx, 0, write("a"))
	check(t, err)
	if task := next(t, w); task.Sequence != sequence {
		t.Errorf("%d is handed out, want %d", task.Sequence, sequence)
	}
}
