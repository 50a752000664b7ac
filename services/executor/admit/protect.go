package admit

import (
	"encoding/json"
	"fmt"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"shiplog.dev/internal/gate"
)

// protectionLabel keeps an object from being deleted (deletion-protection 2).
const (
	protectionLabel  = "policy.kruise.io/delete-protection"
	protectAlways    = "Always"
	protectCascading = "Cascading"
)

// protectCloneSet judges a deletion (cloneset A7, deletion-protection R1 to R8).
func (r rules) protectCloneSet(q request) verdict {
	if !r.gates.On(gate.ResourcesDeletionProtection) || len(q.old) == 0 {
		return verdict{}
	}
	var old struct {
		Metadata metav1.ObjectMeta
		Spec     struct{ Replicas *int32 }
	}
	if err := json.Unmarshal(q.old, &old); err != nil {
		return refuse(http.StatusBadRequest, metav1.StatusReasonBadRequest, "decode the CloneSet: %v", err)
	}
	if old.Metadata.DeletionTimestamp != nil {
		return verdict{}
	}
	protection, detail := old.Metadata.Labels[protectionLabel], ""
	switch {
	case protection == protectAlways:
	case protection == protectCascading && old.Spec.Replicas != nil && *old.Spec.Replicas > 0:
		detail = fmt.Sprintf(" and replicas %d>0", *old.Spec.Replicas)
	default:
		return verdict{}
	}
	r.refused("CloneSet", q.namespace, old.Metadata.Name, q.user)
	return refuse(http.StatusForbidden, metav1.StatusReasonForbidden,
		"forbidden by ResourcesProtectionDeletion for %s=%s%s", protectionLabel, protection, detail)
}
