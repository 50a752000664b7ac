package executor

import (
	"context"
	"sync"
)

// turns gives each object's commands their turns in the order in which take was called. Objects do not wait for each other, but a
// command waits for those before it that make what it needs.
type turns struct {
	mu   sync.Mutex
	last map[string]*turn
}

type turn struct {
	turns    *turns
	key      string
	previous []<-chan struct{} // all closed when it is our turn
	end      chan struct{}
}

func newTurns() *turns { return &turns{last: map[string]*turn{}} }

// take queues up for one object, behind what is queued up for others that are needed. The caller must call done, whether or not
// it awaited its turn.
func (t *turns) take(key string, needed ...string) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := &turn{turns: t, key: key, end: make(chan struct{})}
	for _, object := range append(needed, key) {
		if last := t.last[object]; last != nil {
			next.previous = append(next.previous, last.end)
		}
	}
	t.last[key] = next
	return next
}

// await returns false if ctx ended first.
func (t *turn) await(ctx context.Context) bool {
	for _, previous := range t.previous {
		select {
		case <-previous:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

func (t *turn) done() {
	t.turns.mu.Lock()
	defer t.turns.mu.Unlock()
	close(t.end)
	if t.turns.last[t.key] == t {
		delete(t.turns.last, t.key)
	}
}
