package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// The jobs, in their order.
const (
	jobCreate    = "create"
	jobUpdate    = "in-place update"
	jobRecreate  = "recreate update"
	jobScaleDown = "scale down"
)

var jobNames = []string{jobCreate, jobUpdate, jobRecreate, jobScaleDown}

// window is what the log took during one round of a job.
type window struct {
	job         string
	round       int
	after, upTo uint64
}

// goal is what a round ends with: so many Pods there, all of them with an image and ready.
type goal struct {
	pods  int
	image string
}

// goal of a round of a job, by Shiplog and by the bare client.
func (c *cell) goal(name string, round int) goal {
	switch name {
	case jobCreate:
		return goal{c.pods, imageOf(0)}
	case jobUpdate:
		return goal{c.pods, imageOf(round)}
	case jobRecreate:
		return goal{c.pods, imageOf(c.updates() + 1)}
	}
	return goal{}
}

// prepare makes the CloneSet that is none of the cell's.
func (c *cell) prepare(ctx context.Context) error {
	if err := c.createSet(ctx, smallName, "small", smallPods); err != nil {
		return err
	}
	return c.settle(ctx)
}

// rollouts has Shiplog do all that is done to Pods which stay.
func (c *cell) rollouts(ctx context.Context) error {
	if err := c.run(ctx, jobCreate, 1); err != nil {
		return err
	}
	if err := c.run(ctx, jobUpdate, c.updates()); err != nil {
		return err
	}
	if c.idles {
		if err := c.idling(ctx); err != nil {
			return err
		}
	}
	if c.system.apart() {
		if err := c.restarts(ctx); err != nil {
			return err
		}
	}
	return c.run(ctx, jobRecreate, 1)
}

func (c *cell) scaleDown(ctx context.Context) error { return c.run(ctx, jobScaleDown, 1) }

// change is what a user does to a CloneSet, by which a round of a job begins.
func (c *cell) change(ctx context.Context, job string, round int, set string) error {
	switch job {
	case jobCreate:
		return c.createSet(ctx, set, "measured", c.pods/c.sets)
	case jobUpdate:
		return c.changeSet(ctx, set, setImage(imageOf(round)))
	case jobRecreate:
		return c.changeSet(ctx, set, setPodUpdatePolicy("ReCreate"), setImage(c.goal(job, round).image))
	}
	return c.changeSet(ctx, set, setReplicas(0))
}

// run has Shiplog do a job: each CloneSet is changed, round by round.
func (c *cell) run(ctx context.Context, name string, rounds int) error {
	mark, err := c.audit.now()
	if err != nil {
		return err
	}
	meter, err := c.meter()
	if err != nil {
		return err
	}
	measured := job{Name: name}
	var profiles func() ([]profile, error)
	for round := 1; round <= rounds; round++ {
		w := window{job: name, round: round}
		if w.after, err = c.position(ctx); err != nil {
			return err
		}
		if round == 1 {
			profiles = c.profiles(ctx, name)
		}
		took, err := c.until(ctx, c.goal(name, round), func(ctx context.Context) error {
			var group errgroup.Group
			group.SetLimit(c.workers)
			for i := range c.sets {
				group.Go(func() error { return c.change(ctx, name, round, setName(i)) })
			}
			return group.Wait()
		}, nil)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		say("%s of %d Pods: %.2fs", name, c.pods, took.Seconds())
		measured.Shiplog = append(measured.Shiplog, took.Seconds())
		if err := c.settle(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if w.upTo, err = c.position(ctx); err != nil {
			return err
		}
		c.windows = append(c.windows, w)
	}
	if measured.Use, err = meter.read(); err != nil {
		return err
	}
	if measured.Writes, err = c.writes(mark); err != nil {
		return err
	}
	if measured.Profiles, err = profiles(); err != nil {
		return err
	}
	c.result.Jobs = append(c.result.Jobs, measured)
	return nil
}

// silence is how long nothing was written when everything counts as settled: statuses are written a little late.
const silence = 2 * time.Second

// settle waits until each CloneSet's status says that all is updated and available, and nothing but
// Events has been written for a while.
func (c *cell) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	waits := ""
	for {
		var err error
		if waits, err = c.unsettled(ctx); err != nil {
			return err
		}
		if waits == "" {
			quiet, err := c.quietFor(false)
			if err != nil {
				return err
			}
			if quiet >= silence {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for everything to settle: %w: %s", ctx.Err(), waits)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// unsettled names a CloneSet whose status is not what its spec wants.
func (c *cell) unsettled(ctx context.Context) (string, error) {
	data, err := c.client.RESTClient().Get().AbsPath(cloneSetsPath).
		SetHeader("Accept", "application/json").DoRaw(ctx)
	if err != nil {
		return "", err
	}
	var list struct {
		Items []struct {
			Metadata struct {
				Name       string
				Generation int64
			}
			Spec   struct{ Replicas int }
			Status struct {
				ObservedGeneration                                  int64
				Replicas, UpdatedReplicas, UpdatedAvailableReplicas int
			}
		}
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return "", err
	}
	for _, set := range list.Items {
		want, is := set.Spec.Replicas, set.Status
		if is.ObservedGeneration != set.Metadata.Generation || is.Replicas != want || is.UpdatedReplicas != want || is.UpdatedAvailableReplicas != want {
			return fmt.Sprintf("CloneSet %s wants %d, has %+v", set.Metadata.Name, want, is), nil
		}
	}
	return "", nil
}
