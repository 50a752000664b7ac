package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"shiplog.dev/api/kruise/apps/v1beta1"
)

// ContainerRecreateRequestStatus is how far a request is. Since when the Pod is kept not ready, and what runs instead of what ran
// before, is told in annotations.
type ContainerRecreateRequestStatus struct {
	Phase                   v1beta1.ContainerRecreateRequestPhase                    `json:"phase"`
	CompletionTime          *metav1.Time                                             `json:"completionTime,omitempty"`
	Message                 string                                                   `json:"message,omitempty"`
	ContainerRecreateStates []v1beta1.ContainerRecreateRequestContainerRecreateState `json:"containerRecreateStates,omitempty"`
}

// ContainerRecreateRequest restarts containers of a running Pod.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=crr
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="PHASE",type="string",JSONPath=".status.phase"
// +kubebuilder:printcolumn:name="POD",type="string",JSONPath=".spec.podName"
// +kubebuilder:printcolumn:name="NODE",type="string",JSONPath=".metadata.labels.crr\\.apps\\.kruise\\.io/node-name"
// +kubebuilder:printcolumn:name="AGE",type="date",JSONPath=".metadata.creationTimestamp"
type ContainerRecreateRequest struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   v1beta1.ContainerRecreateRequestSpec `json:"spec,omitempty"`
	Status ContainerRecreateRequestStatus       `json:"status,omitempty"`
}

// ContainerRecreateRequestList is a list of ContainerRecreateRequests.
//
// +kubebuilder:object:root=true
type ContainerRecreateRequestList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ContainerRecreateRequest `json:"items"`
}
