package sim

import (
	"context"
	"fmt"
	"slices"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
)

// readAll returns what a reader has at hand.
func readAll(reader journal.Reader) []journal.Record {
	var out []journal.Record
	for {
		records, err := reader.Next(atHand())
		if err != nil {
			return out // nothing at hand, or the log is down
		}
		out = append(out, records...)
	}
}

// plannerLog is the log as a planner reaches it.
type plannerLog struct {
	journal.Journal
	s *simulation
}

// Lead tells nobody: the simulation knows who leads.
func (l plannerLog) Lead(context.Context, string) {}

func (l plannerLog) AppendCommands(ctx context.Context, fence uint64, commands ...*shiplogv1.Entry) (uint64, error) {
	n := l.cut(commands)
	return l.answer(n < len(commands), func() (uint64, error) { return l.s.log.AppendFirst(ctx, n, fence, commands...) })
}

func (l plannerLog) AppendEvents(ctx context.Context, fence uint64, events ...*shiplogv1.Entry) error {
	n := l.cut(events)
	_, err := l.answer(n < len(events), func() (uint64, error) { return 0, l.Journal.AppendEvents(ctx, fence, events[:n]...) })
	return err
}

func (l plannerLog) RaiseFence(ctx context.Context, writer, version string, raised *shiplogv1.FenceRaised) (uint64, error) {
	return l.answer(false, func() (uint64, error) { return l.Journal.RaiseFence(ctx, writer, version, raised) })
}

// cut is how many of the entries that are stored one after another the log takes: all, or the first of them when an append is to be lost.
// With a wish among them that may be none of them: its note goes first.
func (l plannerLog) cut(entries []*shiplogv1.Entry) int {
	least := 1
	if slices.ContainsFunc(entries, func(e *shiplogv1.Entry) bool { return e.GetCommand().GetWakeAt() != nil }) {
		least = 0
	}
	if l.s.faults.lostAppends == 0 || len(entries) == least || l.s.chance(0.5) {
		return len(entries)
	}
	n := least + l.s.rand.IntN(len(entries)-least)
	l.s.tell("fault", "of %d entries the log gets the first %d", len(entries), n)
	return n
}

// answer makes a write and may lose it, or the answer to it. The answer to one that was cut is always lost.
func (l plannerLog) answer(cut bool, write func() (uint64, error)) (uint64, error) {
	lost := l.s.faults.lostAppends > 0
	if lost {
		l.s.faults.lostAppends--
		if !cut && l.s.chance(0.5) {
			l.s.tell("fault", "an append is lost")
			return 0, fmt.Errorf("lost before the log took it: %w", journal.ErrUnavailable)
		}
	}
	sequence, err := write()
	l.s.logChanged()
	if lost && err == nil {
		l.s.tell("fault", "the log's answer is lost")
		return 0, fmt.Errorf("lost the log's answer: %w", journal.ErrUnavailable)
	}
	return sequence, err
}

// executorLog is the log as one command's process reaches it.
type executorLog struct {
	journal.Journal
	s *simulation
	w *worker
}

func (l executorLog) Append(ctx context.Context, entries ...*shiplogv1.Entry) (uint64, error) {
	p := processOf(ctx)
	l.w.at(p, beforeOutcome)
	if err := p.pause(l.s.between(0, 20*time.Millisecond)); err != nil {
		return 0, fmt.Errorf("%w: %w", journal.ErrUnavailable, err)
	}
	lost := l.s.chance(l.s.faults.lostOutcomes)
	if lost && l.s.chance(0.5) {
		return 0, fmt.Errorf("lost before the log took it: %w", journal.ErrUnavailable)
	}
	sequence, err := l.Journal.Append(context.Background(), entries...)
	l.s.logChanged()
	l.w.at(p, afterOutcome)
	if err := p.pause(l.s.between(0, 20*time.Millisecond)); err != nil {
		return 0, fmt.Errorf("%w: %w", journal.ErrUnavailable, err)
	}
	if lost && err == nil {
		return 0, fmt.Errorf("lost the log's answer: %w", journal.ErrUnavailable)
	}
	return sequence, err
}

// append puts the watcher's entries into the log and says whether it took them.
func (s *simulation) append(entries ...*shiplogv1.Entry) bool {
	_, err := s.log.Append(context.Background(), entries...)
	s.logChanged()
	return err == nil
}

// logTime is the time by the log's clock.
func (s *simulation) logTime() time.Time { return s.now.Add(s.clockOff) }

// setClock puts the log's clock forward or back.
func (s *simulation) setClock(off time.Duration) {
	s.clockOff = off
	owed := s.due
	s.due = nil
	for _, due := range owed {
		s.tickAt(due)
	}
}

// tickAt lets the log notice that a time has come by its clock, within a second after it.
func (s *simulation) tickAt(due time.Time) {
	s.due = append(s.due, due)
	s.after(due.Sub(s.logTime())+s.between(0, time.Second), s.fireTicks)
}

func (s *simulation) fireTicks() {
	s.due = slices.DeleteFunc(s.due, func(due time.Time) bool { return !due.After(s.logTime()) })
	if s.log.FireTicks() > 0 {
		s.logChanged()
	}
}
