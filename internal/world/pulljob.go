package world

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"shiplog.dev/api/kruise/apps/v1beta1"
)

// ImagePullJob returns an ImagePullJob, or nil.
func (w *World) ImagePullJob(ref Ref) *ImagePullJob { return customOf[*ImagePullJob](w, ref) }

// ImageListPullJob returns an ImageListPullJob, or nil.
func (w *World) ImageListPullJob(ref Ref) *ImageListPullJob {
	return customOf[*ImageListPullJob](w, ref)
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
	if before != nil && after != nil && before.Node == after.Node && before.Active() == after.Active() && before.Labels.Equal(after.Labels) {
		return
	}
	for job := range w.podJobs[pod.Namespace] { //shiplog:unordered: marks each
		w.touch(job)
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

// relatePullJob marks what an ImagePullJob concerns, and begins and ends what is remembered for it.
func (w *World) relatePullJob(ref Ref, was, is *ImagePullJob) {
	w.adopt(ref)
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
			if held, has := object.(*NodeImage); has && owns(held, was.UID) {
				w.touch(image)
			}
		}
	}
}
