package executor

import (
	"context"
	"math/rand/v2"
	"time"
)

// Clock is time as far as commands depend on it; a simulation brings its own. The limiter and the bounds of single requests
// are not of it: they guard against the machine and the network, which a simulation does not have.
type Clock interface {
	Now() time.Time
	// Pause lasts for a time of the clock's choosing. It returns the error of ctx if that ended first.
	Pause(ctx context.Context, shortest, longest time.Duration) error
}

// machine is the machine's clock.
type machine struct{}

func (machine) Now() time.Time { return time.Now() }

func (machine) Pause(ctx context.Context, shortest, longest time.Duration) error {
	timer := time.NewTimer(shortest + rand.N(longest-shortest+1))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
