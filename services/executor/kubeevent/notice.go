package kubeevent

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/api/rolloutevent"
	"shiplog.dev/internal/journal"
	"shiplog.dev/services/planner/decide/cloneset"
)

// components are the sources of Events by the kind that they are about (cloneset 4, image-pull 4, container-restart 4).
var components = map[string]string{
	"CloneSet": "cloneset-controller", "NodeImage": "kruise-daemon-imagepuller", "ImagePullJob": "kruise-daemon-imagepuller",
	"ImageListPullJob": "imagelistpulljob-controller", "ContainerRecreateRequest": "containerrecreaterequest-controller", "Pod": "kruise-daemon-crr",
}

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

	pullImageSucceed = "PullImageSucceed"
	pullImageFailed  = "PullImageFailed"
	createdPullJob   = "CreatedImagePullJob"
	failedPullJob    = "FailedCreateImagePullJob"
	createdListJob   = "Successful create ImagePullJob"
	deletedListJob   = "Successful delete ImagePullJob"
	recreating       = "Recreating" // container-restart D14
	completed        = "Completed"
	killing          = "Killing"
	hookFailed       = "FailedPreStopHook"
)

// notice is one thing that an Event tells.
type notice struct {
	task            *journal.Task
	at              time.Time
	kind            string
	workload        *shiplogv1.ObjectRef
	warning         bool
	reason, message string
	// container of a Pod that it is about; empty: it is about the whole object.
	container string
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
	case rolloutevent.TypeImagePulled:
		if data := (rolloutevent.ImagePulled{}); read(&data) {
			say(pullImageSucceed, "Image %s, ecalpsedTime %v", data.Image, time.Duration(data.Seconds*float64(time.Second)))
		}
	case rolloutevent.TypeImagePullFailed:
		if data := (rolloutevent.ImagePullFailed{}); read(&data) {
			n.warning = true
			say(pullImageFailed, "Image %s %s on node %s", data.Image, data.Error, data.Node)
		}
	case rolloutevent.TypePullJobCreated, rolloutevent.TypePullJobDeleted, rolloutevent.TypePullJobRefused:
		if data := (rolloutevent.PullJob{}); read(&data) {
			pullJob(event, data, say)
		}
	case rolloutevent.TypeRestartStarted, rolloutevent.TypeRestartCompleted:
		if data := (rolloutevent.Restart{}); read(&data) {
			n.warning = len(data.Failed) > 0
			say(map[string]string{rolloutevent.TypeRestartStarted: recreating, rolloutevent.TypeRestartCompleted: completed}[event.GetType()], "%s", data.Message)
		}
	case rolloutevent.TypeContainerStopping:
		if data := (rolloutevent.ContainerStopping{}); read(&data) {
			n.container = data.Container
			say(killing, "Stopping container %s by %s", data.Container, strings.Replace(data.By, "/", " ", 1))
		}
	case rolloutevent.TypeHookFailed:
		if data := (rolloutevent.HookFailed{}); read(&data) {
			n.warning, n.container = true, data.Container
			say(hookFailed, "%s", data.Error)
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

// pullJob words what became of an ImagePullJob, for a list or for a CloneSet.
func pullJob(event *shiplogv1.RolloutEvent, data rolloutevent.PullJob, say func(reason, format string, args ...any)) {
	list := event.GetKind() == "ImageListPullJob"
	switch event.GetType() {
	case rolloutevent.TypePullJobCreated:
		if list {
			say(createdListJob, "Create 1 ImagePullJob")
		} else {
			say(createdPullJob, "created ImagePullJob %s for image: %s", data.Job, data.Image)
		}
	case rolloutevent.TypePullJobDeleted:
		if list {
			say(deletedListJob, "Delete 1 ImagePullJob")
		}
	case rolloutevent.TypePullJobRefused:
		say(failedPullJob, "failed to create ImagePullJob %s: %s", data.Job, data.Error)
	}
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
