package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// InPlaceUpdateStrategy says how a Pod is updated in place.
type InPlaceUpdateStrategy struct {
	// GracePeriodSeconds is the time between making the Pod not ready and changing its spec.
	// +kubebuilder:validation:XValidation:rule="self >= 0",message="gracePeriodSeconds must be greater than or equal to 0"
	GracePeriodSeconds int32 `json:"gracePeriodSeconds,omitempty"`

	// ImagePreDownloadParallelism is on how many nodes at once new images are pulled before Pods are updated. Absent: 1.
	// +kubebuilder:validation:XValidation:rule="self >= 0",message="imagePreDownloadParallelism must be greater than or equal to 0"
	ImagePreDownloadParallelism *int32 `json:"imagePreDownloadParallelism,omitempty"`

	// ImagePreDownloadTimeoutSeconds is how long a node may take for one image. Absent: 300.
	// +kubebuilder:validation:XValidation:rule="self >= 0",message="imagePreDownloadTimeoutSeconds must be greater than or equal to 0"
	ImagePreDownloadTimeoutSeconds *int32 `json:"imagePreDownloadTimeoutSeconds,omitempty"`

	// ImagePreDownloadMinUpdatedReadyPods is how many Pods must be updated and ready before images are pulled for the others.
	// Absent: 0.
	// +kubebuilder:validation:XValidation:rule="self >= 0",message="imagePreDownloadMinUpdatedReadyPods must be greater than or equal to 0"
	ImagePreDownloadMinUpdatedReadyPods *int32 `json:"imagePreDownloadMinUpdatedReadyPods,omitempty"`
}

// UpdatePriorityStrategy orders the Pods of an update, by weights or by the numbers in labels, not by both.
// +kubebuilder:validation:XValidation:rule="!(has(self.orderPriority) && size(self.orderPriority) > 0 && has(self.weightPriority) && size(self.weightPriority) > 0)",message="priorityStrategy: orderPriority and weightPriority must not both be set"
type UpdatePriorityStrategy struct {
	// OrderPriority puts Pods with a greater number at the end of the label's value first. The first term that a Pod has
	// decides; Pods without any come last.
	// +listType=atomic
	OrderPriority []UpdatePriorityOrderTerm `json:"orderPriority,omitempty"`
	// WeightPriority puts Pods with a greater sum of matching weights first.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	WeightPriority []UpdatePriorityWeightTerm `json:"weightPriority,omitempty"`
}

// UpdatePriorityOrderTerm orders by one label.
type UpdatePriorityOrderTerm struct {
	// OrderedKey is the label key whose value is compared by the integers that it ends with.
	// +kubebuilder:validation:MinLength=1
	OrderedKey string `json:"orderedKey"`
}

// UpdatePriorityWeightTerm adds a weight to the Pods that a selector matches.
type UpdatePriorityWeightTerm struct {
	// Weight is added for each matching Pod, 0 to 100.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Weight int32 `json:"weight"`
	// MatchSelector selects Pods by their labels; not empty.
	// +kubebuilder:validation:XValidation:rule="(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",message="matchSelector must not be empty"
	MatchSelector metav1.LabelSelector `json:"matchSelector"`
}

// UpdateScatterStrategy spreads Pods with the same label value over the whole order of an update. A term occurs once.
// +listType=map
// +listMapKey=key
// +listMapKey=value
type UpdateScatterStrategy []UpdateScatterTerm

// UpdateScatterTerm names the Pods that one label and value select.
type UpdateScatterTerm struct {
	// +kubebuilder:validation:MinLength=1
	Key   string `json:"key"`
	Value string `json:"value"`
}
