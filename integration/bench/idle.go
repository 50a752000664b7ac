package main

import (
	"context"
	"fmt"
	"time"

	"shiplog.dev/integration/testbed"
)

// idle are the figures of a cluster on which nothing else happens.
type idle struct {
	// From a spec change to the first write to a Pod, in milliseconds: since the API server answered the change, sorted, and since it received it.
	SinceAnswer  []float64 `json:"sinceAnswerMs"`
	SinceRequest []float64 `json:"sinceRequestMs"`
	// Floor is SinceAnswer of a bare client, which writes to a Pod as soon as it sees the change.
	Floor  []float64 `json:"floorMs,omitempty"`
	Stages []stage   `json:"stages"`
	// While nothing happened: for so many seconds, what went into the log and to the API server, and the share of a core in percent.
	Watched float64 `json:"watchedSeconds"`
	Entries float64 `json:"logEntries"`
	Writes  int     `json:"apiWrites"`
	CPU     float64 `json:"cpuPercent"`
}

// idling measures from the API server's answer to a spec change until it receives our first write to a Pod, with ten Pods of one
// CloneSet, one change after the other; then, in the first layout, it watches an idle cluster.
func (c *cell) idling(ctx context.Context) error {
	say("latency of %d spec changes", c.changes)
	mark, err := c.ours.audit.now()
	if err != nil {
		return err
	}
	w := window{job: idleJob}
	if w.after, err = c.position(ctx); err != nil {
		return err
	}
	for i := 1; i <= c.changes; i++ {
		if err := c.ours.changeSet(ctx, smallName, setImage(imageOf(i))); err != nil {
			return err
		}
		if err := c.settle(ctx); err != nil {
			return err
		}
	}
	if w.upTo, err = c.position(ctx); err != nil {
		return err
	}
	c.study.expect(w)
	sinceAnswer, sinceRequest, err := c.ours.delays(mark, smallName, testbed.Audit.Ours)
	if err != nil {
		return err
	}
	if len(sinceAnswer) < c.changes {
		return fmt.Errorf("%d of %d spec changes found in the audit log", len(sinceAnswer), c.changes)
	}
	c.result.Idle = &idle{SinceAnswer: milliseconds(sinceAnswer), SinceRequest: milliseconds(sinceRequest)}
	if c.layout != c.layouts[0] {
		return nil
	}
	return c.quiet(ctx)
}

func milliseconds(of []time.Duration) (out []float64) {
	for _, d := range of {
		out = append(out, float64(d.Microseconds())/1000)
	}
	return out
}

// at is the value below which so many percent are.
func at(sorted []float64, percent int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)-1)*percent/100]
}

// sealWithin is how long the log is silent when it stays silent: the last vouch and tick of the work before belong to that, and the seal,
// which comes within a minute.
const sealWithin = 65 * time.Second

// quiet watches an idle cluster.
func (c *cell) quiet(ctx context.Context) error {
	planner := c.system.of("planner").process
	say("waiting until the log is silent")
	entries, silent := -1.0, time.Now()
	for time.Since(silent) < sealWithin {
		position, err := planner.Metric("shiplog_planner_position")
		if err != nil {
			return err
		}
		quiet, err := c.ours.quietFor(true)
		if err != nil {
			return err
		}
		if position != entries || quiet < silence {
			entries, silent = position, time.Now()
		}
		if err := pause(ctx, time.Second/2); err != nil {
			return err
		}
	}
	say("idle for %s", c.idle)
	mark, err := c.ours.audit.now()
	if err != nil {
		return err
	}
	meter, err := c.meter(c.ours)
	if err != nil {
		return err
	}
	if err := pause(ctx, c.idle); err != nil {
		return err
	}
	uses, err := meter.read()
	if err != nil {
		return err
	}
	later, err := planner.Metric("shiplog_planner_position")
	if err != nil {
		return err
	}
	lines, err := c.ours.audit.since(mark)
	if err != nil {
		return err
	}
	i := c.result.Idle
	for _, a := range lines {
		if a.Ours() && a.Writes() {
			i.Writes++
		}
	}
	i.Watched, i.Entries, i.CPU = c.idle.Seconds(), later-entries, 100*cpuOfOurs(uses)/c.idle.Seconds()
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
