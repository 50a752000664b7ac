package v1beta1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Keys that a ContainerRecreateRequest carries.
const (
	// ContainerRecreateRequestPodUIDKey is a label: the UID of the Pod.
	ContainerRecreateRequestPodUIDKey = "crr.apps.kruise.io/pod-uid"
	// ContainerRecreateRequestNodeNameKey is a label: the Node of the Pod.
	ContainerRecreateRequestNodeNameKey = "crr.apps.kruise.io/node-name"
	// ContainerRecreateRequestActiveKey is a label, "true" until the request is completed.
	ContainerRecreateRequestActiveKey = "crr.apps.kruise.io/active"
	// ContainerRecreateRequestSyncContainerStatusesKey is an annotation of v1alpha1: status.containerStatusSnapshot as JSON.
	ContainerRecreateRequestSyncContainerStatusesKey = "crr.apps.kruise.io/sync-container-statuses"
	// ContainerRecreateRequestUnreadyAcquiredKey is an annotation of v1alpha1, the time of condition PreRecreateGrace, and a
	// finalizer while the Pod is kept not ready.
	ContainerRecreateRequestUnreadyAcquiredKey = "crr.apps.kruise.io/unready-acquired"
)

// ContainerRecreateRequestFailurePolicyType says what follows the failure of one container.
// +kubebuilder:validation:Enum=Fail;Ignore;""
type ContainerRecreateRequestFailurePolicyType string

const (
	// ContainerRecreateRequestFailurePolicyFail ends the request.
	ContainerRecreateRequestFailurePolicyFail ContainerRecreateRequestFailurePolicyType = "Fail"
	// ContainerRecreateRequestFailurePolicyIgnore goes on with the next container.
	ContainerRecreateRequestFailurePolicyIgnore ContainerRecreateRequestFailurePolicyType = "Ignore"
)

// ContainerRecreateRequestPhase is how far a request, or one of its containers, is.
// +kubebuilder:validation:Enum=Pending;Recreating;Succeeded;Failed;Completed
type ContainerRecreateRequestPhase string

// How far a request or container is. Completed is of requests; Succeeded and Failed are of containers.
const (
	ContainerRecreateRequestPending    ContainerRecreateRequestPhase = "Pending"
	ContainerRecreateRequestRecreating ContainerRecreateRequestPhase = "Recreating"
	ContainerRecreateRequestSucceeded  ContainerRecreateRequestPhase = "Succeeded"
	ContainerRecreateRequestFailed     ContainerRecreateRequestPhase = "Failed"
	ContainerRecreateRequestCompleted  ContainerRecreateRequestPhase = "Completed"
)

// PreRecreateGrace is the type and the reason of the condition that says since when the Pod is kept not ready.
const PreRecreateGrace = "PreRecreateGrace"

// ContainerRecreateRequestSpec is which containers of which Pod shall be restarted.
type ContainerRecreateRequestSpec struct {
	// PodName of the Pod, in the namespace of the request.
	PodName string `json:"podName"`
	// Containers in the order in which they are restarted.
	// +patchMergeKey=name
	// +patchStrategy=merge
	Containers []ContainerRecreateRequestContainer `json:"containers" patchStrategy:"merge" patchMergeKey:"name"`
	Strategy   *ContainerRecreateRequestStrategy   `json:"strategy,omitempty"`
	// ActiveDeadlineSeconds is how long after its creation the request ends in any case.
	// +kubebuilder:validation:Minimum=0
	ActiveDeadlineSeconds *int64 `json:"activeDeadlineSeconds,omitempty"`
	// TTLSecondsAfterFinished is how long after its end the request is deleted.
	// +kubebuilder:validation:Minimum=0
	TTLSecondsAfterFinished *int32 `json:"ttlSecondsAfterFinished,omitempty"`
}

// ContainerRecreateRequestContainer is one container. All but the name is filled in by admission.
type ContainerRecreateRequestContainer struct {
	Name string `json:"name"`
	// PreStop is a copy of the container's own hook.
	PreStop *ContainerRecreateRequestHandler `json:"preStop,omitempty"`
	// Ports by which the hook's named port is found.
	Ports []corev1.ContainerPort `json:"ports,omitempty"`
	// StatusContext is what ran when the request was made.
	StatusContext *ContainerRecreateRequestContainerContext `json:"statusContext,omitempty"`
}

