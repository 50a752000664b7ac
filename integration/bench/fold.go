package main

import (
	"context"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/readahead"
	"shiplog.dev/internal/world"
)

// folding is how fast a cell's log folds, and what the world of its Pods takes.
type folding struct {
	Entries int `json:"entries"`
	// PerSecond is entries per second as a planner that starts reads, decodes and folds them; Alone is of the fold alone.
	PerSecond float64 `json:"entriesPerSecond"`
	Alone     float64 `json:"entriesPerSecondFoldAlone"`
	// BytesPerPod is the memory of the whole world, with all Pods there and updated, for each Pod.
	BytesPerPod float64 `json:"bytesPerPod"`
}

// fold folds the log as a planner that starts without a compacted view does: all of it, decoding ahead of the fold; and, to see the fold alone
// and what the world takes, as far as all Pods are there, one after the other.
func (c *cell) fold(ctx context.Context, log journal.Journal) error {
	var full, last uint64
	for _, w := range c.study.windows {
		if last = max(last, w.upTo); w.job == jobUpdate {
			full = w.upTo
		}
	}
	began := time.Now()
	if err := foldAhead(ctx, log, last, world.New()); err != nil {
		return err
	}
	f := folding{Entries: int(last), PerSecond: float64(last) / time.Since(began).Seconds()}
	w, alone := world.New(), time.Duration(0)
	if err := each(ctx, log, 1, full, func(records []journal.Record) error {
		changes, err := readahead.Decode(records)
		start := time.Now()
		for _, change := range changes {
			w.Fold(change)
		}
		alone += time.Since(start)
		return err
	}); err != nil {
		return err
	}
	f.Alone = float64(full) / alone.Seconds()
	with := heap()
	runtime.KeepAlive(w)
	w = nil
	f.BytesPerPod = (with - heap()) / float64(c.pods+smallPods)
	c.result.Fold = &f
	return nil
}

// foldAhead decodes entries up to a position ahead of the fold, as the planner does.
func foldAhead(ctx context.Context, log journal.Journal, upTo uint64, w *world.World) error {
	decoded := make(chan []world.Change, 4)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(decoded)
		return each(ctx, log, 1, upTo, func(records []journal.Record) error {
			changes, err := readahead.Decode(records)
			decoded <- changes
			return err
		})
	})
	for changes := range decoded {
		for _, change := range changes {
			w.Fold(change)
		}
	}
	return group.Wait()
}
