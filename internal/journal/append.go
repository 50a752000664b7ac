package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

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
		if last, err := j.publishBatch(bounded, messages); err == nil {
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

func (j *logStream) RaiseFence(ctx context.Context, writer, version string, raised *shiplogv1.FenceRaised) (uint64, error) {
	m, err := compose(j.options.Cluster, j.options.Shards, fenceEntry(writer, version, raised))
	if err != nil {
		return 0, err
	}
	m.id = "fence/" + nuid.Next() // one fence, however often it is sent
	sequence, err := j.fly(ctx, []*nats.Msg{m.msg()}, flightLeast)
	if err != nil {
		return 0, fmt.Errorf("raise the fence for %s: %w", writer, err)
	}
	return sequence, nil
}

// fenceEntry is the entry of a fence; raised nil stands for no gates and no settings.
func fenceEntry(writer, version string, raised *shiplogv1.FenceRaised) *shiplogv1.Entry {
	if raised == nil {
		raised = &shiplogv1.FenceRaised{}
	}
	return &shiplogv1.Entry{Writer: writer, WriterVersion: version, Kind: &shiplogv1.Entry_FenceRaised{FenceRaised: raised}}
}

// AppendCommands publishes one message alone and several as one atomic batch. The notes that bring the ticks stand in the
// same batch, in front, so that a wish is never stored without its tick, nor a tick without its wish.
func (j *logStream) AppendCommands(ctx context.Context, fence uint64, commands ...*shiplogv1.Entry) (uint64, error) {
	messages, ticks, err := composeCommands(j.options.Cluster, j.options.Shards, commands)
	if err != nil {
		return 0, err
	}
	doing := fmt.Sprintf("append %d commands under fence %d", len(commands), fence)
	batch := make([]*nats.Msg, 0, len(ticks)+len(messages))
	for _, tick := range ticks {
		batch = append(batch, j.note(tick))
	}
	for _, m := range messages {
		batch = append(batch, m.msg())
	}
	return j.appendFenced(ctx, doing, fence, batch)
}

// AppendEvents publishes like AppendCommands. A batch with an event that the log has already is refused as a whole; then the
// events go one by one, and the log leaves out those that it has.
func (j *logStream) AppendEvents(ctx context.Context, fence uint64, events ...*shiplogv1.Entry) (uint64, error) {
	messages, err := composeEvents(j.options.Cluster, j.options.Shards, events)
	if err != nil {
		return 0, err
	}
	doing := fmt.Sprintf("append %d rollout events under fence %d", len(events), fence)
	batch := make([]*nats.Msg, len(messages))
	for i, m := range messages {
		batch[i] = m.msg()
	}
	last, err := j.appendFenced(ctx, doing, fence, batch)
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != codeDuplicateInBatch {
		return last, err
	}
	for i, m := range messages {
		if last, err = j.appendFenced(ctx, doing, fence, []*nats.Msg{m.msg()}); err != nil {
			return 0, fmt.Errorf("the first %d are stored: %w", i, err)
		}
	}
	return last, nil
}

// AppendSeal publishes a seal.
func (j *logStream) AppendSeal(ctx context.Context, fence uint64, seal *shiplogv1.Entry) (uint64, error) {
	m, err := composeSeal(j.options.Cluster, j.options.Shards, seal)
	if err != nil {
		return 0, err
	}
	return j.appendFenced(ctx, fmt.Sprintf("append a seal under fence %d", fence), fence, []*nats.Msg{m.msg()})
}

// appendFenced stores the messages, all or none, if fence is the newest one, and returns the sequence of the last.
func (j *logStream) appendFenced(ctx context.Context, doing string, fence uint64, batch []*nats.Msg) (uint64, error) {
	for _, m := range batch {
		if err := j.fits(m); err != nil {
			return 0, fmt.Errorf("%s: %w", doing, err)
		}
	}
	batch[0].Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(fence, 10))
	batch[0].Header.Set(jetstream.ExpectedLastSubjSeqSubjHeader, j.subject(spaceFence+"."+fenceHolder))
	j.commands.Lock()
	defer j.commands.Unlock()
	bounded, cancel := context.WithTimeout(ctx, j.patience)
	defer cancel()
	wait := retryWait
	for {
		sequence, err := j.publishBatch(bounded, batch)
		if err == nil {
			j.answered()
			return sequence, nil
		}
		again, err := j.refused(bounded, fence, err)
		if err != nil && !again {
			return 0, fmt.Errorf("%s: %w", doing, err)
		}
		if !j.pause(bounded, &wait) {
			return 0, unavailable(ctx, doing, err)
		}
	}
}

