package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// write is a write to the API server, as the log holds it.
type write struct {
	path   string // of the collection that the object is in
	name   string
	pod    bool
	uid    string // of the object that was written; empty when it was created
	create []byte
	owner  string // UID of what owns it, when it is created
	patch  *shiplogv1.PatchObject
	delete *shiplogv1.DeleteObject
}

// opens says that the write is made once the Pod runs: it opens the readiness gate of a new one.
func (w write) opens() bool { return w.pod && w.patch.GetSubresource() == "status" }

// recording holds all writes, to Pods and others, for each round of each job in the order of the log.
type recording map[window][]write

// roundOfFloor has a bare client make the recorded writes of a round on a cluster of its own, and a user the same changes: what the API server
// and the nodes take for them, by a client that knows them beforehand, with no controller running and no webhook.
func (c *cell) roundOfFloor(ctx context.Context, measured *job, w window) error {
	meter, err := c.meter(c.bare)
	if err != nil {
		return err
	}
	profiles := noProfiles
	if w.round == 1 && c.keep != "" { // nothing is said of these, they are there to compare with
		profiles = c.profiles(ctx, c.bare, "floor of "+w.job)
	}
	took, err := c.play(ctx, w, c.study.recorded[w])
	if err != nil {
		return err
	}
	delete(c.study.recorded, w)
	if _, err := profiles(); err != nil {
		return err
	}
	say("floor of %s: %.2fs", w.job, took)
	if err := pause(ctx, silence); err != nil {
		return err
	}
	uses, err := meter.read()
	measured.Floor, measured.FloorUse = append(measured.Floor, took), both(measured.FloorUse, uses)
	return err
}

// play makes the changes and the writes of one round and returns the seconds until the Pods are as wanted.
//
// The writes are begun in the order of the log, and those of one Pod keep their order. Where Pods replace others, each is created after one was deleted, as a rule that keeps the number
// of Pods has it. Gates are opened when the Pod runs.
func (c *cell) play(ctx context.Context, round window, writes []write) (float64, error) {
	uids := map[string]types.UID{}
	held, err := c.bare.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: measuredPods})
	if err != nil {
		return 0, err
	}
	for _, pod := range held.Items {
		uids[pod.Name] = pod.UID
	}
	chains, gates := chainsOf(writes)
	working, ctx := errgroup.WithContext(ctx)
	running := make(chan *corev1.Pod, len(gates)) // each Pod once, so nobody waits for its place
	for range min(c.workers, len(gates)) {
		working.Go(func() error {
			for pod := range running {
				if err := c.write(ctx, gates[pod.Name], pod.UID); err != nil {
					return err
				}
			}
			return nil
		})
	}
	work := make(chan func(context.Context) error, len(chains))
	for _, chain := range chains {
		work <- func(ctx context.Context) error {
			for _, w := range chain {
				if err := c.write(ctx, w, uids[w.name]); err != nil {
					return err
				}
			}
			return nil
		}
	}
	close(work)
	opened := map[string]bool{}
	show := func(pod *corev1.Pod) {
		if _, waits := gates[pod.Name]; waits && !opened[pod.Name] && pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil {
			opened[pod.Name] = true
			running <- pod
		}
	}
	took, err := c.bare.until(ctx, c.goal(round.job, round.round), func(ctx context.Context) error {
		if err := c.change(ctx, c.bare, round.job, round.round); err != nil {
			return err
		}
		if round.job == jobCreate {
			if err := c.meet(ctx); err != nil {
				return err
			}
		}
		var group errgroup.Group
		for range c.workers {
			group.Go(func() error {
				for do := range work {
					if err := do(ctx); err != nil {
						return err
					}
				}
				return nil
			})
		}
		return group.Wait()
	}, show)
	close(running)
	return took.Seconds(), errors.Join(err, working.Wait())
}

// meet learns which of the bare client's CloneSets stand for those of ours. What it creates has an owner, or would be collected as garbage.
func (c *cell) meet(ctx context.Context) error {
	ours, err := c.ours.sets(ctx)
	if err != nil {
		return err
	}
	bare, err := c.bare.sets(ctx)
	if err != nil {
		return err
	}
	for name, uid := range bare {
		c.owners[ours[name]] = uid
	}
	return nil
}

// chainsOf sorts writes into those that follow one another, and the gates that are opened when a Pod runs.
func chainsOf(writes []write) (chains [][]write, gates map[string]write) {
	gates = map[string]write{}
	byPod, replaced := map[string]int{}, 0
	var deletions []int // chains that end with a deletion, in order
	for _, w := range writes {
		switch chain, known := byPod[w.name]; {
		case !w.pod:
			chains = append(chains, []write{w})
			continue
		case w.opens():
			gates[w.name] = w
			continue
		case known:
			chains[chain] = append(chains[chain], w)
		case w.create != nil && replaced < len(deletions):
			chain = deletions[replaced]
			replaced++
			byPod[w.name] = chain
			chains[chain] = append(chains[chain], w)
		default:
			byPod[w.name] = len(chains)
			chains = append(chains, []write{w})
		}
		if w.delete != nil {
			deletions = append(deletions, byPod[w.name])
		}
	}
	return chains, gates
}

// write makes a recorded write, to the Pod that has this UID now or to another object.
func (c *cell) write(ctx context.Context, w write, uid types.UID) error {
	request, body, contentType := c.bare.client.RESTClient().Post().AbsPath(w.path), w.create, "application/json"
	switch {
	case w.owner != "":
		body = bytes.ReplaceAll(body, []byte(w.owner), []byte(c.owners[w.owner]))
	case w.delete != nil:
		options := metav1.DeleteOptions{GracePeriodSeconds: w.delete.GracePeriodSeconds}
		if w.pod { // an old revision, of which the bare client knows the name alone, is nobody else's
			options.Preconditions = &metav1.Preconditions{UID: &uid}
		}
		data, err := json.Marshal(options)
		if err != nil {
			return err
		}
		request, body = c.bare.client.RESTClient().Delete().AbsPath(w.path, w.name), data
	case w.patch != nil:
		kind := patchTypes[w.patch.GetType()]
		request, body, contentType = c.bare.client.RESTClient().Patch(kind).AbsPath(w.path, w.name), w.patch.GetJson(), string(kind)
		if w.patch.GetSubresource() != "" {
			request = request.Suffix(w.patch.GetSubresource())
		}
		if w.pod {
			body = bytes.ReplaceAll(body, []byte(w.uid), []byte(uid))
		}
	}
	request = request.SetHeader("Content-Type", contentType).Body(body)
	if !w.pod {
		request = request.SetHeader("Accept", "application/json") // custom resources have no other form
	}
	if err := request.Do(ctx).Error(); err != nil {
		return fmt.Errorf("write %s/%s: %w", w.path, w.name, err)
	}
	return nil
}

var patchTypes = map[shiplogv1.PatchObject_Type]types.PatchType{
	shiplogv1.PatchObject_TYPE_MERGE:           types.MergePatchType,
	shiplogv1.PatchObject_TYPE_STRATEGIC_MERGE: types.StrategicMergePatchType,
	shiplogv1.PatchObject_TYPE_JSON:            types.JSONPatchType,
}
