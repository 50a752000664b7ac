package cloneset

import (
	"strconv"

	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
)

// reportInvalid says on the CloneSet, once per problem, why nothing is done for it: a Stalled condition, which
// is told as a rollout event and as a Kubernetes Event.
func reportInvalid(w *world.World, set *world.CloneSet, problem string, decision *decide.Decision) {
	r := &round{world: w, set: set, object: setRef(set), decision: decision, commanded: map[string]bool{}, wanted: map[string]bool{}}
	status := set.Status
	status.ObservedGeneration = set.Generation
	status.Conditions = append(status.Conditions[:0:0], set.Status.Conditions...)
	r.setCondition(&status.Conditions, conditionReconciling, "", "")
	r.setCondition(&status.Conditions, conditionStalled, problem, "InvalidSpec")
	if sameStatus(set.Status, status) || set.UnderWay != nil || !r.mayTry(ReportStatus) {
		r.awaitTime()
		return
	}
	r.commandSet(decide.PatchMerge(r.object, "status", statusPatch(status), decide.Why(ReportStatus, "%s", problem)))
}

func formatVersion(version uint64) string { return strconv.FormatUint(version, 10) }
