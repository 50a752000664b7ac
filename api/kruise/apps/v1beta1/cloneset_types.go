package v1beta1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Keys that a CloneSet or its Pods carry.
const (
	// CloneSetInstanceID is a label on Pods and claims: which claims belong to which Pod.
	CloneSetInstanceID = "apps.kruise.io/cloneset-instance-id"
	// SpecifiedDeleteKey is a label on a Pod that is to be deleted; any value.
	SpecifiedDeleteKey = "apps.kruise.io/specified-delete"
)

// Keys that a CloneSet carries in v1alpha1 where v1beta1 has a field. An annotation whose value the field cannot hold, such
// as a percentage, stays an annotation in v1beta1 too.
const (
	// CloneSetScalingExcludePreparingDeleteKey is a label; "true" is scaleStrategy.excludePreparingDelete.
	CloneSetScalingExcludePreparingDeleteKey = "apps.kruise.io/cloneset-scaling-exclude-preparing-delete"
	// ImagePreDownloadParallelismKey is an annotation: inPlaceUpdateStrategy.imagePreDownloadParallelism.
	ImagePreDownloadParallelismKey = "apps.kruise.io/image-predownload-parallelism"
	// ImagePreDownloadTimeoutSecondsKey is an annotation: inPlaceUpdateStrategy.imagePreDownloadTimeoutSeconds.
	ImagePreDownloadTimeoutSecondsKey = "apps.kruise.io/image-predownload-timeout-seconds"
	// ImagePreDownloadMinUpdatedReadyPodsKey is an annotation: inPlaceUpdateStrategy.imagePreDownloadMinUpdatedReadyPods.
	ImagePreDownloadMinUpdatedReadyPodsKey = "apps.kruise.io/image-predownload-min-updated-ready-pods"
)

// DefaultCloneSetMaxUnavailable is the default of spec.updateStrategy.rollingUpdate.maxUnavailable.
const DefaultCloneSetMaxUnavailable = "20%"

// CloneSetUpdateStrategyType says when Pods come to a new revision.
// +kubebuilder:validation:Enum=RollingUpdate;OnDelete;""
type CloneSetUpdateStrategyType string

// When Pods come to a new revision. The empty string means RollingUpdate.
const (
	// RollingUpdateCloneSetUpdateStrategyType updates Pods as rollingUpdate says.
	RollingUpdateCloneSetUpdateStrategyType CloneSetUpdateStrategyType = "RollingUpdate"
	// OnDeleteCloneSetUpdateStrategyType leaves Pods alone until somebody deletes them.
	OnDeleteCloneSetUpdateStrategyType CloneSetUpdateStrategyType = "OnDelete"
)

// CloneSetPodUpdatePolicy says how one Pod comes to a new revision.
// +kubebuilder:validation:Enum=ReCreate;InPlaceIfPossible;InPlaceOnly;""
type CloneSetPodUpdatePolicy string

// Ways of a Pod to a new revision. The empty string means ReCreate.
const (
	// RecreateCloneSetPodUpdatePolicy deletes the Pod and creates another.
	RecreateCloneSetPodUpdatePolicy CloneSetPodUpdatePolicy = "ReCreate"
	// InPlaceIfPossibleCloneSetPodUpdatePolicy updates in place what can be, and recreates the rest.
	InPlaceIfPossibleCloneSetPodUpdatePolicy CloneSetPodUpdatePolicy = "InPlaceIfPossible"
	// InPlaceOnlyCloneSetPodUpdatePolicy updates in place and never recreates.
	InPlaceOnlyCloneSetPodUpdatePolicy CloneSetPodUpdatePolicy = "InPlaceOnly"
)

