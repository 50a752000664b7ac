package journal

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

const (
	// flightBytes bounds what all Appends together have published without an answer. One entry weighs at least flightLeast
	// and at most flightBytes.
	flightBytes = 32 << 20
	flightLeast = 8 << 10
	// One flight is what one Append has in the air at a time. A server takes at most 1,000 messages in one batch.
	flightEntries  = 1000
	flightMaxBytes = flightBytes / 4
)

func (j *logStream) Append(ctx context.Context, entries ...*shiplogv1.Entry) (uint64, error) {
	messages, err := composeAll(j.options.Cluster, j.options.Shards, entries)
	if err != nil {
		return 0, err
	}
	out := make([]*nats.Msg, len(messages))
	for i, m := range messages {
		out[i] = m.msg()
		if err := j.fits(out[i]); err != nil {
			return 0, fmt.Errorf("append entry %d of %d: %w", i+1, len(out), err)
		}
	}
	var last uint64
	for done := 0; done < len(out); {
		n, weight := flight(out[done:])
		sequence, err := j.fly(ctx, out[done:done+n], weight)
		if err != nil {
			return 0, fmt.Errorf("append %d entries, the first %d are stored: %w", len(out), done, err)
		}
		last, done = sequence, done+n
	}
	return last, nil
}

// flight returns how many of the messages go together, at least one, and what they weigh.
func flight(messages []*nats.Msg) (n int, weight int64) {
	for _, m := range messages {
		w := min(max(int64(m.Size()), flightLeast), flightBytes)
		if n > 0 && (n == flightEntries || weight+w > flightMaxBytes) {
			break
		}
		n, weight = n+1, weight+w
	}
	return n, weight
}

// fly stores all messages in order, trying again what was not acknowledged, and returns the sequence of the last one.
func (j *logStream) fly(ctx context.Context, messages []*nats.Msg, weight int64) (uint64, error) {
	bounded, cancel := context.WithTimeout(ctx, j.patience)
	defer cancel()
	if err := j.inflight.Acquire(bounded, weight); err != nil {
		return 0, unavailable(ctx, "wait for earlier entries", err)
	}
	defer j.inflight.Release(weight)
	if j.syncs() && len(messages) > 1 {
		// One sync for all of them. A batch with an entry that the log has already is refused; then they go one by one.
		if last, _, err := j.publishAtomic(bounded, messages); err == nil {
			return last, nil
		}
		for _, m := range messages {
			for _, header := range []string{headerBatchID, headerBatchSequence, headerBatchCommit} {
				m.Header.Del(header)
			}
		}
	}
	wait := retryWait
	for {
		stored, last, err := j.publish(bounded, messages)
		if messages = messages[stored:]; len(messages) == 0 {
			j.answered()
			return last, nil
		}
		if err = classify(err); !errors.Is(err, ErrUnavailable) {
			return 0, err
		}
		if j.nc.IsClosed() || !j.pause(bounded, &wait) {
			return 0, unavailable(ctx, "publish", err)
		}
	}
}

// syncs says whether the server syncs every message by itself, but a batch only once.
func (j *logStream) syncs() bool { return j.server != nil && j.options.Durability == Strict }

// publish sends the messages in order without waiting in between and returns how many of them, from the front, are stored,
// and the sequence of the last of those. It stops sending when the connection changes: what was sent over a lost connection
// may be missing, and nothing may overtake it.
func (j *logStream) publish(ctx context.Context, messages []*nats.Msg) (stored int, last uint64, err error) {
	futures := make([]jetstream.PubAckFuture, 0, len(messages))
	connection := j.nc.Stats().Reconnects
	for _, m := range messages {
		if j.nc.Stats().Reconnects != connection {
			err = nats.ErrDisconnected
			break
		}
		var future jetstream.PubAckFuture
		if future, err = j.js.PublishMsgAsync(m, jetstream.WithRetryAttempts(0), jetstream.WithStallWait(answerWait)); err != nil {
			break
		}
		futures = append(futures, future)
	}
	for i, future := range futures {
		select {
		case ack := <-future.Ok():
			stored, last = i+1, ack.Sequence
		case err := <-future.Err():
			return stored, last, err
		case <-ctx.Done():
			return stored, last, context.Cause(ctx)
		case <-j.closing.Done():
			return stored, last, nats.ErrConnectionClosed
		}
	}
	return stored, last, err
}

func (m message) msg() *nats.Msg {
	out := &nats.Msg{Subject: m.subject, Data: m.data, Header: nats.Header{}}
	out.Header.Set(headerSum, sumOf(m.subject, m.data))
	if m.id != "" {
		out.Header.Set(jetstream.MsgIDHeader, m.id)
	}
	return out
}

// fits refuses what the server would answer by closing the connection.
func (j *logStream) fits(m *nats.Msg) error {
	const headers = 1024 // more than those the client adds
	limit := min(j.nc.MaxPayload(), maxEntry)
	if size := int64(len(m.Data)) + headers; limit > 0 && size > limit {
		return fmt.Errorf("%w: %d bytes at %s, the server takes %d", ErrTooLarge, len(m.Data), m.Subject, limit-headers)
	}
	return nil
}
