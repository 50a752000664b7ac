package replay

import (
	"fmt"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/narrate"
	"shiplog.dev/services/planner/rollout"
)

// telling holds the rollout events of a log against those that folding it tells.
type telling struct {
	// Told counts the events of the log that folding tells again.
	Told int

	tracker *rollout.Tracker
	// owed are events that folding told and the log has not had, in order.
	owed []rollout.Event
	// begun: the log has had one. What folding told before is from before there were rollout events.
	begun bool
}

// owe takes what an entry caused. What was caused before the log is exact may be told otherwise.
func (t *telling) owe(events []rollout.Event, exactFrom uint64) {
	for _, event := range events {
		if event.Cause >= exactFrom {
			t.owed = append(t.owed, event)
		}
	}
}

// compare holds an event of the log against the next one that is owed.
func (t *telling) compare(record journal.Record, exactFrom uint64) error {
	recorded, cause := record.Entry.GetRolloutEvent(), record.Entry.GetCause()
	if cause < exactFrom {
		return nil
	}
	id := rollout.Event{Cause: cause, Index: recorded.GetIndex()}
	for len(t.owed) > 0 && rollout.Compare(t.owed[0], id) < 0 {
		missing := t.owed[0]
		if t.owed = t.owed[1:]; t.begun {
			told := missing.Entry()
			return &Difference{Cause: missing.Cause, Time: missing.Time, Workload: told.GetRollout(), Decided: wordEvent(told)}
		}
	}
	t.begun = true
	difference := &Difference{Sequence: record.Sequence, Cause: cause, Time: record.Time, Workload: record.Entry.GetRollout(), Recorded: wordEvent(record.Entry)}
	if len(t.owed) == 0 || rollout.Compare(t.owed[0], id) != 0 {
		return difference
	}
	told := t.owed[0].Entry()
	t.owed = t.owed[1:]
	left, right := eventLines(record.Entry), eventLines(told)
	if difference.Details = unequal(left, right); len(difference.Details) > 0 {
		difference.Time, difference.Decided = told.GetRolloutEvent().GetTime().AsTime(), wordEvent(told)
		return difference
	}
	t.Told++
	return nil
}

func wordEvent(entry *shiplogv1.Entry) string {
	return "rollout event " + narrate.RolloutEvent(entry.GetRolloutEvent())
}

// eventLines writes an event so that two of them can be compared.
func eventLines(entry *shiplogv1.Entry) []string {
	event := entry.GetRolloutEvent()
	out := []string{
		fmt.Sprintf("%s of %s %s, rollout %s, at %s", event.GetType(), event.GetKind(), event.GetWorkload(), entry.GetRollout(), event.GetTime().AsTime()),
	}
	return append(out, jsonLines(event.GetData())...)
}
