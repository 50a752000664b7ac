package v1beta1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FakeNodeImageKey is a label on a NodeImage that stays although no Node has its name.
const FakeNodeImageKey = "apps.kruise.io/fake-nodeimage"

// NodeImageSpec is which images a node shall hold.
type NodeImageSpec struct {
	// Images by name without tag.
	// +kubebuilder:validation:MaxProperties=256
	// +kubebuilder:validation:XValidation:rule="!('' in self)",message="an image name must not be empty"
	Images map[string]ImageSpec `json:"images,omitempty"`
}

// ImageSpec is one image of a node, with all tags that are asked for.
type ImageSpec struct {
	// PullSecrets are the Secrets whose credentials may be used.
	PullSecrets []ReferenceObject `json:"pullSecrets,omitempty"`
	// Tags, sorted.
	// +listType=map
	// +listMapKey=tag
	Tags []ImageTagSpec `json:"tags"`
	// SandboxConfig goes into the runtime's request.
	SandboxConfig *SandboxConfig `json:"sandboxConfig,omitempty"`
}

// ReferenceObject names a Secret.
type ReferenceObject struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	// Mode is "batch" for a copy that OpenKruise made for many jobs.
	Mode string `json:"mode,omitempty"`
}

// ImageTagSpec asks for one tag.
type ImageTagSpec struct {
	// Tag or digest.
	// +kubebuilder:validation:MinLength=1
	Tag string `json:"tag"`
	// CreatedAt is when this pull was asked for.
	CreatedAt  *metav1.Time        `json:"createdAt,omitempty"`
	PullPolicy *ImageTagPullPolicy `json:"pullPolicy,omitempty"`
	// OwnerReferences are the jobs that asked.
	OwnerReferences []corev1.ObjectReference `json:"ownerReferences,omitempty"`
	// Version is the generation of the pull: a greater one asks anew.
	// +kubebuilder:validation:Minimum=0
	Version int64 `json:"version,omitempty"`
	// ImagePullPolicy; empty: IfNotPresent.
	ImagePullPolicy ImagePullPolicy `json:"imagePullPolicy,omitempty"`
}

// ImageTagPullPolicy limits a pull on a node.
type ImageTagPullPolicy struct {
	// TimeoutSeconds is how long one attempt may take; absent: 600.
	// +kubebuilder:default=600
	TimeoutSeconds *int32 `json:"timeoutSeconds,omitempty"`
	// BackoffLimit is how many attempts may follow the first one; absent: 3.
	// +kubebuilder:default=3
	BackoffLimit *int32 `json:"backoffLimit,omitempty"`
	// TTLSecondsAfterFinished is how long after its end the tag is dropped.
	TTLSecondsAfterFinished *int32 `json:"ttlSecondsAfterFinished,omitempty"`
	// ActiveDeadlineSeconds limits all attempts together.
	ActiveDeadlineSeconds *int64 `json:"activeDeadlineSeconds,omitempty"`
}

// NodeImageStatus is what became of the images that a node shall hold.
type NodeImageStatus struct {
	// Desired is the number of tags asked for.
	Desired   int32 `json:"desired"`
	Succeeded int32 `json:"succeeded,omitempty"`
	Failed    int32 `json:"failed,omitempty"`
	Pulling   int32 `json:"pulling,omitempty"`
	Waiting   int32 `json:"waiting,omitempty"`
	// ImageStatuses by image name.
	ImageStatuses map[string]ImageStatus `json:"imageStatuses,omitempty"`
	// FirstSyncStatus is set once all tags that were first asked for have ended.
	FirstSyncStatus *SyncStatus `json:"firstSyncStatus,omitempty"`
}

// ImageStatus is what became of one image.
type ImageStatus struct {
	Tags []ImageTagStatus `json:"tags"`
}

// ImagePullPhase is how far a pull is.
type ImagePullPhase string

// How far a pull is.
const (
	ImagePhaseWaiting   ImagePullPhase = "Waiting"
	ImagePhasePulling   ImagePullPhase = "Pulling"
	ImagePhaseSucceeded ImagePullPhase = "Succeeded"
	ImagePhaseFailed    ImagePullPhase = "Failed"
)

// ImageTagStatus is what became of one tag.
type ImageTagStatus struct {
	Tag   string         `json:"tag"`
	Phase ImagePullPhase `json:"phase"`
	// Progress from 0 to 100.
	Progress       int32        `json:"progress,omitempty"`
	StartTime      *metav1.Time `json:"startTime,omitempty"`
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
	// Version of the tag that this is about.
	Version int64 `json:"version,omitempty"`
	// ImageID is <name>@<identity at the runtime>.
	ImageID string `json:"imageID,omitempty"`
	Message string `json:"message,omitempty"`
}

// SyncStatusPhase is how a first sync ended.
type SyncStatusPhase string

// How a first sync ended.
const (
	SyncStatusSucceeded SyncStatusPhase = "Succeeded"
	SyncStatusFailed    SyncStatusPhase = "Failed"
)

// SyncStatus is how a first sync ended.
type SyncStatus struct {
	SyncAt  metav1.Time     `json:"syncAt,omitempty"`
	Status  SyncStatusPhase `json:"status,omitempty"`
	Message string          `json:"message,omitempty"`
}

// NodeImage says which images the Node of its name shall hold.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="DESIRED",type="integer",JSONPath=".status.desired"
// +kubebuilder:printcolumn:name="PULLING",type="integer",JSONPath=".status.pulling"
// +kubebuilder:printcolumn:name="SUCCEED",type="integer",JSONPath=".status.succeeded"
// +kubebuilder:printcolumn:name="FAILED",type="integer",JSONPath=".status.failed"
// +kubebuilder:printcolumn:name="AGE",type="date",JSONPath=".metadata.creationTimestamp"
type NodeImage struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   NodeImageSpec   `json:"spec,omitempty"`
	Status NodeImageStatus `json:"status,omitempty"`
}

// NodeImageList is a list of NodeImages.
//
// +kubebuilder:object:root=true
type NodeImageList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NodeImage `json:"items"`
}
