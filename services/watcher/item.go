package watcher

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"shiplog.dev/internal/object"
)

// item is an object on its way from the API server to the log. The reflector reads its metadata; nobody decodes the rest.
type item struct {
	metav1.TypeMeta
	metav1.ObjectMeta // name, namespace, UID and resource version; annotations only of a bookmark
	normal            *object.Object
	version           uint64
}

func newItem(resource schema.GroupVersionResource, raw []byte) (*item, error) {
	normal, err := object.Normalise(resource, raw)
	if err != nil {
		return nil, err
	}
	version, err := object.Version(normal.ResourceVersion)
	if err != nil {
		return nil, err
	}
	i := &item{normal: normal, version: version}
	i.Name, i.Namespace, i.ResourceVersion = normal.Name, normal.Namespace, normal.ResourceVersion
	return i, nil
}

// DeepCopyObject returns the item itself: nobody changes one.
func (i *item) DeepCopyObject() runtime.Object { return i }

// items is one page of a list.
type items struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []*item
}

// DeepCopyObject returns the page itself: nobody changes one.
func (i *items) DeepCopyObject() runtime.Object { return i }

// place of an object among those of its kind.
type place struct{ namespace, name string }
