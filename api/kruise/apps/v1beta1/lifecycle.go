package v1beta1

// LifecycleStateType is the value of the label LifecycleStateKey on a Pod.
type LifecycleStateType string

// States of a Pod between the hooks of its workload.
const (
	LifecycleStatePreparingNormal LifecycleStateType = "PreparingNormal"
	LifecycleStateNormal          LifecycleStateType = "Normal"
	LifecycleStatePreparingUpdate LifecycleStateType = "PreparingUpdate"
	LifecycleStateUpdating        LifecycleStateType = "Updating"
	LifecycleStateUpdated         LifecycleStateType = "Updated"
	LifecycleStatePreparingDelete LifecycleStateType = "PreparingDelete"
)

// Where a Pod's lifecycle state is kept.
const (
	// LifecycleStateKey is a label; its value is a LifecycleStateType.
	LifecycleStateKey = "lifecycle.apps.kruise.io/state"
	// LifecycleTimestampKey is an annotation: when the state changed, RFC 3339.
	LifecycleTimestampKey = "lifecycle.apps.kruise.io/timestamp"
)

// Lifecycle names the points at which an outside controller may hold a Pod.
type Lifecycle struct {
	// PreNormal holds a new Pod until it may count as available.
	PreNormal *LifecycleHook `json:"preNormal,omitempty"`
	// PreDelete holds a Pod that is about to be deleted.
	PreDelete *LifecycleHook `json:"preDelete,omitempty"`
	// InPlaceUpdate holds a Pod before its update in place and after it.
	InPlaceUpdate *LifecycleHook `json:"inPlaceUpdate,omitempty"`
}

// LifecycleHook says by which labels and finalizers a Pod is held.
type LifecycleHook struct {
	// LabelsHandler holds the Pod while it carries one of these labels with this value.
	LabelsHandler map[string]string `json:"labelsHandler,omitempty"`
	// FinalizersHandler holds the Pod while it carries one of these finalizers.
	FinalizersHandler []string `json:"finalizersHandler,omitempty"`
	// MarkPodNotReady makes the Pod not ready while it is held; only in preDelete and inPlaceUpdate.
	// Default: false.
	MarkPodNotReady bool `json:"markPodNotReady,omitempty"`
}
