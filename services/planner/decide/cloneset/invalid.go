package cloneset

import (
	"slices"

	"shiplog.dev/services/planner/decide"
)

// reportInvalid says on the CloneSet, once per problem, why nothing is done for it: a Stalled condition, which
// is told as a rollout event and as a Kubernetes Event.
func (r *round) reportInvalid(problem string) {
	r.hold(decide.Hold{Code: HeldInvalid, Message: problem, Release: "an edit that mends the field"})
	status := r.set.Status
	status.ObservedGeneration = r.set.Generation
	status.Conditions = slices.Clone(status.Conditions)
	r.setCondition(&status.Conditions, conditionReconciling, "", "")
	r.setCondition(&status.Conditions, conditionStalled, problem, "InvalidSpec")
	if sameStatus(r.set.Status, status) || r.set.UnderWay != nil || !r.mayTry(ReportStatus) {
		return
	}
	r.commandSet(decide.PatchMerge(r.Object, "status", statusPatch(status), decide.Why(ReportStatus, "%s", problem)))
}
