package inplace

import (
	"cmp"
	"encoding/json"
	"slices"

	"shiplog.dev/internal/world"
)

// Runtime is what is written down of what really runs in a Pod (inplace-update 2.5, pod-probe B2).
type Runtime struct {
	Containers []RuntimeContainer `json:"containers"`
}

// RuntimeContainer is one container.
type RuntimeContainer struct {
	Name         string        `json:"name"`
	ContainerID  string        `json:"containerID"`
	RestartCount int32         `json:"restartCount"`
	Hashes       RuntimeHashes `json:"hashes"`
}

// RuntimeHashes are the kubelet's hash of the container's spec, and that of the environment that it has from the Pod's metadata.
type RuntimeHashes struct {
	Plain uint64 `json:"plainHash"`
	Env   uint64 `json:"extractedEnvFromMetadataHash,omitempty"`
}

// Of returns what is said of a container; nil: nothing.
func (r *Runtime) Of(container string) *RuntimeContainer {
	for i := range r.Containers {
		if r.Containers[i].Name == container {
			return &r.Containers[i]
		}
	}
	return nil
}

// Sort puts the containers into the order of the Pod's status.
func (r *Runtime) Sort(pod *world.Pod) {
	at := func(name string) int {
		return slices.IndexFunc(pod.Statuses, func(status world.ContainerStatus) bool { return status.Name == name })
	}
	slices.SortStableFunc(r.Containers, func(a, b RuntimeContainer) int { return cmp.Compare(at(a.Name), at(b.Name)) })
}

// RuntimeOf returns what is written down of a Pod; nil: nothing that can be read.
func RuntimeOf(pod *world.Pod) *Runtime {
	var meta Runtime
	text, has := pod.Annotations.Lookup(RuntimeAnnotation)
	if !has || json.Unmarshal([]byte(text), &meta) != nil {
		return nil
	}
	return &meta
}

// ReadsMetadata says whether a container of the Pod has environment from its metadata.
func ReadsMetadata(pod *world.Pod) bool {
	for i := range pod.Containers {
		if len(pod.Containers[i].Reads) > 0 {
			return true
		}
	}
	return false
}

// ToInspect returns the containers of a Pod of which nothing that still holds is written down, and the account without them. A
// container that does not run is left out until it does (pod-probe B5, B6, D15).
func ToInspect(pod *world.Pod) (unknown []*world.ContainerStatus, known Runtime) {
	says := RuntimeOf(pod)
	for i := range pod.Statuses {
		status := &pod.Statuses[i]
		if status.ContainerID == "" || status.State.Running.StartedAt.IsZero() {
			continue
		}
		if says != nil {
			if held := says.Of(status.Name); held != nil && held.ContainerID == status.ContainerID {
				known.Containers = append(known.Containers, *held)
				continue
			}
		}
		unknown = append(unknown, status)
	}
	return unknown, known
}

// ToRestart returns the containers whose environment is not what the Pod's metadata says now (pod-probe B8).
func ToRestart(pod *world.Pod) []*world.Container {
	says := RuntimeOf(pod)
	if says == nil {
		return nil
	}
	var out []*world.Container
	for i := range pod.Containers {
		container, status := &pod.Containers[i], pod.Status(pod.Containers[i].Name)
		held := says.Of(container.Name)
		if held != nil && status != nil && held.ContainerID == status.ContainerID && held.Hashes.Env > 0 && held.Hashes.Env != envHash(pod, container) {
			out = append(out, container)
		}
	}
	return out
}
