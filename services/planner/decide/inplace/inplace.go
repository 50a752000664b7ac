// Package inplace judges and words the update of a running Pod to a newer template (spec: inplace-update). It decides
// whether a change qualifies, what to write, and when an update is complete. Which Pod may start, and when, is the business
// of the workload's rules.
package inplace

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"

	"shiplog.dev/internal/world"
)

// Keys and conditions (inplace-update 2.2).
const (
	StateAnnotation       = "apps.kruise.io/inplace-update-state"
	LegacyStateAnnotation = "inplace-update-state"
	GraceAnnotation       = "apps.kruise.io/inplace-update-grace"
	ReadyCondition        = "InPlaceUpdateReady"
	StartReason           = "StartInPlaceUpdate"
)

// Change is a difference between two templates that a running Pod can take (inplace-update R2).
type Change struct {
	// Images by container name, only those that differ.
	Images map[string]string
	// Labels and Annotations to set; nil values are removed.
	Labels, Annotations map[string]any
}

// Between returns the change from one template to another, or why a running Pod cannot take it (inplace-update R1-R3, R7).
func Between(from, to world.Template) (Change, error) {
	change := Change{Images: map[string]string{}}
	oldSpec, newSpec := mapAt(from.Tree, "spec"), mapAt(to.Tree, "spec")
	oldContainers, newContainers := listAt(oldSpec, "containers"), listAt(newSpec, "containers")
	if len(oldContainers) != len(newContainers) {
		return Change{}, fmt.Errorf("spec.containers: %d before, %d now", len(oldContainers), len(newContainers))
	}
	for i := range oldContainers {
		before, _ := oldContainers[i].(map[string]any)
		after, _ := newContainers[i].(map[string]any)
		if before["image"] != after["image"] {
			image, _ := after["image"].(string)
			name, _ := before["name"].(string)
			if image == "" {
				return Change{}, fmt.Errorf("spec.containers[%d].image: removed", i)
			}
			change.Images[name] = image
		}
		if field := firstDifference(before, after, "image"); field != "" {
			return Change{}, fmt.Errorf("spec.containers[%d].%s differs", i, field)
		}
	}
	if field := firstDifference(oldSpec, newSpec, "containers"); field != "" {
		return Change{}, fmt.Errorf("spec.%s differs", field)
	}
	oldMeta, newMeta := mapAt(from.Tree, "metadata"), mapAt(to.Tree, "metadata")
	change.Labels = keyChanges(mapAt(oldMeta, "labels"), mapAt(newMeta, "labels"))
	change.Annotations = keyChanges(mapAt(oldMeta, "annotations"), mapAt(newMeta, "annotations"))
	if container := feedsEnv(newContainers, change); container != "" {
		// The restart that this needs is the node agent's work (inplace-update R5, R35).
		return Change{}, fmt.Errorf("container %s: env reads metadata that changes", container)
	}
	return change, nil
}

// firstDifference names the first key, in order, under which two maps do not mean the same; empty: none.
func firstDifference(before, after map[string]any, except string) string {
	keys := map[string]bool{}
	for key := range before { //shiplog:unordered: sorted below
		keys[key] = true
	}
	for key := range after { //shiplog:unordered: sorted below
		keys[key] = true
	}
	delete(keys, except)
	for _, key := range sortedKeys(keys) {
		if !world.SameMeaning(before[key], after[key]) {
			return key
		}
	}
	return ""
}

func keyChanges(before, after map[string]any) map[string]any {
	changes := map[string]any{}
	for key, value := range after { //shiplog:unordered: writes one key of a map per turn
		if !reflect.DeepEqual(before[key], value) {
			changes[key] = value
		}
	}
	for key := range before { //shiplog:unordered: writes one key of a map per turn
		if _, kept := after[key]; !kept {
			changes[key] = nil
		}
	}
	return changes
}

// feedsEnv names a container that has an env entry which reads a changed label or annotation; empty: none.
func feedsEnv(containers []any, change Change) string {
	for _, entry := range containers {
		container, _ := entry.(map[string]any)
		for _, variable := range listAt(container, "env") {
			variable, _ := variable.(map[string]any)
			path, _ := mapAt(mapAt(variable, "valueFrom"), "fieldRef")["fieldPath"].(string)
			for _, source := range []struct {
				prefix  string
				changes map[string]any
			}{{"metadata.labels['", change.Labels}, {"metadata.annotations['", change.Annotations}} {
				key, found := strings.CutPrefix(path, source.prefix)
				if _, changed := source.changes[strings.TrimSuffix(key, "']")]; found && changed {
					name, _ := container["name"].(string)
					return name
				}
			}
		}
	}
	return ""
}

// State is the state annotation (inplace-update 2.3).
type State struct {
	Revision              string                     `json:"revision"`
	UpdateTimestamp       string                     `json:"updateTimestamp"`
	LastContainerStatuses map[string]ContainerStatus `json:"lastContainerStatuses"`
	UpdateImages          bool                       `json:"updateImages,omitempty"`
	ContainerBatches      []Batch                    `json:"containerBatchesRecord,omitempty"`
}

