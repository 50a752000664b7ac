package cloneset

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
	"shiplog.dev/services/planner/decide/inplace"
)

// undrainedAnnotation of a CloneSet lists changes for which its Pods may stay in their Services.
const undrainedAnnotation = "shiplog.dev/update-without-drain"

// update moves Pods to the revision that is wanted, as far as the budget allows (R36 to R48).
func (r *round) update() {
	if r.spec.onDelete || r.spec.paused || r.updates.update == 0 {
		r.updateRan = true
		r.heldByStrategy()
		return
	}
	if !r.fresh {
		candidates := r.candidates()
		waits := len(candidates) > 0
		if waits {
			r.heldByVouch(candidates)
		}
		r.Decision.AwaitsVouch = waits || r.Decision.AwaitsVouch
		r.wanted[DrainPod], r.wanted[UpdateInPlace], r.wanted[UpdateReCreate] = waits, waits, waits
		return
	}
	target := r.updateRevision
	if r.updates.update < 0 {
		target = r.currentRevision
	}
	if !target.usable() {
		return
	}
	r.updateRan = true
	before := len(r.Decision.Commands)
	candidates := r.candidates()
	chosen := r.within(candidates)
	r.heldByBudget(candidates, chosen)
	for _, p := range chosen {
		r.chosen[p.Name] = true
		if !r.idle(p.Pod) || p.specified {
			r.heldPlace(p)
			continue // it holds its place
		}
		r.updatePod(p, target)
	}
	r.need(target, r.Decision.Commands[before:]...)
}

// within cuts the candidates to what the budget allows (R41): a Pod that is unavailable anyway costs nothing more. One such
// Pod may always move, even while missing Pods use up the budget: it may be what keeps them from being created. And where an
// available Pod has to wait, those behind it that are unavailable need not: they may be what it waits for.
func (r *round) within(candidates []*pod) []*pod {
	candidates = candidates[:min(abs(r.updates.update), len(candidates))]
	atTarget, unavailable := 0, 0
	for i := range r.pods {
		if !r.pods[i].available {
			unavailable++
			if r.pods[i].updated == (r.updates.update > 0) {
				atTarget++
			}
		}
	}
	budget := r.updates.updateUnavailable
	var chosen []*pod
	for _, p := range candidates {
		taken := atTarget + len(chosen)
		switch {
		case taken >= max(budget, 1):
			return chosen
		case p.available && (taken >= budget || unavailable >= budget):
			continue
		case p.available:
			unavailable++
		}
		chosen = append(chosen, p)
	}
	return chosen
}

// updatePod starts the update of one Pod: in place where the policy and the change allow it, else by marking it for
// replacement (R43, R44, R50).
func (r *round) updatePod(p *pod, target revision) {
	budget := fmt.Sprintf("%d of %d may be unavailable, %d are", max(r.updates.updateUnavailable, 0), r.spec.replicas, r.updates.unavailable)
	if r.spec.policy == v1beta1.RecreateCloneSetPodUpdatePolicy {
		r.markForReplacement(p, target, budget)
		return
	}
	change, err := r.changeFor(p.Pod, target)
	switch {
	case err == nil && r.awaitHook(p, budget):
	case err == nil:
		if why := r.mustDrain(p, change); why == "" {
			r.updateInPlace(p, change, target, budget)
		} else if r.mayTry(UpdateInPlace) && r.mayTry(DrainPod) { // not for a change that is refused at the moment (inplace-update D23)
			r.command(p.Pod, decide.PatchPod(p.Pod, "status", r.drain(p.Pod), decide.Why(DrainPod, "%s; %s", budget, why)))
		}
	case r.spec.policy == v1beta1.InPlaceOnlyCloneSetPodUpdatePolicy:
		r.hold(decide.Hold{Code: HeldInPlaceOnly, Pods: []string{p.Name}, Message: fmt.Sprintf("the type is InPlaceOnly and the change is not possible in place: %v", err),
			Release: "another updateStrategy.type, or a template that only changes images and metadata"})
		r.problem = fmt.Sprintf("Pod %s cannot be updated in place and the type is InPlaceOnly: %v", p.Name, err)
	default:
		r.markForReplacement(p, target, fmt.Sprintf("%s; not possible in place: %v", budget, err))
	}
}

func (r *round) markForReplacement(p *pod, target revision, why string) {
	if r.mayTry(UpdateReCreate) {
		r.command(p.Pod, decide.PatchPod(p.Pod, "", map[string]any{"metadata": map[string]any{
			"labels": map[string]any{v1beta1.SpecifiedDeleteKey: "true"}, "annotations": map[string]any{replacedFor: target.name},
		}}, decide.Why(UpdateReCreate, "%s", why)))
	}
}

// changeFor works out what a Pod lacks, from the revision that it carries to the target (inplace-update R1, R4).
func (r *round) changeFor(p *world.Pod, target revision) (inplace.Change, error) {
	held := r.revisionOf(p)
	if held == nil {
		return inplace.Change{}, fmt.Errorf("revision %q of the Pod is gone", p.Labels.Get(revisionLabel))
	}
	if r.World.Gate(gateRecreateForClaims) && r.spec.policy != v1beta1.InPlaceOnlyCloneSetPodUpdatePolicy {
		if before, after := held.Annotations.Get(claimsHashAnnotation), r.claimsHashOf(target); before != "" && after != "" && before != after {
			return inplace.Change{}, errors.New("spec.volumeClaimTemplates differ")
		}
	}
	return inplace.Between(p, held.Template, target.template, inplace.GatesOf(r.World))
}

