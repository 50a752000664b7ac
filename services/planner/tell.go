package planner

import (
	"context"
	"errors"
	"slices"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/services/planner/rollout"
)

const (
	// maxOwed is how many rollout events wait for the log, or for the leader, at most. There are so many only when nobody led
	// for long, or where the log is older than rollout events are; the oldest are then never told.
	maxOwed = 50_000
	// tellWithin is how long events wait while there is more to fold, or commands are under way whose outcomes lead to more:
	// what is decided must not wait until the log has taken events.
	tellWithin = 200 * time.Millisecond
)

// telling is the rollout events that this planner knows of and has not seen in the log. Every planner keeps them, the leader
// appends them, in the order in which they were caused: so the newest event in the log says which of them are there.
//
// Exactly once: they go under the fence, so a deposed planner adds none, and a new leader has folded what its predecessors
// appended before it adds any. A compacted view is made only when nothing that was caused before it waits, so whoever begins
// with a view owes nothing of what is in it.
type telling struct {
	tracker *rollout.Tracker
	// toldBefore is the position of the view that was begun with: what was caused up to there has been told.
	toldBefore uint64
	// owed events in order, the first appended of which we have appended under our fence.
	owed     []rollout.Event
	appended int
	lost     int
	// since is when the oldest event that waits was noticed; zero: none waits.
	since time.Time
}

// owe takes events that an entry caused.
func (t *telling) owe(events []rollout.Event) {
	for _, event := range events {
		if event.Cause > t.toldBefore {
			t.owed = append(t.owed, event)
		}
	}
	if excess := len(t.owed) - maxOwed; excess > 0 {
		t.owed, t.appended = slices.Delete(t.owed, 0, excess), max(t.appended-excess, 0)
		t.lost += excess
	}
}

// seeTold notes that the log holds an event, and with it all that were caused before.
func (t *telling) seeTold(cause uint64, index uint32) {
	told := rollout.Event{Cause: cause, Index: index}
	n := 0
	for n < len(t.owed) && rollout.Compare(t.owed[n], told) <= 0 {
		n++
	}
	t.owed, t.appended = t.owed[n:], max(t.appended-n, 0)
	if len(t.owed) == 0 {
		t.owed = nil
	}
}

// allTold says whether the log holds every event that was caused up to here.
func (t *telling) allTold() bool { return t.appended == len(t.owed) && t.tracker.Settled() }

// tell appends the events that are owed, if we lead. more: there is more to fold.
func (p *planner) tell(ctx context.Context, more bool) error {
	if p.lost > 0 {
		p.Logger.Error().Int("events", p.lost).Msg("too many rollout events waited for a leader; the oldest are not told")
		p.metrics.eventsLost.Add(float64(p.lost))
		p.lost = 0
	}
	for p.fence != 0 && p.world.Fence() == p.fence && p.appended < len(p.owed) {
		part := p.owed[p.appended:min(len(p.owed), p.appended+journal.MaxCommands)]
		if p.since.IsZero() {
			p.since = p.now()
		}
		if due := p.since.Add(tellWithin); (more || p.world.Busy()) && len(part) < journal.MaxCommands && due.After(p.now()) {
			p.pace.at(due)
			return nil
		}
		entries := make([]*shiplogv1.Entry, len(part))
		for i, event := range part {
			entries[i] = event.Entry()
			entries[i].Writer, entries[i].WriterVersion = p.Writer, p.Version
		}
		err := p.Journal.AppendEvents(ctx, p.fence, entries...)
		if errors.Is(err, journal.ErrTooLarge) && len(entries) > 1 {
			part = part[:1]
			err = p.Journal.AppendEvents(ctx, p.fence, entries[0])
		}
		switch {
		case errors.Is(err, journal.ErrTooLarge):
			p.Logger.Error().Err(err).Str("type", part[0].Type).Uint64("cause", part[0].Cause).Msg("a rollout event does not fit into the log")
		case err != nil:
			return p.appendFailed(ctx, err)
		}
		p.appended += len(part)
		p.since = time.Time{}
		for _, event := range part {
			p.metrics.events.WithLabelValues(event.Type).Inc()
		}
	}
	return nil
}
