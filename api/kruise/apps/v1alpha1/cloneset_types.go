package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"shiplog.dev/api/kruise/apps/v1beta1"
)

// CloneSetUpdateStrategyType says how Pods come to a new revision.
// +kubebuilder:validation:Enum=ReCreate;InPlaceIfPossible;InPlaceOnly;OnDelete;""
type CloneSetUpdateStrategyType string

// Ways to a new revision. The empty string means ReCreate.
const (
	// RecreateCloneSetUpdateStrategyType deletes Pods and creates new ones.
	RecreateCloneSetUpdateStrategyType CloneSetUpdateStrategyType = "ReCreate"
	// InPlaceIfPossibleCloneSetUpdateStrategyType updates in place what can be, and recreates the rest.
	InPlaceIfPossibleCloneSetUpdateStrategyType CloneSetUpdateStrategyType = "InPlaceIfPossible"
	// InPlaceOnlyCloneSetUpdateStrategyType updates in place and never recreates.
	InPlaceOnlyCloneSetUpdateStrategyType CloneSetUpdateStrategyType = "InPlaceOnly"
	// OnDeleteCloneSetUpdateStrategyType leaves Pods alone until somebody deletes them.
	OnDeleteCloneSetUpdateStrategyType CloneSetUpdateStrategyType = "OnDelete"
)

// CloneSetSpec is what a CloneSet shall be.
//
// Rules about Pods that exist (podsToDelete) or about the old and the new template (InPlaceOnly) are not for a schema.
//
// +kubebuilder:validation:XValidation:rule="!has(self.progressDeadlineSeconds) || self.progressDeadlineSeconds == 2147483647 || self.progressDeadlineSeconds > (has(self.minReadySeconds) ? self.minReadySeconds : 0)",message="progressDeadlineSeconds must be greater than minReadySeconds",fieldPath=".progressDeadlineSeconds"
// +kubebuilder:validation:XValidation:rule="(has(self.replicas) && self.replicas == 0) || !has(self.updateStrategy) || !has(self.updateStrategy.maxUnavailable) || (type(self.updateStrategy.maxUnavailable) == int ? int(self.updateStrategy.maxUnavailable) >= 1 : !string(self.updateStrategy.maxUnavailable).matches('^0+([.]0+)?%$')) || (has(self.updateStrategy.maxSurge) && (type(self.updateStrategy.maxSurge) == int ? int(self.updateStrategy.maxSurge) >= 1 : !string(self.updateStrategy.maxSurge).matches('^0+([.]0+)?%$')))",message="maxUnavailable and maxSurge should not both be less than 1",fieldPath=".updateStrategy.maxUnavailable"
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
	Lifecycle *v1beta1.Lifecycle `json:"lifecycle,omitempty"`

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

	// DisablePVCReuse gives new Pods new claims even where claims of deleted Pods are free.
	DisablePVCReuse bool `json:"disablePVCReuse,omitempty"`
}

// CloneSetUpdateStrategy says how Pods come to a new revision.
//
// +kubebuilder:validation:XValidation:rule="!has(self.type) || self.type != 'InPlaceOnly' || !has(self.maxSurge) || (type(self.maxSurge) == int ? int(self.maxSurge) == 0 : string(self.maxSurge).matches('^0+([.]0+)?%$'))",message="can not use maxSurge with strategy type InPlaceOnly",fieldPath=".maxSurge"
type CloneSetUpdateStrategy struct {
	// Type is one of ReCreate, InPlaceIfPossible, InPlaceOnly, OnDelete.
	// +kubebuilder:default=ReCreate
	Type CloneSetUpdateStrategyType `json:"type,omitempty"`

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
	PriorityStrategy *v1beta1.UpdatePriorityStrategy `json:"priorityStrategy,omitempty"`

	// ScatterStrategy spreads Pods with the same label value over the whole order of an update.
	ScatterStrategy v1beta1.UpdateScatterStrategy `json:"scatterStrategy,omitempty"`

	// InPlaceUpdateStrategy says how a Pod is updated in place.
	InPlaceUpdateStrategy *InPlaceUpdateStrategy `json:"inPlaceUpdateStrategy,omitempty"`
}

// InPlaceUpdateStrategy says how a Pod is updated in place. What v1beta1 says about pulling images beforehand, annotations
// say here.
type InPlaceUpdateStrategy struct {
	// GracePeriodSeconds is the time between making the Pod not ready and changing its spec.
	// +kubebuilder:validation:XValidation:rule="self >= 0",message="gracePeriodSeconds must be greater than or equal to 0"
	GracePeriodSeconds int32 `json:"gracePeriodSeconds,omitempty"`
}

// CloneSet runs interchangeable Pods, each with claims of its own where asked for.
//
// +kubebuilder:object:root=true
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

	Spec   CloneSetSpec           `json:"spec,omitempty"`
	Status v1beta1.CloneSetStatus `json:"status,omitempty"`
}

// CloneSetList is a list of CloneSets.
//
// +kubebuilder:object:root=true
type CloneSetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CloneSet `json:"items"`
}
