// Package crd holds the manifests of the custom resources and installs them. The manifests are generated from
// api/kruise; it reads and writes CustomResourceDefinitions and no other object.
package crd

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

//go:embed *.yaml
var manifests embed.FS

// Owner is the field manager that Install writes as.
const Owner = "shiplog"

const (
	establishWithin = 30 * time.Second
	establishPoll   = 50 * time.Millisecond
)

// Manifest is one CustomResourceDefinition.
type Manifest struct {
	// Name of the definition, for example "clonesets.apps.kruise.io".
	Name string
	YAML []byte
}

// Manifests returns every definition, ordered by file name.
func Manifests() ([]Manifest, error) {
	paths, err := fs.Glob(manifests, "*.yaml")
	if err != nil {
		return nil, err
	}
	all := make([]Manifest, 0, len(paths))
	for _, path := range paths {
		raw, err := manifests.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var head metav1.PartialObjectMetadata
		if err := yaml.Unmarshal(raw, &head); err != nil {
			return nil, fmt.Errorf("decode %s: %w", path, err)
		}
		all = append(all, Manifest{Name: head.Name, YAML: raw})
	}
	return all, nil
}

// Install creates or updates every definition and returns when the API server serves them. A definition that is as it
// should be is not written again. An error names the definition; those installed before it stay.
func Install(ctx context.Context, config *rest.Config) error {
	client, err := apiextensions.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("connect to install CRDs: %w", err)
	}
	all, err := Manifests()
	if err != nil {
		return fmt.Errorf("read the built-in CRDs: %w", err)
	}
	definitions := client.CustomResourceDefinitions()
	for _, manifest := range all {
		// The API server leaves the object and its version alone when applying changes nothing.
		options := metav1.PatchOptions{FieldManager: Owner, Force: ptr.To(true)}
		if _, err := definitions.Patch(ctx, manifest.Name, types.ApplyYAMLPatchType, manifest.YAML, options); err != nil {
			return fmt.Errorf("apply CRD %s: %w", manifest.Name, err)
		}
	}
	for _, manifest := range all {
		if err := established(ctx, definitions, manifest.Name); err != nil {
			return fmt.Errorf("wait until CRD %s is served: %w", manifest.Name, err)
		}
	}
	return nil
}

func established(ctx context.Context, definitions apiextensions.CustomResourceDefinitionInterface, name string) error {
	last := errors.New("not established")
	err := wait.PollUntilContextTimeout(ctx, establishPoll, establishWithin, true, func(ctx context.Context) (bool, error) {
		definition, err := definitions.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, err
		}
		if err != nil {
			last = err
			return false, nil
		}
		served, refusal := state(definition)
		if refusal != nil {
			last = refusal
		}
		return served, nil
	})
	if wait.Interrupted(err) {
		return fmt.Errorf("%w: %w", err, last)
	}
	return err
}

// state says whether a definition is served and, if its names or schema are not accepted, why.
func state(definition *apiextensionsv1.CustomResourceDefinition) (served bool, refusal error) {
	for _, condition := range definition.Status.Conditions {
		switch {
		case condition.Type == apiextensionsv1.Established && condition.Status == apiextensionsv1.ConditionTrue:
			served = true
		case condition.Type == apiextensionsv1.NamesAccepted && condition.Status == apiextensionsv1.ConditionFalse,
			condition.Type == apiextensionsv1.NonStructuralSchema && condition.Status == apiextensionsv1.ConditionTrue:
			refusal = fmt.Errorf("%s: %s", condition.Reason, condition.Message)
		}
	}
	return served, refusal
}
