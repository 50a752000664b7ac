package main

import (
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
)

// floorWorkers is how many requests the bare client has under way.
const floorWorkers = 64

// floor is what the API server and the nodes take for the same writes without any controller.
type floor struct{ create, update time.Duration }

func (b *bench) floor(ctx context.Context) (floor, error) {
	const namespace = "floor"
	if _, err := b.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return floor{}, err
	}
	var out floor
	var err error
	if out.create, err = b.until(ctx, namespace, "nginx:0", func() error {
		return b.each(ctx, func(i int) error {
			pod := &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pod-%d", i), Labels: map[string]string{"app": "floor"}},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "nginx:0"}}},
			}
			_, err := b.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
			return err
		})
	}); err != nil {
		return floor{}, err
	}
	var updates []time.Duration
	for round := 1; round <= b.rounds; round++ {
		image := fmt.Sprintf("nginx:%d", round)
		patch := fmt.Appendf(nil, `{"metadata":{"labels":{"controller-revision-hash":"web-%d"},"annotations":{"state":"%0300d"}},"spec":{"containers":[{"name":"main","image":%q}]}}`, round, round, image)
		took, err := b.until(ctx, namespace, image, func() error {
			return b.each(ctx, func(i int) error {
				_, err := b.client.CoreV1().Pods(namespace).Patch(ctx, fmt.Sprintf("pod-%d", i), types.StrategicMergePatchType, patch, metav1.PatchOptions{})
				return err
			})
		})
		if err != nil {
			return floor{}, err
		}
		updates = append(updates, took)
	}
	out.update = median(updates)
	// The Pods go, so that Shiplog meets the same cluster that the bare client met.
	if err := b.client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{}); err != nil {
		return floor{}, err
	}
	for {
		list, err := b.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{Limit: 1})
		if err != nil {
			return floor{}, err
		}
		if len(list.Items) == 0 {
			return out, nil
		}
		select {
		case <-ctx.Done():
			return floor{}, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// each calls work for every Pod's number, floorWorkers at a time.
func (b *bench) each(ctx context.Context, work func(i int) error) error {
	group, _ := errgroup.WithContext(ctx)
	group.SetLimit(floorWorkers)
	for i := range b.pods {
		group.Go(func() error { return work(i) })
	}
	return group.Wait()
}

// until starts something and returns the time until all Pods of the namespace run image and are ready, as a watch sees it.
func (b *bench) until(ctx context.Context, namespace, image string, start func() error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	list, err := b.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return 0, err
	}
	// The API server drops watches that are slow for a moment, so one that resumes is needed.
	events, err := watchtools.NewRetryWatcherWithContext(ctx, list.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return b.client.CoreV1().Pods(namespace).Watch(ctx, options)
		},
	})
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
			if pod, is := event.Object.(*corev1.Pod); is && event.Type != watch.Deleted && runs(pod, image) {
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
