// Package journal is the log as the services see it: append entries, read them in order from anywhere, take commands as
// work, and start without the whole history. It alone imports nats.go and owns subjects, message ids, headers and error
// codes. It knows nothing of what the entries mean.
package journal

import (
	"context"
	"errors"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// Errors of a journal. Test with errors.Is.
var (
	// ErrFenced: another planner raised its fence after ours, and nothing was appended behind that.
	ErrFenced = errors.New("another planner raised its fence")
	// ErrFull: the log has no room left and was told not to drop old entries, or the disk is full; nothing was appended.
	ErrFull = errors.New("the log is full")
	// ErrUnavailable: the log did not answer. An append may or may not have happened: appending the same facts, vouches
	// and outcomes again is harmless; after commands, raise a new fence and read up to it.
	ErrUnavailable = errors.New("the log cannot be reached")
	// ErrTooLarge: one entry is larger than the log takes; nothing was appended.
	ErrTooLarge = errors.New("the entry is too large for the log")
	// ErrGap: entries that the reader should have seen have left the log, or it was rolled back. Start again from Compacted.
	ErrGap = errors.New("entries were dropped before they were read")
	// ErrUndecodable: an entry of the log cannot be understood. The text names its sequence and the reason.
	ErrUndecodable = errors.New("an entry of the log cannot be decoded")
	// ErrNoLog: there is no log where one was expected.
	ErrNoLog = errors.New("there is no log")
	// ErrOtherCluster: the log belongs to another cluster than the caller's.
	ErrOtherCluster = errors.New("the log belongs to another cluster")
)

// MaxCommands is how many commands one AppendCommands takes.
const MaxCommands = 500

// MaxCommandBytes is how large the commands of one AppendCommands may be together.
const MaxCommandBytes = 64 << 20

// Record is one entry with what the log knows of it.
type Record struct {
	// Sequence is the position in the log, from 1. It never repeats; a reader sees it rise.
	Sequence uint64
	// Time is when the log took the entry, by the log's clock.
	Time    time.Time
	Subject string
	// Size of the message in bytes.
	Size  int
	Entry *shiplogv1.Entry
}

// From says where a Reader starts.
type From struct {
	// Compacted starts with the newest compacted view and goes on with what followed it; the other fields are ignored. With
	// no usable view it starts at the oldest entry. Entries after the view that retention has already taken away are missing
	// without an error (State.Missing counts them, and a warning is logged), for Kubernetes stays the truth of what exists.
	Compacted bool
	// Sequence starts at this position; 0: see Time. A position after the next one to be written is ErrGap: the log was
	// rolled back.
	Sequence uint64
	// Time starts at the first entry that is not older; zero: at the oldest entry.
	Time time.Time
	// After starts behind an entry that was read before; without a sequence: see Sequence. If the log does not hold it any more, because it was
	// rolled back, that is ErrGap, from Read or from Next.
	After Record
}

// Position is where From starts by sequence; 0: by time.
func (f From) Position() uint64 {
	if f.After.Sequence > 0 {
		return f.After.Sequence + 1
	}
	return f.Sequence
}

// Journal is one cluster's log. All methods may be called from several goroutines.
type Journal interface {
	// Append stores facts, vouches and outcomes in the given order and returns the sequence of the last one. Each has an
	// identity (a fact: UID and resource version; an outcome: its command and attempt), so appending it again, from here
	// or from another process, within two minutes, stores nothing. Vouches, and facts about a node, have none: a node may
	// be twice as it was before. If the log fails in the middle, a tail of the entries is
	// not stored; trying again may then store an entry after one that another process stored meanwhile. Errors: ErrFull,
	// ErrUnavailable, ErrTooLarge (nothing was appended).
	Append(ctx context.Context, entries ...*shiplogv1.Entry) (uint64, error)

	// RaiseFence appends a fence and returns its sequence. From then on only AppendCommands with this sequence succeeds, and
	// rules obey these feature gates and settings (nil: none).
	RaiseFence(ctx context.Context, writer, version string, raised *shiplogv1.FenceRaised) (uint64, error)

	// AppendCommands stores up to MaxCommands commands, in order, if fence is still the newest fence, and returns the sequence
	// of the last one. The first of them may be stored when it fails with ErrFenced, ErrFull or ErrUnavailable. A WakeAt also leaves
	// the log a note to append the Ticked entry when it falls due, in place of the identity's earlier one; one that is overdue comes
	// within half a second. The notes are stored first, so that there may be one without its command. Fence 0 stands for a log in which
	// nobody ever raised one.
	// Errors: ErrFenced, ErrFull, ErrUnavailable (unknown result), ErrTooLarge (one is, or all exceed MaxCommandBytes; nothing
	// was appended).
	AppendCommands(ctx context.Context, fence uint64, commands ...*shiplogv1.Entry) (uint64, error)

	// AppendEvents stores up to MaxCommands rollout events, in order, if fence is still the newest fence. Each has an identity
	// (its cause, index and time), so appending it again within two minutes stores nothing. Errors: those of AppendCommands;
	// the first events may be stored.
	AppendEvents(ctx context.Context, fence uint64, events ...*shiplogv1.Entry) error

	// AppendSeal stores a seal if fence is still the newest fence, and returns its sequence. Errors: those of AppendCommands.
	AppendSeal(ctx context.Context, fence uint64, seal *shiplogv1.Entry) (uint64, error)

	// Read returns a reader over all entries from a place on, which waits at the end for more.
	Read(ctx context.Context, from From) (Reader, error)

	// Commands returns the commands that nobody has finished, the oldest first, each to one taker at a time. Takers that
	// share a name share the work, and at most 1,024 commands are held by all of them together. Only writes to Kubernetes are
	// handed out: wishes for ticks are the log's own business, and calls that of the nodes' agents.
	Commands(ctx context.Context, name string) (Work, error)

	// Events returns the rollout events that nobody has finished, the oldest first, under the same terms as Commands. A name
	// begins with the oldest event that the log holds.
	Events(ctx context.Context, name string) (Work, error)

	// Nodes are the commands for the agents of nodes, and what those say.
	Nodes

	// LastOutcome returns the newest outcome for an object, or nil when the log holds none.
	LastOutcome(ctx context.Context, object *shiplogv1.ObjectRef) (*Record, error)

	// LastFact returns the newest fact of an object by position, a deletion included, or nil when the log holds none.
	LastFact(ctx context.Context, object *shiplogv1.ObjectRef) (*Record, error)

	// LastOfNode returns the newest NodeObserved of a node, or nil when the log holds none.
	LastOfNode(ctx context.Context, node string) (*Record, error)

	// Compact replaces the compacted view: it holds exactly the entries up to and including at that live says yes to, and
	// the entry at itself. live is called with rising sequences.
	Compact(ctx context.Context, at uint64, live func(sequence uint64) bool) error

	// Lead returns at once and tells everybody who listens that writer, which has a name, leads, until ctx ends. Nothing of it is stored.
	Lead(ctx context.Context, writer string)
	// AwaitVacancy returns nil when no leader has been heard of for patience, which should be several heartbeats of 500 ms.
	// Errors: ErrUnavailable if the log is closed, or that of ctx.
	AwaitVacancy(ctx context.Context, patience time.Duration) error

	// Backlog says how many commands or rollout events wait for the takers of each name, those that are handed out and not done
	// included. Errors: ErrUnavailable.
	Backlog(ctx context.Context) (map[string]uint64, error)

	// State says how the log is. Errors: ErrUnavailable.
	State(ctx context.Context) (State, error)
	// Close lets go of the log; for an embedded server the server stops too.
	Close() error
}

// Reader hands out entries in order.
type Reader interface {
	// Compacted is the position of the view that the reader began with: what is at or before it comes from the view, which
	// holds only what the world rests on. 0: it began with the log itself.
	Compacted() uint64
	// Next waits for at least one record and returns all that are at hand, at most 4096, in order and without gaps. Sequences
	// may skip positions that the log keeps for itself. The caller owns the records.
	// Errors: ErrGap and ErrUndecodable, which stay; ErrUnavailable or that of ctx, after which Next may be called again and
	// goes on where it was.
	Next(ctx context.Context) ([]Record, error)
	// Close ends the reader; records not taken are lost.
	Close()
}

// Work hands out commands or rollout events.
type Work interface {
	// Next waits for one. Errors: ErrUndecodable, ErrUnavailable, or that of ctx; Next may be called again after each.
	Next(ctx context.Context) (*Task, error)
	Close()
}

// Task is one command to carry out, or one rollout event to act on. While it is held, nobody else gets it; when its holder dies, somebody does, within
// seconds.
type Task struct {
	Record
	// Again is set when the entry was handed out before or may have been, or is older than the first taker of this name: its effect
	// may have happened.
	Again bool
	// Done says that it is done (of a command: its outcome is in the log); the entry will not be handed out again, unless the word is lost with
	// a connection or a server.
	Done func(ctx context.Context) error
	// Later lets go of it: it is handed out again, to anybody, after the wait, or earlier if the log was interrupted.
	Later func(wait time.Duration)
}

// State is a moment of the log.
type State struct {
	// URL at which other processes reach the log, with what they need to be let in: keep it from other eyes. Empty: they do not.
	URL                         string
	FirstSequence, LastSequence uint64
	// Identity tells this log from all others, its copies apart: empty for one in memory.
	Identity string
	// Compacted is the position of the newest compacted view; 0: there is none.
	Compacted uint64
	// Missing is how many positions between the compacted view and the oldest entry retention has taken away: what a start
	// from the compacted view does not see. 0 unless nobody compacted for longer than the retention.
	Missing uint64
	// Bytes on disk, and how many it may become (0: no limit).
	Bytes, MaxBytes uint64
	// MaxAge is for how long entries are kept; 0: for ever.
	MaxAge time.Duration
}