// CloneSetSpec is what a CloneSet shall be.
//
// Rules about Pods that exist (podsToDelete) or about the old and the new template (InPlaceOnly) are not for a schema.
//
// +kubebuilder:validation:XValidation:rule="!has(self.progressDeadlineSeconds) || self.progressDeadlineSeconds == 2147483647 || self.progressDeadlineSeconds > (has(self.minReadySeconds) ? self.minReadySeconds : 0)",message="progressDeadlineSeconds must be greater than minReadySeconds",fieldPath=".progressDeadlineSeconds"
// +kubebuilder:validation:XValidation:rule="(has(self.replicas) && self.replicas == 0) || !has(self.updateStrategy) || !has(self.updateStrategy.rollingUpdate) || !has(self.updateStrategy.rollingUpdate.maxUnavailable) || (type(self.updateStrategy.rollingUpdate.maxUnavailable) == int ? int(self.updateStrategy.rollingUpdate.maxUnavailable) >= 1 : !string(self.updateStrategy.rollingUpdate.maxUnavailable).matches('^0+([.]0+)?%$')) || (has(self.updateStrategy.rollingUpdate.maxSurge) && (type(self.updateStrategy.rollingUpdate.maxSurge) == int ? int(self.updateStrategy.rollingUpdate.maxSurge) >= 1 : !string(self.updateStrategy.rollingUpdate.maxSurge).matches('^0+([.]0+)?%$')))",message="maxUnavailable and maxSurge should not both be less than 1",fieldPath=".updateStrategy.rollingUpdate.maxUnavailable"
type CloneSetSpec struct {
	// Replicas is the wanted number of Pods.
	// +kubebuilder:default=1
	// +kubebuilder:validation:XValidation:rule="self >= 0",message="replicas must be greater than or equal to 0"
	Replicas *int32 `json:"replicas,omitempty"`

	// Selector selects the Pods; it must match the labels of the template and cannot be changed.
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="selector is immutable"
	// +kubebuilder:validation:XValidation:rule="(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",message="selector must not be empty"
	Selector *metav1.LabelSelector `json:"selector"`

	// Template describes the Pods. The API server keeps fields that this schema does not name.
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Schemaless
	Template corev1.PodTemplateSpec `json:"template"`

	// VolumeClaimTemplates are claims that each Pod gets for itself.
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Schemaless
	VolumeClaimTemplates []corev1.PersistentVolumeClaim `json:"volumeClaimTemplates,omitempty"`

	// ScaleStrategy says how Pods are added and taken away.
	// +kubebuilder:default={}
	ScaleStrategy CloneSetScaleStrategy `json:"scaleStrategy,omitempty"`

	// UpdateStrategy says how Pods come to a new revision.
	// +kubebuilder:default={}
	UpdateStrategy CloneSetUpdateStrategy `json:"updateStrategy,omitempty"`

	// RevisionHistoryLimit is how many unused revisions are kept.
	// +kubebuilder:default=10
	// +kubebuilder:validation:XValidation:rule="self >= 0",message="revisionHistoryLimit must be greater than or equal to 0"
	RevisionHistoryLimit *int32 `json:"revisionHistoryLimit,omitempty"`

	// MinReadySeconds is how long a Pod must be ready before it counts as available.
	// +kubebuilder:default=0
	// +kubebuilder:validation:XValidation:rule="self >= 0",message="minReadySeconds must be greater than or equal to 0"
	MinReadySeconds int32 `json:"minReadySeconds,omitempty"`

	// Lifecycle names the points at which an outside controller may hold a Pod.
	Lifecycle *Lifecycle `json:"lifecycle,omitempty"`

	// ProgressDeadlineSeconds is how long a rollout may go without end before condition Progressing says so. Absent and
	// 2147483647: no deadline.
	// +kubebuilder:validation:XValidation:rule="self >= 0",message="progressDeadlineSeconds must be greater than or equal to 0"
	ProgressDeadlineSeconds *int32 `json:"progressDeadlineSeconds,omitempty"`
}

// CloneSetScaleStrategy says how Pods are added and taken away.
type CloneSetScaleStrategy struct {
	// PodsToDelete names Pods to delete first. Names leave the list when their Pods are gone.
	// +listType=set
	PodsToDelete []string `json:"podsToDelete,omitempty"`

	// MaxUnavailable limits how many Pods may be unavailable while scaling up, as a number or a percentage of replicas
	// rounded up. Absent: no limit.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? int(self) >= 0 : string(self).matches('^[0-9]+([.][0-9]+)?%$')",message="maxUnavailable must be an integer of at least 0, or a percentage that ends in %"
	MaxUnavailable *intstr.IntOrString `json:"maxUnavailable,omitempty"`

	// EnablePVCReuse gives new Pods the claims of deleted Pods where some are free.
	// +kubebuilder:default=false
	EnablePVCReuse bool `json:"enablePVCReuse,omitempty"`

	// ExcludePreparingDelete leaves Pods in PreparingDelete out of the count when scaling.
	ExcludePreparingDelete bool `json:"excludePreparingDelete,omitempty"`
}

