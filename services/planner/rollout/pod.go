package rollout

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/api/rolloutevent"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide/inplace"
)

const revisionLabel = "controller-revision-hash"

// pod is what is remembered of one Pod, and the facts on which that rests.
type pod struct {
	revision string
	// began is the first fact with this revision; 0 once the Pod has arrived at it.
	began   uint64
	beganAt time.Time
	// previous revision, and the last fact with it; zero for a Pod that was created with this one.
	previous     string
	previousFact uint64
	// arrived is the newest fact that showed the Pod at its revision and ready, failed the newest that showed it failing.
	arrived, failed uint64
}

func (p *pod) live() []uint64 { return []uint64{p.previousFact, p.began, p.arrived, p.failed} }

// pod tells what a new fact of a Pod means; before is the fact that it replaces, or nil.
func (s *step) pod(before, after *world.Pod) {
	known := s.tracker.pods
	if before != nil && (before.UID != after.UID || !ours(after)) {
		delete(known, before.UID)
	}
	if !ours(after) {
		return
	}
	set := setOf(s.world, after.Owner.UID())
	p, revision := known[after.UID], after.Labels.Get(revisionLabel)
	first := p == nil
	switch {
	case first:
		p = &pod{revision: revision, began: s.change.Sequence, beganAt: s.change.Time}
		known[after.UID] = p
	case shortHash(p.revision) != shortHash(revision):
		*p = pod{revision: revision, began: s.change.Sequence, beganAt: s.change.Time, previous: p.revision, previousFact: before.Sequence}
		if set != nil {
			s.tell(set, rolloutevent.TypePodUpdating, rolloutevent.PodUpdating{
				Message: fmt.Sprintf("Pod %s changes in place from revision %s to %s", after.Name, p.previous, revision),
				Pod:     after.Name, UID: string(after.UID), Revision: revision, PreviousRevision: p.previous,
			})
		}
	}
	if why := failure(after); why.reason != "" {
		if p.failed == 0 && !first && set != nil {
			s.tell(set, rolloutevent.TypePodFailed, rolloutevent.PodFailed{
				Message: fmt.Sprintf("Pod %s does not work: %s", after.Name, why.reason), Pod: after.Name, UID: string(after.UID), Revision: revision,
				Container: why.container, Reason: why.reason, Detail: why.detail,
			})
		}
		p.failed = s.change.Sequence
	}
	if !arrived(after) {
		return
	}
	if p.arrived == 0 && !first && set != nil {
		how, words := "created", "was created"
		if p.previous != "" {
			how, words = "in-place", "was changed in place"
		}
		took := seconds(s.change.Time.Sub(p.beganAt))
		s.tell(set, rolloutevent.TypePodUpdated, rolloutevent.PodUpdated{
			Message: fmt.Sprintf("Pod %s is ready at revision %s, %v s after it %s", after.Name, revision, took, words),
			Pod:     after.Name, UID: string(after.UID), Revision: revision, PreviousRevision: p.previous, How: how, Seconds: took,
		})
	}
	*p = pod{revision: p.revision, arrived: s.change.Sequence, failed: p.failed}
}

// podGone tells that a Pod has left the API server.
func (s *step) podGone(held *world.Pod) {
	delete(s.tracker.pods, held.UID)
	if set := setOf(s.world, held.Owner.UID()); set != nil && ours(held) {
		s.tell(set, rolloutevent.TypePodGone, rolloutevent.Pod{
			Message: fmt.Sprintf("Pod %s is gone", held.Name), Pod: held.Name, UID: string(held.UID), Revision: held.Labels.Get(revisionLabel),
		})
	}
}

// ours says whether a CloneSet controls the Pod.
func ours(p *world.Pod) bool {
	group, _, _ := strings.Cut(p.Owner.APIVersion(), "/")
	return p.Owner.Kind() == "CloneSet" && group == world.GroupKruise
}

// arrived says whether a Pod works as its revision wants, by its own account: it is ready, its update in place is complete, and
// no hook has a say in it (cloneset R3, R4 without minReadySeconds). Whether the kubelet has granted other resources is not
// looked at.
func arrived(p *world.Pod) bool {
	ready, gate := p.Condition(string(corev1.PodReady)), p.Condition(inplace.ReadyCondition)
	state := p.Labels.Get(v1beta1.LifecycleStateKey)
	return p.Active() && p.Phase == string(corev1.PodRunning) && ready.Status == "True" && (!gate.Present() || gate.Status == "True") &&
		(state == "" || state == string(v1beta1.LifecycleStateNormal)) && inplace.Complete(p)
}

// trouble is why a Pod does not work.
type trouble struct{ container, reason, detail string }

// failure returns why a Pod does not work; the zero value when it does, or when it is only on its way.
func failure(p *world.Pod) trouble {
	if p.Phase == string(corev1.PodFailed) {
		return trouble{reason: "Failed"}
	}
	for _, status := range p.Statuses {
		switch waiting := status.Waiting(); waiting.Reason {
		case "", "ContainerCreating", "PodInitializing":
		default:
			return trouble{status.Name, waiting.Reason, waiting.Message}
		}
	}
	return trouble{}
}

// shortHash is what follows the last dash of a revision's name (cloneset R5).
func shortHash(revision string) string { return revision[strings.LastIndexByte(revision, '-')+1:] }
