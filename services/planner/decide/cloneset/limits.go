package cloneset

import "shiplog.dev/internal/world"

// Limits are the numbers of a spec, defaults filled in and percentages worked out, for those who show a rollout.
type Limits struct {
	Replicas, Partition, MaxUnavailable, MaxSurge int
	MinReadySeconds                               int32
}

// LimitsOf reads them. false: the spec cannot be acted on.
func LimitsOf(set *world.CloneSet) (Limits, bool) {
	spec, problem := readSpec(set)
	return Limits{spec.replicas, spec.partition, spec.maxUnavailable, spec.maxSurge, spec.minReadySeconds}, problem == ""
}
