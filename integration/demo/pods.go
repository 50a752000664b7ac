package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// pod is what the demo shows of a Pod.
type pod struct {
	name, uid, ip, image, running, phase string
	ready, leaving                       bool
	restarts                             int32
}

func (p pod) String() string {
	ready := "not ready"
	switch {
	case p.leaving:
		ready = "leaving"
	case p.ready:
		ready = "ready"
	}
	return fmt.Sprintf("%-9s %-9s spec %-12s runs %-8s restarts %d  %s", p.phase, ready, p.image, p.running, p.restarts, p.ip)
}

// pods returns the Pods of the CloneSet, by name.
func (d *demo) pods() ([]pod, error) {
	out, err := d.cluster.Kubectl(d.ctx, "", "get", "pods", "-l", "app="+name, "-o", "json")
	if err != nil {
		return nil, err
	}
	var list corev1.PodList
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, fmt.Errorf("read the list of Pods: %w", err)
	}
	pods := make([]pod, 0, len(list.Items))
	for _, item := range list.Items {
		p := pod{
			name: item.Name, uid: string(item.UID), ip: item.Status.PodIP, image: item.Spec.Containers[0].Image,
			phase: string(item.Status.Phase), leaving: item.DeletionTimestamp != nil,
		}
		for _, condition := range item.Status.Conditions {
			if condition.Type == corev1.PodReady {
				p.ready = condition.Status == corev1.ConditionTrue && !p.leaving
			}
		}
		for _, status := range item.Status.ContainerStatuses {
			p.restarts += status.RestartCount
			if status.State.Running != nil {
				p.running = status.Image[strings.LastIndexByte(status.Image, ':')+1:]
			}
		}
		pods = append(pods, p)
	}
	slices.SortFunc(pods, func(a, b pod) int { return cmp.Compare(a.name, b.name) })
	return pods, nil
}

// allReady wants n Pods, all ready.
func allReady(n int) func([]pod) error {
	return func(pods []pod) error {
		ready := 0
		for _, p := range pods {
			if p.ready {
				ready++
			}
		}
		if len(pods) != n || ready != n {
			return fmt.Errorf("%d Pods, %d ready", len(pods), ready)
		}
		return nil
	}
}

func sameUIDs(before, after []pod) error {
	if len(before) != len(after) {
		return fmt.Errorf("%d Pods before, %d now", len(before), len(after))
	}
	for i := range before {
		if before[i].uid != after[i].uid {
			return fmt.Errorf("%s is another Pod than before", after[i].name)
		}
	}
	return nil
}