// CloneSetUpdateStrategy says how Pods come to a new revision.
//
// +kubebuilder:validation:XValidation:rule="(has(self.type) && self.type == 'OnDelete') || !has(self.rollingUpdate) || !has(self.rollingUpdate.podUpdatePolicy) || self.rollingUpdate.podUpdatePolicy != 'InPlaceOnly' || !has(self.rollingUpdate.maxSurge) || (type(self.rollingUpdate.maxSurge) == int ? int(self.rollingUpdate.maxSurge) == 0 : string(self.rollingUpdate.maxSurge).matches('^0+([.]0+)?%$'))",message="can not use maxSurge with strategy type InPlaceOnly",fieldPath=".rollingUpdate.maxSurge"
type CloneSetUpdateStrategy struct {
	// Type is RollingUpdate or OnDelete.
	// +kubebuilder:default=RollingUpdate
	Type CloneSetUpdateStrategyType `json:"type,omitempty"`

	// RollingUpdate says how Pods are updated, and how many may be unavailable when Pods are deleted, also with type OnDelete.
	// +kubebuilder:default={}
	RollingUpdate CloneSetRollingUpdate `json:"rollingUpdate,omitempty"`
}

// CloneSetRollingUpdate says how Pods are updated.
type CloneSetRollingUpdate struct {
	// PodUpdatePolicy is one of ReCreate, InPlaceIfPossible, InPlaceOnly.
	// +kubebuilder:default=ReCreate
	PodUpdatePolicy CloneSetPodUpdatePolicy `json:"podUpdatePolicy,omitempty"`

	// Partition is how many Pods stay on old revisions, as a number or a percentage of replicas rounded up.
	// +kubebuilder:default=0
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? int(self) >= 0 : string(self).matches('^[0-9]+([.][0-9]+)?%$')",message="partition must be an integer of at least 0, or a percentage that ends in %"
	Partition *intstr.IntOrString `json:"partition,omitempty"`

	// MaxUnavailable limits how many Pods may be unavailable during update and deletion, as a number or a percentage of
	// replicas, rounded up without maxSurge and down with it.
	// +kubebuilder:default="20%"
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? int(self) >= 0 : string(self).matches('^[0-9]+([.][0-9]+)?%$')",message="maxUnavailable must be an integer of at least 0, or a percentage that ends in %"
	MaxUnavailable *intstr.IntOrString `json:"maxUnavailable,omitempty"`

	// MaxSurge limits how many Pods may exist above replicas during update, as a number or a percentage of replicas
	// rounded up. Absent: 0.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? int(self) >= 0 : string(self).matches('^[0-9]+([.][0-9]+)?%$')",message="maxSurge must be an integer of at least 0, or a percentage that ends in %"
	MaxSurge *intstr.IntOrString `json:"maxSurge,omitempty"`

	// Paused keeps new updates of Pods from starting; scaling goes on.
	Paused bool `json:"paused,omitempty"`

	// PriorityStrategy orders the Pods of an update.
	PriorityStrategy *UpdatePriorityStrategy `json:"priorityStrategy,omitempty"`

	// ScatterStrategy spreads Pods with the same label value over the whole order of an update.
	ScatterStrategy UpdateScatterStrategy `json:"scatterStrategy,omitempty"`

	// InPlaceUpdateStrategy says how a Pod is updated in place.
	InPlaceUpdateStrategy *InPlaceUpdateStrategy `json:"inPlaceUpdateStrategy,omitempty"`
}

