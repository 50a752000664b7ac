package watcher

import "k8s.io/apimachinery/pkg/runtime/schema"

// kind is one watched kind of objects.
type kind struct {
	// name for logs and metrics, for example "pods".
	name     string
	resource schema.GroupVersionResource
}

// kinds are watched in all namespaces. None of them holds secrets.
var kinds = []kind{
	watched("apps.kruise.io", "v1beta1", "clonesets"),
	watched("apps.kruise.io", "v1beta1", "nodeimages"),
	watched("apps.kruise.io", "v1beta1", "imagepulljobs"),
	watched("apps.kruise.io", "v1beta1", "imagelistpulljobs"),
	watched("apps.kruise.io", "v1beta1", "containerrecreaterequests"),
	watched("apps", "v1", "controllerrevisions"),
	watched("", "v1", "pods"),
	watched("", "v1", "persistentvolumeclaims"),
	watched("", "v1", "nodes"),
	watched("", "v1", "namespaces"),
	watched("", "v1", "services"),
	watched("discovery.k8s.io", "v1", "endpointslices"),
}

func watched(group, version, resource string) kind {
	gvr := schema.GroupVersionResource{Group: group, Version: version, Resource: resource}
	return kind{name: gvr.GroupResource().String(), resource: gvr}
}

func (k kind) path() string {
	if k.resource.Group == "" {
		return "/api/" + k.resource.Version + "/" + k.resource.Resource
	}
	return "/apis/" + k.resource.Group + "/" + k.resource.Version + "/" + k.resource.Resource
}
