package world

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unique"

	"k8s.io/apimachinery/pkg/types"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// Ref names one object of the API server across versions of its group.
type Ref struct {
	Group, Resource, Namespace, Name string
}

// RefOf drops from an object reference what does not identify: version and UID.
func RefOf(object *shiplogv1.ObjectRef) Ref {
	return Ref{Group: object.GetGroup(), Resource: object.GetResource(), Namespace: object.GetNamespace(), Name: object.GetName()}
}

func (r Ref) String() string {
	resource := r.Resource
	if r.Group != "" {
		resource += "." + r.Group
	}
	if r.Namespace == "" {
		return resource + " " + r.Name
	}
	return resource + " " + r.Namespace + "/" + r.Name
}

// Meta is the part of an object's metadata that rules read.
type Meta struct {
	Namespace, Name string
	UID             types.UID
	// Version is the resource version, a number that rises with each state of the object.
	Version             uint64
	Generation          int64
	Labels, Annotations Pairs
	// Owner is the controlling owner's reference; zero when nobody controls the object.
	Owner   Owner
	Created time.Time
	// Terminating: the object has a deletion timestamp.
	Terminating bool
	// Sequence of the fact that this state comes from; 0 for a state that a command under way will bring.
	Sequence uint64
}

// Owner is a controller reference, of which all that one object controls hold the same copy. Owners are told apart by UID, never by version
// (api-surface R1).
type Owner struct{ one unique.Handle[reference] }

type reference struct {
	UID        types.UID
	APIVersion string
	Kind, Name string
}

// Present says whether there is a controlling owner.
func (o Owner) Present() bool { return o != Owner{} }

// UID of the owner; empty: there is none.
func (o Owner) UID() types.UID { return o.reference().UID }

// APIVersion of the owner; empty: there is none.
func (o Owner) APIVersion() string { return o.reference().APIVersion }

// Kind of the owner; empty: there is none.
func (o Owner) Kind() string { return o.reference().Kind }

// Name of the owner; empty: there is none.
func (o Owner) Name() string { return o.reference().Name }

func (o Owner) reference() reference {
	if !o.Present() {
		return reference{}
	}
	return o.one.Value()
}

// MarshalJSON is for those who compare worlds.
func (o Owner) MarshalJSON() ([]byte, error) { return json.Marshal(o.reference()) }

// metadata is the wire form of what Meta holds.
type metadata struct {
	Namespace         string      `json:"namespace"`
	Name              string      `json:"name"`
	UID               types.UID   `json:"uid"`
	ResourceVersion   string      `json:"resourceVersion"`
	Generation        int64       `json:"generation"`
	Labels            pairChanges `json:"labels"`
	Annotations       pairChanges `json:"annotations"`
	CreationTimestamp *time.Time  `json:"creationTimestamp"`
	DeletionTimestamp *time.Time  `json:"deletionTimestamp"`
	OwnerReferences   []struct {
		APIVersion string    `json:"apiVersion"`
		Kind       string    `json:"kind"`
		Name       string    `json:"name"`
		UID        types.UID `json:"uid"`
		Controller bool      `json:"controller"`
	} `json:"ownerReferences"`
}

func (m *metadata) meta() Meta {
	out := Meta{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID, Generation: m.Generation,
		Labels: Pairs{}.changed(m.Labels), Annotations: Pairs{}.changed(m.Annotations), Terminating: m.DeletionTimestamp != nil,
	}
	if m.CreationTimestamp != nil {
		out.Created = *m.CreationTimestamp
	}
	for _, owner := range m.OwnerReferences {
		if owner.Controller {
			out.Owner = Owner{unique.Make(reference{owner.UID, owner.APIVersion, owner.Kind, owner.Name})}
		}
	}
	return out
}

// parseVersion reads a resource version. Kubernetes promises since 1.35 that those of one resource compare as numbers.
func parseVersion(text string) (uint64, error) {
	version, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("resource version %q is not a number", text)
	}
	return version, nil
}

// Node is what rules read of a node.
type Node struct {
	Meta
	Ready bool
	// ReadySince is when Ready last changed; zero: the node has not said.
	ReadySince time.Time
}

// Namespace is what rules read of a namespace: its Meta.
type Namespace struct{ Meta }

// Claim is what rules read of a PersistentVolumeClaim.
type Claim struct {
	Meta
	// UnderWay is the command that is being carried out on the claim; nil: none.
	UnderWay *UnderWay
}

// Service is what rules read of a Service.
type Service struct {
	Meta
	// Selector of the Pods it routes to; empty: none by label.
	Selector Pairs
}

// EndpointSlice is what rules read of an EndpointSlice.
type EndpointSlice struct {
	Meta
	// Pods that it names, by name.
	Pods []string
}

func decodeNode(data []byte) (*Node, error) {
	var wire struct {
		Metadata metadata `json:"metadata"`
		Status   struct {
			Conditions []Condition `json:"conditions"`
		} `json:"status"`
	}
	if err := json.Unmarshal(data, &wire); err != nil {
		return nil, err
	}
	node := &Node{Meta: wire.Metadata.meta()}
	for _, condition := range wire.Status.Conditions {
		if condition.Type == "Ready" {
			node.Ready, node.ReadySince = condition.Status == "True", condition.LastTransitionTime
		}
	}
	return node, nil
}

func decodeMeta(data []byte) (Meta, error) {
	var wire struct {
		Metadata metadata `json:"metadata"`
	}
	err := json.Unmarshal(data, &wire)
	return wire.Metadata.meta(), err
}

func decodeService(data []byte) (*Service, error) {
	var wire struct {
		Metadata metadata `json:"metadata"`
		Spec     struct {
			Selector pairChanges `json:"selector"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(data, &wire); err != nil {
		return nil, err
	}
	return &Service{Meta: wire.Metadata.meta(), Selector: Pairs{}.changed(wire.Spec.Selector)}, nil
}

func decodeEndpointSlice(data []byte) (*EndpointSlice, error) {
	var wire struct {
		Metadata  metadata `json:"metadata"`
		Endpoints []struct {
			TargetRef struct {
				Kind string `json:"kind"`
				Name string `json:"name"`
			} `json:"targetRef"`
		} `json:"endpoints"`
	}
	if err := json.Unmarshal(data, &wire); err != nil {
		return nil, err
	}
	slice := &EndpointSlice{Meta: wire.Metadata.meta()}
	for _, endpoint := range wire.Endpoints {
		if endpoint.TargetRef.Kind == "Pod" {
			slice.Pods = append(slice.Pods, endpoint.TargetRef.Name)
		}
	}
	return slice, nil
}
