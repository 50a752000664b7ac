package journal

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// heartbeat is how often a leader is asked whether it is there.
const heartbeat = 500 * time.Millisecond

// Leaders and standbys talk on one subject: a message with a name says who leads, one without asks. A leader speaks when it begins and when it is
// asked, so that one without a standby is silent and an idle log is idle.

func (j *logStream) Lead(ctx context.Context, writer string) {
	asked := make(chan *nats.Msg, 16)
	sub, err := j.nc.ChanSubscribe(j.subject(spaceLead), asked)
	if err != nil {
		return // closed: nobody hears us, and somebody else may lead
	}
	tell := func() { _ = j.nc.Publish(j.subject(spaceLead), []byte(writer)) } // a lost one is asked for again
	tell()
	go func() {
		defer sub.Unsubscribe()
		for {
			select {
			case <-ctx.Done():
				return
			case <-j.closing.Done():
				return
			case m := <-asked:
				if ctx.Err() == nil && len(m.Data) == 0 {
					tell()
				}
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
	ask := func() { _ = j.nc.Publish(j.subject(spaceLead), nil) } // a lost one is followed by the next
	ask()
	silence, ticker := time.NewTimer(patience), time.NewTicker(heartbeat)
	defer silence.Stop()
	defer ticker.Stop()
	for {
		select {
		case m := <-heard:
			if len(m.Data) > 0 {
				silence.Reset(patience)
			}
		case <-ticker.C:
			ask()
		case <-silence.C:
			if j.nc.IsConnected() {
				return nil
			}
			silence.Reset(patience) // it counts only while it could be broken
		case <-ctx.Done():
			return ctx.Err()
		case <-j.closing.Done():
			return fmt.Errorf("listen for a leader: %w: the log is closed", ErrUnavailable)
		}
	}
}
