package cloneset

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"shiplog.dev/api/kruise/apps/v1alpha1"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
	"shiplog.dev/services/planner/decide/inplace"
)

// update moves Pods to the revision that is wanted, as far as the budget allows (R36 to R48).
func (r *round) update() {
	if r.spec.updateType == v1alpha1.OnDeleteCloneSetUpdateStrategyType || r.spec.paused || r.numbers.update == 0 {
		r.updateRan = true
		return
	}
	if !r.fresh {
		waits := len(r.candidates()) > 0
		r.decision.AwaitsVouch = waits || r.decision.AwaitsVouch
		r.wanted[DrainPod], r.wanted[UpdateInPlace], r.wanted[UpdateReCreate] = waits, waits, waits
		return
	}
	target := r.updateRevision
	if r.numbers.update < 0 {
		target = r.currentRevision
	}
	if !target.stored {
		return // its creation is under way
	}
	r.updateRan = true
	chosen := r.within(r.candidates())
	for _, p := range chosen {
		if !r.idle(p.Pod) || p.specified {
			continue // it holds its place
		}
		r.updatePod(p, target)
	}
}

// candidates returns the Pods that the update could move, in the order in which it would (R37, R38).
func (r *round) candidates() []*pod {
	var out []*pod
	for i := range r.pods {
		if p := &r.pods[i]; p.updated != (r.numbers.update > 0) && !p.preparing {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b *pod) int {
		return cmp.Or(
			first(a.Node == "", b.Node == ""),
			cmp.Compare(phaseRank(a.Pod), phaseRank(b.Pod)),
			first(!a.ready, !b.ready),
			byTime(readySince(b), readySince(a)),
			cmp.Compare(restarts(b.Pod), restarts(a.Pod)),
			byTime(b.Created, a.Created),
			cmp.Compare(a.Name, b.Name),
		)
	})
	return out
}

// within cuts the candidates to what the budget allows (R41): a Pod that is unavailable anyway costs nothing more. One such
// Pod may always move, even while missing Pods use up the budget: it may be what keeps them from being created.
func (r *round) within(candidates []*pod) []*pod {
	candidates = candidates[:min(abs(r.numbers.update), len(candidates))]
	atTarget, unavailable := 0, 0
	for i := range r.pods {
		if !r.pods[i].available {
			unavailable++
			if r.pods[i].updated == (r.numbers.update > 0) {
				atTarget++
			}
		}
	}
	budget := r.numbers.updateUnavailable
	for i, p := range candidates {
		if p.available && (atTarget+i >= budget || unavailable >= budget) || atTarget+i >= max(budget, 1) {
			return candidates[:i]
		}
		if p.available {
			unavailable++
		}
	}
	return candidates
}

// updatePod starts the update of one Pod: in place where the type and the change allow it, else by marking it for
// replacement (R43, R44).
func (r *round) updatePod(p *pod, target revision) {
	budget := fmt.Sprintf("%d of %d may be unavailable, %d are", max(r.numbers.updateUnavailable, 0), r.spec.replicas, r.numbers.unavailable)
	if r.spec.updateType == v1alpha1.RecreateCloneSetUpdateStrategyType {
		r.markForReplacement(p, budget)
		return
	}
	change, err := r.changeFor(p.Pod, target)
	switch {
	case err == nil && r.mustDrain(p):
		if r.mayTry(DrainPod) {
			r.command(p.Pod, decide.PatchPod(p.Pod, "status", r.drain(p.Pod), decide.Why(DrainPod, "%s; a Service routes to the Pod", budget)))
		}
	case err == nil:
		if r.mayTry(UpdateInPlace) {
			r.command(p.Pod, decide.PatchPod(p.Pod, "", r.patchInPlace(p, change, target), decide.Why(UpdateInPlace, "%s; %s", budget, change.Describe())))
		}
	case r.spec.updateType == v1alpha1.InPlaceOnlyCloneSetUpdateStrategyType:
		r.problem = fmt.Sprintf("Pod %s cannot be updated in place and the type is InPlaceOnly: %v", p.Name, err)
	default:
		r.markForReplacement(p, fmt.Sprintf("%s; not possible in place: %v", budget, err))
	}
}

func (r *round) markForReplacement(p *pod, why string) {
	if r.mayTry(UpdateReCreate) {
		r.command(p.Pod, decide.PatchPod(p.Pod, "", map[string]any{
			"metadata": map[string]any{"labels": map[string]any{v1alpha1.SpecifiedDeleteKey: "true"}},
		}, decide.Why(UpdateReCreate, "%s", why)))
	}
}

// changeFor works out what a Pod lacks, from the revision that it carries to the target (inplace-update R1).
func (r *round) changeFor(p *world.Pod, target revision) (inplace.Change, error) {
	for _, held := range r.revisions {
		if sameRevision(p.Labels[revisionLabel], held.Name) {
			return inplace.Between(held.Template, target.template)
		}
	}
	return inplace.Change{}, fmt.Errorf("revision %q of the Pod is gone", p.Labels[revisionLabel])
}

// mustDrain says whether the Pod must leave its Services before it changes: something routes to it and it still says that
// it is ready. Where nothing routes to a Pod the change is one write.
func (r *round) mustDrain(p *pod) bool {
	gate := p.Condition(inplace.ReadyCondition)
	return p.HasGate(inplace.ReadyCondition) && gate != nil && gate.Status != "False" && r.world.Routed(p.Pod)
}

