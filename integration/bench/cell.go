package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"shiplog.dev/internal/journal"
)

// cell is one measurement: so many Pods in so many CloneSets, on clusters of its own.
type cell struct {
	*options
	pods, sets int
	layout     string
	idles      bool // measures an idle cluster too
	result     result

	ours   *cluster // Shiplog works here
	bare   *cluster // and the bare client here; each rests while the other works
	system *system
	study  *study
	owners map[string]string // UIDs of the bare client's CloneSets, by those of ours with the same names
}

func newCell(o *options, pods, sets int, layout string) *cell {
	c := &cell{options: o, pods: pods, sets: sets, layout: layout, study: newStudy(), owners: map[string]string{}}
	c.result = result{Pods: pods, CloneSets: sets, Layout: layout, Began: time.Now(), Workers: o.workers, Machine: thisMachine(), Jobs: []job{}}
	return c
}

func (c *cell) name() string { return c.result.name() }

// updates is how often the Pods are updated in place.
func (c *cell) updates() int {
	if c.pods > 1000 {
		return max(1, (c.rounds+1)/2)
	}
	return max(1, c.rounds)
}

// estimate is how long the cell takes, by what was measured on two cores.
func (c *cell) estimate() time.Duration {
	took := 80*time.Second + time.Duration(c.pods)*time.Duration(65+15*c.updates())*time.Millisecond
	if c.idles {
		took += time.Duration(c.changes) * 2500 * time.Millisecond
		if c.layout == c.layouts[0] {
			took += sealWithin + c.idle
		}
	}
	return took
}

// measure does everything to the Pods, with Shiplog and without it.
func (c *cell) measure(ctx context.Context) error {
	c.result.Began = time.Now()
	defer func() { c.result.Took = time.Since(c.result.Began).Seconds() }()
	dir, err := os.MkdirTemp("", "shiplog-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if c.ours, err = startCluster(ctx, filepath.Join(dir, "ours"), c.nodes); err != nil {
		return err
	}
	defer c.ours.Down()
	if c.bare, err = startCluster(ctx, filepath.Join(dir, "bare"), c.nodes); err != nil {
		return err
	}
	defer c.bare.Down()
	say("starting Shiplog, layout %s", c.layout)
	if c.system, err = startSystem(ctx, c.layout, c.ours.Cluster, dir); err != nil {
		return err
	}
	defer c.system.end()
	for _, step := range []func(context.Context) error{c.prepare, c.rollouts, c.scaleDown, c.sumUp} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("%w\n%s", err, c.system.lastWords())
		}
	}
	if c.verbose {
		fmt.Fprintln(os.Stderr, c.system.output())
	}
	c.system.end()
	if c.result.Idle == nil {
		return nil
	}
	return c.reactions(ctx)
}

// open opens the log as a reader does.
func (c *cell) open(ctx context.Context) (journal.Journal, error) {
	url, err := c.system.url()
	if err != nil {
		return nil, err
	}
	return journal.Open(ctx, journal.Options{URL: url, AsIs: true})
}

// position is the sequence of the newest entry.
func (c *cell) position(ctx context.Context) (uint64, error) {
	log, err := c.open(ctx)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	state, err := log.State(ctx)
	return state.LastSequence, err
}
