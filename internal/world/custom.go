package world

import (
	"cmp"
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"shiplog.dev/api/kruise/apps/conversion"
	"shiplog.dev/api/kruise/apps/v1alpha1"
	"shiplog.dev/api/kruise/apps/v1beta1"
)

// Custom is what rules read of an object whose kind means nothing more to the world than its spec and its status, in v1beta1
// whatever version the fact was in.
type Custom[Spec, Status any] struct {
	Meta
	Finalizers []string
	// Seen is when the log took the fact that this state comes from.
	Seen   time.Time
	Spec   Spec
	Status Status
	// HasStatus: the object has a status.
	HasStatus bool
	// Malformed says why Spec cannot be read; empty: it can.
	Malformed string
	// UnderWay is the command that is being carried out on the object; nil: none.
	UnderWay *UnderWay
}

// The kinds.
type (
	NodeImage        = Custom[v1beta1.NodeImageSpec, v1beta1.NodeImageStatus]
	ImagePullJob     = Custom[v1beta1.ImagePullJobSpec, v1beta1.ImagePullJobStatus]
	ImageListPullJob = Custom[v1beta1.ImageListPullJobSpec, v1beta1.ImageListPullJobStatus]
	RestartRequest   = Custom[v1beta1.ContainerRecreateRequestSpec, v1beta1.ContainerRecreateRequestStatus]
)

// custom is any Custom.
type custom interface {
	meta() *Meta
	seen(time.Time)
	underWay(*UnderWay)
}

func (c *Custom[Spec, Status]) meta() *Meta          { return &c.Meta }
func (c *Custom[Spec, Status]) seen(at time.Time)    { c.Seen = at }
func (c *Custom[Spec, Status]) underWay(u *UnderWay) { c.UnderWay = u }

// decodeCustom reads an object; kind is named for kinds whose versions differ.
func decodeCustom[Spec, Status any](kind, version string, data []byte) (any, error) {
	if kind != "" && version == v1alpha1.GroupVersion.Version {
		converted, err := conversion.Up(kind, data)
		if err != nil {
			return nil, err
		}
		data = converted
	}
	var wire struct {
		Metadata struct {
			metadata
			Finalizers []string `json:"finalizers"`
		} `json:"metadata"`
		Spec   json.RawMessage `json:"spec"`
		Status json.RawMessage `json:"status"`
	}
	if err := json.Unmarshal(data, &wire); err != nil {
		return nil, err
	}
	object := &Custom[Spec, Status]{Meta: wire.Metadata.meta(), Finalizers: wire.Metadata.Finalizers}
	if len(wire.Spec) > 0 {
		if err := json.Unmarshal(wire.Spec, &object.Spec); err != nil {
			object.Malformed = "spec: " + err.Error()
		}
	}
	if len(wire.Status) > 0 {
		object.HasStatus = json.Unmarshal(wire.Status, &object.Status) == nil
		if !object.HasStatus {
			object.Status = *new(Status) // one that cannot be read is written anew
		}
	}
	return object, nil
}

// NodeImage returns the NodeImage of a Node, or nil.
func (w *World) NodeImage(node string) *NodeImage {
	return customOf[*NodeImage](w, Ref{GroupKruise, ResourceNodeImages, "", node})
}

// ImagePullJob returns an ImagePullJob, or nil.
func (w *World) ImagePullJob(ref Ref) *ImagePullJob { return customOf[*ImagePullJob](w, ref) }

// ImageListPullJob returns an ImageListPullJob, or nil.
func (w *World) ImageListPullJob(ref Ref) *ImageListPullJob {
	return customOf[*ImageListPullJob](w, ref)
}

// RestartRequest returns a ContainerRecreateRequest, or nil.
func (w *World) RestartRequest(ref Ref) *RestartRequest { return customOf[*RestartRequest](w, ref) }

func customOf[T custom](w *World, ref Ref) T {
	object, _ := w.customs[ref].(T)
	return object
}