// note returns the message that makes the log append tick when it falls due. A later one for the same identity replaces it.
func (j *logStream) note(tick message) *nats.Msg {
	m := &nats.Msg{Data: tick.data, Header: nats.Header{}}
	m.Subject = Address{Cluster: j.options.Cluster, Space: spaceWake, ID: tick.wish.GetId()}.String()
	m.Header.Set(headerSum, sumOf(tick.subject, tick.data)) // the server passes it on to the tick
	m.Header.Set(jetstream.ScheduleHeader, "@at "+tick.wish.GetDue().AsTime().Format(time.RFC3339Nano))
	m.Header.Set(jetstream.ScheduleTargetHeader, tick.subject)
	return m
}

// publishBatch sends the messages, all or none, and returns the last sequence.
func (j *logStream) publishBatch(ctx context.Context, batch []*nats.Msg) (uint64, error) {
	id := nuid.Next()
	connection := j.nc.Stats().Reconnects
	for i, m := range batch {
		if len(batch) > 1 {
			m.Header.Set(headerBatchID, id)
			m.Header.Set(headerBatchSequence, strconv.Itoa(i+1))
		}
		if i < len(batch)-1 {
			if err := j.nc.PublishMsg(m); err != nil {
				return 0, err
			}
		} else if len(batch) > 1 {
			m.Header.Set(headerBatchCommit, "1")
		}
	}
	if j.nc.Stats().Reconnects != connection {
		return 0, nats.ErrReconnectBufExceeded // part of the batch went over another connection; the rest is not sent
	}
	sequence, _, err := j.ask(ctx, batch[len(batch)-1])
	return sequence, err
}

// ask publishes a message and returns where it, or the batch that it ends, is stored, and whether it was before.
func (j *logStream) ask(ctx context.Context, m *nats.Msg) (sequence uint64, duplicate bool, _ error) {
	asked, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	reply, err := j.nc.RequestMsgWithContext(asked, m)
	if err != nil {
		return 0, false, err
	}
	var answer struct {
		Error     *jetstream.APIError `json:"error"`
		Sequence  uint64              `json:"seq"`
		Duplicate bool                `json:"duplicate"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return 0, false, fmt.Errorf("answer %q: %w", reply.Data, err)
	}
	if answer.Error != nil {
		return 0, false, answer.Error
	}
	if answer.Sequence == 0 {
		return 0, false, fmt.Errorf("answer %q names no sequence", reply.Data)
	}
	return answer.Sequence, answer.Duplicate, nil
}

// refused says what the error of a fenced append means and whether to try again.
func (j *logStream) refused(ctx context.Context, fence uint64, err error) (again bool, _ error) {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode {
		case codeWrongLast:
			return false, fmt.Errorf("%w: %w", ErrFenced, err)
		case codeWrongLastConstant:
			// An earlier append is still being agreed on, or so is another fence. The newest fence tells which.
			if last, lerr := j.stream.GetLastMsgForSubject(ctx, j.subject(spaceFence+"."+fenceHolder)); lerr == nil && last.Sequence != fence {
				return false, fmt.Errorf("%w: the newest is at %d", ErrFenced, last.Sequence)
			}
			return true, err
		}
	}
	known := classify(err)
	return errors.Is(known, ErrUnavailable) && notStored(err), known
}

// Headers of an atomic batch.
const (
	headerBatchID       = "Nats-Batch-Id"
	headerBatchSequence = "Nats-Batch-Sequence"
	headerBatchCommit   = "Nats-Batch-Commit"
)
