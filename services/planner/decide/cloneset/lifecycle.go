package cloneset

import (
	"slices"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide/inplace"
	"shiplog.dev/services/planner/decide/podready"
)

// The holders that keep a Pod from being ready for a lifecycle hook (R55).
var (
	preDeleteHolder = podready.Holder{UserAgent: "Lifecycle", Key: "preDeleteHook"}
	preUpdateHolder = podready.Holder{UserAgent: "Lifecycle", Key: "preUpdateHook"}
)

// hooked says whether anything of a hook holds a Pod.
func hooked(p *world.Pod, hook *v1beta1.LifecycleHook) bool {
	if hook == nil {
		return false
	}
	for label, value := range hook.LabelsHandler { //shiplog:unordered: asks whether any
		if actual, has := p.Labels.Lookup(label); has && actual == value {
			return true
		}
	}
	return slices.ContainsFunc(hook.FinalizersHandler, func(finalizer string) bool { return slices.Contains(p.Finalizers, finalizer) })
}

// allHooked says whether everything of a hook is on a Pod.
func allHooked(p *world.Pod, hook *v1beta1.LifecycleHook) bool {
	if hook == nil {
		return false
	}
	for label, value := range hook.LabelsHandler { //shiplog:unordered: asks whether all
		if actual, has := p.Labels.Lookup(label); !has || actual != value {
			return false
		}
	}
	return !slices.ContainsFunc(hook.FinalizersHandler, func(finalizer string) bool { return !slices.Contains(p.Finalizers, finalizer) })
}

func lifecycleState(p *world.Pod) v1beta1.LifecycleStateType {
	return v1beta1.LifecycleStateType(p.Labels.Get(v1beta1.LifecycleStateKey))
}

// nextState is the state that a Pod goes to by itself, once nothing is done to it (R49, R51 to R53, D11); the same one when it
// stays.
func (r *round) nextState(p *pod) v1beta1.LifecycleStateType {
	state, hook := lifecycleState(p.Pod), r.spec.inPlaceUpdate()
	back := v1beta1.LifecycleStateUpdated // an outside controller has to take note first
	if hook == nil || allHooked(p.Pod, hook) {
		back = v1beta1.LifecycleStateNormal
	}
	switch state {
	case v1beta1.LifecycleStatePreparingNormal:
		if p.running() && p.complete && (r.spec.preNormal() == nil || allHooked(p.Pod, r.spec.preNormal())) {
			return v1beta1.LifecycleStateNormal
		}
	case v1beta1.LifecycleStatePreparingUpdate:
		if p.updated || r.updateRan && !r.spec.paused && !r.chosen[p.Name] {
			return back
		}
	case v1beta1.LifecycleStateUpdating:
		if p.running() && p.complete {
			return back
		}
	case v1beta1.LifecycleStateUpdated:
		return back
	}
	return state
}

// enter words the change of a Pod's lifecycle state: the label, its time, and whether the state keeps the Pod from being ready.
func (r *round) enter(p *world.Pod, state v1beta1.LifecycleStateType) map[string]any {
	patch := map[string]any{"metadata": r.stateMetadata(state)}
	if conditions := r.marks(p, state); conditions != nil {
		patch["status"] = map[string]any{"conditions": conditions}
	}
	return patch
}

func (r *round) stateMetadata(state v1beta1.LifecycleStateType) map[string]any {
	return map[string]any{
		"labels":      map[string]any{v1beta1.LifecycleStateKey: string(state)},
		"annotations": map[string]any{v1beta1.LifecycleTimestampKey: r.stamp()},
	}
}

// marks returns the conditions to write so that the gate KruisePodReady is as a state wants it; nil: it is (R55, D12).
func (r *round) marks(p *world.Pod, state v1beta1.LifecycleStateType) []any {
	preUpdate, preDelete := r.spec.inPlaceUpdate(), r.spec.preDelete()
	forDelete := podready.Wish{Holder: preDeleteHolder, Holds: state == v1beta1.LifecycleStatePreparingDelete && preDelete != nil && preDelete.MarkPodNotReady}
	if state == v1beta1.LifecycleStateUpdating { // the hook's holder stays as it is
		return podready.Mark(p, r.Now(), forDelete)
	}
	forUpdate := podready.Wish{Holder: preUpdateHolder, Holds: state == v1beta1.LifecycleStatePreparingUpdate && preUpdate != nil && preUpdate.MarkPodNotReady}
	return podready.Mark(p, r.Now(), forDelete, forUpdate)
}

// drain closes the readiness gate of in-place update (inplace-update R9).
func (r *round) drain(p *world.Pod) map[string]any {
	conditions := append([]any{podready.Condition(inplace.ReadyCondition, "False", inplace.StartReason, "", r.Now())},
		podready.NotReady(p, inplace.ReadyCondition, r.Now())...)
	return map[string]any{"status": map[string]any{"conditions": conditions}}
}

// rehook words the way of an updated Pod to its next update: the state, and the hook's labels and finalizers again (R53).
func (r *round) rehook(hook *v1beta1.LifecycleHook) map[string]any {
	metadata := r.stateMetadata(v1beta1.LifecycleStatePreparingUpdate)
	labels, _ := metadata["labels"].(map[string]any)
	for label, value := range hook.LabelsHandler { //shiplog:unordered: writes one key of a map per turn
		labels[label] = value
	}
	if len(hook.FinalizersHandler) > 0 {
		metadata["finalizers"] = slices.Clone(hook.FinalizersHandler)
	}
	return map[string]any{"metadata": metadata}
}
