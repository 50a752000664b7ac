package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"shiplog.dev/internal/journal"
)

// restartRounds is how often the planner is killed.
const restartRounds = 3

// restarts kills the planner, changes a CloneSet, starts the planner, and measures until it has appended its first command for a Pod. All
// Pods of the cell are in its world.
func (c *cell) restarts(ctx context.Context) error {
	planner := c.system.of("planner")
	for round := 1; round <= restartRounds; round++ {
		before, err := c.position(ctx)
		if err != nil {
			return err
		}
		planner.process.Kill()
		if err := c.ours.changeSet(ctx, smallName, setImage(fmt.Sprint("nginx:restart", round))); err != nil {
			return err
		}
		began := time.Now()
		if err := planner.start(ctx); err != nil {
			return err
		}
		decided, err := c.firstCommand(ctx, before)
		if err != nil {
			return fmt.Errorf("restart of the planner: %w", err)
		}
		took := decided.Sub(began)
		say("restart of the planner with %d Pods to its first command: %.2fs", c.pods+smallPods, took.Seconds())
		c.result.Restarts = append(c.result.Restarts, took.Seconds())
		if err := c.settle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// firstCommand waits for the first command after a position for a Pod of the small CloneSet, and returns the log's time of it.
func (c *cell) firstCommand(ctx context.Context, after uint64) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	log, err := c.open(ctx)
	if err != nil {
		return time.Time{}, err
	}
	defer log.Close()
	reader, err := log.Read(ctx, journal.From{Sequence: after + 1})
	if err != nil {
		return time.Time{}, err
	}
	defer reader.Close()
	for {
		records, err := reader.Next(ctx)
		if err != nil {
			return time.Time{}, err
		}
		for _, record := range records {
			ref := record.Entry.GetCommand().GetObject()
			if ref.GetResource() == "pods" && strings.HasPrefix(ref.GetName(), smallName+"-") {
				return record.Time, nil
			}
		}
	}
}
