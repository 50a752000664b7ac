package cloneset

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/services/planner/decide"
)

// Codes of holds, stable. Where a rule decides not to act it says so through one of the methods below, which do nothing
// unless somebody asks.
const (
	HeldInvalid     = "InvalidSpec"     // the spec cannot be acted on
	HeldPaused      = "Paused"          // updateStrategy.paused
	HeldOnDelete    = "OnDelete"        // Pods change when somebody deletes them
	HeldPartition   = "Partition"       // as many keep the old revision as asked for
	HeldBudget      = "UpdateBudget"    // maxUnavailable is used up
	HeldInPlaceOnly = "InPlaceOnly"     // the change needs another Pod, the type forbids one
	HeldScaling     = "ScalesFirst"     // Pods are created or deleted first
	HeldScaleBudget = "ScaleBudget"     // scaleStrategy.maxUnavailable is used up
	HeldMissing     = "CreateLater"     // missing Pods wait for their revision, or for Pods of their names to go
	HeldDeletion    = "DeleteBudget"    // deleting an available Pod would exceed maxUnavailable
	HeldUnderWay    = "UnderWay"        // a command on the Pod has no outcome yet
	HeldLeaving     = "LeavesAnyway"    // the Pod is marked for deletion
	HeldHook        = "Hook"            // a label or finalizer of a lifecycle hook
	HeldState       = "LifecycleState"  // the Pod lacks a label or finalizer that its next lifecycle state asks for
	HeldGrace       = "GracePeriod"     // the change is written when the grace period is over
	HeldBatch       = "NextBatch"       // later containers wait for earlier ones
	HeldResize      = "Resize"          // the kubelet has not resized the Pod
	HeldBroken      = "UnreadableState" // the Pod's account of its update cannot be read
	HeldMarked      = "MarkedByLabel"   // declared unavailable by somebody else
	HeldMinReady    = "MinReadySeconds" // ready, and not for long enough
	HeldVouch       = "AwaitsVouch"     // nothing is taken down on facts that nobody has vouched for lately
	HeldBackoff     = "Backoff"         // refused, tried again later
)

func (r *round) hold(held decide.Hold) {
	if r.explains {
		r.Decision.Held = append(r.Decision.Held, held)
	}
}

func namesOf(pods []*pod) []string {
	names := make([]string, len(pods))
	for i, p := range pods {
		names[i] = p.Name
	}
	return names
}

// unavailablePods are those that use up the budget.
func (r *round) unavailablePods() []string {
	var names []string
	for i := range r.pods {
		if !r.pods[i].available {
			names = append(names, r.pods[i].Name)
		}
	}
	return names
}

// heldByStrategy: the update step has nothing to do, by what the spec says of it.
func (r *round) heldByStrategy() {
	if !r.explains {
		return
	}
	var old []*pod
	for i := range r.pods {
		if !r.pods[i].updated {
			old = append(old, &r.pods[i])
		}
	}
	if len(old) == 0 {
		return
	}
	held := decide.Hold{Pods: namesOf(old)}
	switch {
	case r.spec.paused:
		held.Code, held.Message, held.Release = HeldPaused, "updateStrategy.paused is true", "updateStrategy.paused: false"
	case r.spec.onDelete:
		held.Code, held.Message, held.Release = HeldOnDelete, "the type is OnDelete: a Pod changes when somebody deletes it", "deleting the Pods"
	case r.spec.partition > 0:
		held = r.keptByPartition(old)
	default:
		return // old Pods go as new ones come
	}
	r.hold(held)
}

func (r *round) keptByPartition(old []*pod) decide.Hold {
	updated := 0
	for i := range r.pods {
		if r.pods[i].updated {
			updated++
		}
	}
	return decide.Hold{
		Code: HeldPartition, Pods: namesOf(old), Release: "a smaller updateStrategy.partition",
		Message: fmt.Sprintf("partition %d: %d of %d Pods are to be updated, %d are", r.spec.partition, r.spec.replicas-r.spec.partition, r.spec.replicas, updated),
	}
}

// heldByBudget: of the candidates only the chosen ones may change now.
func (r *round) heldByBudget(candidates, chosen []*pod) {
	if !r.explains {
		return
	}
	due := min(abs(r.updates.update), len(candidates))
	held := slices.DeleteFunc(slices.Clone(candidates[:due]), func(p *pod) bool { return slices.Contains(chosen, p) })
	if len(held) > 0 {
		by := r.unavailablePods()
		r.hold(decide.Hold{
			Code: HeldBudget, Pods: namesOf(held), By: by, Release: "a Pod of these becoming available, or a larger updateStrategy.maxUnavailable",
			Message: fmt.Sprintf("%d of %d may be unavailable, %d are", max(r.updates.updateUnavailable, 0), r.spec.replicas, r.updates.unavailable),
		})
	}
	if kept := candidates[due:]; len(kept) > 0 && r.spec.partition > 0 && r.updates.update > 0 {
		r.hold(r.keptByPartition(kept))
	}
}

// heldPlace: the Pod has a place in the update and nothing is done to it.
func (r *round) heldPlace(p *pod) {
	switch {
	case !r.explains:
	case p.UnderWay != nil:
		r.hold(decide.Hold{Code: HeldUnderWay, Pods: []string{p.Name}, Release: "its outcome",
			Message: fmt.Sprintf("command %d (%s) of %s has no outcome yet", p.UnderWay.Sequence, p.UnderWay.Code, p.UnderWay.Since.UTC().Format(time.TimeOnly))})
	case p.specified:
		r.hold(decide.Hold{Code: HeldLeaving, Pods: []string{p.Name}, Message: "the Pod is marked for deletion and is replaced by a new one", Release: "its deletion"})
	}
}

