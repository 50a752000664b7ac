package sim

import (
	"slices"
	"time"
)

// What the lifecycle hooks of the simulation hold Pods by.
const (
	warmLabel      = "warm"
	updateLabel    = "hold-update"
	deleteLabel    = "hold-delete"
	holdFinalizer  = "example.com/hold"
	hookValue      = "yes"
	lifecycleLabel = "lifecycle.apps.kruise.io/state"
)

// hooks is the outside controller that lifecycle hooks are for: it lets go of Pods that are to be changed or deleted, and takes
// hold of them again.
type hooks struct {
	s       *simulation
	planned map[string]bool // Pods that are looked at soon, by UID
	// stopped until a time: it does nothing.
	stopped time.Time
}

func newHooks(s *simulation) *hooks { return &hooks{s: s, planned: map[string]bool{}} }

// change is told of every write.
func (h *hooks) change(o *object) {
	if o.pod == nil || o.gone || h.planned[o.uid] {
		return
	}
	set := h.s.api.objects[h.s.checks.sets[o.pod.owner]]
	if !o.pod.terminating && (set == nil || !set.set.hooked) {
		return
	}
	h.planned[o.uid] = true
	pause := h.s.between(50*time.Millisecond, 4*time.Second)
	if held := h.stopped.Sub(h.s.now); held > 0 {
		pause += held
	}
	h.s.after(pause, func() {
		delete(h.planned, o.uid)
		if now := h.s.api.objects[o.ref]; now != nil && now.uid == o.uid {
			h.step(now)
		}
	})
}

// step does what the Pod's state asks for.
func (h *hooks) step(o *object) {
	h.s.api.edit(o, "the hooks' controller", func(tree map[string]any) {
		metadata := child(tree, "metadata")
		labels := child(metadata, "labels")
		finalizers, _ := metadata["finalizers"].([]any)
		let := func() { finalizers = slices.DeleteFunc(finalizers, func(f any) bool { return f == holdFinalizer }) }
		hold := func() {
			if let(); !o.pod.terminating {
				finalizers = append(finalizers, holdFinalizer)
			}
		}
		switch labels[lifecycleLabel] {
		case "PreparingNormal":
			labels[warmLabel] = hookValue
		case "Normal", "Updated":
			labels[updateLabel], labels[deleteLabel] = hookValue, hookValue
			hold()
		case "PreparingUpdate":
			delete(labels, updateLabel)
			let()
		case "PreparingDelete":
			delete(labels, deleteLabel)
			let()
		}
		if o.pod.terminating {
			let()
		}
		metadata["finalizers"] = finalizers
		if len(finalizers) == 0 {
			delete(metadata, "finalizers")
		}
	})
}

// drawLifecycle draws which hooks there are.
func drawLifecycle(chance func(n int) bool) map[string]any {
	lifecycle := map[string]any{}
	if chance(2) {
		lifecycle["preNormal"] = map[string]any{"labelsHandler": map[string]any{warmLabel: hookValue}}
	}
	if chance(2) {
		hook := map[string]any{"labelsHandler": map[string]any{updateLabel: hookValue}, "markPodNotReady": chance(2)}
		if chance(3) {
			hook["finalizersHandler"] = []any{holdFinalizer}
		}
		lifecycle["inPlaceUpdate"] = hook
	}
	if chance(2) {
		hook := map[string]any{"labelsHandler": map[string]any{deleteLabel: hookValue}, "markPodNotReady": chance(2)}
		if chance(3) {
			hook["finalizersHandler"] = []any{holdFinalizer}
		}
		lifecycle["preDelete"] = hook
	}
	return lifecycle
}
