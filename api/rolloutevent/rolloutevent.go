// Package rolloutevent holds what rollout events carry: their types, the data of each, and the JSON Schemas of the data. It is
// for whoever subscribes to shiplog.*.event.>; docs/events.md explains it. What is here only grows: a field is neither renamed
// nor given another meaning within v1.
package rolloutevent

import (
	"embed"
	"io/fs"
)

// Types of rollout events, the last token of their subjects.
const (
	TypeStarted      = "started"
	TypeRolledBack   = "rolled-back"
	TypeBatch        = "batch"
	TypePaused       = "paused"
	TypeResumed      = "resumed"
	TypeStalled      = "stalled"
	TypeCompleted    = "completed"
	TypeScaled       = "scaled"
	TypeScaleLimited = "scale-limited"
	TypePodCreated   = "pod-created"
	TypePodUpdating  = "pod-updating"
	TypePodReplacing = "pod-replacing"
	TypePodUpdated   = "pod-updated"
	TypePodFailed    = "pod-failed"
	TypePodDeleted   = "pod-deleted"
	TypePodGone      = "pod-gone"
	TypeClaimDeleted = "claim-deleted"
	TypeWriteRefused = "write-refused"

	TypeImagePulled       = "image-pulled"
	TypeImagePullFailed   = "image-pull-failed"
	TypePullJobCreated    = "pull-job-created"
	TypePullJobDeleted    = "pull-job-deleted"
	TypePullJobRefused    = "pull-job-refused"
	TypeRestartStarted    = "restart-started"
	TypeRestartCompleted  = "restart-completed"
	TypeContainerStopping = "container-stopping"
	TypeHookFailed        = "hook-failed"
)

// Data of each type, by type.
var Data = map[string]any{
	TypeStarted: Started{}, TypeRolledBack: Started{}, TypeBatch: Batch{}, TypePaused: Progress{}, TypeResumed: Resumed{}, TypeStalled: Stalled{},
	TypeCompleted: Completed{}, TypeScaled: Scaled{}, TypeScaleLimited: ScaleLimited{}, TypePodCreated: Pod{}, TypePodUpdating: PodUpdating{},
	TypePodReplacing: PodUpdating{}, TypePodUpdated: PodUpdated{}, TypePodFailed: PodFailed{}, TypePodDeleted: PodDeleted{}, TypePodGone: Pod{},
	TypeClaimDeleted: ClaimDeleted{}, TypeWriteRefused: WriteRefused{},
	TypeImagePulled: ImagePulled{}, TypeImagePullFailed: ImagePullFailed{}, TypePullJobCreated: PullJob{}, TypePullJobDeleted: PullJob{},
	TypePullJobRefused: PullJob{}, TypeRestartStarted: Restart{}, TypeRestartCompleted: Restart{}, TypeContainerStopping: ContainerStopping{},
	TypeHookFailed: HookFailed{},
}

// SchemaBase begins the names of all schemas; the type and ".json" follow.
const SchemaBase = "https://shiplog.dev/schemas/rollout-event/v1/"

// Schema names the JSON Schema of a type's data.
func Schema(eventType string) string { return SchemaBase + eventType + ".json" }

//go:embed v1/*.json
var schemas embed.FS

// Schemas holds a file for each type, TYPE.json, and envelope.json for the CloudEvent around the data.
func Schemas() fs.FS {
	files, err := fs.Sub(schemas, "v1")
	if err != nil {
		panic(err) // the directory is embedded
	}
	return files
}

// Started is the data of started: Pods are to move to a revision, because the workload is new, its template was changed, or
// its partition was lowered. It is also the data of rolled-back: the template is again that of an older revision.
type Started struct {
	// Message is one sentence for people.
	Message string `json:"message"`
	// Why is "created", "template" or "partition".
	Why string `json:"why" jsonschema:"enum=created,enum=template,enum=partition"`
	// Revision to move to.
	Revision string `json:"revision"`
	// PreviousRevision is what was wanted before; absent for a new workload, and when the partition was lowered.
	PreviousRevision string `json:"previousRevision,omitempty"`
	// Images by container.
	Images map[string]string `json:"images"`
	// Replicas that are wanted.
	Replicas int `json:"replicas"`
	// Partition is how many Pods are to stay on older revisions.
	Partition int `json:"partition"`
	// Paused: no Pod moves until that is changed.
	Paused bool `json:"paused"`
}

