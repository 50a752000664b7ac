package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// ImagePullJobFinalizer holds an ImagePullJob until what it asked of nodes is taken back.
const ImagePullJobFinalizer = "apps.kruise.io/deletion-protection"

// ImagePullPolicy says when a pull is made.
type ImagePullPolicy string

const (
	// PullAlways pulls whatever the node holds.
	PullAlways ImagePullPolicy = "Always"
	// PullIfNotPresent pulls what the node does not hold.
	PullIfNotPresent ImagePullPolicy = "IfNotPresent"
)

// CompletionPolicyType says whether a job ends.
// +kubebuilder:validation:Enum=Always;Never
type CompletionPolicyType string

const (
	// Always: the job ends when all nodes have succeeded or failed.
	Always CompletionPolicyType = "Always"
	// Never: the job lives on, and serves nodes and Pods that come later.
	Never CompletionPolicyType = "Never"
)

// ImagePullJobTemplate is what both kinds of jobs have in common.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.selector) && has(self.podSelector))",message="can not set both selector and podSelector",fieldPath=".podSelector"
type ImagePullJobTemplate struct {
	// PullSecrets are names of Secrets in the job's namespace.
	// +kubebuilder:validation:MaxItems=64
	PullSecrets []string `json:"pullSecrets,omitempty"`

	// Selector selects nodes; absent: all nodes.
	Selector *ImagePullJobNodeSelector `json:"selector,omitempty"`

	// PodSelector selects the nodes that run matching Pods of the job's namespace.
	PodSelector *ImagePullJobPodSelector `json:"podSelector,omitempty"`

	// Parallelism is how many nodes pull at once; 0 hands out nothing.
	// +kubebuilder:validation:XValidation:rule="type(self) == int || self.matches('^[0-9]{1,9}$')",message="parallelism must be a valid integer: a percentage is not supported"
	// +kubebuilder:validation:XValidation:rule="type(self) == string || self >= 0",message="parallelism must be non-negative"
	Parallelism *intstr.IntOrString `json:"parallelism,omitempty"`

	// PullPolicy limits one node's pull.
	// +kubebuilder:default={timeoutSeconds: 600, backoffLimit: 3}
	PullPolicy *PullPolicy `json:"pullPolicy,omitempty"`

	// CompletionPolicy says when the job ends.
	// +kubebuilder:default={type: "Always"}
	CompletionPolicy CompletionPolicy `json:"completionPolicy"`

	// SandboxConfig goes into the runtime's request.
	SandboxConfig *SandboxConfig `json:"sandboxConfig,omitempty"`

	// ImagePullPolicy says whether a node that holds the image pulls it all the same.
	ImagePullPolicy ImagePullPolicy `json:"imagePullPolicy,omitempty"`
}

// ImagePullJobNodeSelector selects nodes by name or by label.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.names) && size(self.names) > 0 && (has(self.matchLabels) && size(self.matchLabels) > 0 || has(self.matchExpressions) && size(self.matchExpressions) > 0))",message="can not set both names and labelSelector in this spec.selector"
type ImagePullJobNodeSelector struct {
	// Names of nodes.
	// +kubebuilder:validation:MaxItems=10000
	// +listType=set
	Names []string `json:"names,omitempty"`

	metav1.LabelSelector `json:",inline"`
}

// ImagePullJobPodSelector selects Pods.
type ImagePullJobPodSelector struct {
	metav1.LabelSelector `json:",inline"`
}

// PullPolicy limits one node's pull.
type PullPolicy struct {
	// TimeoutSeconds is how long one attempt may take.
	// +kubebuilder:default=600
	TimeoutSeconds *int32 `json:"timeoutSeconds,omitempty"`
	// BackoffLimit is how many attempts may follow the first one.
	// +kubebuilder:default=3
	BackoffLimit *int32 `json:"backoffLimit,omitempty"`
}

// CompletionPolicy says when a job ends.
//
// +kubebuilder:validation:XValidation:rule="self.type == 'Always' || !(has(self.activeDeadlineSeconds) || has(self.ttlSecondsAfterFinished))",message="activeDeadlineSeconds and ttlSecondsAfterFinished can only work with Always CompletionPolicyType"
type CompletionPolicy struct {
	// +kubebuilder:default=Always
	Type CompletionPolicyType `json:"type,omitempty"`
	// ActiveDeadlineSeconds is how long after its start the job ends in any case.
	ActiveDeadlineSeconds *int64 `json:"activeDeadlineSeconds,omitempty"`
	// TTLSecondsAfterFinished is how long after its end the job is deleted.
	TTLSecondsAfterFinished *int32 `json:"ttlSecondsAfterFinished,omitempty"`
}

