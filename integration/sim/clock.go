package sim

import (
	"container/heap"
	"context"
	"errors"
	"iter"
	"time"
)

// events is what will happen, by time, then in the order in which it was planned.
type events struct {
	heap  eventHeap
	order uint64
}

type event struct {
	at    time.Time
	order uint64
	do    func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at.Before(h[j].at) || h[i].at.Equal(h[j].at) && h[i].order < h[j].order
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	last := len(*h) - 1
	out := (*h)[last]
	*h = (*h)[:last]
	return out
}

func (e *events) next() (time.Time, bool) {
	if len(e.heap) == 0 {
		return time.Time{}, false
	}
	return e.heap[0].at, true
}

func (e *events) pop() func() { return heap.Pop(&e.heap).(event).do }

func (s *simulation) after(d time.Duration, do func()) {
	s.events.order++
	heap.Push(&s.events.heap, event{s.now.Add(max(d, 0)), s.events.order, do})
}

// between draws a time, short ones more often.
func (s *simulation) between(least, most time.Duration) time.Duration {
	share := s.rand.Float64()
	return least + time.Duration(share*share*float64(most-least))
}

func (s *simulation) chance(p float64) bool { return s.rand.Float64() < p }

// errCrashed is what a process meets that has been killed.
var errCrashed = errors.New("the process has crashed")

// process is code that waits, as a coroutine: it runs only while the simulation lets it, and can be killed where it waits.
type process struct {
	s     *simulation
	next  func() (time.Duration, bool)
	stop  func()
	yield func(time.Duration) bool
	ended func()
	dead  bool
}

// spawn starts body at once; ended is called when it is over, unless it was killed.
func (s *simulation) spawn(body func(*process), ended func()) *process {
	p := &process{s: s, ended: ended}
	p.next, p.stop = iter.Pull(func(yield func(time.Duration) bool) {
		p.yield = yield
		body(p)
	})
	s.after(0, p.resume)
	return p
}

func (p *process) resume() {
	if p.dead {
		return
	}
	pause, more := p.next()
	if !more {
		p.dead = true
		p.ended()
		return
	}
	p.s.after(pause, p.resume)
}

// pause is called by the body; the error says that it was killed meanwhile.
func (p *process) pause(d time.Duration) error {
	if p.dead || !p.yield(d) {
		return errCrashed
	}
	return nil
}

// kill ends the process where it waits; whatever it does on its way out meets errCrashed.
func (p *process) kill() {
	p.dead = true
	p.stop()
}

// processContext is the context of a process: it ends when the process is killed.
type processContext struct {
	context.Context
	p *process
}

type processKey struct{}

func (p *process) context() context.Context { return processContext{context.Background(), p} }

func (c processContext) Err() error {
	if c.p.dead {
		return context.Canceled
	}
	return nil
}

func (c processContext) Value(key any) any {
	if key == (processKey{}) {
		return c.p
	}
	return nil
}

func processOf(ctx context.Context) *process { return ctx.Value(processKey{}).(*process) }

// Now and Pause make the simulation the executor's clock.
func (s *simulation) Now() time.Time { return s.now }

func (s *simulation) Pause(ctx context.Context, shortest, longest time.Duration) error {
	return processOf(ctx).pause(shortest + time.Duration(s.rand.Int64N(int64(longest-shortest)+1)))
}

// poll is a context for one look at what is at hand: it ends when its holder would have to wait.
type poll struct {
	context.Context
	asked bool
}

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (p *poll) Done() <-chan struct{} { return closed }

func (p *poll) Err() error {
	if !p.asked {
		p.asked = true
		return nil
	}
	return context.Canceled
}

func atHand() context.Context { return &poll{Context: context.Background()} }
