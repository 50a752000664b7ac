package v1alpha1

import "shiplog.dev/api/kruise/apps/v1beta1"

// Names of v1beta1 under which code that still reads v1alpha1 knows them.
type (
	// +kubebuilder:object:generate=false
	CloneSetStatus = v1beta1.CloneSetStatus
	// +kubebuilder:object:generate=false
	CloneSetCondition = v1beta1.CloneSetCondition
	// +kubebuilder:object:generate=false
	CloneSetConditionType = v1beta1.CloneSetConditionType
	// +kubebuilder:object:generate=false
	Lifecycle = v1beta1.Lifecycle
	// +kubebuilder:object:generate=false
	LifecycleHook = v1beta1.LifecycleHook
	// +kubebuilder:object:generate=false
	LifecycleStateType = v1beta1.LifecycleStateType
	// +kubebuilder:object:generate=false
	UpdatePriorityStrategy = v1beta1.UpdatePriorityStrategy
	// +kubebuilder:object:generate=false
	UpdatePriorityOrderTerm = v1beta1.UpdatePriorityOrderTerm
	// +kubebuilder:object:generate=false
	UpdatePriorityWeightTerm = v1beta1.UpdatePriorityWeightTerm
	// +kubebuilder:object:generate=false
	UpdateScatterStrategy = v1beta1.UpdateScatterStrategy
	// +kubebuilder:object:generate=false
	UpdateScatterTerm = v1beta1.UpdateScatterTerm
)

// Constants of v1beta1, likewise.
const (
	CloneSetInstanceID                       = v1beta1.CloneSetInstanceID
	SpecifiedDeleteKey                       = v1beta1.SpecifiedDeleteKey
	CloneSetScalingExcludePreparingDeleteKey = v1beta1.CloneSetScalingExcludePreparingDeleteKey
	DefaultCloneSetMaxUnavailable            = v1beta1.DefaultCloneSetMaxUnavailable

	CloneSetConditionFailedScale       = v1beta1.CloneSetConditionFailedScale
	CloneSetConditionFailedUpdate      = v1beta1.CloneSetConditionFailedUpdate
	CloneSetConditionTypeProgressing   = v1beta1.CloneSetConditionTypeProgressing
	CloneSetAvailable                  = v1beta1.CloneSetAvailable
	CloneSetProgressPaused             = v1beta1.CloneSetProgressPaused
	CloneSetProgressPartitionAvailable = v1beta1.CloneSetProgressPartitionAvailable
	CloneSetProgressDeadlineExceeded   = v1beta1.CloneSetProgressDeadlineExceeded
	CloneSetProgressUpdated            = v1beta1.CloneSetProgressUpdated

	LifecycleStatePreparingNormal = v1beta1.LifecycleStatePreparingNormal
	LifecycleStateNormal          = v1beta1.LifecycleStateNormal
	LifecycleStatePreparingUpdate = v1beta1.LifecycleStatePreparingUpdate
	LifecycleStateUpdating        = v1beta1.LifecycleStateUpdating
	LifecycleStateUpdated         = v1beta1.LifecycleStateUpdated
	LifecycleStatePreparingDelete = v1beta1.LifecycleStatePreparingDelete
	LifecycleStateKey             = v1beta1.LifecycleStateKey
	LifecycleTimestampKey         = v1beta1.LifecycleTimestampKey
)
