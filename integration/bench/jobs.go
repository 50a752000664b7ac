package main

import (
	"context"
	"errors"
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
	if err := c.ours.createSet(ctx, smallName, "small", smallPods); err != nil {
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

// change is what a user does to each CloneSet of a cluster, by which a round of a job begins.
func (c *cell) change(ctx context.Context, on *cluster, job string, round int) error {
	var group errgroup.Group
	group.SetLimit(c.workers)
	for i := range c.sets {
		group.Go(func() error {
			switch name := setName(i); job {
			case jobCreate:
				return on.createSet(ctx, name, "measured", c.pods/c.sets)
			case jobUpdate:
				return on.changeSet(ctx, name, setImage(imageOf(round)))
			case jobRecreate:
				return on.changeSet(ctx, name, setPodUpdatePolicy("ReCreate"), setImage(c.goal(job, round).image))
			default:
				return on.changeSet(ctx, name, setReplicas(0))
			}
		})
	}
	return group.Wait()
}

// run has a job done round by round, each by Shiplog and then by the bare client. They take turns so that both have the machine as it is
// within the same minute.
func (c *cell) run(ctx context.Context, name string, rounds int) error {
	measured := job{Name: name, Writes: map[string]int{}}
	for round := 1; round <= rounds; round++ {
		w, err := c.roundOfOurs(ctx, &measured, round)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		c.study.expect(w)
		if err := c.learn(ctx, w.upTo); err != nil {
			return err
		}
		if err := c.roundOfFloor(ctx, &measured, w); err != nil {
			return fmt.Errorf("floor of %s: %w", name, err)
		}
	}
	c.result.Jobs = append(c.result.Jobs, measured)
	return nil
}

// roundOfOurs measures a round by Shiplog, and returns what the log took for it. When it returns, nothing is written any more.
func (c *cell) roundOfOurs(ctx context.Context, measured *job, round int) (window, error) {
	w := window{job: measured.Name, round: round}
	mark, err := c.ours.audit.now()
	if err != nil {
		return w, err
	}
	if w.after, err = c.position(ctx); err != nil {
		return w, err
	}
	meter, err := c.meter(c.ours)
	if err != nil {
		return w, err
	}
	profiles := noProfiles
	if round == 1 {
		profiles = c.profiles(ctx, c.ours, w.job)
	}
	took, err := c.ours.until(ctx, c.goal(w.job, round), func(ctx context.Context) error { return c.change(ctx, c.ours, w.job, round) }, nil)
	if err != nil {
		return w, err
	}
	say("%s of %d Pods: %.2fs", w.job, c.pods, took.Seconds())
	if err := c.settle(ctx); err != nil {
		return w, err
	}
	uses, err := meter.read()
	if err != nil {
		return w, err
	}
	if w.upTo, err = c.position(ctx); err != nil {
		return w, err
	}
	writes, err := c.ours.writes(mark)
	if err != nil {
		return w, err
	}
	for what, n := range writes {
		measured.Writes[what] += n
	}
	measured.Shiplog, measured.Use = append(measured.Shiplog, took.Seconds()), both(measured.Use, uses)
	taken, err := profiles()
	measured.Profiles = append(measured.Profiles, taken...)
	return w, errors.Join(err, c.rest(ctx))
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
		if waits, err = c.ours.unsettled(ctx); err != nil {
			return err
		}
		if waits == "" {
			quiet, err := c.ours.quietFor(false)
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

// rest waits until Shiplog writes nothing any more, not even Events.
func (c *cell) rest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		quiet, err := c.ours.quietFor(true)
		if err != nil || quiet >= silence {
			return err
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("wait until nothing is written any more: %w", err)
		}
	}
}

// unsettled names a CloneSet whose status is not what its spec wants.
func (c *cluster) unsettled(ctx context.Context) (string, error) {
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
	if err := c.listSets(ctx, &list); err != nil {
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
