package main

import (
	"context"
	"runtime"
	"time"

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
	// BytesPerPod is memory of the world for each Pod: with all Pods there, less what it was before them.
	BytesPerPod float64 `json:"bytesPerPod"`
}

// fold folds the log as a planner that starts without a compacted view does.
func (c *cell) fold(ctx context.Context, log journal.Journal) error {
	var before, full uint64
	for _, w := range c.windows {
		if w.job == jobCreate {
			before = w.after
		}
		if w.job == jobUpdate {
			full = w.upTo
		}
	}
	last := c.windows[len(c.windows)-1].upTo
	if c.result.Fold = new(folding); full == 0 {
		return nil
	}
	w := world.New()
	total, alone := time.Duration(0), time.Duration(0)
	measure := func(from, upTo uint64) error {
		began := time.Now()
		decoded, failed := make(chan []world.Change, 4), make(chan error, 1)
		go func() {
			defer close(decoded)
			failed <- each(ctx, log, from, upTo, func(records []journal.Record) error {
				changes, err := readahead.Decode(records)
				decoded <- changes
				return err
			})
		}()
		for changes := range decoded {
			start := time.Now()
			for _, change := range changes {
				w.Fold(change)
			}
			alone += time.Since(start)
		}
		total += time.Since(began)
		return <-failed
	}
	if err := measure(1, before); err != nil {
		return err
	}
	empty := heap()
	if err := measure(before+1, full); err != nil {
		return err
	}
	c.result.Fold.BytesPerPod = (heap() - empty) / float64(c.pods)
	if err := measure(full+1, last); err != nil {
		return err
	}
	runtime.KeepAlive(w)
	c.result.Fold.Entries = int(last)
	c.result.Fold.PerSecond, c.result.Fold.Alone = float64(last)/total.Seconds(), float64(last)/alone.Seconds()
	return nil
}
