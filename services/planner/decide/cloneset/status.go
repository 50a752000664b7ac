package cloneset

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"shiplog.dev/api/kruise/apps/v1beta1"
	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
)

// statusPause is how long a status that is merely in motion rests between two writes. Log time.
const statusPause = time.Second

// Conditions that kstatus reads, beside OpenKruise's own: still on the way, and stuck until somebody changes something. Both are
// there only while they are True.
const (
	conditionReconciling v1beta1.CloneSetConditionType = "Reconciling"
	conditionStalled     v1beta1.CloneSetConditionType = "Stalled"
)

// reportStatus writes the status when it differs from the facts: at once for a new generation or when all is settled, else
// at most once in statusPause.
func (r *round) reportStatus() {
	if !r.updateRevision.stored && !r.Refused(CreateRevision) {
		return // it comes with the first Pod writes, which it must not slow down
	}
	held := r.set.Status
	status := r.status()
	if r.set.UnderWay != nil || sameStatus(held, status) || !r.mayTry(ReportStatus) {
		return
	}
	settled := len(r.commanded) == 0 && !r.anyUnderWay() && int(status.Replicas) == r.spec.replicas &&
		status.AvailableReplicas == status.Replicas && status.UpdatedReplicas >= status.ExpectedUpdatedReplicas
	if due := decide.Rested(r.set.Seen, statusPause, r.Now()); held.ObservedGeneration == r.set.Generation && !settled && due.After(r.Now()) {
		r.WakeBy(due, "the status changes and was written less than %s ago", statusPause)
		return
	}
	r.commandSet(decide.PatchMerge(r.Object, "status", statusPatch(status), decide.Why(ReportStatus,
		"%d Pods: %d ready, %d available, %d of %d updated", status.Replicas, status.ReadyReplicas, status.AvailableReplicas, status.UpdatedReplicas, status.ExpectedUpdatedReplicas)))
}

// statusPatch is the merge patch that makes a status exactly this one: what the JSON leaves out must go, so it is null.
func statusPatch(status v1beta1.CloneSetStatus) map[string]any {
	fields := map[string]any{"conditions": nil, "collisionCount": nil}
	data, _ := json.Marshal(status)
	_ = json.Unmarshal(data, &fields) // JSON that was just written reads
	return map[string]any{"status": fields}
}

// commandSet notes the one command for the CloneSet itself that may be under way. It holds for this very state: status
// writes of custom resources do not look at the UID, and a change of the spec must not be overwritten.
func (r *round) commandSet(command *shiplogv1.Command) {
	command.ResourceVersion = decide.VersionOf(&r.set.Meta)
	r.commanded[""] = true
	r.Append(command)
}

func (r *round) anyUnderWay() bool {
	return slices.ContainsFunc(r.World.PodsOf(r.set.UID), func(p *world.Pod) bool { return p.UnderWay != nil })
}

// status works out the status from the facts alone, commands under way left out (spec: cloneset 4).
func (r *round) status() v1beta1.CloneSetStatus {
	status := v1beta1.CloneSetStatus{
		ObservedGeneration: r.set.Generation, UpdateRevision: r.updateRevision.name, CurrentRevision: r.currentRevision.name,
		ExpectedUpdatedReplicas: int32(r.spec.replicas - r.spec.partition), LabelSelector: r.spec.selector.String(),
		CollisionCount: r.set.Status.CollisionCount,
	}
	if r.collisions > 0 {
		status.CollisionCount = &r.collisions
	}
	for i := range r.facts {
		one := &r.facts[i]
		add := func(all, updated *int32) {
			*all++
			if one.updated {
				*updated++
			}
		}
		add(&status.Replicas, &status.UpdatedReplicas)
		if one.ready {
			add(&status.ReadyReplicas, &status.UpdatedReadyReplicas)
		}
		if one.available {
			add(&status.AvailableReplicas, &status.UpdatedAvailableReplicas)
		}
	}
	if int(status.Replicas) == r.spec.replicas && status.UpdatedReplicas == status.Replicas {
		status.CurrentRevision = status.UpdateRevision // R46
	}
	status.Conditions = r.conditions(status)
	return status
}

