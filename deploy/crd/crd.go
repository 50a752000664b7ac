// Package crd holds the manifests of the custom resources and installs them. The manifests are generated from
// api/kruise; it reads and writes CustomResourceDefinitions, and custom resources only to have them stored in another version.
package crd

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
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

// Manifests returns every definition, ordered by file name. The caller must not change them: they are read once, because reading YAML
// every time that registrations are looked at was most of what an idle executor did.
var Manifests = sync.OnceValues(readManifests)

func readManifests() ([]Manifest, error) {
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

// Install creates or updates every definition and returns when the API server serves them. Conversions go to the given
// webhook, which must be answering by now: objects stored in an older version need it from here on. Without one (nil) they
// go where they went before. A definition that is as it should be is not written again. An error names the definition;
// those installed before it stay.
func Install(ctx context.Context, config *rest.Config, conversion *apiextensionsv1.WebhookClientConfig) error {
	definitions, err := connect(config)
	if err != nil {
		return err
	}
	all, err := Manifests()
	if err != nil {
		return fmt.Errorf("read the built-in CRDs: %w", err)
	}
	for _, manifest := range all {
		body, err := directed(ctx, definitions, manifest, conversion)
		if err != nil {
			return fmt.Errorf("prepare CRD %s: %w", manifest.Name, err)
		}
		// The API server leaves the object and its version alone when applying changes nothing.
		options := metav1.PatchOptions{FieldManager: Owner, Force: ptr.To(true)}
		if _, err := definitions.Patch(ctx, manifest.Name, types.ApplyYAMLPatchType, body, options); err != nil {
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

// Direct sends the conversions of every definition to the given webhook, and says whether that was not so before.
func Direct(ctx context.Context, config *rest.Config, conversion *apiextensionsv1.WebhookClientConfig) (changed bool, err error) {
	definitions, err := connect(config)
	if err != nil {
		return false, err
	}
	all, err := Manifests()
	if err != nil {
		return false, fmt.Errorf("read the built-in CRDs: %w", err)
	}
	for _, manifest := range all {
		present, err := definitions.Get(ctx, manifest.Name, metav1.GetOptions{})
		if err != nil {
			return changed, fmt.Errorf("read CRD %s: %w", manifest.Name, err)
		}
		wrote, err := direct(ctx, definitions, present, conversion)
		changed = changed || wrote
		if err != nil {
			return changed, fmt.Errorf("send conversions of CRD %s to the webhook: %w", manifest.Name, err)
		}
	}
	return changed, nil
}

type definitions = apiextensions.CustomResourceDefinitionInterface

func connect(config *rest.Config) (definitions, error) {
	client, err := apiextensions.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to install CRDs: %w", err)
	}
	return client.CustomResourceDefinitions(), nil
}

// directed returns the manifest with the webhook to apply. A definition that names another is corrected beforehand:
// applying would leave a URL beside a Service, and the API server takes one of them only.
func directed(ctx context.Context, definitions definitions, manifest Manifest, conversion *apiextensionsv1.WebhookClientConfig) ([]byte, error) {
	present, err := definitions.Get(ctx, manifest.Name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	if err == nil && present.Spec.Conversion != nil && present.Spec.Conversion.Webhook != nil {
		if conversion == nil {
			conversion = present.Spec.Conversion.Webhook.ClientConfig
		} else if _, err := direct(ctx, definitions, present, conversion); err != nil {
			return nil, err
		}
	}
	if conversion == nil {
		return manifest.YAML, nil
	}
	var whole map[string]any
	if err := yaml.Unmarshal(manifest.YAML, &whole); err != nil {
		return nil, err
	}
	if _, converts, _ := unstructured.NestedMap(whole, "spec", "conversion", "webhook"); !converts {
		return manifest.YAML, nil // its versions are equal
	}
	if err := unstructured.SetNestedField(whole, asTree(conversion), "spec", "conversion", "webhook", "clientConfig"); err != nil {
		return nil, err
	}
	return json.Marshal(whole)
}

func direct(ctx context.Context, definitions definitions, present *apiextensionsv1.CustomResourceDefinition, conversion *apiextensionsv1.WebhookClientConfig) (bool, error) {
	if now := present.Spec.Conversion; now == nil || now.Webhook == nil || equality.Semantic.DeepEqual(now.Webhook.ClientConfig, conversion) {
		return false, nil
	}
	config := asTree(conversion)
	for _, other := range []string{"url", "service"} {
		if _, has := config[other]; !has {
			config[other] = nil
		}
	}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"conversion": map[string]any{"webhook": map[string]any{"clientConfig": config}}}})
	if err != nil {
		return false, err
	}
	_, err = definitions.Patch(ctx, present.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: Owner})
	return err == nil, err
}

func asTree(conversion *apiextensionsv1.WebhookClientConfig) map[string]any {
	tree, err := runtime.DefaultUnstructuredConverter.ToUnstructured(conversion)
	if err != nil {
		panic(fmt.Sprintf("crd: %v", err)) // it holds strings, bytes and numbers
	}
	return tree
}

func established(ctx context.Context, definitions definitions, name string) error {
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
