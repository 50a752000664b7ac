package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// memoryQueue is what the takers of one name share.
type memoryQueue struct {
	// of says which subjects are handed out.
	of    func(Address) bool
	since time.Time
	// next is the first position that was never handed out.
	next  uint64
	held  map[uint64]*memoryTaker
	tries map[uint64]int // of those not done
	open  []uint64       // handed out and not done, in order
	// later is when those that were let go of are handed out again.
	later map[uint64]time.Time
}

// memoryTaker is one taker.
type memoryTaker struct {
	m         *Memory
	q         *memoryQueue
	closed    chan struct{}
	closeOnce func()
}

func (m *Memory) Commands(ctx context.Context, name string) (Work, error) {
	return m.work(ctx, name, func(a Address) bool { return a.Space == spaceCommand })
}

func (m *Memory) Events(ctx context.Context, name string) (Work, error) {
	return m.work(ctx, name, func(a Address) bool { return a.Space == spaceEvent })
}

func (m *Memory) Backlog(ctx context.Context) (map[string]uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.reachable(ctx); err != nil {
		return nil, fmt.Errorf("ask who takes entries: %w", err)
	}
	out := map[string]uint64{}
	for name, q := range m.queues {
		out[name] = uint64(len(q.open))
		for _, x := range m.from(q.next) {
			if at, err := ParseSubject(x.subject); err == nil && q.of(at) {
				out[name]++
			}
		}
	}
	return out, nil
}

func (m *Memory) work(ctx context.Context, name string, of func(Address) bool) (Work, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.reachable(ctx); err != nil {
		return nil, fmt.Errorf("take entries as %s: %w", name, err)
	}
	q := m.queues[name]
	if q == nil {
		q = &memoryQueue{of: of, since: m.now(), next: 1, held: map[uint64]*memoryTaker{}, tries: map[uint64]int{}, later: map[uint64]time.Time{}}
		m.queues[name] = q
	}
	t := &memoryTaker{m: m, q: q, closed: make(chan struct{})}
	t.closeOnce = sync.OnceFunc(func() {
		close(t.closed)
		m.mu.Lock()
		defer m.mu.Unlock()
		for sequence, holder := range q.held {
			if holder == t {
				delete(q.held, sequence)
			}
		}
		m.wake()
	})
	return t, nil
}

func (t *memoryTaker) Close() { t.closeOnce() }

func (t *memoryTaker) Next(ctx context.Context) (*Task, error) {
	m, q := t.m, t.q
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		select {
		case <-t.closed:
			return nil, errors.New("take an entry: the taker is closed")
		default:
		}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case m.down || m.closed:
			return nil, fmt.Errorf("take an entry: %w", ErrUnavailable)
		}
		if x, ok := q.take(m); ok {
			record, err := x.record()
			if err != nil {
				return nil, fmt.Errorf("take an entry: %w", err)
			}
			if record.Entry.Kind == nil {
				q.done(x.sequence)
				continue
			}
			q.held[x.sequence] = t
			q.tries[x.sequence]++
			return &Task{
				Record: *record,
				Again:  q.tries[x.sequence] > 1 || record.Time.Before(q.since),
				Done: func(ctx context.Context) error {
					m.mu.Lock()
					defer m.mu.Unlock()
					if err := m.reachable(ctx); err != nil {
						return fmt.Errorf("say that entry %d is done: %w", x.sequence, err)
					}
					q.done(x.sequence)
					m.wake()
					return nil
				},
				Later: func(wait time.Duration) {
					m.mu.Lock()
					defer m.mu.Unlock()
					q.later[x.sequence] = m.now().Add(wait)
					delete(q.held, x.sequence)
					m.wake()
				},
			}, nil
		}
		if err := m.await(ctx, t.closed); err != nil {
			return nil, err
		}
	}
}

// take returns the oldest command that nobody holds; it is open from then on.
func (q *memoryQueue) take(m *Memory) (raw, bool) {
	if len(q.held) >= maxHeld {
		return raw{}, false
	}
	for _, sequence := range q.open {
		if _, held := q.held[sequence]; !held && sequence >= m.first && !q.later[sequence].After(m.now()) {
			return m.from(sequence)[0], true
		}
	}
	for _, x := range m.from(q.next) {
		q.next = x.sequence + 1
		if at, err := ParseSubject(x.subject); err == nil && q.of(at) {
			q.open = append(q.open, x.sequence)
			return x, true
		}
	}
	return raw{}, false
}

func (q *memoryQueue) done(sequence uint64) {
	delete(q.held, sequence)
	delete(q.tries, sequence)
	delete(q.later, sequence)
	for i, s := range q.open {
		if s == sequence {
			q.open = append(q.open[:i], q.open[i+1:]...)
			return
		}
	}
}
