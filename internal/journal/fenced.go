package journal

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

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

// AppendCommands publishes the notes that bring ticks in front of the commands, so that a wish is never stored without its tick. A tick
// whose wish was cut off is harmless: whoever waits by its identity looks, and wishes again.
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

// AppendEvents publishes like AppendCommands. An atomic batch with an event that the log has already is refused as a whole; then
// the events go one by one, and the log leaves out those that it has.
func (j *logStream) AppendEvents(ctx context.Context, fence uint64, events ...*shiplogv1.Entry) error {
	messages, err := composeEvents(j.options.Cluster, j.options.Shards, events)
	if err != nil {
		return err
	}
	doing := fmt.Sprintf("append %d rollout events under fence %d", len(events), fence)
	batch := make([]*nats.Msg, len(messages))
	for i, m := range messages {
		batch[i] = m.msg()
	}
	_, err = j.appendFenced(ctx, doing, fence, batch)
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != codeDuplicateInBatch {
		return err
	}
	for i, m := range messages {
		if _, err := j.appendFenced(ctx, doing, fence, []*nats.Msg{m.msg()}); err != nil {
			return fmt.Errorf("the first %d are stored: %w", i, err)
		}
	}
	return nil
}

// AppendSeal publishes a seal.
func (j *logStream) AppendSeal(ctx context.Context, fence uint64, seal *shiplogv1.Entry) (uint64, error) {
	m, err := composeSeal(j.options.Cluster, j.options.Shards, seal)
	if err != nil {
		return 0, err
	}
	return j.appendFenced(ctx, fmt.Sprintf("append a seal under fence %d", fence), fence, []*nats.Msg{m.msg()})
}

// appendFenced stores the messages in order if fence is the newest one, and returns the sequence of the last. With an error
// the first of them may be stored.
func (j *logStream) appendFenced(ctx context.Context, doing string, fence uint64, batch []*nats.Msg) (uint64, error) {
	publish, expecting := j.publishStream, batch
	if !j.streams() {
		publish, expecting = j.publishAtomic, batch[:1] // which stands for the others
	}
	for _, m := range batch {
		if err := j.fits(m); err != nil {
			return 0, fmt.Errorf("%s: %w", doing, err)
		}
	}
	for _, m := range expecting {
		m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(fence, 10))
		m.Header.Set(jetstream.ExpectedLastSubjSeqSubjHeader, j.subject(spaceFence+"."+fenceHolder))
	}
	j.commands.Lock()
	defer j.commands.Unlock()
	bounded, cancel := context.WithTimeout(ctx, j.patience)
	defer cancel()
	wait := retryWait
	for {
		sequence, stored, err := publish(bounded, batch)
		if batch = batch[stored:]; len(batch) == 0 {
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

// streams says whether messages are better published as a stream than as an atomic batch. For such a batch a server that
// is alone makes a store in files (2 ms, of which 0.8 of CPU), which is worth it when that saves it a sync for every message;
// servers that form a cluster make none, and take no second check of a fence before the first is agreed on.
func (j *logStream) streams() bool { return j.options.Replicas == 1 && j.options.Durability == Fast }

// note returns the message that makes the log append tick when it falls due. A later one for the same identity replaces it.
func (j *logStream) note(tick message) *nats.Msg {
	m := &nats.Msg{Data: tick.data, Header: nats.Header{}}
	m.Subject = Address{Cluster: j.options.Cluster, Space: spaceWake, ID: tick.wish.GetId()}.String()
	m.Header.Set(headerSum, sumOf(tick.subject, tick.data)) // the server passes it on to the tick
	m.Header.Set(jetstream.ScheduleHeader, "@at "+tick.wish.GetDue().AsTime().Format(time.RFC3339Nano))
	m.Header.Set(jetstream.ScheduleTargetHeader, tick.subject)
	return m
}

// refused says what the error of a fenced append means and whether to try again.
func (j *logStream) refused(ctx context.Context, fence uint64, err error) (again bool, _ error) {
	if errors.Is(err, errGapInStream) {
		return true, nil
	}
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
