package crd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/pager"
)

// Migrate has the API server store every object in its definition's storage version, by a patch that changes nothing, and
// then takes the other versions off the definition's list, so that they may be dropped one day (api-surface R8). It does
// nothing where that is so already, and may be ended and started again at any point. Every API server must know the
// definitions by now, and the webhook must convert. The error joins those of the objects that were refused; their
// definitions keep their list.
func Migrate(ctx context.Context, config *rest.Config) (rewritten int, err error) {
	definitions, err := connect(config)
	if err != nil {
		return 0, err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return 0, fmt.Errorf("connect to rewrite stored objects: %w", err)
	}
	all, err := Manifests()
	if err != nil {
		return 0, fmt.Errorf("read the built-in CRDs: %w", err)
	}
	for _, manifest := range all {
		definition, err := definitions.Get(ctx, manifest.Name, metav1.GetOptions{})
		if err != nil {
			return rewritten, fmt.Errorf("read CRD %s: %w", manifest.Name, err)
		}
		storage := storageVersion(definition)
		if slices.Equal(definition.Status.StoredVersions, []string{storage}) {
			continue
		}
		resource := schema.GroupVersionResource{Group: definition.Spec.Group, Version: storage, Resource: definition.Spec.Names.Plural}
		count, err := rewrite(ctx, client.Resource(resource))
		rewritten += count
		if err != nil {
			return rewritten, fmt.Errorf("rewrite stored %s as %s: %w", resource.GroupResource(), storage, err)
		}
		// The version of the definition as read above: if it changed meanwhile, the list may be right again.
		definition.Status.StoredVersions = []string{storage}
		if _, err := definitions.UpdateStatus(ctx, definition, metav1.UpdateOptions{FieldManager: Owner}); err != nil {
			return rewritten, fmt.Errorf("say on CRD %s that only %s is stored: %w", manifest.Name, storage, err)
		}
	}
	return rewritten, nil
}

// maxNamed bounds how many refused objects an error names.
const maxNamed = 10

func storageVersion(definition *apiextensionsv1.CustomResourceDefinition) string {
	for _, version := range definition.Spec.Versions {
		if version.Storage {
			return version.Name
		}
	}
	return "" // no definition is without
}

func rewrite(ctx context.Context, client dynamic.NamespaceableResourceInterface) (int, error) {
	count, refused := 0, []error(nil)
	list := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return client.List(ctx, options)
	})
	err := list.EachListItem(ctx, metav1.ListOptions{}, func(object runtime.Object) error {
		item := object.(metav1.Object)
		_, err := client.Namespace(item.GetNamespace()).Patch(ctx, item.GetName(), types.MergePatchType, []byte(`{}`), metav1.PatchOptions{FieldManager: Owner})
		switch {
		case err == nil:
			count++
		case apierrors.IsNotFound(err): // gone meanwhile
		case len(refused) < maxNamed:
			refused = append(refused, fmt.Errorf("%s/%s: %w", item.GetNamespace(), item.GetName(), err))
		}
		return ctx.Err()
	})
	return count, errors.Join(append(refused, err)...)
}