// Batch is the data of batch: one decision lets Pods go.
type Batch struct {
	// Message is one sentence for people.
	Message string `json:"message"`
	// Reason of the decision, which holds the numbers of the budget.
	Reason Reason `json:"reason"`
	// Count of Pods in the batch.
	Count int `json:"count"`
	// Pods by name, sorted; the first 500 of them.
	Pods []string `json:"pods"`
}

// Reason is why something was decided.
type Reason struct {
	// Code is stable, for example "UpdateInPlace".
	Code string `json:"code"`
	// Message holds the numbers.
	Message string `json:"message"`
}

// Progress is the data of paused: spec.paused was set while the rollout was not complete.
type Progress struct {
	// Message is one sentence for people.
	Message string `json:"message"`
	// Revision to move to.
	Revision string `json:"revision"`
	// Updated Pods, by the newest status.
	Updated int `json:"updated"`
	// Expected is how many Pods are to be updated under the partition.
	Expected int `json:"expected"`
	// Replicas that are wanted.
	Replicas int `json:"replicas"`
}

// Resumed is the data of resumed: what held the rollout is gone.
type Resumed struct {
	Progress
	// After is "paused" or "stalled".
	After string `json:"after" jsonschema:"enum=paused,enum=stalled"`
}

// Stalled is the data of stalled: a condition says that the rollout does not go on by itself.
type Stalled struct {
	Progress
	// Condition that says so: "Stalled", "FailedUpdate", "FailedScale" or "Progressing".
	Condition string `json:"condition"`
	// Reason of the condition, where it has one.
	Reason string `json:"reason,omitempty"`
	// Detail is the message of the condition.
	Detail string `json:"detail"`
}

// Completed is the data of completed: as many Pods as the partition lets are at the revision, and all Pods are available.
type Completed struct {
	Progress
	// Partition is how many Pods stay on older revisions; 0: the rollout is complete as a whole.
	Partition int `json:"partition"`
	// InPlace counts the Pods at the revision that were changed in place.
	InPlace int `json:"inPlace"`
	// Created counts the Pods at the revision that were created with it.
	Created int `json:"created"`
	// Seconds since the rollout started.
	Seconds float64 `json:"seconds"`
}

// Scaled is the data of scaled: spec.replicas was changed.
type Scaled struct {
	// Message is one sentence for people.
	Message string `json:"message"`
	// From is what was wanted before.
	From int `json:"from"`
	// To is what is wanted now.
	To int `json:"to"`
}

// ScaleLimited is the data of scale-limited: scaleStrategy.maxUnavailable keeps Pods from being created. It is told once for each
// generation of the workload.
type ScaleLimited struct {
	// Message is one sentence for people.
	Message string `json:"message"`
	// Missing Pods.
	Missing int `json:"missing"`
	// Limit is how many of them may be created now.
	Limit int `json:"limit"`
}

// Pod is the data of pod-created, when the API server has taken a new Pod, and of pod-gone, when it is gone from there,
// whoever deleted it.
type Pod struct {
	// Message is one sentence for people.
	Message string `json:"message"`
	// Pod by name.
	Pod string `json:"pod"`
	// UID of the Pod.
	UID string `json:"uid"`
	// Revision that the Pod carries.
	Revision string `json:"revision"`
}

// PodUpdating is the data of pod-updating, when the change is written to a running Pod, and of pod-replacing, when the Pod is
// marked to be replaced.
type PodUpdating struct {
	// Message is one sentence for people.
	Message string `json:"message"`
	// Pod by name.
	Pod string `json:"pod"`
	// UID of the Pod.
	UID string `json:"uid"`
	// Revision to move to.
	Revision string `json:"revision"`
	// PreviousRevision that the Pod comes from.
	PreviousRevision string `json:"previousRevision"`
}

// PodUpdated is the data of pod-updated: a Pod runs what its revision wants, and is ready.
type PodUpdated struct {
	// Message is one sentence for people.
	Message string `json:"message"`
	// Pod by name.
	Pod string `json:"pod"`
	// UID of the Pod.
	UID string `json:"uid"`
	// Revision that the Pod has arrived at.
	Revision string `json:"revision"`
	// PreviousRevision that the Pod comes from; absent for a Pod that was created with the revision.
	PreviousRevision string `json:"previousRevision,omitempty"`
	// How is "in-place" or "created".
	How string `json:"how" jsonschema:"enum=in-place,enum=created"`
	// Seconds since the Pod got the revision.
	Seconds float64 `json:"seconds"`
}

