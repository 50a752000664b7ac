package inplace

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"shiplog.dev/internal/world"
)

// Write is one write to a Pod that belongs to its update in place: the Pod's own account of the update, and what changes.
type Write struct {
	Update world.InPlaceUpdate
	// Batch are the containers that change now, sorted.
	Batch []string

	images              map[string]string
	labels, annotations map[string]*string
	finalizers, gone    []string
}

// Start is the first write of an update (inplace-update R11, R13-R17): the metadata, and the first batch of containers.
func Start(pod *world.Pod, change Change, revision string, now time.Time) Write {
	write := Write{Update: account(pod, change, revision, now)}
	write.general(change)
	write.next(pod, change, now)
	return write
}

// Hold is the first write of an update that gives the Pod a while between being taken out of its Services and the change: only
// the account is written, and what is to come (inplace-update R11, 2.4).
func Hold(pod *world.Pod, change Change, revision string, graceSeconds int32, now time.Time) Write {
	write := Write{Update: account(pod, change, revision, now), annotations: map[string]*string{}}
	held := grace{
		Revision: revision, Images: change.Images, Feeds: change.Feeds, Resources: change.Resources,
		UpdateEnvFromMetadata: len(change.Feeds) > 0, GraceSeconds: graceSeconds,
	}
	general := Write{}
	general.general(change)
	if metadata := general.metadata(); len(metadata) > 0 {
		held.Metadata, _ = json.Marshal(map[string]any{"metadata": metadata}) // a tree of strings can be written
	}
	text, _ := json.Marshal(held)
	annotation := string(text)
	write.annotations[GraceAnnotation] = &annotation
	return write
}

// account is the account of an update that begins. What an earlier one began and has not come to its end counts on.
func account(pod *world.Pod, change Change, revision string, now time.Time) world.InPlaceUpdate {
	update := world.InPlaceUpdate{
		Revision: revision, UpdateTimestamp: stamp(now), UpdateImages: len(change.Images) > 0,
		UpdateEnvFromMetadata: len(change.Feeds) > 0, UpdateResources: len(change.Resources) > 0,
	}
	if pod.Update == nil {
		return update
	}
	for name, last := range pod.Update.LastContainerStatuses.All() {
		if !runs(pod, name, last) {
			update.LastContainerStatuses, update.UpdateImages = update.LastContainerStatuses.With(name, last), true
			if own, noted := pod.Update.Own.Lookup(name); noted {
				update.Own = update.Own.With(name, own)
			}
		}
	}
	if pod.Update.UpdateEnvFromMetadata && !envRuns(pod, RuntimeOf(pod)) {
		update.UpdateEnvFromMetadata = true
	}
	return update
}

// Next is the write of the next batch, once the containers of the one before run and are ready; false: not yet, or there is
// none (inplace-update 3.5).
func Next(pod *world.Pod, now time.Time) (Write, bool) {
	if pod.Update == nil || !pod.Update.Pending() || graceText(pod) != "" || !Applied(pod) {
		return Write{}, false
	}
	if check := pod.Update.PreCheckBeforeNext; check != nil {
		for _, name := range check.ContainersRequiredReady {
			if status := pod.Status(name); status == nil || !status.Ready {
				return Write{}, false
			}
		}
	}
	write := Write{Update: *pod.Update}
	write.next(pod, Change{
		Images: pod.Update.NextContainerImages, Feeds: pod.Update.NextContainerRefMetadata, Resources: pod.Update.NextContainerResources,
	}, now)
	return write, true
}

// grace is the annotation that keeps a change for the time of a grace period (inplace-update 2.4).
type grace struct {
	Revision  string                       `json:"revision"`
	Images    map[string]string            `json:"containerImages,omitempty"`
	Feeds     map[string]world.RefMetadata `json:"containerRefMetadata,omitempty"`
	Resources map[string]world.Resources   `json:"containerResources,omitempty"`
	// Metadata is a strategic merge patch of the Pod; JSON has it in base64.
	Metadata              []byte `json:"metaDataPatch,omitempty"`
	UpdateEnvFromMetadata bool   `json:"updateEnvFromMetadata,omitempty"`
	GraceSeconds          int32  `json:"graceSeconds,omitempty"`
}

