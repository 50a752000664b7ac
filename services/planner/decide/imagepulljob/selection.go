package imagepulljob

import (
	"fmt"
	"hash/fnv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide/cloneset"
)

// selected returns the NodeImages of the nodes that the job is about, in the order in which they are asked (R16, R17), or
// what is wrong with the selectors.
func (r *round) selected() (out []*world.NodeImage, problem string) {
	spec := &r.job.Spec
	take := func(image *world.NodeImage) {
		if image != nil && !image.Terminating {
			out = append(out, image)
		}
	}
	switch {
	case spec.PodSelector != nil:
		selector, err := metav1.LabelSelectorAsSelector(&spec.PodSelector.LabelSelector)
		if err != nil {
			return nil, fmt.Sprintf("invalid podSelector: %v", err)
		}
		seen := map[string]bool{}
		for _, pod := range r.ordered(selector) {
			if !seen[pod.Node] {
				seen[pod.Node] = true
				take(r.World.NodeImage(pod.Node))
			}
		}
	case spec.Selector != nil && len(spec.Selector.Names) > 0:
		for _, name := range spec.Selector.Names {
			take(r.World.NodeImage(name))
		}
	default: // an empty selector is none (D16)
		selector := labels.Everything()
		if spec.Selector != nil {
			var err error
			if selector, err = metav1.LabelSelectorAsSelector(&spec.Selector.LabelSelector); err != nil {
				return nil, fmt.Sprintf("invalid selector: %v", err)
			}
		}
		for _, image := range r.World.NodeImages() {
			if selector.Matches(image.Labels) {
				take(image)
			}
		}
	}
	return out, ""
}

// ordered returns the Pods that are selected, active and on a node: in the order in which their CloneSet would update them, if
// the job is a CloneSet's, else by name (R17, D4).
func (r *round) ordered(selector labels.Selector) []*world.Pod {
	var pods []*world.Pod
	for _, pod := range r.World.PodsIn(r.job.Namespace) {
		if pod.Node != "" && pod.Active() && selector.Matches(pod.Labels) {
			pods = append(pods, pod)
		}
	}
	if owner, known := r.World.Workload(r.job.Owner.UID()); known && owner.Resource == world.ResourceCloneSets {
		return cloneset.UpdateOrder(r.World, owner, pods)
	}
	return pods
}

// spreadOf is a number from 0 to 299 that is the same for the same text.
func spreadOf(text string) uint32 {
	sum := fnv.New32a()
	sum.Write([]byte(text))
	return sum.Sum32() % 300
}
