package cloneset

import (
	"shiplog.dev/internal/world"
)

// Goal is what the spec of a CloneSet asks for, percentages worked out: for those who tell what happens to it.
type Goal struct {
	Replicas, Partition int
	// ScaleUnavailable is how many Pods may be unavailable while Pods are created; math.MaxInt: unlimited.
	ScaleUnavailable int
	Paused           bool
}

// GoalOf returns the goal, and false for a spec that cannot be acted on.
func GoalOf(set *world.CloneSet) (Goal, bool) {
	spec, problem := readSpec(set)
	return Goal{spec.replicas, spec.partition, spec.scaleUnavailable, spec.paused}, problem == ""
}

// TargetRevision returns the name of the revision that holds the template, or will hold it (R12, R13), and whether it is an
// older one that is wanted again.
func TargetRevision(w *world.World, set *world.CloneSet) (name string, older bool) {
	r := newRound(w, set, spec{})
	r.findRevisions()
	highest, wanted := int64(0), int64(0)
	for _, held := range r.revisions {
		highest = max(highest, held.Number)
		if held.Name == r.updateRevision.name {
			wanted = held.Number
		}
	}
	return r.updateRevision.name, wanted > 0 && wanted < highest
}
