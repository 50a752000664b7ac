package executor

import (
	"context"
	"time"
)

// patience is how long is waited for what.
type patience struct {
	// request bounds one API call.
	request time.Duration
	// command bounds a command from its first try to the last one's start.
	command time.Duration
	// first and longest bound the pause before a further try; it doubles in between.
	first, longest time.Duration
	// clock by which command and the pauses are measured; nil: the machine's.
	clock Clock
}

var standard = patience{
	request: 10 * time.Second,
	command: 30 * time.Second,
	first:   50 * time.Millisecond,
	longest: 5 * time.Second,
}

func (p patience) time() Clock {
	if p.clock == nil {
		return machine{}
	}
	return p.clock
}

func (p patience) backoff() *backoff {
	return &backoff{clock: p.time(), next: p.first, longest: p.longest}
}

// backoff is a series of growing pauses with jitter, so that many that failed together do not return together.
type backoff struct {
	clock         Clock
	next, longest time.Duration
}

// wait pauses for the next step, or for least if that is longer. It returns the error of ctx if that ended first.
func (b *backoff) wait(ctx context.Context, least time.Duration) error {
	shortest, longest := max(b.next/2, least), max(b.next, least)
	b.next = min(2*b.next, b.longest)
	return b.clock.Pause(ctx, shortest, longest)
}
