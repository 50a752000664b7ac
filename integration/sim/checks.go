package sim

import (
	"fmt"
	"strconv"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/narrate"
	"shiplog.dev/internal/world"
)

// checks watch the log and the API server and fail the run at the first thing that must not be.
type checks struct {
	s       *simulation
	records []journal.Record
	times   []time.Time // of the records, by a clock that is right
	// seen is, by object, which versions of it the log got to know, and where.
	seen     map[world.Ref][]sighting
	commands map[uint64]*command
	sets     map[string]world.Ref // CloneSets that ever were, by UID
	quietAt  time.Time            // of the last command
}

type sighting struct {
	sequence, version uint64
	gone              bool
}

// command is one that the log holds.
type command struct {
	sequence uint64
	entry    *shiplogv1.Entry
	*shiplogv1.Command
	// decided is the log's time at the position at which it was decided, decidedAt that by a clock that is right.
	decided, decidedAt time.Time
	owner              string
	done               bool
	// refused is where the log says that it was; 0: it was not.
	refused uint64
	effects int
}

func newChecks(s *simulation) *checks {
	return &checks{
		s: s, seen: map[world.Ref][]sighting{}, commands: map[uint64]*command{}, sets: map[string]world.Ref{},
	}
}

// entry is told of every entry of the log.
func (c *checks) entry(record journal.Record) {
	if want := uint64(len(c.records) + 1); record.Sequence != want {
		c.s.fail("log", "position %d holds %d", want, record.Sequence)
		return
	}
	c.records, c.times = append(c.records, record), append(c.times, c.s.now)
	c.s.tell("log", "%d %s: %s", record.Sequence, record.Entry.GetWriter(), narrate.Entry(record.Entry))
	switch kind := record.Entry.GetKind().(type) {
	case *shiplogv1.Entry_ObjectObserved:
		c.sight(kind.ObjectObserved.GetObject(), record.Sequence, kind.ObjectObserved.GetResourceVersion(), false)
	case *shiplogv1.Entry_ObjectDeleted:
		c.sight(kind.ObjectDeleted.GetObject(), record.Sequence, kind.ObjectDeleted.GetResourceVersion(), true)
	case *shiplogv1.Entry_Command:
		c.quietAt = c.s.now
		one := &command{
			sequence: record.Sequence, entry: record.Entry, Command: kind.Command, decided: c.records[record.Entry.GetCause()-1].Time,
			decidedAt: c.times[record.Entry.GetCause()-1], owner: string(world.WorkloadOf(record.Entry.GetRollout())),
		}
		c.commands[record.Sequence] = one
		if wake := kind.Command.GetWakeAt(); wake != nil {
			c.s.tickAt(wake.GetDue().AsTime())
			return
		}
		c.decidedOnFreshFacts(one)
		c.withinScaleLimit(one)
	case *shiplogv1.Entry_Outcome:
		if one := c.commands[record.Entry.GetCause()]; one != nil && !one.done {
			one.done = true
			if kind.Outcome.GetResult() == shiplogv1.Outcome_RESULT_REFUSED {
				one.refused = record.Sequence
				if one.effects > 0 && !kind.Outcome.GetUnsure() {
					c.s.fail("refused though done", "command %d (%s) had its effect, and its outcome is: %s", one.sequence, narrate.Command(one.Command), narrate.Outcome(kind.Outcome))
				}
			}
		}
	}
}

func (c *checks) sight(object *shiplogv1.ObjectRef, sequence uint64, version string, gone bool) {
	n, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		c.s.fail("log", "entry %d: %v", sequence, err)
	}
	ref := world.RefOf(object)
	c.seen[ref] = append(c.seen[ref], sighting{sequence, n, gone})
}

// known returns the newest state of an object that the log knew at a position; nil: none, or that it is gone.
func (c *checks) known(ref world.Ref, position uint64) (*object, uint64) {
	var newest sighting
	for _, one := range c.seen[ref] {
		if one.sequence <= position && one.version >= newest.version {
			newest = one
		}
	}
	if newest.gone {
		return nil, newest.version
	}
	history := c.s.api.history[ref]
	for i := len(history) - 1; i >= 0; i-- {
		if history[i].version == newest.version && !history[i].gone {
			return history[i], newest.version
		}
	}
	return nil, newest.version
}

// setAt returns the CloneSet of a command as it was known when the command was decided.
func (c *checks) setAt(one *command) *cloneSet {
	held, _ := c.known(c.sets[one.owner], one.entry.GetCause())
	if held == nil || held.uid != one.owner {
		c.s.fail("decided for nobody", "command %d (%s) was decided at %d, when the log knew no CloneSet %s", one.sequence, narrate.Command(one.Command), one.entry.GetCause(), one.owner)
		return nil
	}
	return held.set
}

// write is told of every write to the API server.
func (c *checks) write(before, after *object) {
	if after.set != nil {
		c.sets[after.uid] = after.ref
	}
	if after.by.command == 0 {
		return
	}
	one := c.commands[after.by.command]
	if one == nil {
		c.s.fail("write without a command", "%s is written by command %d, which the log does not hold", after.ref, after.by.command)
		return
	}
	one.effects++
	if uid := one.GetObject().GetUid(); uid != "" && uid != after.uid {
		c.s.fail("wrong object", "command %d is for %s, it wrote %s", one.sequence, uid, after.uid)
	}
	// While a create has no outcome, rules count its Pod as about to be there, so one that somebody deleted may come again.
	// A merge patch of a CloneSet's status or of a revision's number says again what it said, and the rules correct it.
	merges := one.GetPatch().GetType() == shiplogv1.PatchObject_TYPE_MERGE
	// What is made for an owner that is gone the garbage collector takes again.
	owner := c.s.api.objects[c.sets[one.owner]]
	orphan := one.GetCreate() != nil && (owner == nil || owner.uid != one.owner)
	if one.effects > 1 && !merges && !orphan && (one.done || one.GetCreate() == nil) {
		c.s.fail("effect twice", "command %d (%s) has its effect again", one.sequence, narrate.Command(one.Command))
	}
	if after.pod == nil && (before == nil || before.pod == nil) {
		return
	}
	set := c.setAt(one)
	if set == nil {
		return
	}
	switch {
	case before == nil:
		c.created(one, set, after)
	case one.GetDelete() != nil:
		c.deleted(one, set, before)
	default:
		c.patched(one, set, before, after)
	}
}

// why words a command for a failure.
func (c *checks) why(one *command, set *cloneSet) string {
	return fmt.Sprintf("command %d, decided at %d for %s with R %d P %d U %d S %d paused %v %s: %s",
		one.sequence, one.entry.GetCause(), set.name, set.replicas, set.partition, set.unavailable, set.surge, set.paused, set.kind, narrate.Command(one.Command))
}