// drain closes the readiness gate (inplace-update R9).
func (r *round) drain(p *world.Pod) map[string]any {
	conditions := []any{r.condition(inplace.ReadyCondition, "False", inplace.StartReason, "")}
	ready, containers := p.Condition("Ready"), p.Condition("ContainersReady")
	if ready != nil && containers != nil && containers.Status == "True" {
		var causes []string
		for _, gate := range p.Gates {
			held := p.Condition(gate)
			switch {
			case gate == inplace.ReadyCondition:
				causes = append(causes, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but False", gate))
			case held == nil:
				causes = append(causes, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate))
			case held.Status != "True":
				causes = append(causes, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %s", gate, held.Status))
			}
		}
		conditions = append(conditions, r.condition("Ready", "False", "ReadinessGatesNotReady", strings.Join(causes, ", ")))
	}
	return map[string]any{"status": map[string]any{"conditions": conditions}}
}

func (r *round) condition(conditionType, status, reason, message string) map[string]any {
	out := map[string]any{"type": conditionType, "status": status, "lastTransitionTime": r.stamp(), "reason": nil, "message": nil}
	if reason != "" {
		out["reason"] = reason
	}
	if message != "" {
		out["message"] = message
	}
	return out
}

// patchInPlace is the one write that changes the Pod (inplace-update R11, R16). A Pod that was drained is Updating until its
// gate opens again; one that was not keeps its state, and that it is in the middle of an update shows in its containers.
func (r *round) patchInPlace(p *pod, change inplace.Change, target revision) map[string]any {
	state, _ := json.Marshal(inplace.Start(p.Pod, change, target.name, r.world.Now()))
	labels, annotations := map[string]any{}, map[string]any{}
	maps.Copy(labels, change.Labels)
	maps.Copy(annotations, change.Annotations)
	labels[revisionLabel] = target.name
	labels[templateLabel] = shortHash(target.name)
	annotations[world.InPlaceUpdateAnnotation] = string(state)
	if _, has := p.Annotations[world.LegacyInPlaceUpdateAnnotation]; has {
		annotations[world.LegacyInPlaceUpdateAnnotation] = nil
	}
	if _, has := p.Annotations[inplace.GraceAnnotation]; has {
		annotations[inplace.GraceAnnotation] = nil // the change it held back is overtaken (inplace-update D11)
	}
	if gate := p.Condition(inplace.ReadyCondition); gate != nil && gate.Status == "False" {
		labels[v1alpha1.LifecycleStateKey] = string(v1alpha1.LifecycleStateUpdating)
		annotations[v1alpha1.LifecycleTimestampKey] = r.stamp()
	}
	patch := map[string]any{"metadata": map[string]any{"labels": labels, "annotations": annotations}}
	var containers []any
	for _, container := range p.Containers {
		if image, changes := change.Images[container.Name]; changes {
			containers = append(containers, map[string]any{"name": container.Name, "image": image})
		}
	}
	if containers != nil {
		patch["spec"] = map[string]any{"containers": containers}
	}
	return patch
}

// refresh brings Pods back to normal that nothing else is done to (R36, inplace-update 3.5): it opens the readiness gate
// once the containers are complete, ends lifecycle states and adds a missing hash label, all in one write of the status.
func (r *round) refresh() {
	for i := range r.pods {
		p := &r.pods[i]
		// Before its containers run the kubelet writes the status often, and our write would only collide with its.
		if !r.idle(p.Pod) || p.Phase != string(corev1.PodRunning) || p.preparing || !inplace.Complete(p.Pod) {
			continue
		}
		labels, annotations, patch := map[string]any{}, map[string]any{}, map[string]any{}
		var does []string
		if gate := p.Condition(inplace.ReadyCondition); p.HasGate(inplace.ReadyCondition) && !openGate(gate) && !r.drained(p, gate) {
			patch["status"] = map[string]any{"conditions": []any{r.condition(inplace.ReadyCondition, "True", "", "")}}
			does = append(does, "opens its readiness gate")
		}
		if state := lifecycleState(p.Pod); state != "" && state != v1alpha1.LifecycleStateNormal {
			labels[v1alpha1.LifecycleStateKey] = string(v1alpha1.LifecycleStateNormal)
			annotations[v1alpha1.LifecycleTimestampKey] = r.stamp()
			does = append(does, fmt.Sprintf("goes from %s to Normal", state))
		}
		if hash := shortHash(p.Labels[revisionLabel]); p.Labels[templateLabel] == "" && hash != "" {
			labels[templateLabel] = hash
			does = append(does, "gets the hash of its template")
		}
		if len(does) == 0 || !r.mayTry(RefreshPod) {
			continue
		}
		if len(labels) > 0 {
			patch["metadata"] = map[string]any{"labels": labels, "annotations": annotations}
		}
		r.command(p.Pod, decide.PatchPod(p.Pod, "status", patch, decide.Why(RefreshPod, "the containers are as wanted: %s", strings.Join(does, ", "))))
	}
}

func openGate(gate *world.Condition) bool {
	return gate != nil && gate.Status == "True" && gate.Reason == "" && gate.Message == ""
}

// drained says whether a Pod is between its drain and its change, and still meant to change: then the gate stays shut.
func (r *round) drained(p *pod, gate *world.Condition) bool {
	if gate == nil || gate.Status != "False" || gate.Reason != inplace.StartReason || p.updated {
		return false
	}
	return !r.updateRan
}