// PodFailed is the data of pod-failed: a Pod has failed, or a container of it cannot start. It is told once for each revision
// of a Pod.
type PodFailed struct {
	// Message is one sentence for people.
	Message string `json:"message"`
	// Pod by name.
	Pod string `json:"pod"`
	// UID of the Pod.
	UID string `json:"uid"`
	// Revision that the Pod carries.
	Revision string `json:"revision"`
	// Container that cannot start; absent when the whole Pod has failed.
	Container string `json:"container,omitempty"`
	// Reason that the kubelet gives, for example "ImagePullBackOff".
	Reason string `json:"reason"`
	// Detail is what the kubelet says about it.
	Detail string `json:"detail,omitempty"`
}

// PodDeleted is the data of pod-deleted: the API server has taken our deletion of a Pod, which may go on for a while.
type PodDeleted struct {
	Pod
	// Reason is the code of the decision, for example "ScaleDown".
	Reason string `json:"reason"`
}

// ClaimDeleted is the data of claim-deleted: the API server has taken our deletion of a PersistentVolumeClaim.
type ClaimDeleted struct {
	// Message is one sentence for people.
	Message string `json:"message"`
	// Claim by name.
	Claim string `json:"claim"`
	// Reason is the code of the decision, for example "CleanClaim".
	Reason string `json:"reason"`
}

// WriteRefused is the data of write-refused: the API server, or an admission rule, did not take a write. It is tried again
// later. Writes that only came too late, after somebody else's change of the object, are not told.
type WriteRefused struct {
	// Message is one sentence for people.
	Message string `json:"message"`
	// Verb is "create", "patch" or "delete".
	Verb string `json:"verb" jsonschema:"enum=create,enum=patch,enum=delete"`
	// Resource of the object, for example "pods".
	Resource string `json:"resource"`
	// Name of the object.
	Name string `json:"name"`
	// Revision that the object would have; absent where it has none.
	Revision string `json:"revision,omitempty"`
	// Reason is the code of the decision, for example "ScaleUp".
	Reason string `json:"reason"`
	// Error is what the API server said.
	Error Reason `json:"error"`
	// Attempt counts how often in a row this was refused, from 1.
	Attempt int `json:"attempt"`
}

// ImagePulled is the data of image-pulled, of a NodeImage: a node has an image that it was asked for.
type ImagePulled struct {
	// Message is one sentence for people.
	Message string `json:"message"`
	// Node by name.
	Node string `json:"node"`
	// Image with tag or digest.
	Image string `json:"image"`
	// Seconds from the first attempt, as the status tells them.
	Seconds float64 `json:"seconds"`
}

// ImagePullFailed is the data of image-pull-failed, of a NodeImage and of each ImagePullJob that wanted the image: a node could not
// pull it, all attempts made.
type ImagePullFailed struct {
	// Message is one sentence for people.
	Message string `json:"message"`
	// Node by name.
	Node string `json:"node"`
	// Image with tag or digest.
	Image string `json:"image"`
	// Error is what the last attempt said.
	Error string `json:"error"`
}

// PullJob is the data of pull-job-created, pull-job-deleted and pull-job-refused, of an ImageListPullJob or a CloneSet.
type PullJob struct {
	// Message is one sentence for people.
	Message string `json:"message"`
	// Job by name.
	Job string `json:"job"`
	// Image that it pulls; absent where it is not known any more.
	Image string `json:"image,omitempty"`
	// Error is what the API server said; absent unless it refused.
	Error string `json:"error,omitempty"`
}

// Restart is the data of restart-started and restart-completed, of a ContainerRecreateRequest.
type Restart struct {
	// Message is one sentence for people.
	Message string `json:"message"`
	// Pod by name.
	Pod string `json:"pod"`
	// Succeeded containers, and Failed ones, by name, in the order of the request.
	Succeeded []string `json:"succeeded"`
	Failed    []string `json:"failed"`
}

// ContainerStopping is the data of container-stopping, of a Pod: its container is being stopped, the hook first.
type ContainerStopping struct {
	// Message is one sentence for people.
	Message string `json:"message"`
	// Container by name.
	Container string `json:"container"`
	// By is the workload that wants it, as Kind/name.
	By string `json:"by"`
}

// HookFailed is the data of hook-failed, of a Pod: what a container wanted done before it stops failed; it is stopped all the same.
type HookFailed struct {
	// Message is one sentence for people.
	Message string `json:"message"`
	// Container by name.
	Container string `json:"container"`
	// Error is what the agent of the node said.
	Error string `json:"error"`
}
