package journal

import (
	"context"
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
)

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
	it jetstream.MessagesContext
	// wake is the prefix of the subjects that are not handed out.
	wake string
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
	f := &feed{wake: j.subject(spaceWake + ".")}
	bounded, cancel := context.WithTimeout(ctx, j.patience)
	defer cancel()
	err := j.patiently(bounded, "read the stream "+j.name, func(ctx context.Context) error {
		consumer, err := j.stream.OrderedConsumer(ctx, config)
		if err != nil {
			return err
		}
		f.it, err = consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(pullMessages, pullBytes),
			jetstream.PullExpiry(pullLife), jetstream.PullHeartbeat(pullPulse))
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// next returns the next message; own is set for one of the log's own, which holds a position and nothing else.
func (f *feed) next() (m raw, own bool, err error) { return f.read(f.it.Next()) }

// nextWithin is next for a message that is known to be there. Errors: ErrUnavailable.
func (f *feed) nextWithin(ctx context.Context, patience time.Duration) (raw, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return f.read(f.it.Next(jetstream.NextContext(ctx)))
}

func (f *feed) read(msg jetstream.Msg, err error) (m raw, own bool, _ error) {
	if err != nil {
		return raw{}, false, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	meta, err := msg.Metadata()
	if err != nil {
		return raw{}, false, err
	}
	m = raw{sequence: meta.Sequence.Stream, time: meta.Timestamp, subject: msg.Subject(), data: msg.Data()}
	if strings.HasPrefix(m.subject, f.wake) {
		return m, true, nil
	}
	return m, false, whole(m.sequence, m.subject, m.data, msg.Headers())
}

func (f *feed) close() { f.it.Stop() }
