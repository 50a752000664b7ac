package journal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// maxEntry is the largest entry in bytes that is read. What can be appended is for the server to say; an embedded one
// takes half of it (embedded.MaxPayload).
const maxEntry = 8 << 20

// encode returns the wire form of an entry: protobuf, but a CloudEvent in JSON for a rollout event.
func encode(cluster string, entry *shiplogv1.Entry) ([]byte, error) {
	if entry.GetRolloutEvent() != nil {
		return CloudEvent(cluster, entry)
	}
	data, err := proto.Marshal(entry)
	if err != nil {
		return nil, fmt.Errorf("encode an entry of %s: %w", entry.GetWriter(), err)
	}
	return data, nil
}

// decode returns the entry in data, as the subject tells how to read it. An entry of a kind that this program does not know is an error unless it is skippable;
// then it is returned without a kind. Errors: ErrUndecodable, naming sequence.
func decode(sequence uint64, subject string, data []byte) (*shiplogv1.Entry, error) {
	fail := func(reason error) (*shiplogv1.Entry, error) {
		return nil, fmt.Errorf("%w: sequence %d: %w", ErrUndecodable, sequence, reason)
	}
	if len(data) > maxEntry {
		return fail(fmt.Errorf("%d bytes, at most %d are read", len(data), maxEntry))
	}
	if in(subject, spaceEvent) {
		entry, err := decodeEvent(data)
		if err != nil {
			return fail(err)
		}
		return entry, nil
	}
	entry := new(shiplogv1.Entry)
	if err := proto.Unmarshal(data, entry); err != nil {
		return fail(err)
	}
	if entry.Kind == nil && !entry.Skippable {
		return fail(fmt.Errorf("written by %q version %q, of a kind that this version does not know and that is not safe to skip",
			entry.Writer, entry.WriterVersion))
	}
	if entry.GetRolloutEvent() != nil {
		return fail(fmt.Errorf("a rollout event under the subject %q, which is not of one", subject))
	}
	if in(subject, spaceNode) && entry.Kind != nil {
		at, err := ParseSubject(subject)
		if err != nil {
			return fail(err)
		}
		if own, err := SubjectOf(at.Cluster, 1, entry); err != nil || own != subject {
			return fail(fmt.Errorf("an entry of the subject %q is under %q", own, subject))
		}
	}
	return entry, nil
}

// headerSum carries the checksum of a message, because the server does not look at its own when it reads what it has held since a clean
// start. Messages from before there was one have none.
const headerSum = "Shiplog-Sum"

// sumOf is the CRC-32C of a subject and what stands under it.
func sumOf(subject string, data []byte) string {
	return strconv.FormatUint(uint64(crc32.Update(crc32.Checksum([]byte(subject), castagnoli), castagnoli, data)), 16)
}

// damaged says what an entry suffers from that is not what was written, and what helps.
const damaged = "the message is damaged where it is stored, and nothing behind it is read. A new log can take its place: what exists is read anew, " +
	"and nothing is restarted"

// whole says whether a message is as it was written. Errors: ErrUndecodable, naming sequence.
func whole(sequence uint64, subject string, data []byte, header nats.Header) error {
	if want := header.Get(headerSum); want != "" && want != sumOf(subject, data) {
		return fmt.Errorf("%w: sequence %d: %s", ErrUndecodable, sequence, damaged)
	}
	return nil
}

// in says whether a subject is of a space, without reading all of it.
func in(subject, space string) bool {
	_, rest, _ := strings.Cut(subject, ".")
	_, rest, _ = strings.Cut(rest, ".")
	rest, is := strings.CutPrefix(rest, space)
	return is && strings.HasPrefix(rest, ".")
}

// idOf returns the identity by which the log keeps an entry once, or "" for an entry that has none.
func idOf(entry *shiplogv1.Entry) string {
	switch kind := entry.GetKind().(type) {
	case *shiplogv1.Entry_ObjectObserved:
		return factID("seen", kind.ObjectObserved.GetObject(), kind.ObjectObserved.GetResourceVersion(), kind.ObjectObserved.GetRewound())
	case *shiplogv1.Entry_ObjectDeleted:
		return factID("gone", kind.ObjectDeleted.GetObject(), kind.ObjectDeleted.GetResourceVersion(), kind.ObjectDeleted.GetRewound())
	case *shiplogv1.Entry_Outcome:
		if entry.GetCause() != 0 {
			return "out/" + strconv.FormatUint(entry.GetCause(), 10) + "/" + strconv.FormatUint(uint64(kind.Outcome.GetAttempt()), 10)
		}
	case *shiplogv1.Entry_RolloutEvent:
		return "event/" + EventID(entry)
	}
	return ""
}

func factID(what string, object *shiplogv1.ObjectRef, version string, rewound uint64) string {
	if object.GetUid() == "" || version == "" {
		return ""
	}
	id := what + "/" + encodeToken(object.GetUid()) + "/" + encodeToken(version)
	if rewound > 0 { // the same version may be another state than before
		id += "/" + strconv.FormatUint(rewound, 10)
	}
	return id
}