// CloneSetStatus is what a CloneSet was when its controller last looked. Counts are of active Pods.
type CloneSetStatus struct {
	// ObservedGeneration is the generation that this status answers.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Replicas is the number of Pods.
	Replicas int32 `json:"replicas"`
	// ReadyReplicas is how many of them are ready.
	ReadyReplicas int32 `json:"readyReplicas"`
	// AvailableReplicas is how many have been ready for minReadySeconds.
	AvailableReplicas int32 `json:"availableReplicas"`

	// UpdatedReplicas is how many Pods are of the update revision.
	UpdatedReplicas int32 `json:"updatedReplicas"`
	// UpdatedReadyReplicas is how many of those are ready.
	UpdatedReadyReplicas int32 `json:"updatedReadyReplicas"`
	// UpdatedAvailableReplicas is how many of those have been ready for minReadySeconds. Not required by the schema, but
	// always written.
	// +optional
	UpdatedAvailableReplicas int32 `json:"updatedAvailableReplicas"`
	// ExpectedUpdatedReplicas is how many Pods shall be of the update revision: replicas without partition. Not required
	// by the schema, but always written.
	// +optional
	ExpectedUpdatedReplicas int32 `json:"expectedUpdatedReplicas"`

	// UpdateRevision is the name of the newest revision.
	UpdateRevision string `json:"updateRevision,omitempty"`
	// CurrentRevision is the name of the revision that all Pods had last.
	CurrentRevision string `json:"currentRevision,omitempty"`

	// CollisionCount is how often the name of a new revision was taken.
	CollisionCount *int32 `json:"collisionCount,omitempty"`

	// Conditions are the newest observations by type.
	Conditions []CloneSetCondition `json:"conditions,omitempty"`

	// LabelSelector is the selector as a string, for the scale subresource.
	LabelSelector string `json:"labelSelector,omitempty"`
}

// CloneSetConditionType names a condition.
type CloneSetConditionType string

// Types of conditions.
const (
	// CloneSetConditionFailedScale: Pods could not be created or deleted.
	CloneSetConditionFailedScale CloneSetConditionType = "FailedScale"
	// CloneSetConditionFailedUpdate: Pods could not be updated.
	CloneSetConditionFailedUpdate CloneSetConditionType = "FailedUpdate"
	// CloneSetConditionTypeProgressing: how the rollout stands against its deadline.
	CloneSetConditionTypeProgressing CloneSetConditionType = "Progressing"
)

// CloneSetConditionReason says why condition Progressing is as it is.
type CloneSetConditionReason string

// Reasons of condition Progressing.
const (
	CloneSetAvailable                  CloneSetConditionReason = "CloneSetAvailable"
	CloneSetProgressPaused             CloneSetConditionReason = "CloneSetPaused"
	CloneSetProgressPartitionAvailable CloneSetConditionReason = "ProgressPartitionAvailable"
	CloneSetProgressDeadlineExceeded   CloneSetConditionReason = "ProgressDeadlineExceeded"
	CloneSetProgressUpdated            CloneSetConditionReason = "CloneSetUpdated"
)

// CloneSetCondition is one observation of a CloneSet.
type CloneSetCondition struct {
	Type   CloneSetConditionType  `json:"type"`
	Status corev1.ConditionStatus `json:"status"`
	// LastUpdateTime is when status or reason changed.
	LastUpdateTime metav1.Time `json:"lastUpdateTime,omitempty"`
	// LastTransitionTime is when status changed.
	LastTransitionTime metav1.Time `json:"lastTransitionTime,omitempty"`
	Reason             string      `json:"reason,omitempty"`
	Message            string      `json:"message,omitempty"`
}

// CloneSet runs interchangeable Pods, each with claims of its own where asked for.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:resource:shortName=clone
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.labelSelector
// +kubebuilder:printcolumn:name="DESIRED",type="integer",JSONPath=".spec.replicas"
// +kubebuilder:printcolumn:name="UPDATED",type="integer",JSONPath=".status.updatedReplicas"
// +kubebuilder:printcolumn:name="UPDATED_READY",type="integer",JSONPath=".status.updatedReadyReplicas"
// +kubebuilder:printcolumn:name="UPDATED_AVAILABLE",type="integer",JSONPath=".status.updatedAvailableReplicas"
// +kubebuilder:printcolumn:name="READY",type="integer",JSONPath=".status.readyReplicas"
// +kubebuilder:printcolumn:name="TOTAL",type="integer",JSONPath=".status.replicas"
// +kubebuilder:printcolumn:name="AGE",type="date",JSONPath=".metadata.creationTimestamp"
// +kubebuilder:printcolumn:name="CONTAINERS",type="string",priority=1,JSONPath=".spec.template.spec.containers[*].name"
// +kubebuilder:printcolumn:name="IMAGES",type="string",priority=1,JSONPath=".spec.template.spec.containers[*].image"
// +kubebuilder:printcolumn:name="SELECTOR",type="string",priority=1,JSONPath=".status.labelSelector"
type CloneSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   CloneSetSpec   `json:"spec,omitempty"`
	Status CloneSetStatus `json:"status,omitempty"`
}

// CloneSetList is a list of CloneSets.
//
// +kubebuilder:object:root=true
type CloneSetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CloneSet `json:"items"`
}
