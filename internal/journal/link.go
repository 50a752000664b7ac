package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

// link is a connection to a NATS server.
type link struct {
	nc *nats.Conn
	js jetstream.JetStream
	// api stands for $JS.API; empty: that itself.
	api string
	// patience is how long one call tries.
	patience time.Duration
	// closing ends when the link is let go of.
	closing context.Context

	mu sync.Mutex
	// silent is since when every try has failed, failed when the last one did; silent is zero when one succeeded since.
	silent, failed time.Time
}

// leaveAfter is after how long without an answer another server is tried, where there are several: one that is cut off from the others keeps its
// connections and answers nothing. It is longer than servers take to agree on a leader.
const leaveAfter = 10 * time.Second

// lately is how close two tries that failed are to count as in a row: twice the longest sign of life, and more.
const lately = time.Minute

// answered notes that the log did.
func (l *link) answered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent = time.Time{}
}

// unanswered notes that the log did not, and leaves the server when it has not for too long.
func (l *link) unanswered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.silent.IsZero() || now.Sub(l.failed) > lately {
		l.silent = now
	}
	l.failed = now
	if now.Sub(l.silent) < leaveAfter || !l.nc.IsConnected() || len(l.nc.Servers()) < 2 {
		return
	}
	l.silent = time.Time{}
	_ = l.nc.ForceReconnect() // an error means that it is closed
}

// dial connects. The link comes back by itself whenever it is lost, until closing ends. Errors: ErrUnavailable.
func (l *link) dial(url string, log zerolog.Logger, own ...nats.Option) (err error) {
	l.nc, err = nats.Connect(url, append([]nats.Option{
		nats.Name("shiplog"),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectWait/5, reconnectWait/5),
		// Nothing is kept for after a reconnection: what is sent after a loss must not overtake what was lost.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if l.closing.Err() == nil {
				log.Warn().Err(err).Msg("the connection to the log is lost")
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { log.Info().Msg("the connection to the log is back") }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Debug().Err(err).Msg("the connection to the log reports an error")
		}),
	}, own...)...)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	options := []jetstream.JetStreamOpt{
		jetstream.WithPublishAsyncMaxPending(2 * flightBytes / flightLeast),
		jetstream.WithPublishAsyncTimeout(answerWait),
		jetstream.WithDefaultTimeout(answerWait),
	}
	if l.api != "" {
		l.js, err = jetstream.NewWithAPIPrefix(l.nc, l.api, options...)
	} else {
		l.js, err = jetstream.New(l.nc, options...)
	}
	return err
}

// patiently calls f until it succeeds, fails for a reason that will stay, or ctx ends.
func (l *link) patiently(ctx context.Context, doing string, f func(context.Context) error) error {
	wait := retryWait
	for {
		// A cluster without a leader does not answer at all: every try has its own end.
		try, cancel := context.WithTimeout(ctx, tryWait)
		err := f(try)
		cancel()
		if err == nil {
			l.answered()
			return nil
		}
		if errors.Is(err, ErrOtherCluster) || errors.Is(err, ErrGap) {
			return fmt.Errorf("%s: %w", doing, err)
		}
		var api *jetstream.APIError
		if errors.As(err, &api) && api.Code != 503 {
			return fmt.Errorf("%s: %w", doing, err)
		}
		if errors.Is(err, nats.ErrConnectionClosed) {
			return unavailable(ctx, doing, err)
		}
		if !l.pause(ctx, &wait) {
			return unavailable(ctx, doing, err)
		}
	}
}

// pause waits before another try after one that failed, longer each time; false: ctx or the link ended.
func (l *link) pause(ctx context.Context, wait *time.Duration) bool {
	l.unanswered()
	t := time.NewTimer(*wait)
	defer t.Stop()
	*wait = min(*wait*2, retryWaitMax)
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	case <-l.closing.Done():
		return false
	}
}
