package world

import (
	"cmp"
	"slices"
)

// RestartRequest returns a ContainerRecreateRequest, or nil.
func (w *World) RestartRequest(ref Ref) *RestartRequest { return customOf[*RestartRequest](w, ref) }

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

// relateRestart keeps the requests for a Pod together, and marks them.
func (w *World) relateRestart(ref Ref, was, is *RestartRequest) {
	for _, request := range []*RestartRequest{was, is} {
		if request != nil {
			pod := Ref{"", ResourcePods, ref.Namespace, request.Spec.PodName}
			index(w.restarts, pod, ref, request == is)
			w.touchRestarts(pod) // who waits for its turn (container-restart D2)
		}
	}
}
