package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/journal/embedded"
)

// floorWorkers is how many requests the bare client has under way.
const floorWorkers = 64

// floor is what the API server and the nodes take for the very writes that Shiplog made, by a client that knows them
// beforehand, with no controller running.
type floor struct{ create, update time.Duration }

// recorded are the writes of one Pod, as the log holds them.
type recorded struct {
	name                    string
	create, refresh, update []byte
}

// floor makes the recorded writes again: it updates the Pods that are there as their newest update did, then replaces them
// by Pods of the same making.
func (b *bench) floor(ctx context.Context, stateDir, image string) (floor, error) {
	writes, err := readWrites(ctx, stateDir)
	if err != nil {
		return floor{}, fmt.Errorf("read from the log what was written: %w", err)
	}
	if len(writes) < b.pods {
		return floor{}, fmt.Errorf("the log holds the writes of %d Pods of %d", len(writes), b.pods)
	}
	pods := b.client.CoreV1().Pods(namespace)
	var out floor
	var updates []time.Duration
	for round := 1; round <= b.rounds; round++ {
		next := fmt.Sprintf("nginx:floor%d", round)
		took, err := b.until(ctx, "", next, func() error {
			return each(writes, func(w recorded) error {
				patch := bytes.ReplaceAll(w.update, []byte(image), []byte(next))
				_, err := pods.Patch(ctx, w.name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
				return err
			})
		})
		if err != nil {
			return floor{}, err
		}
		updates = append(updates, took)
	}
	out.update = median(updates)
	if err := b.clear(ctx); err != nil {
		return floor{}, err
	}
	running, err := b.watch(ctx)
	if err != nil {
		return floor{}, err
	}
	defer running.Stop()
	out.create, err = b.until(ctx, "", "nginx:0", func() error {
		var group errgroup.Group
		group.Go(func() error { return b.open(ctx, running, writes) })
		group.Go(func() error {
			return each(writes, func(w recorded) error {
				return b.client.CoreV1().RESTClient().Post().Namespace(namespace).Resource("pods").
					SetHeader("Content-Type", "application/json").Body(w.create).Do(ctx).Error()
			})
		})
		return group.Wait()
	})
	return out, err
}

// open opens the readiness gate of each Pod once it runs, as Shiplog's second write of a new Pod does.
func (b *bench) open(ctx context.Context, running watch.Interface, writes []recorded) error {
	byName := map[string]recorded{}
	for _, w := range writes {
		byName[w.name] = w
	}
	var group errgroup.Group
	group.SetLimit(floorWorkers)
	for event := range running.ResultChan() {
		pod, is := event.Object.(*corev1.Pod)
		w, ours := byName[podName(pod)]
		if !is || !ours || pod.Status.Phase != corev1.PodRunning {
			continue
		}
		delete(byName, w.name)
		group.Go(func() error {
			_, err := b.client.CoreV1().Pods(namespace).Patch(ctx, w.name, types.StrategicMergePatchType, w.refresh, metav1.PatchOptions{}, "status")
			return err
		})
		if len(byName) == 0 {
			break
		}
	}
	return group.Wait()
}

func podName(pod *corev1.Pod) string {
	if pod == nil {
		return ""
	}
	return pod.Name
}

// readWrites reads what Shiplog wrote for each Pod of the CloneSet web from the log of a stopped instance.
func readWrites(ctx context.Context, stateDir string) ([]recorded, error) {
	log, err := journal.Open(ctx, journal.Options{Server: &embedded.Server{Directory: stateDir + "/log"}, AsIs: true})
	if err != nil {
		return nil, err
	}
	defer log.Close()
	state, err := log.State(ctx)
	if err != nil {
		return nil, err
	}
	reader, err := log.Read(ctx, journal.From{Sequence: max(state.FirstSequence, 1)})
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	pods := map[string]*recorded{}
	for last := uint64(0); last < state.LastSequence; {
		records, err := reader.Next(ctx)
		if err != nil {
			return nil, err
		}
		for _, record := range records {
			last = record.Sequence
			command := record.Entry.GetCommand()
			name := command.GetObject().GetName()
			if command.GetObject().GetResource() != "pods" || !strings.HasPrefix(name, "web-") {
				continue
			}
			if pods[name] == nil {
				pods[name] = &recorded{name: name}
			}
			switch command.GetReason().GetCode() {
			case "ScaleUp":
				pods[name].create = command.GetCreate().GetJson()
			case "RefreshPod":
				pods[name].refresh = command.GetPatch().GetJson()
			case "UpdateInPlace":
				pods[name].update = command.GetPatch().GetJson()
			}
		}
	}
	var out []recorded
	for _, w := range pods {
		out = append(out, *w)
	}
	return out, nil
}

// clear deletes all Pods and waits until they are gone.
func (b *bench) clear(ctx context.Context) error {
	zero := int64(0)
	pods := b.client.CoreV1().Pods(namespace)
	if err := pods.DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &zero}, metav1.ListOptions{}); err != nil {
		return err
	}
	for {
		list, err := pods.List(ctx, metav1.ListOptions{Limit: 1})
		if err != nil {
			return err
		}
		if len(list.Items) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// each does work for every Pod, floorWorkers at a time.
func each(writes []recorded, work func(recorded) error) error {
	var group errgroup.Group
	group.SetLimit(floorWorkers)
	for _, w := range writes {
		group.Go(func() error { return work(w) })
	}
	return group.Wait()
}

// watch watches the Pods from now on. The API server drops watches that are slow for a moment, so it is one that resumes.
func (b *bench) watch(ctx context.Context) (watch.Interface, error) {
	pods := b.client.CoreV1().Pods(namespace)
	list, err := pods.List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, err
	}
	return watchtools.NewRetryWatcherWithContext(ctx, list.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return pods.Watch(ctx, options)
		},
	})
}

// until starts something and returns the time until all Pods of a workload run image and are ready, as a watch sees it.
func (b *bench) until(ctx context.Context, app, image string, start func() error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	events, err := b.watch(ctx)
	if err != nil {
		return 0, err
	}
	defer events.Stop()
	began := time.Now()
	started := make(chan error, 1)
	go func() { started <- start() }()
	there := map[string]bool{}
	for len(there) < b.pods {
		select {
		case err := <-started:
			if err != nil {
				return 0, err
			}
			started = nil
		case <-ctx.Done():
			return 0, fmt.Errorf("%d of %d Pods run %s: %w", len(there), b.pods, image, ctx.Err())
		case event, open := <-events.ResultChan():
			if !open {
				return 0, fmt.Errorf("the watch ended with %d of %d Pods running %s", len(there), b.pods, image)
			}
			if event.Type == watch.Error {
				return 0, fmt.Errorf("the watch ended with %d of %d Pods running %s: %w", len(there), b.pods, image, apierrors.FromObject(event.Object))
			}
			if pod, is := event.Object.(*corev1.Pod); is && event.Type != watch.Deleted && runs(pod, image) && (app == "" || pod.Labels["app"] == app) {
				there[pod.Name] = true
			}
		}
	}
	return time.Since(began), nil
}

func runs(pod *corev1.Pod, image string) bool {
	if len(pod.Status.ContainerStatuses) == 0 || pod.Spec.Containers[0].Image != image || !strings.HasSuffix(pod.Status.ContainerStatuses[0].Image, "/"+image) {
		return false
	}
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func median(of []time.Duration) time.Duration {
	of = slices.Sorted(slices.Values(of))
	return of[len(of)/2]
}
