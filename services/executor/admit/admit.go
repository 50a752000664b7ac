// Package admit answers the API server's webhooks: it converts between versions, fills in defaults, and refuses what a
// schema cannot see to be wrong. What it says is decided by pure functions of the request and of what was looked up for it;
// this package looks up Pods and Nodes and lets the API server judge Pod templates, and writes nothing. Who calls it, and by which
// certificate it is trusted, is the business of packages beside and around it.
package admit

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"shiplog.dev/internal/gate"
)

// Cluster is what has to be looked up for a verdict.
type Cluster interface {
	// Pod returns a Pod's metadata, nil if there is none. Other errors: it cannot be known now.
	Pod(ctx context.Context, namespace, name string) (*metav1.ObjectMeta, error)
	// WholePod returns a Pod, nil if there is none. Other errors: it cannot be known now.
	WholePod(ctx context.Context, namespace, name string) (*corev1.Pod, error)
	// Node returns a Node's metadata, nil if there is none. Other errors: it cannot be known now.
	Node(ctx context.Context, name string) (*metav1.ObjectMeta, error)
	// Judge returns what the API server makes of a Pod template. An error: it cannot be known now.
	Judge(ctx context.Context, namespace string, template tree) (Judgement, error)
	// Remember has another template judged like one that the API server has accepted. The two differ by nothing but defaults.
	Remember(namespace string, template tree, judgement Judgement)
}

// Judgement is what the API server makes of a Pod template.
type Judgement struct {
	// Defaulted is the template with the API server's own defaults; nil when it is refused.
	Defaulted tree
	// Problems are why it is refused; their fields begin with "template".
	Problems []metav1.StatusCause
	// Warnings are for the user, for example about a field that does not exist.
	Warnings []string
}

// tree is a JSON object.
type tree = map[string]any

// request is what an admission webhook is asked.
type request struct {
	operation   string // CREATE, UPDATE or DELETE
	version     string // of the objects, for example "v1beta1"
	namespace   string
	user        string
	dryRun      bool
	object, old json.RawMessage // nil where the operation has none
}

// verdict is the answer. The zero value allows.
type verdict struct {
	refusal  *metav1.Status
	patch    []operation
	warnings []string
}

// operation is one of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// rules give verdicts about one kind. An error means that there is none, because something could not be looked up.
type rules struct {
	gates   gate.Set
	cluster Cluster
	refused func(kind, namespace, name, user string) // told of each deletion that a protection refuses
}

// problem is one thing that is wrong with an object.
type problem struct {
	field, kind, message string
}

func problemOf(err *field.Error) problem {
	return problem{err.Field, string(err.Type), err.ErrorBody()}
}

// invalid is the refusal of an object for its content, in the form of the API server's own.
func invalid(group, kind, name string, uid types.UID, problems []problem) verdict {
	if len(problems) == 0 {
		return verdict{}
	}
	status := &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid,
		Details: &metav1.StatusDetails{Group: group, Kind: kind, Name: name, UID: uid}}
	text := ""
	for i, p := range problems {
		if i > 0 {
			text += ", "
		}
		text += p.field + ": " + p.message
		status.Details.Causes = append(status.Details.Causes, metav1.StatusCause{Type: metav1.CauseType(p.kind), Message: p.message, Field: p.field})
	}
	if len(problems) > 1 {
		text = "[" + text + "]"
	}
	status.Message = fmt.Sprintf("%s.%s %q is invalid: %s", kind, group, name, text)
	return verdict{refusal: status}
}

// refuse is a refusal for another reason than the object's content.
func refuse(code int32, reason metav1.StatusReason, format string, arguments ...any) verdict {
	return verdict{refusal: &metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: fmt.Sprintf(format, arguments...)}}
}