// ImagePullJobsOf returns the ImagePullJobs that a workload controls, by name, those included that are being created.
func (w *World) ImagePullJobsOf(owner types.UID) []*ImagePullJob {
	var out []*ImagePullJob
	for ref := range w.children[owner] { //shiplog:unordered: sorted below
		if ref.Resource == ResourceImagePullJobs {
			out = append(out, w.pullJob(ref))
		}
	}
	slices.SortFunc(out, func(a, b *ImagePullJob) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// pullJob returns the job of a reference, one that is being created included, or nil.
func (w *World) pullJob(ref Ref) *ImagePullJob {
	if job := w.ImagePullJob(ref); job != nil {
		return job
	}
	if under := w.underWay[ref]; under != nil {
		if created, is := under.created.(*ImagePullJob); is {
			shown := *created
			shown.UnderWay = under
			return &shown
		}
	}
	return nil
}

// NodeImages returns all NodeImages, by name.
func (w *World) NodeImages() []*NodeImage {
	var out []*NodeImage
	for ref, object := range w.customs { //shiplog:unordered: sorted below
		if ref.Resource == ResourceNodeImages {
			out = append(out, object.(*NodeImage))
		}
	}
	slices.SortFunc(out, func(a, b *NodeImage) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// PodsIn returns the Pods of a namespace as rules see them, by name.
func (w *World) PodsIn(namespace string) []*Pod {
	var out []*Pod
	for ref, at := range w.pods { //shiplog:unordered: sorted below
		if ref.Namespace == namespace && at.shown != nil {
			out = append(out, at.shown)
		}
	}
	slices.SortFunc(out, func(a, b *Pod) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Writing says which command is being carried out on an object, whether there is such an object or not; nil: none.
func (w *World) Writing(ref Ref) *UnderWay { return w.underWay[ref] }

func nodeImageOf(node string) Ref { return Ref{GroupKruise, ResourceNodeImages, "", node} }

func (w *World) observeCustom(ref Ref, object custom) {
	object.underWay(w.underWay[ref])
	before := w.customs[ref]
	if before != nil && before.meta().UID != object.meta().UID {
		delete(w.workloads, before.meta().UID)
		w.forgetWorkload(before.meta().UID)
	}
	w.customs[ref] = object
	w.workloads[object.meta().UID] = ref
	w.touch(ref)
	w.relate(ref, before, object)
}

func (w *World) removeCustom(ref Ref) {
	before := w.customs[ref]
	if before == nil {
		return
	}
	delete(w.workloads, before.meta().UID)
	w.forgetWorkload(before.meta().UID)
	delete(w.customs, ref)
	w.touch(ref)
	w.relate(ref, before, nil)
}

func (w *World) showOnCustom(ref Ref, under *UnderWay) {
	if held := w.customs[ref]; held != nil {
		held.underWay(under)
	}
	if ref.Group == GroupKruise {
		w.touch(ref)
	}
	if ref.Resource == ResourceImagePullJobs {
		w.adopt(ref)
	}
}

// relate marks the workloads that an object of a kind concerns beside itself, and keeps the indexes by which Pods find such
// objects. before and after are nil where there was, or is, none.
func (w *World) relate(ref Ref, before, after custom) {
	switch ref.Resource {
	case ResourceNodeImages:
		was, _ := before.(*NodeImage)
		is, _ := after.(*NodeImage)
		w.touchOwners(was)
		w.touchOwners(is)
		w.forgetPulls(ref.Name, was, is)
		w.keepResults(is)
		if was == nil || is == nil || !maps.Equal(was.Labels, is.Labels) {
			for job := range w.customs { //shiplog:unordered: marks each
				if job.Resource == ResourceImagePullJobs {
					w.touch(job)
				}
			}
		}
	case ResourceImagePullJobs:
		w.adopt(ref)
		was, _ := before.(*ImagePullJob)
		is, _ := after.(*ImagePullJob)
		index(w.podJobs, ref.Namespace, ref, is != nil && is.Spec.PodSelector != nil)
		if was != nil && (is == nil || was.UID != is.UID || !counts(is)) {
			delete(w.results, was.UID)
		}
		if is != nil && counts(is) && (was == nil || was.UID != is.UID || !counts(was)) { // from now on
			for _, image := range w.NodeImages() {
				w.keepResults(image)
			}
		}
		if is == nil { // R9
			for image, object := range w.customs { //shiplog:unordered: marks each
				if held, has := object.(*NodeImage); has && owns(held, before.meta().UID) {
					w.touch(image)
				}
			}
		}
	case ResourceRestartRequests:
		was, _ := before.(*RestartRequest)
		is, _ := after.(*RestartRequest)
		for _, request := range []*RestartRequest{was, is} {
			if request != nil {
				pod := Ref{"", ResourcePods, ref.Namespace, request.Spec.PodName}
				index(w.restarts, pod, ref, request == is)
				w.touchRestarts(pod) // who waits for its turn (container-restart D2)
			}
		}
	}
}

// index puts a reference into a set of an index, or takes it out.
func index[K comparable](sets map[K]map[Ref]struct{}, key K, ref Ref, in bool) {
	switch {
	case in && sets[key] == nil:
		sets[key] = map[Ref]struct{}{ref: {}}
	case in:
		sets[key][ref] = struct{}{}
	default:
		if delete(sets[key], ref); len(sets[key]) == 0 {
			delete(sets, key)
		}
	}
}

// owns says whether a job has asked a node for a tag.
func owns(image *NodeImage, job types.UID) bool {
	for _, one := range image.Spec.Images { //shiplog:unordered: asks whether any
		for i := range one.Tags {
			for j := range one.Tags[i].OwnerReferences {
				if one.Tags[i].OwnerReferences[j].UID == job {
					return true
				}
			}
		}
	}
	return false
}

// touchOwners marks the jobs that have asked a node for a tag.
func (w *World) touchOwners(image *NodeImage) {
	if image == nil {
		return
	}
	for _, one := range image.Spec.Images { //shiplog:unordered: marks each
		for i := range one.Tags {
			for j := range one.Tags[i].OwnerReferences {
				w.touchUID(one.Tags[i].OwnerReferences[j].UID)
			}
		}
	}
}

// touchSelecting marks the jobs that select Pods, when a Pod changes in what they look at. before and after are nil where
// there was, or is, none.
func (w *World) touchSelecting(before, after *Pod) {
	pod := after
	if pod == nil {
		pod = before
	}
	if pod == nil || len(w.podJobs[pod.Namespace]) == 0 {
		return
	}
	if before != nil && after != nil && before.Node == after.Node && before.Active() == after.Active() && maps.Equal(before.Labels, after.Labels) {
		return
	}
	for job := range w.podJobs[pod.Namespace] { //shiplog:unordered: marks each
		w.touch(job)
	}
}

// touchRestarts marks the ContainerRecreateRequests of a Pod.
func (w *World) touchRestarts(pod Ref) {
	for request := range w.restarts[pod] { //shiplog:unordered: marks each
		w.touch(request)
	}
}

// RestartsOf returns the ContainerRecreateRequests of a Pod, by name.
func (w *World) RestartsOf(namespace, pod string) []*RestartRequest {
	var out []*RestartRequest
	for ref := range w.restarts[Ref{"", ResourcePods, namespace, pod}] { //shiplog:unordered: sorted below
		out = append(out, w.RestartRequest(ref))
	}
	slices.SortFunc(out, func(a, b *RestartRequest) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// TagsOf returns all tags of a NodeImage by image name, in order.
func TagsOf(image *NodeImage) iter.Seq2[string, *v1beta1.ImageTagSpec] {
	return func(yield func(string, *v1beta1.ImageTagSpec) bool) {
		for _, name := range slices.Sorted(maps.Keys(image.Spec.Images)) {
			tags := image.Spec.Images[name].Tags
			for i := range tags {
				if !yield(name, &tags[i]) {
					return
				}
			}
		}
	}
}

// ImageReference is how a runtime is asked for a tag: name:tag, or name@digest (image-pull R48, D1).
func ImageReference(name, tag string) string {
	if strings.Contains(tag, ":") {
		return name + "@" + tag
	}
	return name + ":" + tag
}

// forgetPulls forgets pulls that ended of tags that a NodeImage no longer asks for in that version: who asks again gets another.
func (w *World) forgetPulls(node string, before, after *NodeImage) {
	if before == nil {
		return
	}
	asked := map[string]int64{}
	if after != nil {
		for name, tag := range TagsOf(after) {
			asked[ImageReference(name, tag.Tag)] = tag.Version
		}
	}
	for name, tag := range TagsOf(before) {
		target := ImageReference(name, tag.Tag)
		if version, still := asked[target]; still && version == tag.Version {
			continue
		}
		if call := w.Call(node, Pull, target); call != nil && call.State == CallEnded && call.Version == tag.Version {
			w.forgetCall(call)
		}
	}
}

// result is how the pull that a job asked of a node ended, as a fact of the NodeImage showed it.
type result struct {
	failed  bool
	message string
	// image and job are the facts on which it rests: that of the NodeImage, and that of the job as it was then.
	image, job uint64
}

// PullResult returns how the pull that a job asked of a node ended, and whether it did. It is remembered until the job ends,
// whatever becomes of the tag (image-pull D2). Of a job that never ends nothing is remembered.
func (w *World) PullResult(job types.UID, node string) (failed bool, message string, ended bool) {
	held, ended := w.results[job][node]
	return held.failed, held.message, ended
}

// counts says whether a job counts on results for good: not once it has ended, and not one that pulls again and again.
func counts(job *ImagePullJob) bool {
	return job.Status.CompletionTime == nil && job.Spec.CompletionPolicy.Type != v1beta1.Never
}

// keepResults remembers what a NodeImage says of pulls that ended.
func (w *World) keepResults(image *NodeImage) {
	if image == nil {
		return
	}
	for name, tag := range TagsOf(image) {
		for _, status := range image.Status.ImageStatuses[name].Tags {
			if status.Tag != tag.Tag || status.Version != tag.Version || status.CompletionTime == nil {
				continue
			}
			for i := range tag.OwnerReferences {
				job := tag.OwnerReferences[i].UID
				held := w.ImagePullJob(w.workloads[job])
				if held == nil || !counts(held) {
					continue
				}
				if _, has := w.results[job][image.Name]; has {
					continue
				}
				if w.results[job] == nil {
					w.results[job] = map[string]result{}
				}
				w.results[job][image.Name] = result{status.Phase == v1beta1.ImagePhaseFailed, status.Message, image.Sequence, held.Sequence}
			}
		}
	}
}
