// Command complete adds to generated CRDs what the markers of controller-gen cannot say: who converts between versions that
// differ, and of a CloneSet a sketch of the Pod template, so that the API server itself can check the few fields that matter,
// bounds on label selectors, without which the cost of the rules over them has no limit, and where v1beta1 takes fields in
// their old places. Everything else of a template stays without a schema. It rewrites the files that it is given and touches nothing else.
package main

import (
	"fmt"
	"os"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

// Bounds far above what anybody writes. A label value has at most 63 bytes in any case, a key 317.
const (
	maxLabels      = 128
	maxLabelKey    = 317
	maxLabelValue  = 63
	maxExpressions = 64
)

func main() {
	for _, path := range os.Args[1:] {
		if err := complete(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func complete(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(raw, &crd); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	crd.Spec.Conversion = conversion()
	if crd.Spec.Names.Kind == "CloneSet" {
		takeOldPlaces(crd.Spec.Versions)
		for i := range crd.Spec.Versions {
			root := crd.Spec.Versions[i].Schema.OpenAPIV3Schema
			spec := root.Properties["spec"]
			spec.Properties["selector"] = bounded(spec.Properties["selector"])
			spec.Properties["template"] = sketch(spec.Properties["template"])
			spec.XValidations = append(spec.XValidations, selectorMatchesTemplate()...)
			root.Properties["spec"] = spec
		}
	}
	out, err := yaml.Marshal(definition{crd.TypeMeta, meta{crd.Name, crd.Annotations}, crd.Spec})
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return os.WriteFile(path, out, 0o644)
}

// takeOldPlaces lets v1beta1 take the fields of v1alpha1 where they were, as kubectl sends them that takes the newest version by
// itself: `kubectl patch clone web -p '{"spec": {"updateStrategy": {"partition": 2}}}'`. Admission moves them; without a schema
// the API server would drop them before. They have no defaults, and nothing reads them.
func takeOldPlaces(versions []apiextensionsv1.CustomResourceDefinitionVersion) {
	at := func(version, strategy string) map[string]apiextensionsv1.JSONSchemaProps {
		for i := range versions {
			if versions[i].Name == version {
				return versions[i].Schema.OpenAPIV3Schema.Properties["spec"].Properties[strategy].Properties
			}
		}
		panic("no version " + version)
	}
	for _, strategy := range []string{"scaleStrategy", "updateStrategy"} {
		old, now := at("v1alpha1", strategy), at("v1beta1", strategy)
		for name, schema := range old {
			if _, has := now[name]; !has {
				schema = *schema.DeepCopy()
				schema.Default = nil
				schema.Description = "Taken here for v1alpha1's sake, and moved to its place in v1beta1 when it is written."
				now[name] = schema
			}
		}
	}
}

// conversion names the webhook that converts. Where the API server finds it, and whose certificates it trusts, is known
// only when it runs: then the executor writes it into the definition. Without a webhook the API server would drop what the
// other version does not have, so there is no manifest without one.
func conversion() *apiextensionsv1.CustomResourceConversion {
	return &apiextensionsv1.CustomResourceConversion{
		Strategy: apiextensionsv1.WebhookConverter,
		Webhook: &apiextensionsv1.WebhookConversion{
			ConversionReviewVersions: []string{"v1"},
			ClientConfig: &apiextensionsv1.WebhookClientConfig{Service: &apiextensionsv1.ServiceReference{
				Namespace: "kruise-system", Name: "kruise-webhook-service", Path: ptr.To("/convert"), Port: ptr.To[int32](443),
			}},
		},
	}
}

// definition is a CRD without status and creation time, which are not ours to write.
type definition struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        meta                                         `json:"metadata"`
	Spec            apiextensionsv1.CustomResourceDefinitionSpec `json:"spec"`
}

type meta struct {
	Name        string            `json:"name"`
	Annotations map[string]string `json:"annotations,omitempty"`
}
