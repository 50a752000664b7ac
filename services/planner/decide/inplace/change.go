package inplace

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"shiplog.dev/internal/world"
)

// Change is what a running Pod lacks of a newer template, when a running Pod can take it (inplace-update R2).
type Change struct {
	// Images by container.
	Images map[string]string
	// Resources by container: the amounts of cpu and memory to set.
	Resources map[string]world.Resources
	// Feeds are the labels and annotations that env entries of a container read, by container. It restarts for them.
	Feeds map[string]world.RefMetadata
	// Labels and Annotations that feed nothing; nil values are removed.
	Labels, Annotations map[string]*string
	// Finalizers to add, and to take away.
	Finalizers, FinalizersGone []string
}

// Between returns what a Pod lacks on its way from the template that it was made from to another, or why it cannot take that
// while it runs (inplace-update R1-R7). What an earlier update still had to do counts too, so that a newer target in the middle
// of one forgets nothing; what the Pod has already is left out (D1).
func Between(pod *world.Pod, from, to world.Template, gates Gates) (Change, error) {
	change := Change{Images: map[string]string{}, Resources: map[string]world.Resources{}, Feeds: map[string]world.RefMetadata{}}
	held := heldBack(pod)
	oldSpec, newSpec := mapAt(from.Tree, "spec"), mapAt(to.Tree, "spec")
	oldContainers, newContainers := listAt(oldSpec, "containers"), listAt(newSpec, "containers")
	if len(oldContainers) != len(newContainers) {
		return Change{}, fmt.Errorf("spec.containers: %d before, %d now", len(oldContainers), len(newContainers))
	}
	for i := range oldContainers {
		before, _ := oldContainers[i].(map[string]any)
		after, _ := newContainers[i].(map[string]any)
		if field := firstDifference(before, after, "image", "resources"); field != "" {
			return Change{}, fmt.Errorf("spec.containers[%d].%s differs", i, field)
		}
		wanted := world.ReadContainer(after)
		if before["image"] != after["image"] && wanted.Image == "" {
			return Change{}, fmt.Errorf("spec.containers[%d].image: removed", i)
		}
		_, waits := held.Images[wanted.Name]
		if (before["image"] != after["image"] || waits) && imageOf(pod, wanted.Name) != wanted.Image {
			change.Images[wanted.Name] = wanted.Image
		}
		resized, err := resize(mapAt(before, "resources"), mapAt(after, "resources"), gates)
		if err != nil {
			return Change{}, fmt.Errorf("spec.containers[%d].resources%w", i, err)
		}
		_, waits = held.Resources[wanted.Name]
		if lacks := lacking(containerOf(pod, wanted.Name), wanted); (resized || waits) && (len(lacks.Limits) > 0 || len(lacks.Requests) > 0) {
			change.Resources[wanted.Name] = lacks
		}
	}
	if field := firstDifference(oldSpec, newSpec, "containers"); field != "" {
		return Change{}, fmt.Errorf("spec.%s differs", field)
	}
	change.metadata(pod, mapAt(from.Tree, "metadata"), mapAt(to.Tree, "metadata"), held, gates)
	if before, after := qosOf(pod, nil), qosOf(pod, change.Resources); len(change.Resources) > 0 && before != after {
		return Change{}, fmt.Errorf("spec.containers: the Pod's quality of service class would go from %s to %s", before, after) // D19
	}
	if !pod.Annotations.Has(RuntimeAnnotation) && len(change.Feeds) > 0 {
		return Change{}, fmt.Errorf("container %s: its env reads metadata that changes, and no node agent reports on the Pod", sortedKeys(change.Feeds)[0]) // D21
	}
	return change, nil
}

// metadata works out labels, annotations and finalizers (inplace-update R5, R6). Absent maps are empty ones (D3).
func (c *Change) metadata(pod *world.Pod, before, after map[string]any, held Change, gates Gates) {
	heldLabels, heldAnnotations := maps.Clone(held.Labels), maps.Clone(held.Annotations)
	for _, feed := range held.Feeds { //shiplog:unordered: builds a union
		heldLabels, heldAnnotations = union(heldLabels, feed.Labels), union(heldAnnotations, feed.Annotations)
	}
	c.Labels = lackingKeys(mapAt(before, "labels"), mapAt(after, "labels"), heldLabels, pod.Labels)
	c.Annotations = lackingKeys(mapAt(before, "annotations"), mapAt(after, "annotations"), heldAnnotations, pod.Annotations)
	c.Finalizers = missing(stringsAt(after, "finalizers"), pod.Finalizers)
	c.FinalizersGone = missing(stringsAt(before, "finalizers"), stringsAt(after, "finalizers"))
	if !gates.EnvFromMetadata {
		return
	}
	fed := map[world.EnvSource]bool{}
	for i := range pod.Containers { // injected ones too (D4)
		container := &pod.Containers[i]
		feed := world.RefMetadata{}
		for _, read := range container.Reads {
			source, into := c.Labels, &feed.Labels
			if read.Annotation {
				source, into = c.Annotations, &feed.Annotations
			}
			if value, changes := source[read.Key]; changes {
				*into = union(*into, map[string]*string{read.Key: value})
				fed[world.EnvSource{Annotation: read.Annotation, Key: read.Key}] = true
			}
		}
		if feed.Labels != nil || feed.Annotations != nil {
			c.Feeds[container.Name] = feed
		}
	}
	for source := range fed { //shiplog:unordered: deletes by key
		if source.Annotation {
			delete(c.Annotations, source.Key)
		} else {
			delete(c.Labels, source.Key)
		}
	}
}

