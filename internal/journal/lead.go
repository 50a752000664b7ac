package journal

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// heartbeat is how often a leader tells that it leads.
const heartbeat = 500 * time.Millisecond

func (j *logStream) Lead(ctx context.Context, writer string) {
	go func() {
		ticker := time.NewTicker(heartbeat)
		defer ticker.Stop()
		for {
			_ = j.nc.Publish(j.subject(spaceLead), []byte(writer)) // a lost one is followed by the next
			select {
			case <-ctx.Done():
				return
			case <-j.closing.Done():
				return
			case <-ticker.C:
			}
		}
	}()
}

func (j *logStream) AwaitVacancy(ctx context.Context, patience time.Duration) error {
	heard := make(chan *nats.Msg, 16)
	sub, err := j.nc.ChanSubscribe(j.subject(spaceLead), heard)
	if err != nil {
		return fmt.Errorf("listen for a leader: %w: %w", ErrUnavailable, err)
	}
	defer sub.Unsubscribe()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case <-heard:
			timer.Reset(patience)
		case <-timer.C:
			if j.nc.IsConnected() {
				return nil
			}
			timer.Reset(patience) // silence counts only while it could be broken
		case <-ctx.Done():
			return ctx.Err()
		case <-j.closing.Done():
			return fmt.Errorf("listen for a leader: %w: the log is closed", ErrUnavailable)
		}
	}
}