// conditions returns the conditions of the status: those of others stay, those of ours are added, kept or taken away.
func (r *round) conditions(status v1beta1.CloneSetStatus) []v1beta1.CloneSetCondition {
	conditions := slices.Clone(r.set.Status.Conditions)
	r.setCondition(&conditions, v1beta1.CloneSetConditionFailedScale, r.refusalText(ScaleUp, ScaleDown, SpecifiedDelete), "")
	problem := r.problem
	if problem == "" {
		problem = r.refusalText(CreateRevision, DrainPod, UpdateInPlace, UpdateReCreate)
	}
	r.setCondition(&conditions, v1beta1.CloneSetConditionFailedUpdate, problem, "")
	r.setProgress(&conditions, status)
	r.setOutlook(&conditions, status)
	return conditions
}

// refusalText words the refusals of the given codes, oldest rule first; empty: none. What was refused and is no longer
// wanted, nor being tried again, is no failure any more (D7).
func (r *round) refusalText(codes ...string) string {
	var texts []string
	for _, code := range codes {
		if refusal := r.World.Refusal(r.set.UID, code); refusal != nil && (r.wanted[code] || r.tries(code)) {
			texts = append(texts, refusal.Object.String()+": "+refusal.Message)
		}
	}
	return strings.Join(texts, "; ")
}

// tries says whether a command of a code is under way.
func (r *round) tries(code string) bool {
	return slices.ContainsFunc(r.World.PodsOf(r.set.UID), func(p *world.Pod) bool { return p.UnderWay != nil && p.UnderWay.Code == code }) ||
		slices.ContainsFunc(r.revisions, func(held *world.Revision) bool { return held.UnderWay != nil && held.UnderWay.Code == code })
}

// setCondition makes a condition True with a message, or takes it away when the message is empty (D7).
func (r *round) setCondition(conditions *[]v1beta1.CloneSetCondition, kind v1beta1.CloneSetConditionType, message, reason string) {
	at := slices.IndexFunc(*conditions, func(c v1beta1.CloneSetCondition) bool { return c.Type == kind })
	switch {
	case message == "" && at >= 0:
		*conditions = slices.Delete(*conditions, at, at+1)
	case message == "":
	case at < 0:
		*conditions = append(*conditions, v1beta1.CloneSetCondition{
			Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(r.Now()),
		})
	default:
		(*conditions)[at].Message, (*conditions)[at].Reason = message, reason
	}
}

// setProgress keeps the Progressing condition, which exists only while a deadline is set. The first case that matches wins.
func (r *round) setProgress(conditions *[]v1beta1.CloneSetCondition, status v1beta1.CloneSetStatus) {
	deadline := r.set.Spec.ProgressDeadlineSeconds
	at := slices.IndexFunc(*conditions, func(c v1beta1.CloneSetCondition) bool {
		return c.Type == v1beta1.CloneSetConditionTypeProgressing
	})
	if deadline == nil || *deadline == 2147483647 {
		if at >= 0 {
			*conditions = slices.Delete(*conditions, at, at+1)
		}
		return
	}
	var held v1beta1.CloneSetCondition
	if at >= 0 {
		held = (*conditions)[at]
	}
	now, replicas := r.Now(), int32(r.spec.replicas)
	next := v1beta1.CloneSetCondition{Type: v1beta1.CloneSetConditionTypeProgressing, Status: corev1.ConditionTrue}
	expires := held.LastUpdateTime.Add(time.Duration(*deadline) * time.Second)
	moved := status.UpdateRevision != r.set.Status.UpdateRevision || status.UpdatedReplicas > r.set.Status.UpdatedReplicas ||
		status.ReadyReplicas > r.set.Status.ReadyReplicas || status.AvailableReplicas > r.set.Status.AvailableReplicas
	switch {
	case status.CurrentRevision == status.UpdateRevision && status.Replicas == replicas && status.UpdatedReplicas == replicas && status.UpdatedAvailableReplicas == replicas:
		next.Reason, next.Message = string(v1beta1.CloneSetAvailable), "CloneSet is available"
	case r.spec.paused:
		next.Reason, next.Message = string(v1beta1.CloneSetProgressPaused), "CloneSet is paused"
	case r.spec.onDelete,
		status.ExpectedUpdatedReplicas < replicas && status.ExpectedUpdatedReplicas <= status.UpdatedAvailableReplicas:
		next.Reason, next.Message = string(v1beta1.CloneSetProgressPartitionAvailable), "CloneSet has been paused due to partition ready"
	case !moved && (held.Reason == string(v1beta1.CloneSetProgressDeadlineExceeded) ||
		held.Reason == string(v1beta1.CloneSetProgressUpdated) && !expires.After(now)):
		next.Status, next.Reason = corev1.ConditionFalse, string(v1beta1.CloneSetProgressDeadlineExceeded)
		next.Message = "CloneSet revision " + status.UpdateRevision + " has timed out progressing"
	default:
		next.Reason, next.Message = string(v1beta1.CloneSetProgressUpdated), "CloneSet is progressing"
	}
	stamp := metav1.NewTime(now)
	next.LastUpdateTime, next.LastTransitionTime = stamp, stamp
	if held.Status == next.Status {
		next.LastTransitionTime = held.LastTransitionTime
	}
	if progressing := next.Reason == string(v1beta1.CloneSetProgressUpdated); held.Reason == next.Reason && !(progressing && moved) {
		next = held // unchanged conditions keep their times; progress restarts the clock (D8)
		if progressing {
			r.WakeBy(expires, "progressDeadlineSeconds %d passes", *deadline)
		}
	} else if progressing {
		r.WakeBy(now.Add(time.Duration(*deadline)*time.Second), "progressDeadlineSeconds %d passes", *deadline)
	}
	if at >= 0 {
		(*conditions)[at] = next
		return
	}
	*conditions = append(*conditions, next)
}