// lackingKeys returns the keys that changed from one map to another, or were held back, and that the Pod does not have as
// wanted; nil values are to be removed.
func lackingKeys(before, after map[string]any, held map[string]*string, has world.Pairs) map[string]*string {
	lacks := map[string]*string{}
	look := func(key string) {
		wanted, want := after[key].(string)
		actual, is := has.Lookup(key)
		switch {
		case want && (!is || actual != wanted):
			lacks[key] = &wanted
		case !want && is:
			lacks[key] = nil
		}
	}
	for key, value := range after { //shiplog:unordered: writes one key of a map per turn
		if before[key] != value {
			look(key)
		}
	}
	for key := range before { //shiplog:unordered: writes one key of a map per turn
		if _, kept := after[key]; !kept {
			look(key)
		}
	}
	for key := range held { //shiplog:unordered: writes one key of a map per turn
		_, was := before[key]
		_, is := after[key]
		if was || is {
			look(key)
		}
	}
	return lacks
}

func union(base, more map[string]*string) map[string]*string {
	if len(more) == 0 {
		return base
	}
	out := maps.Clone(base)
	if out == nil {
		out = map[string]*string{}
	}
	maps.Copy(out, more)
	return out
}

func missing(wanted, has []string) []string {
	var out []string
	for _, one := range wanted {
		if !slices.Contains(has, one) {
			out = append(out, one)
		}
	}
	return out
}

func stringsAt(tree map[string]any, key string) []string {
	var out []string
	for _, one := range listAt(tree, key) {
		if text, is := one.(string); is {
			out = append(out, text)
		}
	}
	return out
}

// firstDifference names the first key, in order, under which two maps do not mean the same; empty: none.
func firstDifference(before, after map[string]any, except ...string) string {
	keys := map[string]bool{}
	for key := range before { //shiplog:unordered: sorted below
		keys[key] = true
	}
	for key := range after { //shiplog:unordered: sorted below
		keys[key] = true
	}
	for _, key := range sortedKeys(keys) {
		if !slices.Contains(except, key) && !world.SameMeaning(before[key], after[key]) {
			return key
		}
	}
	return ""
}

// Empty says whether the Pod has all that it needs already: only its labels are to be written (inplace-update R7).
func (c Change) Empty() bool {
	return len(c.Images)+len(c.Resources)+len(c.Feeds)+len(c.Labels)+len(c.Annotations)+len(c.Finalizers)+len(c.FinalizersGone) == 0
}

// Drains says whether the Pod must not be ready while it takes the change (inplace-update R10): always, unless nothing but
// resources changes and no container restarts for them.
func (c Change) Drains(pod *world.Pod) bool {
	if c.Empty() {
		return false
	}
	if len(c.Resources) == 0 || len(c.Images) > 0 || len(c.Feeds) > 0 {
		return true
	}
	for name, change := range c.Resources { //shiplog:unordered: asks whether any
		container := containerOf(pod, name)
		for _, resource := range container.RestartsFor {
			if change.Limits.Has(resource) || change.Requests.Has(resource) {
				return true
			}
		}
	}
	return false
}

// Describe says in a few words what a change is, for reasons: "nginx to nginx:1.21".
func (c Change) Describe() string {
	var parts []string
	for _, name := range sortedKeys(c.Images) {
		parts = append(parts, name+" to "+c.Images[name])
	}
	for _, name := range sortedKeys(c.Resources) {
		parts = append(parts, "resources of "+name)
	}
	if len(c.Feeds) > 0 {
		parts = append(parts, "env of "+strings.Join(sortedKeys(c.Feeds), ", "))
	}
	if n := len(c.Labels) + len(c.Annotations) + len(c.Finalizers) + len(c.FinalizersGone); n > 0 {
		parts = append(parts, fmt.Sprintf("%d metadata keys", n))
	}
	if len(parts) == 0 {
		return "nothing that runs"
	}
	return strings.Join(parts, ", ")
}

// Touches lists what a change concerns: containers, "resources" and "metadata".
func (c Change) Touches() []string {
	touched := map[string]bool{}
	for name := range c.Images { //shiplog:unordered: builds a set
		touched[name] = true
	}
	for name := range c.Feeds { //shiplog:unordered: builds a set
		touched[name] = true
	}
	if len(c.Resources) > 0 {
		touched["resources"] = true
	}
	if len(c.Labels)+len(c.Annotations)+len(c.Finalizers)+len(c.FinalizersGone) > 0 || len(touched) == 0 {
		touched["metadata"] = true
	}
	return sortedKeys(touched)
}

// Against returns all that a Pod has otherwise than a template that it should be like already: what an update would have done
// whose account cannot be read (D20). Resources follow by ToResize.
func Against(pod *world.Pod, template world.Template) Change {
	change := Change{Images: map[string]string{}}
	for _, tree := range listAt(mapAt(template.Tree, "spec"), "containers") {
		if wanted := world.ReadContainer(tree); imageOf(pod, wanted.Name) != wanted.Image {
			change.Images[wanted.Name] = wanted.Image
		}
	}
	metadata := mapAt(template.Tree, "metadata")
	change.Labels = lackingKeys(nil, mapAt(metadata, "labels"), nil, pod.Labels)
	change.Annotations = lackingKeys(nil, mapAt(metadata, "annotations"), nil, pod.Annotations)
	return change
}