// Released is the write that ends a grace period, or the time at which it ends when that is later than now; false: the Pod is
// in no grace period of its revision (inplace-update R18). The error says that the Pod's account cannot be read (R19).
func Released(pod *world.Pod, now time.Time) (Write, time.Time, bool, error) {
	text := graceText(pod)
	if text == "" {
		return Write{}, time.Time{}, false, nil
	}
	var held grace
	if err := json.Unmarshal([]byte(text), &held); err != nil {
		return Write{}, time.Time{}, false, fmt.Errorf("annotation %s: %w", GraceAnnotation, err)
	}
	if pod.Update == nil {
		return Write{}, time.Time{}, false, fmt.Errorf("annotation %s is there without a readable %s", GraceAnnotation, world.InPlaceUpdateAnnotation)
	}
	begun, err := time.Parse(time.RFC3339, pod.Update.UpdateTimestamp)
	if err != nil {
		return Write{}, time.Time{}, false, fmt.Errorf("annotation %s: updateTimestamp: %w", world.InPlaceUpdateAnnotation, err)
	}
	if ends := begun.Add(time.Duration(held.GraceSeconds) * time.Second); ends.After(now) {
		return Write{}, ends, true, nil
	}
	change := held.change()
	write := Write{Update: *pod.Update}
	write.Update.UpdateImages = write.Update.UpdateImages || len(change.Images) > 0
	write.Update.UpdateResources = write.Update.UpdateResources || len(change.Resources) > 0
	write.general(change)
	write.next(pod, change, now)
	return write, time.Time{}, true, nil
}

// change is what the annotation keeps.
func (g grace) change() Change {
	change := Change{Images: g.Images, Feeds: g.Feeds, Resources: g.Resources}
	var patch struct {
		Metadata struct {
			Labels         map[string]*string `json:"labels"`
			Annotations    map[string]*string `json:"annotations"`
			Finalizers     []string           `json:"finalizers"`
			FinalizersGone []string           `json:"$deleteFromPrimitiveList/finalizers"`
		} `json:"metadata"`
	}
	if json.Unmarshal(g.Metadata, &patch) == nil {
		change.Labels, change.Annotations = patch.Metadata.Labels, patch.Metadata.Annotations
		change.Finalizers, change.FinalizersGone = patch.Metadata.Finalizers, patch.Metadata.FinalizersGone
	}
	return change
}

// heldBack is what earlier updates have still to do in a Pod: later batches, and a change in its grace period.
func heldBack(pod *world.Pod) Change {
	held := Change{Images: map[string]string{}, Resources: map[string]world.Resources{}, Feeds: map[string]world.RefMetadata{}}
	if pod.Update != nil {
		maps.Copy(held.Images, pod.Update.NextContainerImages)
		maps.Copy(held.Resources, pod.Update.NextContainerResources)
		maps.Copy(held.Feeds, pod.Update.NextContainerRefMetadata)
	}
	var pending grace
	if text := graceText(pod); text != "" && json.Unmarshal([]byte(text), &pending) == nil {
		change := pending.change()
		maps.Copy(held.Images, change.Images)
		maps.Copy(held.Resources, change.Resources)
		maps.Copy(held.Feeds, change.Feeds)
		held.Labels, held.Annotations = change.Labels, change.Annotations
	}
	return held
}

func graceText(pod *world.Pod) string {
	if text, has := pod.Annotations.Lookup(GraceAnnotation); has {
		return text
	}
	return pod.Annotations.Get(LegacyGraceAnnotation)
}

