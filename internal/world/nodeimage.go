package world

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"shiplog.dev/api/kruise/apps/v1beta1"
)

// NodeImage returns the NodeImage of a Node, or nil.
func (w *World) NodeImage(node string) *NodeImage {
	return customOf[*NodeImage](w, Ref{GroupKruise, ResourceNodeImages, "", node})
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

func nodeImageOf(node string) Ref { return Ref{GroupKruise, ResourceNodeImages, "", node} }

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

// relateNodeImage marks the jobs that a NodeImage concerns, and remembers and forgets pulls by what it says.
func (w *World) relateNodeImage(ref Ref, was, is *NodeImage) {
	w.touchOwners(was)
	w.touchOwners(is)
	w.forgetPulls(ref.Name, was, is)
	w.keepResults(is)
	if was == nil || is == nil || !was.Labels.Equal(is.Labels) {
		for job := range w.customs { //shiplog:unordered: marks each
			if job.Resource == ResourceImagePullJobs {
				w.touch(job)
			}
		}
	}
}
