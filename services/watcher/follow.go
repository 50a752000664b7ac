package watcher

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/object"
)

// follower reads the log: at the start to learn what it holds, and from then on what others append.
type follower struct {
	w      *watcher
	reader journal.Reader
	// next is the first sequence that has not been read, and last what was read before it, once anything was since the start.
	next  uint64
	last  journal.Record
	views map[schema.GroupResource]*view
}

// learn reads the log to its present end and notes what it holds in the views.
func (w *watcher) learn(ctx context.Context) (*follower, error) {
	state, err := w.options.Journal.State(ctx)
	if err != nil {
		return nil, err
	}
	f := &follower{w: w, views: map[schema.GroupResource]*view{}}
	for _, v := range w.views {
		f.views[v.kind.resource.GroupResource()] = v
	}
	end := state.LastSequence
	if state.FirstSequence > state.LastSequence {
		end = state.Compacted // everything after the compacted view has aged away
	}
	w.thread.begun = state.FirstSequence > 1 || state.Compacted > 0
	from := journal.From{Compacted: true}
	if end == 0 {
		from = journal.From{Sequence: state.LastSequence + 1}
	}
	if f.reader, err = w.options.Journal.Read(ctx, from); err != nil {
		return nil, err
	}
	f.next = state.LastSequence + 1
	for read := uint64(0); read < end; {
		records, err := f.reader.Next(ctx)
		if err != nil {
			f.close()
			return nil, err
		}
		for _, record := range records {
			f.w.thread.learn(record)
			if err := f.fold(record); err != nil {
				f.close()
				return nil, fmt.Errorf("entry %d: %w", record.Sequence, err)
			}
			read = record.Sequence
		}
		f.next = max(f.next, read+1)
	}
	return f, nil
}

func (f *follower) close() { f.reader.Close() }

// run follows the log until ctx ends. Errors: ErrGap and ErrUndecodable; a log that is unavailable is waited out.
func (f *follower) run(ctx context.Context, voucher *voucher) error {
	for pause := firstPause; ; {
		records, err := f.reader.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, journal.ErrUnavailable):
			f.w.options.Logger.Warn().Err(err).Msg("cannot follow the log; trying again")
			if sleep(ctx, pause) != nil {
				return nil
			}
			pause = min(2*pause, longestPause)
			if reader, err := f.w.options.Journal.Read(ctx, journal.From{Sequence: f.next, After: f.last}); err == nil {
				f.reader.Close()
				f.reader = reader
			} else if !errors.Is(err, journal.ErrUnavailable) && ctx.Err() == nil {
				return fmt.Errorf("follow the log from %d: %w", f.next, err)
			}
			continue
		case err != nil:
			return fmt.Errorf("follow the log: %w", err)
		}
		pause = firstPause
		for _, record := range records {
			f.next, f.last = record.Sequence+1, record
			f.w.thread.follow(record)
			// Facts of our own were noted when they were published.
			if record.Entry.GetWriter() != f.w.options.Writer || record.Entry.GetRewound() != nil {
				if err := f.fold(record); err != nil {
					f.w.options.Logger.Warn().Err(err).Uint64("sequence", record.Sequence).Msg("a fact of somebody else cannot be read")
				}
			}
			voucher.read(record)
		}
	}
}

// fold notes what a reader of the log holds after the entry.
func (f *follower) fold(record journal.Record) error {
	switch kind := record.Entry.GetKind().(type) {
	case *shiplogv1.Entry_Rewound:
		f.w.rewind()
	case *shiplogv1.Entry_ObjectObserved:
		ref := kind.ObjectObserved.GetObject()
		v := f.view(ref)
		if v == nil {
			return nil
		}
		normal, err := object.Normalise(v.kind.resource, kind.ObjectObserved.GetJson())
		if err != nil {
			return err
		}
		version, err := object.Version(normal.ResourceVersion)
		if err != nil {
			return err
		}
		v.holds(place{ref.GetNamespace(), ref.GetName()}, state{normal.UID, version, normal.Hash})
	case *shiplogv1.Entry_ObjectDeleted:
		ref := kind.ObjectDeleted.GetObject()
		v := f.view(ref)
		if v == nil {
			return nil
		}
		version, err := object.Version(kind.ObjectDeleted.GetResourceVersion())
		if err != nil {
			return err
		}
		v.lacks(place{ref.GetNamespace(), ref.GetName()}, ref.GetUid(), version)
	}
	return nil
}

func (f *follower) view(ref *shiplogv1.ObjectRef) *view {
	return f.views[schema.GroupResource{Group: ref.GetGroup(), Resource: ref.GetResource()}]
}