// general takes over the metadata that feeds nothing; it goes with the first batch (R15).
func (w *Write) general(change Change) {
	w.labels, w.annotations = union(w.labels, change.Labels), union(w.annotations, change.Annotations)
	w.finalizers, w.gone = change.Finalizers, change.FinalizersGone
}

// next takes the next batch of containers out of a change, and leaves the rest in the account.
func (w *Write) next(pod *world.Pod, change Change, now time.Time) {
	w.Batch = batch(pod, change)
	rest := Change{Images: maps.Clone(change.Images), Feeds: maps.Clone(change.Feeds), Resources: maps.Clone(change.Resources)}
	// Resources go before what restarts the container: together they break it where the kubelet has cgroup v1 (D18).
	resizes, restarts := false, false
	for _, name := range w.Batch {
		_, resize := change.Resources[name]
		_, image := change.Images[name]
		_, feed := change.Feeds[name]
		resizes, restarts = resizes || resize, restarts || image || feed
	}
	if resizes && restarts {
		w.Batch = slices.DeleteFunc(w.Batch, func(name string) bool { _, resize := change.Resources[name]; return !resize })
	}
	for _, name := range w.Batch {
		delete(rest.Resources, name)
		if resizes && restarts {
			continue
		}
		if image, changes := change.Images[name]; changes {
			w.image(pod, name, image)
			delete(rest.Images, name)
		}
		if feed, changes := change.Feeds[name]; changes {
			w.labels, w.annotations = union(w.labels, feed.Labels), union(w.annotations, feed.Annotations)
			delete(rest.Feeds, name)
		}
	}
	update := &w.Update
	update.NextContainerImages, update.NextContainerRefMetadata, update.NextContainerResources = rest.Images, rest.Feeds, rest.Resources
	update.PreCheckBeforeNext = nil
	if update.Pending() {
		update.PreCheckBeforeNext = &world.PreCheck{ContainersRequiredReady: w.Batch}
	}
	if len(w.Batch) > 0 {
		update.ContainerBatches = append(slices.Clone(update.ContainerBatches), world.Batch{Timestamp: stamp(now), Containers: w.Batch})
	}
	for _, legacy := range []string{GraceAnnotation, LegacyGraceAnnotation} {
		if pod.Annotations.Has(legacy) {
			w.annotations = union(w.annotations, map[string]*string{legacy: nil})
		}
	}
}

// image changes the image of a container and notes what it runs so far (R16).
func (w *Write) image(pod *world.Pod, name, image string) {
	last, unfinished := w.Update.LastContainerStatuses.Lookup(name)
	own := w.Update.Own.Get(name)
	if unfinished {
		own.Overtaken = append(slices.Clone(own.Overtaken), imageOf(pod, name))
	} else if status := pod.Status(name); status != nil {
		last.ImageID, own.ContainerID = status.ImageID, status.ContainerID
	}
	w.Update.LastContainerStatuses = w.Update.LastContainerStatuses.With(name, last)
	w.Update.Own = w.Update.Own.With(name, own)
	w.images = with(w.images, name, image)
}

// with returns a copy of a map with one key more.
func with[V any](of map[string]V, key string, value V) map[string]V {
	out := maps.Clone(of)
	if out == nil {
		out = map[string]V{}
	}
	out[key] = value
	return out
}

