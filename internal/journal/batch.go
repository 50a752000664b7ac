package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// Headers of an atomic batch.
const (
	headerBatchID       = "Nats-Batch-Id"
	headerBatchSequence = "Nats-Batch-Sequence"
	headerBatchCommit   = "Nats-Batch-Commit"
)

// What a message is in a stream of messages (NATS calls it fast ingest). It stands in the subject for the answers:
// INBOX.FLOW.fail.NUMBER.OPERATION.$FI. The server knows the stream by the last part of INBOX.
const (
	streamStart  = 0
	streamAppend = 1
	streamCommit = 2
	// streamFlow is after how many messages the server says how far it is, which nobody waits for here.
	streamFlow = MaxCommands
)

// errGapInStream: the server missed a message of a stream. What it stored ends before.
var errGapInStream = errors.New("the log missed a message")

// unsure is an error of a publication that may have stored something.
type unsure struct{ error }

func (u unsure) Unwrap() error { return u.error }

// reply is what a server answers to a publication.
type reply struct {
	// Type of what it says of a stream that goes on; empty: this is the end.
	Type      string              `json:"type"`
	Error     *jetstream.APIError `json:"error"`
	Sequence  uint64              `json:"seq"`
	Count     int                 `json:"count"`
	Duplicate bool                `json:"duplicate"`
}

func readReply(m *nats.Msg) (reply, error) {
	var r reply
	if err := json.Unmarshal(m.Data, &r); err != nil {
		return r, fmt.Errorf("answer %q: %w", m.Data, err)
	}
	return r, nil
}

// publishAtomic sends the messages, all or none, and returns the last sequence, and how many are stored.
func (j *logStream) publishAtomic(ctx context.Context, batch []*nats.Msg) (sequence uint64, stored int, err error) {
	id := nuid.Next()
	connection := j.nc.Stats().Reconnects
	for i, m := range batch {
		if len(batch) > 1 {
			m.Header.Set(headerBatchID, id)
			m.Header.Set(headerBatchSequence, strconv.Itoa(i+1))
		}
		if i < len(batch)-1 {
			if err := j.nc.PublishMsg(m); err != nil {
				return 0, 0, err
			}
		} else if len(batch) > 1 {
			m.Header.Set(headerBatchCommit, "1")
		}
	}
	if j.nc.Stats().Reconnects != connection {
		return 0, 0, nats.ErrReconnectBufExceeded // part of the batch went over another connection; the rest is not sent
	}
	if sequence, _, err = j.ask(ctx, batch[len(batch)-1]); err != nil {
		return 0, 0, err
	}
	return sequence, len(batch), nil
}

// publishStream sends the messages, of which the server stores one after another until it refuses or misses one. It returns how
// many are stored, and the sequence of the last of these. With an error that is unsure there may be more.
func (j *logStream) publishStream(ctx context.Context, batch []*nats.Msg) (sequence uint64, stored int, err error) {
	if len(batch) == 1 {
		return j.publishAtomic(ctx, batch)
	}
	inbox := j.inbox + "." + nuid.Next()
	for i, m := range batch {
		operation := streamAppend
		switch i {
		case 0:
			operation = streamStart
		case len(batch) - 1:
			operation = streamCommit
		}
		m.Reply = fmt.Sprintf("%s.%d.fail.%d.%d.$FI", inbox, streamFlow, i+1, operation)
		if err := j.nc.PublishMsg(m); err != nil {
			if i > 0 {
				err = unsure{err}
			}
			return 0, 0, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	begun := false
	var refusal error
	for {
		var m *nats.Msg
		select {
		case m = <-j.answers:
		case <-ctx.Done():
			return 0, 0, unsure{context.Cause(ctx)}
		case <-j.closing.Done():
			return 0, 0, unsure{nats.ErrConnectionClosed}
		}
		if !strings.HasPrefix(m.Subject, inbox+".") {
			continue // to an earlier one that nobody waited for any more
		}
		if len(m.Data) == 0 { // no more than a status
			if begun {
				return 0, 0, unsure{nats.ErrNoResponders}
			}
			return 0, 0, nats.ErrNoResponders
		}
		r, err := readReply(m)
		switch {
		case err != nil:
			return 0, 0, unsure{err}
		case r.Type != "":
			begun = true
			if r.Error != nil {
				refusal = r.Error // the end comes behind it
			}
		case r.Error != nil && begun:
			return 0, 0, unsure{r.Error}
		case r.Error != nil:
			return 0, 0, r.Error
		case r.Count < len(batch) && refusal == nil:
			return r.Sequence, r.Count, errGapInStream
		default:
			return r.Sequence, r.Count, refusal
		}
	}
}

// ask publishes a message and returns where it, or the batch that it ends, is stored, and whether it was before.
func (j *logStream) ask(ctx context.Context, m *nats.Msg) (sequence uint64, duplicate bool, _ error) {
	asked, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	answer, err := j.nc.RequestMsgWithContext(asked, m)
	if err != nil {
		return 0, false, err
	}
	r, err := readReply(answer)
	switch {
	case err != nil:
		return 0, false, err
	case r.Error != nil:
		return 0, false, r.Error
	case r.Sequence == 0:
		return 0, false, fmt.Errorf("answer %q names no sequence", answer.Data)
	}
	return r.Sequence, r.Duplicate, nil
}
