package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// until starts something and returns the time until there are as many Pods as wanted and all are as wanted, as a watch sees it. It is the
// same for Shiplog and for the bare client, which is shown what the watch shows; nil: nobody is.
func (c *cluster) until(ctx context.Context, want goal, start func(context.Context) error, show func(*corev1.Pod)) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	there, events, err := c.watch(ctx)
	if err != nil {
		return 0, err
	}
	defer events.Stop()
	as := map[types.UID]bool{} // Pods that are there: whether they are as wanted
	right := 0
	put := func(pod *corev1.Pod) {
		is := want.met(pod)
		if as[pod.UID] != is {
			right += map[bool]int{true: 1, false: -1}[is]
		}
		as[pod.UID] = is
	}
	for i := range there {
		put(&there[i])
	}
	there = nil
	began := time.Now()
	started := make(chan error, 1)
	go func() { started <- start(ctx) }()
	for len(as) != want.pods || right != want.pods {
		select {
		case err := <-started:
			if err != nil {
				return 0, err
			}
			started = nil
		case <-ctx.Done():
			return 0, fmt.Errorf("there are %d Pods, %d of them as wanted, of %d with %s: %w", len(as), right, want.pods, want.image, ctx.Err())
		case event, open := <-events.ResultChan():
			pod, is := event.Object.(*corev1.Pod)
			switch {
			case !open:
				return 0, fmt.Errorf("the watch ended with %d of %d Pods", right, want.pods)
			case event.Type == watch.Error:
				return 0, fmt.Errorf("the watch ended with %d of %d Pods: %w", right, want.pods, apierrors.FromObject(event.Object))
			case !is:
			case event.Type == watch.Deleted:
				if as[pod.UID] {
					right--
				}
				delete(as, pod.UID)
			default:
				put(pod)
				if show != nil {
					show(pod)
				}
			}
		}
	}
	took := time.Since(began)
	if started != nil {
		return took, <-started
	}
	return took, nil
}

// watch returns the measured Pods and watches them from then on. The API server drops watches that are slow for a moment, so it is one
// that resumes.
func (c *cluster) watch(ctx context.Context) ([]corev1.Pod, watch.Interface, error) {
	pods := c.client.CoreV1().Pods(namespace)
	list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: measuredPods})
	if err != nil {
		return nil, nil, err
	}
	events, err := watchtools.NewRetryWatcherWithContext(ctx, list.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.LabelSelector = measuredPods
			return pods.Watch(ctx, options)
		},
	})
	return list.Items, events, err
}

// met says whether the Pod runs the image and is ready.
func (g goal) met(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp != nil || len(pod.Status.ContainerStatuses) == 0 || pod.Spec.Containers[0].Image != g.image ||
		!strings.HasSuffix(pod.Status.ContainerStatuses[0].Image, "/"+g.image) {
		return false
	}
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
