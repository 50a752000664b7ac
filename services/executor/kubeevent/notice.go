package kubeevent

import (
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/api/rolloutevent"
	"shiplog.dev/internal/journal"
	"shiplog.dev/services/planner/decide/cloneset"
)

// component is the source of a CloneSet's Events (cloneset section 4).
const component = "cloneset-controller"

// Reasons of Events: those of OpenKruise, by which people filter and alert (cloneset section 4), then ours.
const (
	successfulCreate            = "SuccessfulCreate"
	failedCreate                = "FailedCreate"
	successfulDelete            = "SuccessfulDelete"
	failedDelete                = "FailedDelete"
	failedUpdate                = "FailedUpdate"
	scaleUpLimited              = "ScaleUpLimited"
	successfulUpdatePodInPlace  = "SuccessfulUpdatePodInPlace"
	failedUpdatePodInPlace      = "FailedUpdatePodInPlace"
	successfulUpdatePodReCreate = "SuccessfulUpdatePodReCreate"
	failedUpdatePodReCreate     = "FailedUpdatePodReCreate"

	completedUpdatePodInPlace = "CompletedUpdatePodInPlace" // inplace-update D24
	invalidSpec               = "InvalidSpec"               // the spec cannot be acted on
)

// notice is one thing that an Event tells.
type notice struct {
	task            *journal.Task
	at              time.Time
	kind            string
	workload        *shiplogv1.ObjectRef
	warning         bool
	reason, message string
}

// noticeOf returns what a rollout event has to say to users of Kubernetes; nil: nothing.
func noticeOf(task *journal.Task) *notice {
	event := task.Entry.GetRolloutEvent()
	n := &notice{task: task, at: event.GetTime().AsTime(), kind: event.GetKind(), workload: event.GetWorkload()}
	say := func(reason, format string, args ...any) {
		n.reason, n.message = reason, fmt.Sprintf(format, args...)
	}
	read := func(into any) bool { return json.Unmarshal(event.GetData(), into) == nil }
	switch event.GetType() {
	case rolloutevent.TypePodCreated:
		if data := (rolloutevent.Pod{}); read(&data) {
			say(successfulCreate, "succeed to create pod %s", data.Pod)
		}
	case rolloutevent.TypePodDeleted:
		if data := (rolloutevent.PodDeleted{}); read(&data) {
			say(successfulDelete, "succeed to delete pod %s", data.Pod.Pod)
		}
	case rolloutevent.TypeClaimDeleted:
		if data := (rolloutevent.ClaimDeleted{}); read(&data) {
			say(successfulDelete, "succeed to delete pvc %s", data.Claim)
		}
	case rolloutevent.TypePodUpdating:
		if data := (rolloutevent.PodUpdating{}); read(&data) {
			say(successfulUpdatePodInPlace, "successfully update pod %s in-place(revision %s)", data.Pod, data.Revision)
		}
	case rolloutevent.TypePodUpdated:
		if data := (rolloutevent.PodUpdated{}); read(&data) && data.How == "in-place" {
			say(completedUpdatePodInPlace, "completed update of pod %s in-place(revision %s) after %v s", data.Pod, data.Revision, data.Seconds)
		}
	case rolloutevent.TypePodReplacing:
		if data := (rolloutevent.PodUpdating{}); read(&data) {
			say(successfulUpdatePodReCreate, "successfully patch pod %s specified-delete for update(revision %s)", data.Pod, data.Revision)
		}
	case rolloutevent.TypeScaleLimited:
		if data := (rolloutevent.ScaleLimited{}); read(&data) {
			n.warning = true
			say(scaleUpLimited, "scaleUp is limited because of scaleStrategy.maxUnavailable, limit: %d", data.Limit)
		}
	case rolloutevent.TypeStalled:
		if data := (rolloutevent.Stalled{}); read(&data) && data.Reason == invalidSpec {
			n.warning = true
			say(invalidSpec, "%s", data.Detail)
		}
	case rolloutevent.TypeWriteRefused:
		if data := (rolloutevent.WriteRefused{}); read(&data) {
			n.warning = true
			refused(data, say)
		}
	}
	if n.reason == "" {
		return nil
	}
	return n
}

// refused words a refusal; of a Pod that was not created only the name is told (cloneset D20).
func refused(data rolloutevent.WriteRefused, say func(reason, format string, args ...any)) {
	pods, claims := data.Resource == "pods", data.Resource == "persistentvolumeclaims"
	switch {
	case pods && data.Verb == "create":
		say(failedCreate, "failed to create pod: %s, pod: %s", data.Error.Message, data.Name)
	case claims && data.Verb == "create":
		say(failedCreate, "failed to create pvc: %s, pvc: %s", data.Error.Message, data.Name)
	case pods && data.Verb == "delete":
		say(failedDelete, "failed to delete pod %s: %s", data.Name, data.Error.Message)
	case claims && data.Verb == "delete":
		say(failedDelete, "failed to clean up PVC %s: %s", data.Name, data.Error.Message)
	case claims:
		say(failedUpdate, "failed to update pvc %s: %s", data.Name, data.Error.Message)
	case pods && data.Reason == cloneset.UpdateReCreate:
		say(failedUpdatePodReCreate, "failed to patch pod specified-delete %s for update(revision %s): %s", data.Name, data.Revision, data.Error.Message)
	case pods && (data.Reason == cloneset.DrainPod || data.Reason == cloneset.UpdateInPlace || data.Reason == cloneset.NextBatch || data.Reason == cloneset.ResizePod):
		say(failedUpdatePodInPlace, "failed to update pod %s in-place(revision %s): %s", data.Name, data.Revision, data.Error.Message)
	}
}

// eventType is the type of an Event in the words of Kubernetes.
func (n *notice) eventType() string {
	if n.warning {
		return corev1.EventTypeWarning
	}
	return corev1.EventTypeNormal
}