// appendable says whether Append may take the entry; the other kinds are written under the fence or by the log itself.
func appendable(entry *shiplogv1.Entry) error {
	switch entry.GetKind().(type) {
	case *shiplogv1.Entry_ObjectObserved, *shiplogv1.Entry_ObjectDeleted, *shiplogv1.Entry_Vouched, *shiplogv1.Entry_Outcome,
		*shiplogv1.Entry_NodeObserved, *shiplogv1.Entry_CallObserved, *shiplogv1.Entry_Rewound, *shiplogv1.Entry_LogLost, *shiplogv1.Entry_Admitted:
		return nil
	}
	return errors.New("only facts, vouches, outcomes and alarms are appended without a fence")
}

// message is an entry ready for the log.
type message struct {
	subject, id string
	data        []byte
	// wish is set for a command that asks for a tick.
	wish *shiplogv1.WakeAt
}

func compose(cluster string, shards uint32, entry *shiplogv1.Entry) (message, error) {
	subject, err := SubjectOf(cluster, shards, entry)
	if err != nil {
		return message{}, err
	}
	data, err := encode(cluster, entry)
	if err != nil {
		return message{}, err
	}
	return message{subject: subject, id: idOf(entry), data: data, wish: entry.GetCommand().GetWakeAt()}, nil
}

// composeAll prepares entries for Append.
func composeAll(cluster string, shards uint32, entries []*shiplogv1.Entry) ([]message, error) {
	messages := make([]message, len(entries))
	for i, entry := range entries {
		err := appendable(entry)
		if err == nil {
			messages[i], err = compose(cluster, shards, entry)
		}
		if err != nil {
			return nil, fmt.Errorf("append entry %d of %d: %w", i+1, len(entries), err)
		}
	}
	return messages, nil
}

// composeCommands prepares commands for AppendCommands, and the tick that each wish will bring, by identity. Of several
// wishes with one identity the last counts.
func composeCommands(cluster string, shards uint32, commands []*shiplogv1.Entry) (messages []message, ticks []message, err error) {
	if len(commands) == 0 || len(commands) > MaxCommands {
		return nil, nil, fmt.Errorf("append %d commands: from 1 to %d go together", len(commands), MaxCommands)
	}
	byID := map[string]int{}
	size := 0
	for i, entry := range commands {
		fail := func(err error) ([]message, []message, error) {
			return nil, nil, fmt.Errorf("append command %d of %d: %w", i+1, len(commands), err)
		}
		if entry.GetCommand() == nil {
			return fail(errors.New("it is no command"))
		}
		m, err := compose(cluster, shards, entry)
		if err != nil {
			return fail(err)
		}
		if size += len(m.data); size > MaxCommandBytes {
			return fail(fmt.Errorf("%w: the commands together are larger than %d bytes", ErrTooLarge, MaxCommandBytes))
		}
		messages = append(messages, m)
		if m.wish == nil {
			continue
		}
		if m.wish.GetDue().CheckValid() != nil {
			return fail(fmt.Errorf("the tick %q that it asks for has no due time", m.wish.GetId()))
		}
		tick, err := compose(cluster, shards, tickFor(entry))
		if err != nil {
			return fail(err)
		}
		tick.wish = m.wish
		if at, again := byID[m.wish.GetId()]; again {
			ticks[at] = tick
		} else {
			byID[m.wish.GetId()] = len(ticks)
			ticks = append(ticks, tick)
		}
	}
	return messages, ticks, nil
}

// composeEvents prepares rollout events for AppendEvents.
func composeEvents(cluster string, shards uint32, events []*shiplogv1.Entry) ([]message, error) {
	if len(events) == 0 || len(events) > MaxCommands {
		return nil, fmt.Errorf("append %d rollout events: from 1 to %d go together", len(events), MaxCommands)
	}
	messages := make([]message, len(events))
	for i, entry := range events {
		var err error
		if entry.GetRolloutEvent() == nil {
			err = errors.New("it is no rollout event")
		} else {
			messages[i], err = compose(cluster, shards, entry)
		}
		if err != nil {
			return nil, fmt.Errorf("append rollout event %d of %d: %w", i+1, len(events), err)
		}
	}
	return messages, nil
}

// composeSeal prepares a seal for AppendSeal.
func composeSeal(cluster string, shards uint32, seal *shiplogv1.Entry) (message, error) {
	if seal.GetSealed() == nil {
		return message{}, errors.New("append a seal: it is none")
	}
	m, err := compose(cluster, shards, seal)
	if err != nil {
		return message{}, fmt.Errorf("append a seal: %w", err)
	}
	return m, nil
}

// tickFor returns the entry that answers a wish. It says what the planner had folded when it wished, because the wish's
// own sequence is not known before it is stored.
func tickFor(wish *shiplogv1.Entry) *shiplogv1.Entry {
	at := wish.GetCommand().GetWakeAt()
	return &shiplogv1.Entry{
		Writer:        "log",
		WriterVersion: wish.GetWriterVersion(),
		Cause:         wish.GetCause(),
		Rollout:       wish.GetRollout(),
		Kind:          &shiplogv1.Entry_Ticked{Ticked: &shiplogv1.Ticked{Id: at.GetId(), Due: at.GetDue()}},
	}
}
