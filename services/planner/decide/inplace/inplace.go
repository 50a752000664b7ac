// Package inplace judges and words the update of a running Pod to a newer template (spec: inplace-update). It decides
// whether a change qualifies, what to write, and when an update is complete. Which Pod may start, and when, is the business
// of the workload's rules.
package inplace

import (
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
	GraceAnnotation = "apps.kruise.io/inplace-update-grace"
	ReadyCondition  = "InPlaceUpdateReady"
	StartReason     = "StartInPlaceUpdate"
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

// Start is the account of an update that starts now (inplace-update R11, R16, R17).
func Start(pod *world.Pod, change Change, revision string, now time.Time) world.InPlaceUpdate {
	stamp := now.UTC().Format(time.RFC3339)
	update := world.InPlaceUpdate{
		Revision: revision, UpdateTimestamp: stamp, LastContainerStatuses: map[string]world.LastStatus{}, UpdateImages: len(change.Images) > 0,
	}
	// What an earlier update began and has not come to its end counts on.
	if pod.Update != nil {
		for name, last := range pod.Update.LastContainerStatuses { //shiplog:unordered: writes one key of a map per turn
			if !runs(pod, name, last) {
				update.LastContainerStatuses[name], update.UpdateImages = last, true
			}
		}
	}
	names := sortedKeys(change.Images)
	for _, name := range names {
		last, unfinished := update.LastContainerStatuses[name]
		if unfinished {
			last.Overtaken = append(slices.Clone(last.Overtaken), imageOf(pod, name))
		} else if status := pod.Status(name); status != nil {
			last.ImageID = status.ImageID
		}
		update.LastContainerStatuses[name] = last
	}
	if len(names) > 0 {
		update.ContainerBatches = []world.Batch{{Timestamp: stamp, Containers: names}}
	}
	return update
}

// Complete says whether the containers run what the newest update wanted (inplace-update R22.4, R25-R28).
func Complete(pod *world.Pod) bool {
	if _, pending := pod.Annotations[GraceAnnotation]; pending {
		return false
	}
	if pod.Update == nil {
		return true
	}
	for name, last := range pod.Update.LastContainerStatuses { //shiplog:unordered: asks whether all
		if !runs(pod, name, last) {
			return false
		}
	}
	return true
}

// runs says whether a container has left behind what it was before its image changed, and what was overtaken since. A
// runtime may report an image by another name than the spec's, so another content than before is taken for the one wanted.
func runs(pod *world.Pod, container string, last world.LastStatus) bool {
	status := pod.Status(container)
	if status == nil {
		return false
	}
	overtaken := slices.ContainsFunc(last.Overtaken, func(image string) bool { return sameImage(status.Image, image) })
	return sameImage(status.Image, imageOf(pod, container)) || status.ImageID != last.ImageID && !overtaken
}

// StartedAt is when the last of the containers that the newest update changed was started; zero: none was.
func StartedAt(pod *world.Pod) time.Time {
	var last time.Time
	if pod.Update == nil {
		return last
	}
	for name := range pod.Update.LastContainerStatuses { //shiplog:unordered: takes the latest
		if status := pod.Status(name); status != nil && status.State.Running.StartedAt.After(last) {
			last = status.State.Running.StartedAt
		}
	}
	return last
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
	if tagOf(a) != tagOf(b) {
		return false // the usual case, without reading the references
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

// tagOf is what follows the name in a reference: its tag, "latest" without one, or its digest.
func tagOf(image string) string {
	name := image[strings.LastIndexByte(image, '/')+1:]
	if _, tag, has := strings.Cut(name, ":"); has {
		return tag
	}
	return "latest"
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
