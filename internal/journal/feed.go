package journal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// pullMessages and pullBytes bound what one feed has asked the server for. The bytes hold the largest entry.
	pullMessages = 2048
	pullBytes    = 2 * maxEntry
	// pullLife is for how long the server keeps one request for messages; it gives a sign of life every pullPulse, and after
	// two that did not come it is asked again: a cluster that elects a leader forgets requests.
	pullLife  = 30 * time.Second
	pullPulse = time.Second
	// alonePulse is how often a server does that keeps the log alone and is the one that we are connected to. It says so when it deletes a
	// consumer, and when it goes the connection goes; only when its JetStream is turned off and on again while it runs does nothing else tell.
	// Signs of life cost an idle server more than anything else.
	alonePulse = 5 * time.Second
)

// pulse says how often consumers of the log shall give a sign of life, by what is known of its servers.
func (j *logStream) pulse() time.Duration {
	keeper := j.stream.CachedInfo().Cluster
	if keeper == nil || keeper.Name != "" || keeper.Leader != j.nc.ConnectedServerName() {
		return pullPulse
	}
	return alonePulse
}

// raw is one message of the stream, undecoded.
type raw struct {
	sequence uint64
	time     time.Time
	subject  string
	data     []byte
}

// feed hands out the messages of the stream in order, without those that only serve the log itself, over lost connections
// and lost leaders.
type feed struct {
	j  *logStream
	it jetstream.MessagesContext
	// wake is the prefix of the subjects that are not handed out.
	wake string
	// last was handed out last, by a consumer of this name. There is another consumer after each interruption. Without a name it was handed out
	// by an earlier feed.
	last     raw
	consumer string
}

// openFeed starts at a position, or at a time if the position is 0, or at the oldest message.
func (j *logStream) openFeed(ctx context.Context, sequence uint64, at time.Time) (*feed, error) {
	config := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy}
	switch {
	case sequence > 0:
		config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, sequence
	case !at.IsZero():
		config.DeliverPolicy, config.OptStartTime = jetstream.DeliverByStartTimePolicy, &at
	}
	f := &feed{j: j, wake: j.subject(spaceWake + ".")}
	bounded, cancel := context.WithTimeout(ctx, j.patience)
	defer cancel()
	err := j.patiently(bounded, "read the stream "+j.name, func(ctx context.Context) error {
		consumer, err := j.stream.OrderedConsumer(ctx, config)
		if err != nil {
			return err
		}
		f.it, err = consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(pullMessages, pullBytes),
			jetstream.PullExpiry(pullLife), jetstream.PullHeartbeat(j.pulse()))
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// next returns the next message; own is set for one of the log's own, which holds a position and nothing else. ctx bounds what is asked
// besides, after an interruption.
func (f *feed) next(ctx context.Context) (m raw, own bool, err error) {
	msg, err := f.it.Next()
	return f.read(ctx, msg, err)
}

// nextWithin is next for a message that is known to be there. Errors: ErrUnavailable.
func (f *feed) nextWithin(ctx context.Context, patience time.Duration) (raw, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	msg, err := f.it.Next(jetstream.NextContext(ctx))
	return f.read(ctx, msg, err)
}

func (f *feed) read(ctx context.Context, msg jetstream.Msg, err error) (m raw, own bool, _ error) {
	if err != nil {
		return raw{}, false, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	meta, err := msg.Metadata()
	if err != nil {
		return raw{}, false, err
	}
	if f.last.sequence > 0 && meta.Consumer != f.consumer {
		if err := f.j.still(ctx, f.last); err != nil {
			return raw{}, false, err
		}
	}
	f.consumer = meta.Consumer
	m = raw{sequence: meta.Sequence.Stream, time: meta.Timestamp, subject: msg.Subject(), data: msg.Data()}
	if strings.HasPrefix(m.subject, f.wake) {
		return m, true, nil
	}
	f.last = raw{sequence: m.sequence, time: m.time, subject: m.subject}
	return m, false, whole(m.sequence, m.subject, m.data, msg.Headers())
}

// still returns ErrGap if the log does not hold any more what it handed out at a position: it was rolled back, and has grown again beyond
// there. One that left the log at its front may have been any.
func (j *logStream) still(ctx context.Context, m raw) error {
	return j.patiently(ctx, "look whether the log was rolled back", func(ctx context.Context) error {
		now, err := j.stream.GetMsg(ctx, m.sequence)
		if err == nil && now.Subject == m.subject && now.Time.Equal(m.time) {
			return nil
		}
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			info, err := j.ledInfo(ctx)
			if err != nil || info.State.FirstSeq > m.sequence {
				return err
			}
		} else if err != nil {
			return err
		}
		return fmt.Errorf("%w: the log was rolled back: position %d is not what it was", ErrGap, m.sequence)
	})
}

func (f *feed) close() { f.it.Stop() }
