package sim

import (
	"context"
	"slices"
	"time"

	"github.com/rs/zerolog"
	"k8s.io/client-go/rest"

	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/executor"
)

// moment is a place in the course of a command at which its executor may crash.
type moment int

const (
	nowhere moment = iota
	beforeCall
	afterCall // after the effect, before the answer
	beforeOutcome
	afterOutcome // before the log is told that the command is done
	moments
)

func (m moment) String() string {
	return [...]string{"nowhere", "before its call", "between effect and answer", "before the outcome", "before it is done"}[m]
}

// worker is one executor. Each of its commands is a process; commands for one object follow one another.
type worker struct {
	s      *simulation
	name   string
	taker  journal.Work // nil while the worker is down
	awake  bool
	queues map[world.Ref][]*journal.Task // first one is under way
	under  []*process
	// crashAt is where the next command to come there takes the worker down.
	crashAt moment
}

func newWorker(s *simulation, name string) *worker {
	w := &worker{s: s, name: name}
	w.start()
	return w
}

// start begins to take commands. It does nothing to one that runs.
func (w *worker) start() {
	if w.taker != nil {
		return
	}
	taker, err := w.s.log.Commands(context.Background(), "executor")
	if err != nil {
		w.s.after(time.Second, w.start)
		return
	}
	w.s.tell(w.name, "starts")
	w.taker, w.queues, w.under = taker, map[world.Ref][]*journal.Task{}, nil
	w.wake()
}

// crash ends everything of the worker where it is.
func (w *worker) crash() {
	if w.taker == nil {
		return
	}
	w.s.tell(w.name, "crashes with %d commands under way", len(w.under))
	under := w.under
	w.under, w.queues, w.crashAt = nil, nil, nowhere
	for _, p := range under {
		p.kill()
	}
	w.leave()
}

// cutOff takes the log away from the worker while its commands go on: the log hands them to another, and both work.
func (w *worker) cutOff() {
	if w.taker == nil {
		return
	}
	w.s.tell(w.name, "is cut off from the log with %d commands under way", len(w.under))
	w.under, w.queues = nil, nil
	w.leave()
}

func (w *worker) leave() {
	w.taker.Close()
	w.taker = nil
	for _, other := range w.s.executors {
		other.wake()
	}
}

// at is called by a process that comes to a moment.
func (w *worker) at(p *process, m moment) {
	if w.crashAt != m || !slices.Contains(w.under, p) {
		return
	}
	w.crashAt = nowhere
	w.s.tell(w.name, "will crash %s", m)
	w.s.after(0, func() {
		w.crash()
		w.s.after(w.s.between(100*time.Millisecond, 5*time.Second), w.start)
	})
	_ = p.pause(time.Hour) // it does not live that long
}

// wake plans to take what there is to do.
func (w *worker) wake() {
	if w.awake || w.taker == nil {
		return
	}
	w.awake = true
	w.s.after(w.s.between(0, 10*time.Millisecond), func() {
		w.awake = false
		for w.taker != nil {
			task, err := w.taker.Next(atHand())
			if err != nil {
				return
			}
			ref := world.RefOf(task.Entry.GetCommand().GetObject())
			w.queues[ref] = append(w.queues[ref], task)
			if len(w.queues[ref]) == 1 {
				w.carry(ref, task)
			}
			if w.s.chance(0.3) {
				w.wake()
				return
			}
		}
	})
}

// carry lets the real executor carry out a command, with a limiter of its own that never makes it wait.
func (w *worker) carry(ref world.Ref, task *journal.Task) {
	done := task.Done
	queues := w.queues
	var under *process
	under = w.s.spawn(func(p *process) {
		task.Done = func(ctx context.Context) error {
			if err := p.pause(w.s.between(0, 10*time.Millisecond)); err != nil {
				return err
			}
			return done(context.Background())
		}
		err := executor.Carry(p.context(), executor.Options{
			Config:  &rest.Config{Host: "http://simulated", Transport: &transport{w.s, w, task}},
			Journal: executorLog{w.s.log, w.s, w}, Logger: zerolog.Nop(), Writer: w.name, Clock: w.s,
		}, task)
		if err != nil {
			panic(err) // a configuration without files and certificates
		}
	}, func() {
		at := slices.Index(w.under, under)
		if at < 0 {
			return // the worker was cut off
		}
		w.under = slices.Delete(w.under, at, at+1)
		queues[ref] = queues[ref][1:]
		if len(queues[ref]) > 0 {
			w.carry(ref, queues[ref][0])
		} else {
			delete(queues, ref)
		}
	})
	w.under = append(w.under, under)
}
