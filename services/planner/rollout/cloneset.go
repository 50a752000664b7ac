package rollout

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/api/rolloutevent"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide/cloneset"
)

// set is what is remembered of one CloneSet, and the facts on which that rests.
type set struct {
	// template that is wanted, by meaning.
	template string
	// began is the fact with which the rollout began; 0 once it is complete.
	began   uint64
	beganAt time.Time
	// completed is the newest fact that showed the rollout complete, replicas and partition what was wanted then; 0: it is
	// not complete.
	completed           uint64
	replicas, partition int
	// limited is the newest fact that showed creation held back, of generation; 0: none of this generation did.
	limited    uint64
	generation int64
}

func (s *set) live() []uint64 { return []uint64{s.began, s.completed, s.limited} }

// cloneSet tells what a new fact of a CloneSet means; before is the fact that it replaces, or nil.
func (s *step) cloneSet(before, after *world.CloneSet) {
	known := s.tracker.sets
	if before != nil && before.UID != after.UID {
		delete(known, before.UID)
		before = nil
	}
	goal, valid := cloneset.GoalOf(after)
	if valid && !after.Terminating {
		s.follow(before, after, goal)
	}
	if before != nil {
		s.conditions(before, after, goal, known[after.UID])
	}
}

// follow tells what follows from the spec and how far it has come.
func (s *step) follow(before, after *world.CloneSet, goal cloneset.Goal) {
	known := s.tracker.sets[after.UID]
	first := known == nil
	if first {
		known = &set{}
		s.tracker.sets[after.UID] = known
	}
	complete := isComplete(after, goal)
	var started string
	switch {
	case first && after.Status.UpdateRevision == "":
		started = "created"
	case first:
		// It was there before the log: whatever is under way began earlier.
		*known = set{template: after.Template.Identity, began: s.change.Sequence, beganAt: s.change.Time}
	case known.template != after.Template.Identity:
		started = "template"
	case known.completed != 0 && !complete && goal.Replicas == known.replicas && goal.Partition < known.partition &&
		int(after.Status.Replicas-after.Status.UpdatedReplicas) > goal.Partition:
		started = "partition"
	}
	if started != "" {
		*known = set{
			template: after.Template.Identity, began: s.change.Sequence, beganAt: s.change.Time, limited: known.limited, generation: known.generation,
		}
		s.started(after, goal, started)
	}
	if before != nil {
		if old, valid := cloneset.GoalOf(before); valid {
			s.scaled(after, old.Replicas, goal.Replicas)
			s.paused(after, goal, old.Paused, known.completed == 0)
		}
	}
	s.limited(known, after, goal)
	if !complete {
		return
	}
	if known.completed == 0 && !first {
		s.completed(after, goal, known)
	}
	known.began, known.beganAt = 0, time.Time{}
	known.completed, known.replicas, known.partition = s.change.Sequence, goal.Replicas, goal.Partition
}

// isComplete says whether the status, which must be about this very spec, shows that all is as wanted.
func isComplete(set *world.CloneSet, goal cloneset.Goal) bool {
	status, expected := &set.Status, goal.Replicas-goal.Partition
	return status.ObservedGeneration == set.Generation && int(status.Replicas) == goal.Replicas && int(status.AvailableReplicas) == goal.Replicas &&
		int(status.UpdatedReplicas) >= expected && int(status.UpdatedAvailableReplicas) >= expected
}

func (s *step) started(set *world.CloneSet, goal cloneset.Goal, why string) {
	revision, older := cloneset.TargetRevision(s.world, set)
	data := rolloutevent.Started{
		Why: why, Revision: revision, Images: map[string]string{}, Replicas: goal.Replicas, Partition: goal.Partition, Paused: goal.Paused,
	}
	for _, container := range set.Spec.Template.Spec.Containers {
		data.Images[container.Name] = container.Image
	}
	if data.PreviousRevision = set.Status.UpdateRevision; data.PreviousRevision == revision {
		data.PreviousRevision = ""
	}
	eventType, words := rolloutevent.TypeStarted, "are to move to revision"
	if older && why == "template" {
		eventType, words = rolloutevent.TypeRolledBack, "are to go back to revision"
	}
	data.Message = fmt.Sprintf("%d of %d Pods %s %s", goal.Replicas-goal.Partition, goal.Replicas, words, revision)
	if goal.Paused {
		data.Message += ", once it is no longer paused"
	}
	s.tell(set, eventType, data)
}

func (s *step) scaled(set *world.CloneSet, from, to int) {
	if from != to {
		s.tell(set, rolloutevent.TypeScaled, rolloutevent.Scaled{Message: fmt.Sprintf("%d Pods are wanted, %d were before", to, from), From: from, To: to})
	}
}

// paused tells that the rollout was paused or resumed, while there is one.
func (s *step) paused(set *world.CloneSet, goal cloneset.Goal, before, rolling bool) {
	if before == goal.Paused || !rolling {
		return
	}
	if goal.Paused {
		s.tell(set, rolloutevent.TypePaused, s.progress(set, goal, "Paused"))
		return
	}
	s.tell(set, rolloutevent.TypeResumed, rolloutevent.Resumed{Progress: s.progress(set, goal, "No longer paused"), After: "paused"})
}