// awaitHook says whether the hook of in-place update holds a Pod back, and takes the Pod there when it is not yet (R50, R53).
func (r *round) awaitHook(p *pod, budget string) bool {
	hook, patch, subresource := r.spec.inPlaceUpdate(), map[string]any(nil), "status"
	switch lifecycleState(p.Pod) {
	case v1beta1.LifecycleStatePreparingUpdate:
		r.heldByHook(p, hook)
		return hooked(p.Pod, hook)
	case v1beta1.LifecycleStateUpdated:
		if hook == nil || len(hook.LabelsHandler)+len(hook.FinalizersHandler) == 0 {
			return false
		}
		patch, subresource = r.rehook(hook), "" // finalizers cannot be written with the status
	case v1beta1.LifecycleStateUpdating:
		return false
	default:
		if !hooked(p.Pod, hook) {
			return false
		}
		patch = r.enter(p.Pod, v1beta1.LifecycleStatePreparingUpdate)
	}
	if r.mayTry(PrepareUpdate) {
		r.command(p.Pod, decide.PatchPod(p.Pod, subresource, patch, decide.Why(PrepareUpdate, "%s; a hook holds the Pod", budget)))
	}
	return true
}

// mustDrain says why a Pod must be taken out of its Services before it changes; empty: it need not, or it is. Where nothing
// routes to a Pod, and neither hook nor grace period wants it drained, the change is one write.
func (r *round) mustDrain(p *pod, change inplace.Change) string {
	gate := p.Condition(inplace.ReadyCondition)
	if !p.HasGate(inplace.ReadyCondition) || !gate.Present() || gate.Status == "False" || !change.Drains(p.Pod) || r.undrained(change) && len(change.Feeds) == 0 {
		return ""
	}
	switch {
	case len(change.Feeds) > 0:
		return "the node agent restarts containers only in a Pod that is not ready"
	case r.spec.graceSeconds > 0:
		return fmt.Sprintf("the Pod gets %d seconds of grace", r.spec.graceSeconds)
	case r.spec.inPlaceUpdate() != nil:
		return "a lifecycle hook is set"
	case r.World.Routed(p.Pod):
		return "a Service routes to the Pod"
	}
	return ""
}

// undrained says whether people have declared that a change needs no drain (inplace-update D15): an annotation of the CloneSet
// lists containers, "metadata" for labels and annotations that feed nothing, and "resources".
func (r *round) undrained(change inplace.Change) bool {
	listed := strings.Split(strings.ReplaceAll(r.set.Annotations.Get(undrainedAnnotation), " ", ""), ",")
	for _, touched := range change.Touches() {
		if !slices.Contains(listed, touched) {
			return false
		}
	}
	return true
}

// updateInPlace is the write that begins the update of a Pod (inplace-update R11). A Pod that was drained, or that a hook knows,
// is Updating until it is done; one that was not keeps its state, and that it is in the middle of an update shows in its
// containers.
func (r *round) updateInPlace(p *pod, change inplace.Change, target revision, budget string) {
	if !r.mayTry(UpdateInPlace) {
		return
	}
	var write inplace.Write
	why := change.Describe()
	grace := r.spec.graceSeconds > 0 && !change.Empty()
	if grace {
		write = inplace.Hold(p.Pod, change, target.name, r.spec.graceSeconds, r.Now())
		why = fmt.Sprintf("in %d seconds: %s", r.spec.graceSeconds, why)
	} else {
		write = inplace.Start(p.Pod, change, target.name, r.Now())
	}
	patch := write.Patch(p.Pod)
	labels, annotations := under(patch, "labels"), under(patch, "annotations")
	labels[revisionLabel] = r.labelOf(target.name)
	labels[templateLabel] = shortHash(target.name)
	gate := p.Condition(inplace.ReadyCondition)
	drained := gate.Status == "False" && p.running()
	if drained || grace || r.spec.inPlaceUpdate() != nil || len(change.Resources) > 0 {
		labels[v1beta1.LifecycleStateKey] = string(v1beta1.LifecycleStateUpdating)
		annotations[v1beta1.LifecycleTimestampKey] = r.stamp()
	}
	r.command(p.Pod, decide.PatchPod(p.Pod, "", patch, decide.Why(UpdateInPlace, "%s; %s", budget, why)))
}

// under returns a map below the metadata of a patch, and makes it if need be.
func under(patch map[string]any, field string) map[string]any {
	metadata := childMap(patch, "metadata")
	if metadata[field] == nil {
		metadata[field] = map[string]any{}
	}
	return childMap(metadata, field)
}

func (r *round) claimsHashOf(target revision) string {
	if held := r.World.Revision(r.set.Namespace, target.name); held != nil {
		return held.Annotations.Get(claimsHashAnnotation)
	}
	return claimsHash(r.spec.claims)
}
