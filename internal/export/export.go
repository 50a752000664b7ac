// Package export cuts a window out of a log: the entries of the window, those from before it that still counted at its
// beginning, and, of entries that belong elsewhere, the positions at which something of the window was decided. What it
// leaves behind folds and decides as the whole log does. It decides nothing and knows no file.
package export

import (
	"context"
	"fmt"
	"slices"
	"strings"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/bundle"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/redact"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/rollout"
)

// Window says what to cut out. Its zero value is everything.
type Window struct {
	// Span of the log; Past and Follow are ignored.
	history.Span
	// Namespace: only its objects, and those that are in none.
	Namespace string
	// Rollout is "UID/GENERATION", or the UID of a workload: the span becomes that from its first entry to its last, and the
	// namespace that of the workload.
	Rollout string
	// Redactor hides values; nil: nothing is hidden.
	Redactor *redact.Redactor
}

// window is what one pass over the log found out.
type window struct {
	Window
	first, last journal.Record
	live        []uint64        // positions before the window that count at its beginning
	causes      map[uint64]bool // positions at which a command of the window was decided
}

// Write cuts a window out of a log, into a bundle that it does not close, and returns the bundle's index.
func Write(ctx context.Context, log *history.Log, of Window, out *bundle.Writer) (bundle.Index, error) {
	w := window{Window: of, causes: map[uint64]bool{}}
	if err := w.findRollout(ctx, log); err != nil {
		return bundle.Index{}, err
	}
	if err := w.survey(ctx, log); err != nil {
		return bundle.Index{}, err
	}
	index := bundle.Index{
		First: w.first.Sequence, From: w.first.Time, Namespace: w.Namespace, Rollout: w.Rollout,
		ExactFrom: max(log.ExactFrom, w.first.Sequence-1), Redacted: w.Redactor != nil, Entries: map[string]int{},
	}
	if index.First == 1 {
		index.ExactFrom = 0
	}
	err := log.Each(ctx, w.whole(), func(record journal.Record) error {
		if record.Sequence < w.first.Sequence {
			if _, counts := slices.BinarySearch(w.live, record.Sequence); !counts {
				return nil
			}
		}
		switch {
		case w.belongs(record.Entry) && w.Redactor != nil:
			var err error
			if record.Entry, err = w.Redactor.Entry(record.Entry); err != nil {
				return fmt.Errorf("entry %d: %w", record.Sequence, err)
			}
		case w.belongs(record.Entry):
		case w.causes[record.Sequence] || record.Sequence == w.last.Sequence || record.Sequence == w.first.Sequence:
			record.Entry = &shiplogv1.Entry{Writer: "export", Skippable: true} // a position and its time
		default:
			return nil
		}
		index.Last, index.To = record.Sequence, record.Time
		index.Entries[history.TypeOf(record.Entry)]++
		return out.Put(record)
	})
	return index, err
}

// whole is the span from the beginning of the log to the end of the window.
func (w *window) whole() history.Span { return history.Span{Past: true, To: w.To} }

// belongs says whether an entry is of the namespace, or of none.
func (w *window) belongs(entry *shiplogv1.Entry) bool {
	ref, about := history.ObjectOf(entry)
	return w.Namespace == "" || !about || ref.Namespace == "" || ref.Namespace == w.Namespace
}

// findRollout turns a rollout into a span and a namespace.
func (w *window) findRollout(ctx context.Context, log *history.Log) error {
	if w.Rollout == "" {
		return nil
	}
	first, last := uint64(0), uint64(0)
	if err := log.Each(ctx, history.Span{}, func(record journal.Record) error {
		rollout := record.Entry.GetRollout()
		if rollout != w.Rollout && !strings.HasPrefix(rollout, w.Rollout+"/") {
			return nil
		}
		if ref, about := history.ObjectOf(record.Entry); about && first == 0 {
			first, w.Namespace = max(min(record.Entry.GetCause(), record.Sequence), 1), ref.Namespace
		}
		last = record.Sequence
		return nil
	}); err != nil {
		return err
	}
	if first == 0 {
		return fmt.Errorf("the log has nothing of rollout %q: give UID/GENERATION or the UID of a workload (shiplog tail -o json shows them)", w.Rollout)
	}
	w.From, w.To = history.Moment{Sequence: first}, history.Moment{Sequence: last}
	return nil
}

// survey finds where the window begins and ends, what counts at its beginning, and where its commands were decided.
func (w *window) survey(ctx context.Context, log *history.Log) error {
	before, told := world.New(), rollout.New()
	err := log.Each(ctx, w.whole(), func(record journal.Record) error {
		if record.Sequence < log.First || w.From.After(record) {
			change, err := world.Decode(record.Sequence, record.Time, record.Entry)
			if err == nil {
				told.Fold(before, change)
			}
			return err
		}
		if w.first.Sequence == 0 {
			w.first = record
		}
		w.last = record
		if record.Entry.GetCommand() != nil && w.belongs(record.Entry) {
			w.causes[record.Entry.GetCause()] = true
			if w.Redactor != nil {
				return w.Redactor.Foresee(record.Entry)
			}
		}
		return nil
	})
	if err == nil && w.first.Sequence == 0 {
		err = fmt.Errorf("the log has nothing in this window")
	}
	w.live = append(before.Live(), told.Live()...)
	slices.Sort(w.live)
	w.live = slices.Compact(w.live)
	return err
}