// SandboxConfig is what the sandbox configuration of a pull request carries.
type SandboxConfig struct {
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// ImagePullJobSpec is what an ImagePullJob shall do.
//
// +kubebuilder:validation:XValidation:rule="!has(self.completionPolicy.activeDeadlineSeconds) || !has(self.pullPolicy) || !has(self.pullPolicy.timeoutSeconds) || self.completionPolicy.activeDeadlineSeconds >= self.pullPolicy.timeoutSeconds",message="completionPolicy.activeDeadlineSeconds must be greater than pullPolicy.timeoutSeconds(default 600)",fieldPath=".completionPolicy.activeDeadlineSeconds"
// +kubebuilder:validation:XValidation:rule="has(self.pullSecrets) == has(oldSelf.pullSecrets) && (!has(self.pullSecrets) || self.pullSecrets == oldSelf.pullSecrets)",message="spec.pullSecrets is immutable",fieldPath=".pullSecrets"
type ImagePullJobSpec struct {
	// Image to pull.
	// +kubebuilder:validation:MinLength=1
	Image string `json:"image"`

	ImagePullJobTemplate `json:",inline"`
}

// ImagePullJobStatus is how far an ImagePullJob is.
type ImagePullJobStatus struct {
	StartTime      *metav1.Time `json:"startTime,omitempty"`
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
	// Desired is how many nodes are selected.
	Desired int32 `json:"desired"`
	// Active nodes pull, or are about to.
	Active    int32 `json:"active,omitempty"`
	Succeeded int32 `json:"succeeded,omitempty"`
	Failed    int32 `json:"failed,omitempty"`
	// Message is for people.
	Message string `json:"message,omitempty"`
	// FailedNodes are sorted by name.
	FailedNodes []string `json:"failedNodes,omitempty"`
}

// ImagePullJob pulls an image on nodes.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="TOTAL",type="integer",JSONPath=".status.desired"
// +kubebuilder:printcolumn:name="ACTIVE",type="integer",JSONPath=".status.active"
// +kubebuilder:printcolumn:name="SUCCEED",type="integer",JSONPath=".status.succeeded"
// +kubebuilder:printcolumn:name="FAILED",type="integer",JSONPath=".status.failed"
// +kubebuilder:printcolumn:name="AGE",type="date",JSONPath=".metadata.creationTimestamp"
// +kubebuilder:printcolumn:name="MESSAGE",type="string",priority=1,JSONPath=".status.message"
type ImagePullJob struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ImagePullJobSpec   `json:"spec,omitempty"`
	Status ImagePullJobStatus `json:"status,omitempty"`
}

// ImagePullJobList is a list of ImagePullJobs.
//
// +kubebuilder:object:root=true
type ImagePullJobList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ImagePullJob `json:"items"`
}

// ImageListPullJobSpec is what an ImageListPullJob shall do.
//
// +kubebuilder:validation:XValidation:rule="!has(self.completionPolicy.activeDeadlineSeconds) || !has(self.pullPolicy) || !has(self.pullPolicy.timeoutSeconds) || self.completionPolicy.activeDeadlineSeconds >= self.pullPolicy.timeoutSeconds",message="completionPolicy.activeDeadlineSeconds must be greater than pullPolicy.timeoutSeconds(default 600)",fieldPath=".completionPolicy.activeDeadlineSeconds"
type ImageListPullJobSpec struct {
	// Images to pull, each by a job of its own.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=255
	// +listType=set
	Images []string `json:"images"`

	ImagePullJobTemplate `json:",inline"`
}

// FailedImageStatus names an image that some node could not pull.
type FailedImageStatus struct {
	// ImagePullJob that was to pull it.
	ImagePullJob string `json:"imagePullJob,omitempty"`
	// Name of the image.
	Name    string `json:"name,omitempty"`
	Message string `json:"message,omitempty"`
}

// ImageListPullJobStatus is how far an ImageListPullJob is.
type ImageListPullJobStatus struct {
	StartTime      *metav1.Time `json:"startTime,omitempty"`
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
	// Desired is how many images there are.
	Desired int32 `json:"desired"`
	// Active images are being pulled by some node.
	Active int32 `json:"active,omitempty"`
	// Completed images are pulled by no node any more, Succeeded of them by all.
	Completed           int32                `json:"completed,omitempty"`
	Succeeded           int32                `json:"succeeded,omitempty"`
	FailedImageStatuses []*FailedImageStatus `json:"failedImageStatuses,omitempty"`
}

// ImageListPullJob pulls several images on nodes.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="TOTAL",type="integer",JSONPath=".status.desired"
// +kubebuilder:printcolumn:name="SUCCEEDED",type="integer",JSONPath=".status.succeeded"
// +kubebuilder:printcolumn:name="COMPLETED",type="integer",JSONPath=".status.completed"
// +kubebuilder:printcolumn:name="AGE",type="date",JSONPath=".metadata.creationTimestamp"
type ImageListPullJob struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ImageListPullJobSpec   `json:"spec,omitempty"`
	Status ImageListPullJobStatus `json:"status,omitempty"`
}

// ImageListPullJobList is a list of ImageListPullJobs.
//
// +kubebuilder:object:root=true
type ImageListPullJobList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ImageListPullJob `json:"items"`
}
