package executor

import (
	"context"
	"sync"
)

// turns gives each object's commands their turns in the order in which take was called; objects do not wait for each other.
type turns struct {
	mu   sync.Mutex
	last map[string]*turn
}

type turn struct {
	turns    *turns
	key      string
	previous <-chan struct{} // closed when it is our turn; nil: at once
	end      chan struct{}
}

func newTurns() *turns { return &turns{last: map[string]*turn{}} }

// take queues up. The caller must call done, whether or not it awaited its turn.
func (t *turns) take(key string) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := &turn{turns: t, key: key, end: make(chan struct{})}
	if last := t.last[key]; last != nil {
		next.previous = last.end
	}
	t.last[key] = next
	return next
}

// await returns false if ctx ended first.
func (t *turn) await(ctx context.Context) bool {
	if t.previous == nil {
		return true
	}
	select {
	case <-t.previous:
		return true
	case <-ctx.Done():
		return false
	}
}

func (t *turn) done() {
	t.turns.mu.Lock()
	defer t.turns.mu.Unlock()
	close(t.end)
	if t.turns.last[t.key] == t {
		delete(t.turns.last, t.key)
	}
}
