package cloneset

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide/inplace"
)

// readyGate is the readiness gate that several parties may keep shut, each under a key of its own (R55).
const readyGate = "KruisePodReady"

// key is one party's wish that a Pod be not ready.
type key struct {
	UserAgent string `json:"userAgent"`
	Key       string `json:"key"`
}

// The keys of lifecycle hooks.
var (
	preDeleteKey = key{"Lifecycle", "preDeleteHook"}
	preUpdateKey = key{"Lifecycle", "preUpdateHook"}
)

// hooked says whether anything of a hook holds a Pod.
func hooked(p *world.Pod, hook *v1beta1.LifecycleHook) bool {
	if hook == nil {
		return false
	}
	for label, value := range hook.LabelsHandler { //shiplog:unordered: asks whether any
		if p.Labels[label] == value && hasKey(p.Labels, label) {
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
		if p.Labels[label] != value || !hasKey(p.Labels, label) {
			return false
		}
	}
	return !slices.ContainsFunc(hook.FinalizersHandler, func(finalizer string) bool { return !slices.Contains(p.Finalizers, finalizer) })
}

func hasKey(labels map[string]string, key string) bool {
	_, has := labels[key]
	return has
}

func lifecycleState(p *world.Pod) v1beta1.LifecycleStateType {
	return v1beta1.LifecycleStateType(p.Labels[v1beta1.LifecycleStateKey])
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
		if p.running() && r.complete(p.Pod) && (r.spec.preNormal() == nil || allHooked(p.Pod, r.spec.preNormal())) {
			return v1beta1.LifecycleStateNormal
		}
	case v1beta1.LifecycleStatePreparingUpdate:
		if p.updated || r.updateRan && !r.spec.paused && !r.chosen[p.Name] {
			return back
		}
	case v1beta1.LifecycleStateUpdating:
		if p.running() && r.complete(p.Pod) {
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
	if !p.HasGate(readyGate) {
		return nil
	}
	held := p.Condition(readyGate)
	var keys []key
	if held != nil {
		_ = json.Unmarshal([]byte(held.Message), &keys) // what is no list holds nobody's key
	}
	before := slices.Clone(keys)
	set := func(one key, wanted bool) {
		keys = slices.DeleteFunc(keys, func(k key) bool { return k == one })
		if wanted {
			keys = append(keys, one)
		}
	}
	preUpdate := r.spec.inPlaceUpdate()
	switch {
	case state == v1beta1.LifecycleStatePreparingUpdate:
		set(preUpdateKey, preUpdate != nil && preUpdate.MarkPodNotReady)
	case state != v1beta1.LifecycleStateUpdating:
		set(preUpdateKey, false)
	}
	preDelete := r.spec.preDelete()
	set(preDeleteKey, state == v1beta1.LifecycleStatePreparingDelete && preDelete != nil && preDelete.MarkPodNotReady)
	slices.SortFunc(keys, func(a, b key) int { return cmp.Or(cmp.Compare(a.UserAgent, b.UserAgent), cmp.Compare(a.Key, b.Key)) })
	status := "True"
	if len(keys) > 0 {
		status = "False"
	}
	if held != nil && held.Status == status && sameKeys(keys, before) {
		return nil
	}
	if keys == nil {
		keys = []key{}
	}
	message, _ := json.Marshal(keys) // strings can be written
	conditions := []any{r.condition(readyGate, status, "", string(message))}
	if status == "False" {
		conditions = append(conditions, r.notReady(p, readyGate)...)
	}
	return conditions
}

func sameKeys(a, b []key) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(k key) bool { return !slices.Contains(b, k) })
}

// notReady returns the condition Ready as the kubelet will have it once a gate is shut, so that traffic stops now
// (inplace-update R9); nothing when the Pod is not ready anyway.
func (r *round) notReady(p *world.Pod, shut string) []any {
	ready, containers := p.Condition("Ready"), p.Condition("ContainersReady")
	if ready == nil || containers == nil || containers.Status != "True" {
		return nil
	}
	var causes []string
	for _, gate := range p.Gates {
		held := p.Condition(gate)
		switch {
		case gate == shut:
			causes = append(causes, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but False", gate))
		case held == nil:
			causes = append(causes, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate))
		case held.Status != "True":
			causes = append(causes, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %s", gate, held.Status))
		}
	}
	return []any{r.condition("Ready", "False", "ReadinessGatesNotReady", strings.Join(causes, ", "))}
}

// drain closes the readiness gate of in-place update (inplace-update R9).
func (r *round) drain(p *world.Pod) map[string]any {
	conditions := append([]any{r.condition(inplace.ReadyCondition, "False", inplace.StartReason, "")}, r.notReady(p, inplace.ReadyCondition)...)
	return map[string]any{"status": map[string]any{"conditions": conditions}}
}

func (r *round) condition(kind, status, reason, message string) map[string]any {
	return map[string]any{
		"type": kind, "status": status, "reason": orNull(reason), "message": orNull(message), "lastTransitionTime": r.stamp(), "lastProbeTime": nil,
	}
}

// orNull is null for nothing, so that a merge takes away what was there.
func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
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
