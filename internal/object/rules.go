package object

import "k8s.io/apimachinery/pkg/runtime/schema"

// rule says what happens to one member of a JSON object. Rules of an array hold for each of its elements.
type rule struct {
	name string
	// drop leaves the member out.
	drop bool
	// managers reads the dropped member for who changed the object last.
	managers bool
	// take remembers the member's value, a string.
	take take
	// inner are the rules for the members of this member.
	inner []rule
}

type take int

const (
	takeNothing take = iota
	takeName
	takeNamespace
	takeUID
	takeVersion
	takes
)

var (
	metadata = []rule{
		{name: "name", take: takeName},
		{name: "namespace", take: takeNamespace},
		{name: "uid", take: takeUID},
		{name: "resourceVersion", take: takeVersion},
		{name: "managedFields", drop: true, managers: true},
	}
	common = []rule{{name: "metadata", inner: metadata}}
	// Kubelets report images and heartbeats every few minutes; no rule reads them.
	node = []rule{
		{name: "metadata", inner: metadata},
		{name: "status", inner: []rule{
			{name: "images", drop: true},
			{name: "conditions", inner: []rule{{name: "lastHeartbeatTime", drop: true}}},
		}},
	}
	// A client-side apply leaves a copy of the data in an annotation.
	secret = []rule{
		{name: "metadata", inner: append([]rule{{name: "annotations", inner: []rule{
			{name: "kubectl.kubernetes.io/last-applied-configuration", drop: true},
		}}}, metadata...)},
		{name: "data", drop: true},
		{name: "stringData", drop: true},
	}
)

func rulesFor(resource schema.GroupVersionResource) []rule {
	if resource.Group != "" {
		return common
	}
	switch resource.Resource {
	case "nodes":
		return node
	case "secrets":
		return secret
	}
	return common
}