func (r *round) heldByScaling() {
	if !r.explains || r.updates.update == 0 {
		return
	}
	if candidates := r.candidates(); len(candidates) > 0 {
		r.hold(decide.Hold{Code: HeldScaling, Pods: namesOf(candidates), Message: "Pods are created or deleted first", Release: "the outcomes of these commands"})
	}
}

func (r *round) heldByVouch(pods []*pod) {
	if !r.explains {
		return
	}
	if len(pods) == 0 && slices.ContainsFunc(r.Decision.Held, func(held decide.Hold) bool { return held.Code == HeldVouch }) {
		return
	}
	r.hold(decide.Hold{
		Code: HeldVouch, Pods: namesOf(pods), Release: "the watcher's next vouch",
		Message: fmt.Sprintf("the facts were last known to be complete %s ago, at most %s are allowed", r.World.FactsAge(r.Ref).Round(time.Second), decide.FreshFacts),
	})
}

// heldScaleUp: of the missing Pods only limit may be created now.
func (r *round) heldScaleUp(limit int, why string) {
	n := r.numbers
	if !r.explains || limit >= n.up {
		return
	}
	held := decide.Hold{Code: HeldScaleBudget, By: r.unavailablePods(), Release: "one of these becoming available, or a larger scaleStrategy.maxUnavailable"}
	if limit < n.upLimit {
		held.Code, held.By, held.Release = HeldMissing, nil, "what they wait for"
	}
	held.Message = fmt.Sprintf("%d Pods are missing: %s", n.up, why)
	r.hold(held)
}

func (r *round) heldDeletion(p *pod, why string) {
	if r.explains {
		r.hold(decide.Hold{Code: HeldDeletion, Pods: []string{p.Name}, By: r.unavailablePods(), Release: "one of these becoming available",
			Message: fmt.Sprintf("%s, and %d available Pods may be deleted now", why, r.numbers.deleteReady)})
	}
}

// standing is how far the CloneSet is, by the facts.
func (r *round) standing() *decide.Standing {
	status := r.status()
	return &decide.Standing{
		Revision: status.UpdateRevision, Wanted: r.spec.replicas, WantedUpdated: int(status.ExpectedUpdatedReplicas), MaxUnavailable: r.spec.maxUnavailable,
		Pods: int(status.Replicas), Ready: int(status.ReadyReplicas), Available: int(status.AvailableReplicas),
		Updated: int(status.UpdatedReplicas), UpdatedAvailable: int(status.UpdatedAvailableReplicas),
	}
}

// heldByHook: a hook may hold the Pod; says what of it.
func (r *round) heldByHook(p *pod, hook *v1beta1.LifecycleHook) {
	if !r.explains || !hooked(p.Pod, hook) {
		return
	}
	var holds []string
	for _, label := range slices.Sorted(maps.Keys(hook.LabelsHandler)) {
		if value, has := p.Labels.Lookup(label); has && value == hook.LabelsHandler[label] {
			holds = append(holds, fmt.Sprintf("label %s=%s", label, hook.LabelsHandler[label]))
		}
	}
	for _, finalizer := range hook.FinalizersHandler {
		if slices.Contains(p.Finalizers, finalizer) {
			holds = append(holds, "finalizer "+finalizer)
		}
	}
	r.hold(decide.Hold{
		Code: HeldHook, Pods: []string{p.Name}, Release: "its removal by whoever watches for the state",
		Message: fmt.Sprintf("a lifecycle hook holds the Pod in %s: %s", lifecycleState(p.Pod), strings.Join(holds, ", ")),
	})
}

// heldState: the Pod stays in a state that keeps it from being available, for what a hook asks for.
func (r *round) heldState(p *pod, next v1beta1.LifecycleStateType) {
	state := lifecycleState(p.Pod)
	hook := r.spec.preNormal()
	if state == v1beta1.LifecycleStateUpdated {
		hook = r.spec.inPlaceUpdate()
	}
	if !r.explains || next != state || hook == nil || allHooked(p.Pod, hook) ||
		state != v1beta1.LifecycleStatePreparingNormal && state != v1beta1.LifecycleStateUpdated {
		return
	}
	var lacks []string
	for _, label := range slices.Sorted(maps.Keys(hook.LabelsHandler)) {
		if value, has := p.Labels.Lookup(label); !has || value != hook.LabelsHandler[label] {
			lacks = append(lacks, fmt.Sprintf("label %s=%s", label, hook.LabelsHandler[label]))
		}
	}
	for _, finalizer := range hook.FinalizersHandler {
		if !slices.Contains(p.Finalizers, finalizer) {
			lacks = append(lacks, "finalizer "+finalizer)
		}
	}
	r.hold(decide.Hold{
		Code: HeldState, By: []string{p.Name}, Release: "whoever sets these",
		Message: fmt.Sprintf("the Pod stays in %s, and counts as unavailable, until it has %s", state, strings.Join(lacks, ", ")),
	})
}

// heldUpdating: the update of a Pod has begun and cannot go on.
func (r *round) heldUpdating(p *pod, code, message, release string) {
	r.hold(decide.Hold{Code: code, Pods: []string{p.Name}, Message: message, Release: release})
}
