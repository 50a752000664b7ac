package cloneset

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
)

// reportInvalid says on the CloneSet, once per problem, why nothing is done for it: a Stalled condition and an Event.
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
	r.warn("InvalidSpec", problem)
}

// warn writes a Kubernetes Event of type Warning about the CloneSet. Its name follows from what it says, so saying the same
// of the same generation again writes nothing.
func (r *round) warn(reason, message string) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %s %s", r.set.UID, r.set.Generation, reason, message))
	name := r.set.Name + "." + hex.EncodeToString(sum[:8])
	object := &shiplogv1.ObjectRef{Version: "v1", Resource: "events", Namespace: r.set.Namespace, Name: name}
	r.decision.Append(decide.Create(object, map[string]any{
		"apiVersion": "v1", "kind": "Event", "metadata": map[string]any{"name": name, "namespace": r.set.Namespace},
		"involvedObject": map[string]any{
			"apiVersion": world.GroupKruise + "/v1alpha1", "kind": "CloneSet", "namespace": r.set.Namespace,
			"name": r.set.Name, "uid": string(r.set.UID), "resourceVersion": formatVersion(r.set.Version),
		},
		"type": corev1.EventTypeWarning, "reason": reason, "message": message,
		"source":         map[string]any{"component": "cloneset-controller"},
		"firstTimestamp": r.stamp(), "lastTimestamp": r.stamp(), "count": 1,
	}, decide.Why(WarnInvalid, "%s", message)))
}

func formatVersion(version uint64) string { return strconv.FormatUint(version, 10) }