// batch names the containers of a change that go first, sorted: those without launch priority and those of the highest one,
// and with them whatever reads the same metadata (R13, R14).
func batch(pod *world.Pod, change Change) []string {
	affected := map[string]bool{}
	for name := range change.Images { //shiplog:unordered: builds a set
		affected[name] = true
	}
	for name := range change.Feeds { //shiplog:unordered: builds a set
		affected[name] = true
	}
	for name := range change.Resources { //shiplog:unordered: builds a set
		affected[name] = true
	}
	highest, any := 0, false
	for name := range affected { //shiplog:unordered: takes the highest
		if priority := priorityOf(pod, name); priority != nil && (!any || *priority > highest) {
			highest, any = *priority, true
		}
	}
	chosen := map[string]bool{}
	for name := range affected { //shiplog:unordered: builds a set
		if priority := priorityOf(pod, name); priority == nil || *priority == highest {
			chosen[name] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for _, name := range sortedKeys(affected) {
			if !chosen[name] && sharesWith(change, name, chosen) {
				chosen[name], grown = true, true
			}
		}
	}
	return sortedKeys(chosen)
}

func priorityOf(pod *world.Pod, name string) *int {
	if container := containerOf(pod, name); container != nil {
		return container.Priority
	}
	return nil
}

// sharesWith says whether a container reads a key that changes and that one of others reads too.
func sharesWith(change Change, name string, others map[string]bool) bool {
	feed := change.Feeds[name]
	for other := range others { //shiplog:unordered: asks whether any
		if overlap(feed.Labels, change.Feeds[other].Labels) || overlap(feed.Annotations, change.Feeds[other].Annotations) {
			return true
		}
	}
	return false
}

func overlap(a, b map[string]*string) bool {
	for key := range a { //shiplog:unordered: asks whether any
		if _, both := b[key]; both {
			return true
		}
	}
	return false
}

// Patch returns the write as a strategic merge patch of the Pod: spec and metadata, the account included.
func (w Write) Patch(pod *world.Pod) map[string]any {
	metadata := w.metadata()
	annotations, _ := metadata["annotations"].(map[string]any)
	if annotations == nil {
		annotations = map[string]any{}
		metadata["annotations"] = annotations
	}
	account, _ := json.Marshal(w.Update) // a tree of strings can be written
	annotations[world.InPlaceUpdateAnnotation] = string(account)
	if own, _ := json.Marshal(w.Update.Own); len(w.Update.Own) > 0 {
		annotations[world.OwnInPlaceUpdateAnnotation] = string(own)
	} else if pod.Annotations.Has(world.OwnInPlaceUpdateAnnotation) {
		annotations[world.OwnInPlaceUpdateAnnotation] = nil
	}
	if pod.Annotations.Has(world.LegacyInPlaceUpdateAnnotation) {
		annotations[world.LegacyInPlaceUpdateAnnotation] = nil
	}
	patch := map[string]any{"metadata": metadata}
	var containers []any
	for _, container := range pod.Containers {
		if image, changes := w.images[container.Name]; changes {
			containers = append(containers, map[string]any{"name": container.Name, "image": image})
		}
	}
	if containers != nil {
		patch["spec"] = map[string]any{"containers": containers}
	}
	return patch
}

// Describe says in a few words what the write changes, for reasons.
func (w Write) Describe() string {
	out := Change{Images: w.images, Labels: w.labels, Annotations: w.annotations, Finalizers: w.finalizers, FinalizersGone: w.gone}.Describe()
	if more := len(w.Update.NextContainerImages) + len(w.Update.NextContainerRefMetadata) + len(w.Update.NextContainerResources); more > 0 {
		out += fmt.Sprintf("; %d changes wait for it", more)
	}
	return out
}

// metadata returns the metadata of the patch, without the account.
func (w Write) metadata() map[string]any {
	out := map[string]any{}
	put := func(field string, values map[string]*string) {
		if len(values) == 0 {
			return
		}
		tree := make(map[string]any, len(values))
		for key, value := range values { //shiplog:unordered: writes one key of a map per turn
			if tree[key] = nil; value != nil {
				tree[key] = *value
			}
		}
		out[field] = tree
	}
	put("labels", w.labels)
	put("annotations", w.annotations)
	if len(w.finalizers) > 0 {
		out["finalizers"] = w.finalizers
	}
	if len(w.gone) > 0 {
		out["$deleteFromPrimitiveList/finalizers"] = w.gone
	}
	return out
}

func stamp(now time.Time) string { return now.UTC().Format(time.RFC3339) }
