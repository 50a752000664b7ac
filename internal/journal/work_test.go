package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/integration/testbed"
)

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
		testbed.Eventually(t, time.Minute, func() error {
			backlog, err := f.Backlog(ctx)
			check(t, err)
			if len(backlog) != 1 || backlog["executor"] != want {
				return fmt.Errorf("the backlog is %v, %d are to wait", backlog, want)
			}
			return nil
		})
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
