package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// write is a write to a Pod, as the log holds it.
type write struct {
	pod, uid string // uid: of the Pod that was written; empty for one that was created
	create   []byte
	patch    *shiplogv1.PatchObject
	delete   *shiplogv1.DeleteObject
}

// opens says that the write is made once the Pod runs: it opens the readiness gate of a new one.
func (w write) opens() bool { return w.patch.GetSubresource() == "status" }

// recording holds the writes to Pods that were applied, for each round of each job in the order of the log.
type recording map[window][]write

// floor has a bare client make the recorded writes again: what the API server and the nodes take for them, by a client that knows them
// beforehand, with no controller running.
func (c *cell) floor(ctx context.Context) error {
	say("the same writes by a bare client with %d workers", c.workers)
	for i := range c.result.Jobs {
		job := &c.result.Jobs[i]
		meter, err := c.meter()
		if err != nil {
			return err
		}
		for _, w := range c.windows {
			if w.job != job.Name {
				continue
			}
			took, err := c.play(ctx, c.goal(w.job, w.round), c.recorded[w])
			if err != nil {
				return fmt.Errorf("floor of %s: %w", w.job, err)
			}
			say("floor of %s: %.2fs", w.job, took)
			job.Floor = append(job.Floor, took)
		}
		if job.FloorUse, err = meter.read(); err != nil {
			return err
		}
	}
	return nil
}

// play makes the writes of one round and returns the seconds until the Pods are as wanted.
//
// The writes of one Pod keep their order. Where Pods replace others, each is created after one was deleted, as a rule that keeps the number
// of Pods has it. Gates are opened when the Pod runs.
func (c *cell) play(ctx context.Context, want goal, writes []write) (float64, error) {
	uids := map[string]types.UID{}
	held, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: measuredPods})
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
	work := make(chan []write, len(chains))
	for _, chain := range chains {
		work <- chain
	}
	close(work)
	opened := map[string]bool{}
	show := func(pod *corev1.Pod) {
		if _, waits := gates[pod.Name]; waits && !opened[pod.Name] && pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil {
			opened[pod.Name] = true
			running <- pod
		}
	}
	took, err := c.until(ctx, want, func(ctx context.Context) error {
		var group errgroup.Group
		for range c.workers {
			group.Go(func() error {
				for chain := range work {
					for _, w := range chain {
						if err := c.write(ctx, w, uids[w.pod]); err != nil {
							return err
						}
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

// chainsOf sorts writes into those that follow one another, and the gates that are opened when a Pod runs.
func chainsOf(writes []write) (chains [][]write, gates map[string]write) {
	gates = map[string]write{}
	byPod, replaced := map[string]int{}, 0
	var deletions []int // chains that end with a deletion, in order
	for _, w := range writes {
		switch chain, known := byPod[w.pod]; {
		case w.opens():
			gates[w.pod] = w
			continue
		case known:
			chains[chain] = append(chains[chain], w)
		case w.create != nil && replaced < len(deletions):
			chain = deletions[replaced]
			replaced++
			byPod[w.pod] = chain
			chains[chain] = append(chains[chain], w)
		default:
			byPod[w.pod] = len(chains)
			chains = append(chains, []write{w})
		}
		if w.delete != nil {
			deletions = append(deletions, byPod[w.pod])
		}
	}
	return chains, gates
}

// write makes a recorded write to the Pod that has this UID now.
func (c *cell) write(ctx context.Context, w write, uid types.UID) error {
	pods := c.client.CoreV1().Pods(namespace)
	switch {
	case w.create != nil:
		return c.client.CoreV1().RESTClient().Post().Namespace(namespace).Resource("pods").
			SetHeader("Content-Type", "application/json").Body(w.create).Do(ctx).Error()
	case w.delete != nil:
		return pods.Delete(ctx, w.pod, metav1.DeleteOptions{GracePeriodSeconds: w.delete.GracePeriodSeconds, Preconditions: &metav1.Preconditions{UID: &uid}})
	}
	body := bytes.ReplaceAll(w.patch.GetJson(), []byte(w.uid), []byte(uid))
	var subresources []string
	if w.patch.GetSubresource() != "" {
		subresources = append(subresources, w.patch.GetSubresource())
	}
	_, err := pods.Patch(ctx, w.pod, patchTypes[w.patch.GetType()], body, metav1.PatchOptions{}, subresources...)
	return err
}

var patchTypes = map[shiplogv1.PatchObject_Type]types.PatchType{
	shiplogv1.PatchObject_TYPE_MERGE:           types.MergePatchType,
	shiplogv1.PatchObject_TYPE_STRATEGIC_MERGE: types.StrategicMergePatchType,
	shiplogv1.PatchObject_TYPE_JSON:            types.JSONPatchType,
}
