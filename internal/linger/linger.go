// Package linger lets what many send go in groups, as producers of other logs linger: the first after a rest goes at once, and what comes
// while a group has just gone waits a moment and goes with the next. Each group wakes everybody once who has to do with it. It sends nothing
// itself.
package linger

import (
	"context"
	"sync"
	"time"
)

// Moment is how far apart groups of appends to the log go. Under load an entry waits for half of it; an idle system does not notice.
const Moment = 15 * time.Millisecond

// Linger lets callers of Await go in groups.
type Linger struct {
	apart time.Duration

	mu   sync.Mutex
	went time.Time // when the newest group went
	// next is closed when the next group goes; nil: nobody waits for it.
	next chan struct{}
}

// New returns one whose groups go at least this far apart.
func New(apart time.Duration) *Linger { return &Linger{apart: apart} }

// Await waits until the caller may go. It returns the error of ctx if that ends first.
func (l *Linger) Await(ctx context.Context) error {
	next := l.join()
	if next == nil {
		return ctx.Err()
	}
	select {
	case <-next:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join returns what is closed when the caller's group goes; nil: it goes now.
func (l *Linger) join() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next != nil {
		return l.next
	}
	now := time.Now()
	wait := l.apart - now.Sub(l.went)
	if wait <= 0 {
		l.went = now
		return nil
	}
	l.next = make(chan struct{})
	time.AfterFunc(wait, l.leave)
	return l.next
}

// leave lets the group go that waits.
func (l *Linger) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.next)
	l.next, l.went = nil, time.Now()
}