// setOutlook keeps the conditions for kstatus.
func (r *round) setOutlook(conditions *[]v1beta1.CloneSetCondition, status v1beta1.CloneSetStatus) {
	exceeded := slices.ContainsFunc(*conditions, func(c v1beta1.CloneSetCondition) bool {
		return c.Type == v1beta1.CloneSetConditionTypeProgressing && c.Status == corev1.ConditionFalse
	})
	done := int(status.Replicas) == r.spec.replicas && status.AvailableReplicas == status.Replicas &&
		(r.spec.onDelete || status.UpdatedReplicas >= status.ExpectedUpdatedReplicas)
	var reconciling, stalled, reason string
	switch {
	case done:
	case exceeded:
		stalled, reason = "the rollout made no progress for progressDeadlineSeconds", string(v1beta1.CloneSetProgressDeadlineExceeded)
	case r.spec.paused:
		reconciling, reason = "Pods differ from what the spec wants, and the update is paused", string(v1beta1.CloneSetProgressPaused)
	default:
		reconciling, reason = "Pods are on their way to what the spec wants", string(v1beta1.CloneSetProgressUpdated)
	}
	r.setCondition(conditions, conditionReconciling, reconciling, reason)
	r.setCondition(conditions, conditionStalled, stalled, reason)
}

// sameStatus compares two statuses as the API server would store them. While Pods are in motion a count differs nearly always: writing JSON to
// see that took a tenth of the planner in a rollout of a hundred CloneSets.
func sameStatus(a, b v1beta1.CloneSetStatus) bool {
	if a.Replicas != b.Replicas || a.ReadyReplicas != b.ReadyReplicas || a.AvailableReplicas != b.AvailableReplicas ||
		a.UpdatedReplicas != b.UpdatedReplicas || a.UpdatedReadyReplicas != b.UpdatedReadyReplicas || a.UpdatedAvailableReplicas != b.UpdatedAvailableReplicas {
		return false
	}
	one, _ := json.Marshal(a)
	two, _ := json.Marshal(b)
	return string(one) == string(two)
}

// prunePodsToDelete takes names off podsToDelete whose Pods are gone (R34). Only what was decided on may be overwritten, so
// the write holds for this version of the CloneSet alone.
func (r *round) prunePodsToDelete() {
	named := r.set.Spec.ScaleStrategy.PodsToDelete
	if len(named) == 0 || r.set.UnderWay != nil || r.commanded[""] {
		return
	}
	active := map[string]bool{}
	for _, p := range r.World.PodsOf(r.set.UID) {
		// A delete that is under way may still be refused.
		active[p.Name] = p.Active() || (p.Before != nil && p.Before.Active())
	}
	kept := []string{}
	for _, name := range named {
		if active[name] {
			kept = append(kept, name)
		}
	}
	if len(kept) == len(named) || !r.mayTry(PrunePodsToDelete) {
		return
	}
	command := decide.PatchMerge(r.Object, "", map[string]any{"spec": map[string]any{"scaleStrategy": map[string]any{"podsToDelete": kept}}},
		decide.Why(PrunePodsToDelete, "%d of %d named Pods are gone", len(named)-len(kept), len(named)))
	r.commandSet(command)
}
