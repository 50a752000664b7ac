package crd_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"shiplog.dev/deploy/crd"
	"shiplog.dev/deploy/crd/apitest"
	"shiplog.dev/services/executor/webhook/hooktest"
)

// stored is a CloneSet as OpenKruise 1.9 leaves it in etcd.
const stored = `
apiVersion: apps.kruise.io/v1alpha1
kind: CloneSet
metadata:
  name: web
  labels: {apps.kruise.io/cloneset-scaling-exclude-preparing-delete: "true"}
  annotations: {apps.kruise.io/image-predownload-parallelism: "2"}
spec:
  replicas: 5
  revisionHistoryLimit: 10
  scaleStrategy: {}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {creationTimestamp: null, labels: {app: web}}
    spec: {containers: [{name: main, image: "nginx:1", resources: {}}], unknown: kept}
  updateStrategy: {type: InPlaceIfPossible, inPlaceUpdateStrategy: {}, partition: 60%, maxUnavailable: 20%, maxSurge: 0}
`

// api-surface R8, cloneset 2: a cluster whose CloneSets OpenKruise 1.9 stored is taken over. At no time is an object
// unreadable in the version it was written in, and in the end all are stored in the new one.
func TestTakeOverFromOpenKruise(t *testing.T) {
	config := apitest.Config(t)
	definitions := apiextensions.NewForConfigOrDie(config).CustomResourceDefinitions()
	asOpenKruise(t, definitions)
	namespace := apitest.Namespace(t, config)
	old, now := dynamic.NewForConfigOrDie(config).Resource(alpha).Namespace(namespace), dynamic.NewForConfigOrDie(config).Resource(beta).Namespace(namespace)
	var before unstructured.Unstructured
	if err := yaml.Unmarshal([]byte(stored), &before.Object); err != nil {
		t.Fatal(err)
	}
	// The definition was just replaced; the API server may need a moment to take objects again.
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 10*time.Second, true, func(ctx context.Context) (bool, error) {
		_, err := old.Create(ctx, &before, metav1.CreateOptions{})
		return err == nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}

	// Somebody reads all the while.
	reading, stopReading := context.WithCancel(t.Context())
	unread := make(chan error, 1)
	go func() {
		defer close(unread)
		for reading.Err() == nil {
			if _, err := old.Get(reading, "web", metav1.GetOptions{}); err != nil && reading.Err() == nil {
				unread <- err
				return
			}
		}
	}()

	stop := hooktest.Start(t, config, "")
	if list := storedVersions(t, definitions); !slices.Equal(list, []string{"v1alpha1", "v1beta1"}) {
		t.Errorf("stored versions are %v", list)
	}
	if rewritten, err := crd.Migrate(t.Context(), config); err != nil || rewritten < 1 {
		t.Errorf("%d rewritten, %v", rewritten, err)
	}
	if list := storedVersions(t, definitions); !slices.Equal(list, []string{"v1beta1"}) {
		t.Errorf("stored versions are %v", list)
	}
	if rewritten, err := crd.Migrate(t.Context(), config); err != nil || rewritten != 0 {
		t.Errorf("again: %d rewritten, %v", rewritten, err)
	}
	seen, err := old.Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	delete(seen.Object["spec"].(map[string]any), "minReadySeconds") // a default of ours
	got, _ := json.Marshal([]any{seen.GetGeneration(), seen.GetLabels(), seen.GetAnnotations(), seen.Object["spec"]})
	want, _ := json.Marshal([]any{1, before.GetLabels(), before.GetAnnotations(), before.Object["spec"]})
	if string(got) != string(want) {
		t.Errorf("v1alpha1 shows\n%s\nwant\n%s", got, want)
	}
	stopReading()
	if err := <-unread; err != nil {
		t.Errorf("unreadable for a while: %v", err)
	}

	// With nobody to convert only what is stored as v1beta1 can be read as such.
	stop()
	if _, err := now.Get(t.Context(), "web", metav1.GetOptions{}); err != nil {
		t.Errorf("not stored in v1beta1: %v", err)
	}
	if _, err := old.Get(t.Context(), "web", metav1.GetOptions{}); err == nil || !strings.Contains(err.Error(), "conversion webhook") {
		t.Errorf("v1alpha1 without a webhook: %v", err)
	}
}

func storedVersions(t *testing.T, definitions apiextensions.CustomResourceDefinitionInterface) []string {
	t.Helper()
	definition, err := definitions.Get(t.Context(), "clonesets.apps.kruise.io", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return definition.Status.StoredVersions
}

// asOpenKruise replaces the definition with one as OpenKruise 1.9 has it: v1alpha1 alone, nothing checked, nothing defaulted.
func asOpenKruise(t *testing.T, definitions apiextensions.CustomResourceDefinitionInterface) {
	t.Helper()
	ours, err := definitions.Get(t.Context(), "clonesets.apps.kruise.io", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := definitions.Delete(t.Context(), ours.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	open := apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: new(true)}
	theirs := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: ours.Name}, Spec: apiextensionsv1.CustomResourceDefinitionSpec{
		Group: ours.Spec.Group, Names: ours.Spec.Names, Scope: ours.Spec.Scope,
		Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
			Name: "v1alpha1", Served: true, Storage: true, Subresources: ours.Spec.Versions[0].Subresources,
			Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
				Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"spec": open, "status": open},
			}},
		}},
	}}
	err = wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		_, err := definitions.Create(ctx, theirs, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return false, nil // the old one is being deleted, with its objects
		}
		return err == nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
}