// progress words how far a rollout has come, by the newest status.
func (s *step) progress(set *world.CloneSet, goal cloneset.Goal, what string) rolloutevent.Progress {
	target, updated, expected := s.target(set), 0, goal.Replicas-goal.Partition
	if shortHash(set.Status.UpdateRevision) == shortHash(target) {
		updated = int(set.Status.UpdatedReplicas)
	}
	return rolloutevent.Progress{
		Message:  fmt.Sprintf("%s: %d of %d Pods are updated", what, updated, expected),
		Revision: target, Updated: updated, Expected: expected, Replicas: goal.Replicas,
	}
}

// target is the revision to move to. The status may still name the one before.
func (s *step) target(set *world.CloneSet) string {
	if set.Malformed != "" {
		return set.Status.UpdateRevision
	}
	revision, _ := cloneset.TargetRevision(s.world, set)
	return revision
}

// limited tells once for a generation that scaleStrategy.maxUnavailable keeps Pods from being created (cloneset R25, D20).
func (s *step) limited(known *set, set *world.CloneSet, goal cloneset.Goal) {
	if known.generation != set.Generation {
		known.generation, known.limited = set.Generation, 0
	}
	missing := goal.Replicas - int(set.Status.Replicas)
	limit := max(goal.ScaleUnavailable-int(set.Status.Replicas-set.Status.AvailableReplicas), 0)
	if missing <= limit {
		return
	}
	if known.limited == 0 {
		s.tell(set, rolloutevent.TypeScaleLimited, rolloutevent.ScaleLimited{
			Message: fmt.Sprintf("%d Pods are missing, scaleStrategy.maxUnavailable lets %d be created now", missing, limit), Missing: missing, Limit: limit,
		})
	}
	known.limited = s.change.Sequence
}

func (s *step) completed(set *world.CloneSet, goal cloneset.Goal, known *set) {
	data := rolloutevent.Completed{
		Progress: s.progress(set, goal, "Complete"), Partition: goal.Partition, Seconds: seconds(s.change.Time.Sub(known.beganAt)),
	}
	for _, pod := range s.world.PodsOf(set.UID) {
		switch at := pod.Labels.Get(revisionLabel); {
		case !pod.Active() || shortHash(at) != shortHash(data.Revision):
		case pod.Update != nil && shortHash(pod.Update.Revision) == shortHash(at):
			data.InPlace++
		default:
			data.Created++
		}
	}
	data.Message += fmt.Sprintf(" after %v s", data.Seconds)
	if goal.Partition > 0 {
		data.Message += fmt.Sprintf(", the partition keeps %d back", goal.Partition)
	}
	s.tell(set, rolloutevent.TypeCompleted, data)
}

// blocking are the conditions that say that a rollout does not go on by itself, each with the status that says so.
var blocking = []struct {
	condition v1beta1.CloneSetConditionType
	status    corev1.ConditionStatus
}{
	{"Stalled", corev1.ConditionTrue},
	{v1beta1.CloneSetConditionFailedUpdate, corev1.ConditionTrue},
	{v1beta1.CloneSetConditionFailedScale, corev1.ConditionTrue},
	{v1beta1.CloneSetConditionTypeProgressing, corev1.ConditionFalse},
}

// conditions tells that a rollout stalls, and that nothing holds it any more. A spec that cannot be acted on is told anew
// when something else is wrong with it.
func (s *step) conditions(before, after *world.CloneSet, goal cloneset.Goal, known *set) {
	was, is, told := false, false, false
	for _, b := range blocking {
		old, held := find(before, b.condition, b.status), find(after, b.condition, b.status)
		news := held != nil && (old == nil || b.condition == "Stalled" && old.Message != held.Message)
		if news && !told {
			data := rolloutevent.Stalled{Progress: s.progress(after, goal, "Stalled"), Condition: string(b.condition), Reason: held.Reason, Detail: held.Message}
			data.Message += ": " + held.Message
			s.tell(after, rolloutevent.TypeStalled, data)
		}
		was, is, told = was || old != nil, is || held != nil, told || news
	}
	if was && !is && known != nil && known.completed == 0 {
		s.tell(after, rolloutevent.TypeResumed, rolloutevent.Resumed{Progress: s.progress(after, goal, "No longer stalled"), After: "stalled"})
	}
}

// find returns the condition of a type with a status, or nil.
func find(set *world.CloneSet, condition v1beta1.CloneSetConditionType, status corev1.ConditionStatus) *v1beta1.CloneSetCondition {
	at := slices.IndexFunc(set.Status.Conditions, func(c v1beta1.CloneSetCondition) bool { return c.Type == condition && c.Status == status })
	if at < 0 {
		return nil
	}
	return &set.Status.Conditions[at]
}