// ContainerStatus is what a container was before its image changed.
type ContainerStatus struct {
	ImageID string `json:"imageID,omitempty"`
	// Overtaken are images that the container should have run since and that were replaced before they were seen running. The
	// kubelet may still start one of them. OpenKruise does not know this field.
	Overtaken []string `json:"overtakenImages,omitempty"`
}

// Batch records which containers were changed together.
type Batch struct {
	Timestamp  string   `json:"timestamp"`
	Containers []string `json:"containers"`
}

// NewState is the state annotation of an update that starts now (inplace-update R11, R16, R17).
func NewState(pod *world.Pod, change Change, revision string, now time.Time) State {
	stamp := now.UTC().Format(time.RFC3339)
	state := State{Revision: revision, UpdateTimestamp: stamp, LastContainerStatuses: map[string]ContainerStatus{}, UpdateImages: len(change.Images) > 0}
	// What an earlier update began and has not come to its end counts on.
	if before := ReadState(pod); before != nil {
		for name, last := range before.LastContainerStatuses { //shiplog:unordered: writes one key of a map per turn
			if !runs(pod, name, last) {
				state.LastContainerStatuses[name], state.UpdateImages = last, true
			}
		}
	}
	names := sortedKeys(change.Images)
	for _, name := range names {
		last, unfinished := state.LastContainerStatuses[name]
		if unfinished {
			last.Overtaken = append(slices.Clone(last.Overtaken), imageOf(pod, name))
		} else if status := pod.Status(name); status != nil {
			last.ImageID = status.ImageID
		}
		state.LastContainerStatuses[name] = last
	}
	if len(names) > 0 {
		state.ContainerBatches = []Batch{{Timestamp: stamp, Containers: names}}
	}
	return state
}

// ReadState returns the Pod's state annotation, nil when it has none. Text that cannot be read counts as none.
func ReadState(pod *world.Pod) *State {
	text, has := pod.Annotations[StateAnnotation]
	if !has {
		text, has = pod.Annotations[LegacyStateAnnotation]
	}
	if !has {
		return nil
	}
	var state State
	if json.Unmarshal([]byte(text), &state) != nil {
		return nil
	}
	return &state
}

// Complete says whether the containers run what the newest update wanted (inplace-update R22.4, R25-R28).
func Complete(pod *world.Pod) bool {
	if _, pending := pod.Annotations[GraceAnnotation]; pending {
		return false
	}
	state := ReadState(pod)
	if state == nil {
		return true
	}
	for name, last := range state.LastContainerStatuses { //shiplog:unordered: asks whether all
		if !runs(pod, name, last) {
			return false
		}
	}
	return true
}

// runs says whether a container has left behind what it was before its image changed, and what was overtaken since. A
// runtime may report an image by another name than the spec's, so another content than before is taken for the one wanted.
func runs(pod *world.Pod, container string, last ContainerStatus) bool {
	status := pod.Status(container)
	if status == nil {
		return false
	}
	overtaken := slices.ContainsFunc(last.Overtaken, func(image string) bool { return sameImage(status.Image, image) })
	return sameImage(status.Image, imageOf(pod, container)) || status.ImageID != last.ImageID && !overtaken
}

func imageOf(pod *world.Pod, container string) string {
	for _, c := range pod.Containers {
		if c.Name == container {
			return c.Image
		}
	}
	return ""
}

// sameImage compares image references as the runtime means them: "nginx" is docker.io/library/nginx:latest (D5).
func sameImage(a, b string) bool {
	if a == b {
		return true
	}
	left, err := reference.ParseNormalizedNamed(a)
	if err != nil {
		return false
	}
	right, err := reference.ParseNormalizedNamed(b)
	if err != nil {
		return false
	}
	return reference.TagNameOnly(left).String() == reference.TagNameOnly(right).String()
}

// Describe says in a few words what a change is, for reasons: "nginx to nginx:1.21".
func (c Change) Describe() string {
	var parts []string
	for _, name := range sortedKeys(c.Images) {
		parts = append(parts, name+" to "+c.Images[name])
	}
	if n := len(c.Labels) + len(c.Annotations); n > 0 {
		parts = append(parts, fmt.Sprintf("%d metadata keys", n))
	}
	if len(parts) == 0 {
		return "nothing that runs"
	}
	return strings.Join(parts, ", ")
}

func sortedKeys[V any](of map[string]V) []string {
	keys := make([]string, 0, len(of))
	for key := range of { //shiplog:unordered: sorted below
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func mapAt(tree map[string]any, key string) map[string]any {
	value, _ := tree[key].(map[string]any)
	return value
}

func listAt(tree map[string]any, key string) []any {
	value, _ := tree[key].([]any)
	return value
}
