package history

import (
	"fmt"
	"slices"
	"strings"

	"shiplog.dev/internal/world"
)

// Kind is a kind of objects by the names that kubectl knows it under.
type Kind struct {
	// Group and Resource; Group "*" stands for any.
	Group, Resource string
	// Singular name, and short ones.
	Singular string
	Short    []string
	// Cluster: its objects are in no namespace.
	Cluster bool
}

const kruise = world.GroupKruise

var kinds = []Kind{
	{Resource: "pods", Singular: "pod", Short: []string{"po"}},
	{Group: kruise, Resource: "clonesets", Singular: "cloneset", Short: []string{"clone"}},
	{Group: kruise, Resource: "statefulsets", Singular: "statefulset", Short: []string{"sts", "asts"}},
	{Group: kruise, Resource: "daemonsets", Singular: "daemonset", Short: []string{"ds", "daemon", "ads"}},
	{Group: kruise, Resource: "sidecarsets", Singular: "sidecarset", Cluster: true},
	{Group: kruise, Resource: "broadcastjobs", Singular: "broadcastjob", Short: []string{"bcj"}},
	{Group: kruise, Resource: "advancedcronjobs", Singular: "advancedcronjob", Short: []string{"acj"}},
	{Group: kruise, Resource: "uniteddeployments", Singular: "uniteddeployment", Short: []string{"ud"}},
	{Group: kruise, Resource: "workloadspreads", Singular: "workloadspread", Short: []string{"ws"}},
	{Group: kruise, Resource: world.ResourceImagePullJobs, Singular: "imagepulljob"},
	{Group: kruise, Resource: world.ResourceImageListPullJobs, Singular: "imagelistpulljob"},
	{Group: kruise, Resource: world.ResourceNodeImages, Singular: "nodeimage", Cluster: true},
	{Group: kruise, Resource: world.ResourceRestartRequests, Singular: "containerrecreaterequest", Short: []string{"crr"}},
	{Group: world.GroupApps, Resource: "controllerrevisions", Singular: "controllerrevision"},
	{Resource: "persistentvolumeclaims", Singular: "persistentvolumeclaim", Short: []string{"pvc"}},
	{Resource: "services", Singular: "service", Short: []string{"svc"}},
	{Group: world.GroupDiscovery, Resource: "endpointslices", Singular: "endpointslice"},
	{Resource: "events", Singular: "event", Short: []string{"ev"}},
	{Resource: "nodes", Singular: "node", Short: []string{"no"}, Cluster: true},
	{Resource: "namespaces", Singular: "namespace", Short: []string{"ns"}, Cluster: true},
}

// FindKind reads the name of a kind as kubectl does: singular, plural or short, in any case, with or without its group. One
// that is not known is taken as the plural name of a resource of that group, or of any.
func FindKind(name string) Kind {
	resource, group, hasGroup := strings.Cut(strings.ToLower(name), ".")
	for _, kind := range kinds {
		if (resource == kind.Resource || resource == kind.Singular || slices.Contains(kind.Short, resource)) && (!hasGroup || group == kind.Group) {
			return kind
		}
	}
	kind := Kind{Group: "*", Resource: resource, Singular: strings.TrimSuffix(resource, "s")}
	if hasGroup {
		kind.Group = group
	}
	return kind
}

// Target names one object as people do.
type Target struct {
	Kind
	Namespace, Name string
}

// String is the form "pod/web-x7k2p".
func (t Target) String() string { return t.Singular + "/" + t.Name }

// Is says whether a reference names the target.
func (t Target) Is(ref world.Ref) bool {
	return t.Resource == ref.Resource && t.Name == ref.Name && t.Namespace == ref.Namespace && (t.Group == "*" || t.Group == ref.Group)
}

// ParseTarget reads "pod/web-x7k2p" or "pod" "web-x7k2p", in a namespace where the kind has one.
func ParseTarget(arguments []string, namespace string) (Target, error) {
	form := fmt.Errorf("%q does not name one object: give KIND/NAME, for example pod/web-x7k2p", strings.Join(arguments, " "))
	var kind, name string
	switch len(arguments) {
	case 1:
		var named bool
		if kind, name, named = strings.Cut(arguments[0], "/"); !named {
			return Target{}, form
		}
	case 2:
		kind, name = arguments[0], arguments[1]
	}
	if kind == "" || name == "" || strings.Contains(name, "/") || strings.Contains(kind, "/") {
		return Target{}, form
	}
	target := Target{Kind: FindKind(kind), Namespace: namespace, Name: name}
	if target.Cluster {
		target.Namespace = ""
	}
	return target, nil
}