// ContainerRecreateRequestHandler is what a container wants done before it stops.
type ContainerRecreateRequestHandler struct {
	Exec      *corev1.ExecAction      `json:"exec,omitempty"`
	HTTPGet   *corev1.HTTPGetAction   `json:"httpGet,omitempty"`
	TCPSocket *corev1.TCPSocketAction `json:"tcpSocket,omitempty"`
	Sleep     *corev1.SleepAction     `json:"sleep,omitempty"`
}

// ContainerRecreateRequestContainerContext is what ran when the request was made.
type ContainerRecreateRequestContainerContext struct {
	ContainerID  string `json:"containerID"`
	RestartCount int32  `json:"restartCount"`
}

// ContainerRecreateRequestStrategy says how containers are restarted.
type ContainerRecreateRequestStrategy struct {
	// FailurePolicy says what follows the failure of one container; empty: Fail.
	FailurePolicy ContainerRecreateRequestFailurePolicyType `json:"failurePolicy,omitempty"`
	// OrderedRecreate waits for one container to succeed before it stops the next.
	OrderedRecreate bool `json:"orderedRecreate,omitempty"`
	// ForceRecreate stops a container even if it was restarted since the request was made.
	ForceRecreate bool `json:"forceRecreate,omitempty"`
	// TerminationGracePeriodSeconds is how long hook and stop together may take; absent: as the Pod says.
	// +kubebuilder:validation:Minimum=0
	TerminationGracePeriodSeconds *int64 `json:"terminationGracePeriodSeconds,omitempty"`
	// UnreadyGracePeriodSeconds is how long before the first stop the Pod is made not ready; absent: it is not.
	// +kubebuilder:validation:Minimum=0
	UnreadyGracePeriodSeconds *int64 `json:"unreadyGracePeriodSeconds,omitempty"`
	// MinStartedSeconds is how long a new container must have run to have succeeded.
	// +kubebuilder:validation:Minimum=0
	MinStartedSeconds int32 `json:"minStartedSeconds,omitempty"`
}

// ContainerRecreateRequestStatus is how far a request is.
type ContainerRecreateRequestStatus struct {
	Phase          ContainerRecreateRequestPhase `json:"phase"`
	CompletionTime *metav1.Time                  `json:"completionTime,omitempty"`
	Message        string                        `json:"message,omitempty"`
	// ContainerRecreateStates by container, in the order of the spec.
	ContainerRecreateStates []ContainerRecreateRequestContainerRecreateState `json:"containerRecreateStates,omitempty"`
	// ContainerStatusSnapshot is what runs instead of what ran before, as the kubelet says.
	ContainerStatusSnapshot []ContainerRecreateRequestSyncContainerStatus `json:"containerStatusSnapshot,omitempty"`
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ContainerRecreateRequestContainerRecreateState is how far one container is.
type ContainerRecreateRequestContainerRecreateState struct {
	Name    string                        `json:"name"`
	Phase   ContainerRecreateRequestPhase `json:"phase"`
	Message string                        `json:"message,omitempty"`
	// IsKilled: this request has stopped it.
	IsKilled bool `json:"isKilled,omitempty"`
}

// ContainerRecreateRequestSyncContainerStatus is a new container as the kubelet sees it.
type ContainerRecreateRequestSyncContainerStatus struct {
	Name         string `json:"name"`
	Ready        bool   `json:"ready"`
	RestartCount int32  `json:"restartCount"`
	ContainerID  string `json:"containerID,omitempty"`
}

// ContainerRecreateRequest restarts containers of a running Pod.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:resource:shortName=crr
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="PHASE",type="string",JSONPath=".status.phase"
// +kubebuilder:printcolumn:name="POD",type="string",JSONPath=".spec.podName"
// +kubebuilder:printcolumn:name="NODE",type="string",JSONPath=".metadata.labels.crr\\.apps\\.kruise\\.io/node-name"
// +kubebuilder:printcolumn:name="AGE",type="date",JSONPath=".metadata.creationTimestamp"
type ContainerRecreateRequest struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ContainerRecreateRequestSpec   `json:"spec,omitempty"`
	Status ContainerRecreateRequestStatus `json:"status,omitempty"`
}

// ContainerRecreateRequestList is a list of ContainerRecreateRequests.
//
// +kubebuilder:object:root=true
type ContainerRecreateRequestList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ContainerRecreateRequest `json:"items"`
}
