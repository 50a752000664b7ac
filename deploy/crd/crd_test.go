package crd_test

import (
	"encoding/json"
	"strings"
	"testing"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"shiplog.dev/api/kruise/apps/v1alpha1"
	"shiplog.dev/deploy/crd"
	"shiplog.dev/deploy/crd/apitest"
)

var cloneSets = v1alpha1.GroupVersion.WithResource("clonesets")

// minimal is a CloneSet with nothing but what is required.
const minimal = `
apiVersion: apps.kruise.io/v1alpha1
kind: CloneSet
metadata: {generateName: sample-}
spec:
  selector: {matchLabels: {app: sample}}
  template:
    metadata: {creationTimestamp: null, labels: {app: sample}, annotations: {kept: "yes"}}
    spec:
      unknownField: kept
      containers: [{name: main, image: "nginx:1"}]
`

func TestInstallAgainWritesNothing(t *testing.T) {
	config := apitest.Config(t)
	client := apiextensions.NewForConfigOrDie(config).CustomResourceDefinitions()
	before, err := client.Get(t.Context(), "clonesets.apps.kruise.io", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := crd.Install(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	after, err := client.Get(t.Context(), "clonesets.apps.kruise.io", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if before.ResourceVersion != after.ResourceVersion {
		t.Errorf("resource version went from %s to %s", before.ResourceVersion, after.ResourceVersion)
	}
}

func TestDefaultsAreStored(t *testing.T) {
	config := apitest.Config(t)
	client := dynamic.NewForConfigOrDie(config).Resource(cloneSets).Namespace(apitest.Namespace(t, config))
	for _, patch := range []string{`{}`, `{"spec":{"updateStrategy":{}}}`, `{"spec":{"replicas":null,"updateStrategy":null}}`} {
		stored, err := client.Create(t.Context(), object(t, patch), metav1.CreateOptions{})
		if err != nil {
			t.Fatalf("create with %s: %v", patch, err)
		}
		raw, _ := json.Marshal(stored.Object["spec"])
		want := `{"minReadySeconds":0,"replicas":1,"revisionHistoryLimit":10,"scaleStrategy":{},"selector":{"matchLabels":{"app":"sample"}},` +
			`"template":{"metadata":{"annotations":{"kept":"yes"},"creationTimestamp":null,"labels":{"app":"sample"}},` +
			`"spec":{"containers":[{"image":"nginx:1","name":"main"}],"unknownField":"kept"}},` +
			`"updateStrategy":{"maxUnavailable":"20%","partition":0,"type":"ReCreate"}}`
		if string(raw) != want {
			t.Errorf("with %s stored\n%s\nwant\n%s", patch, raw, want)
		}
	}
}

// Each case is a merge patch on the minimal CloneSet; the API server must refuse it with these words, or take it.
func TestSpecRules(t *testing.T) {
	config := apitest.Config(t)
	client := dynamic.NewForConfigOrDie(config).Resource(cloneSets).Namespace(apitest.Namespace(t, config))
	for _, c := range []struct{ patch, refusal string }{
		{`{"spec":{"selector":null}}`, "spec.selector: Required value"},
		{`{"spec":{"template":null}}`, "spec.template: Required value"},
		{`{"spec":{"selector":{"matchLabels":null}}}`, "selector must not be empty"},
		{`{"spec":{"selector":{"matchLabels":{"app":"other"}}}}`, "template.metadata.labels must match selector.matchLabels"},
		{`{"spec":{"template":{"metadata":null}}}`, "template.metadata.labels must match selector.matchLabels"},
		{`{"spec":{"selector":{"matchExpressions":[{"key":"app","operator":"In","values":["a","sample"]}]}}}`, ""},
		{`{"spec":{"selector":{"matchExpressions":[{"key":"app","operator":"NotIn","values":["sample"]}]}}}`, "must match selector.matchExpressions"},
		{`{"spec":{"selector":{"matchExpressions":[{"key":"none","operator":"Exists"}]}}}`, "must match selector.matchExpressions"},
		{`{"spec":{"selector":{"matchExpressions":[{"key":"none","operator":"DoesNotExist"}]}}}`, ""},
		{`{"spec":{"template":{"spec":{"restartPolicy":"OnFailure"}}}}`, "template.spec.restartPolicy must be 'Always'"},
		{`{"spec":{"template":{"spec":{"restartPolicy":"Always"}}}}`, ""},
		{`{"spec":{"template":{"spec":{"activeDeadlineSeconds":5}}}}`, "activeDeadlineSeconds is forbidden"},
		{`{"spec":{"volumeClaimTemplates":[{"metadata":{"name":"data","creationTimestamp":null},"spec":{"x":1}}]}}`, ""},
		{`{"spec":{"replicas":-1}}`, "replicas must be greater than or equal to 0"},
		{`{"spec":{"revisionHistoryLimit":-1}}`, "revisionHistoryLimit must be"},
		{`{"spec":{"minReadySeconds":-1}}`, "minReadySeconds must be"},
		{`{"spec":{"progressDeadlineSeconds":-1}}`, "progressDeadlineSeconds must be"},
		{`{"spec":{"progressDeadlineSeconds":10,"minReadySeconds":10}}`, "progressDeadlineSeconds must be greater than minReadySeconds"},
		{`{"spec":{"progressDeadlineSeconds":11,"minReadySeconds":10}}`, ""},
		{`{"spec":{"progressDeadlineSeconds":2147483647,"minReadySeconds":2147483647}}`, ""},
		{`{"spec":{"scaleStrategy":{"podsToDelete":["a","a"]}}}`, "spec.scaleStrategy.podsToDelete[1]: Duplicate value"},
		{`{"spec":{"scaleStrategy":{"maxUnavailable":"5"}}}`, "spec.scaleStrategy.maxUnavailable: Invalid value: \"5\": maxUnavailable must be"},
		{`{"spec":{"scaleStrategy":{"maxUnavailable":"33.3%"}}}`, ""},
		{`{"spec":{"scaleStrategy":{"maxUnavailable":0}}}`, ""},
		{`{"spec":{"updateStrategy":{"type":"Other"}}}`, `spec.updateStrategy.type: Unsupported value: "Other"`},
		{`{"spec":{"updateStrategy":{"type":"OnDelete"}}}`, ""},
		{`{"spec":{"updateStrategy":{"type":""}}}`, ""},
		{`{"spec":{"updateStrategy":{"partition":"5"}}}`, "partition must be"},
		{`{"spec":{"updateStrategy":{"partition":-1}}}`, "partition must be"},
		{`{"spec":{"updateStrategy":{"partition":"99.9%"}}}`, ""},
		{`{"spec":{"updateStrategy":{"maxUnavailable":"x%"}}}`, "maxUnavailable must be"},
		{`{"spec":{"updateStrategy":{"maxSurge":"-1%"}}}`, "maxSurge must be"},
		{`{"spec":{"updateStrategy":{"maxUnavailable":0}}}`, "maxUnavailable and maxSurge should not both be less than 1"},
		{`{"spec":{"updateStrategy":{"maxUnavailable":"0%","maxSurge":"0.0%"}}}`, "maxUnavailable and maxSurge should not both be less than 1"},
		{`{"spec":{"updateStrategy":{"maxUnavailable":0,"maxSurge":1}}}`, ""},
		{`{"spec":{"updateStrategy":{"maxUnavailable":0,"maxSurge":"10%"}}}`, ""},
		{`{"spec":{"replicas":0,"updateStrategy":{"maxUnavailable":0}}}`, ""},
		{`{"spec":{"updateStrategy":{"type":"InPlaceOnly","maxSurge":1}}}`, "can not use maxSurge with strategy type InPlaceOnly"},
		{`{"spec":{"updateStrategy":{"type":"InPlaceOnly","maxSurge":"0%"}}}`, ""},
		{`{"spec":{"updateStrategy":{"priorityStrategy":{"orderPriority":[{"orderedKey":"k"}],"weightPriority":[{"weight":1,"matchSelector":{"matchLabels":{"a":"b"}}}]}}}}`, "must not both be set"},
		{`{"spec":{"updateStrategy":{"priorityStrategy":{"weightPriority":[{"weight":101,"matchSelector":{"matchLabels":{"a":"b"}}}]}}}}`, "weight"},
		{`{"spec":{"updateStrategy":{"priorityStrategy":{"weightPriority":[{"weight":1,"matchSelector":{}}]}}}}`, "matchSelector must not be empty"},
		{`{"spec":{"updateStrategy":{"priorityStrategy":{"orderPriority":[{"orderedKey":""}]}}}}`, "orderedKey"},
		{`{"spec":{"updateStrategy":{"scatterStrategy":[{"key":"a","value":"b"},{"key":"a","value":"b"}]}}}`, "Duplicate value"},
		{`{"spec":{"updateStrategy":{"scatterStrategy":[{"key":"a","value":"b"},{"key":"a","value":"c"}]}}}`, ""},
		{`{"spec":{"updateStrategy":{"inPlaceUpdateStrategy":{"gracePeriodSeconds":-1}}}}`, "gracePeriodSeconds must be"},
	} {
		_, err := client.Create(t.Context(), object(t, c.patch), metav1.CreateOptions{})
		switch {
		case c.refusal == "" && err != nil:
			t.Errorf("%s: %v", c.patch, err)
		case c.refusal != "" && (err == nil || !strings.Contains(err.Error(), c.refusal)):
			t.Errorf("%s: got %v, want %q", c.patch, err, c.refusal)
		}
	}
}

func TestSelectorIsImmutable(t *testing.T) {
	config := apitest.Config(t)
	client := dynamic.NewForConfigOrDie(config).Resource(cloneSets).Namespace(apitest.Namespace(t, config))
	stored, err := client.Create(t.Context(), object(t, `{"spec":{"template":{"metadata":{"labels":{"tier":"web"}}}}}`), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	patch := []byte(`{"spec":{"selector":{"matchLabels":{"tier":"web"}}}}`)
	_, err = client.Patch(t.Context(), stored.GetName(), types.MergePatchType, patch, metav1.PatchOptions{})
	if err == nil || !strings.Contains(err.Error(), "selector is immutable") {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestStatusAndScale(t *testing.T) {
	config := apitest.Config(t)
	client := dynamic.NewForConfigOrDie(config).Resource(cloneSets).Namespace(apitest.Namespace(t, config))
	stored, err := client.Create(t.Context(), object(t, `{}`), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	name := stored.GetName()

	if _, err := client.Patch(t.Context(), name, types.MergePatchType, []byte(`{"status":{"replicas":1}}`), metav1.PatchOptions{}, "status"); err == nil {
		t.Error("a status without readyReplicas was taken")
	}
	status, _ := json.Marshal(map[string]any{"status": v1alpha1.CloneSetStatus{Replicas: 3, LabelSelector: "app=sample"}})
	written, err := client.Patch(t.Context(), name, types.MergePatchType, status, metav1.PatchOptions{}, "status")
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(written.Object["status"])
	want := `{"availableReplicas":0,"expectedUpdatedReplicas":0,"labelSelector":"app=sample","readyReplicas":0,"replicas":3,` +
		`"updatedAvailableReplicas":0,"updatedReadyReplicas":0,"updatedReplicas":0}`
	if string(got) != want {
		t.Errorf("status is\n%s\nwant\n%s", got, want)
	}

	scaled, err := client.Patch(t.Context(), name, types.MergePatchType, []byte(`{"spec":{"replicas":5}}`), metav1.PatchOptions{}, "scale")
	if err != nil {
		t.Fatal(err)
	}
	got, _ = json.Marshal([]any{scaled.Object["spec"], scaled.Object["status"]})
	if want := `[{"replicas":5},{"replicas":3,"selector":"app=sample"}]`; string(got) != want {
		t.Errorf("scale is %s, want %s", got, want)
	}
}

func object(t *testing.T, patch string) *unstructured.Unstructured {
	t.Helper()
	var whole, change map[string]any
	if err := yaml.Unmarshal([]byte(minimal), &whole); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(patch), &change); err != nil {
		t.Fatal(err)
	}
	merge(whole, change)
	raw, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	var result unstructured.Unstructured
	if err := result.UnmarshalJSON(raw); err != nil {
		t.Fatal(err)
	}
	return &result
}

// merge is RFC 7386 except that null is kept, to see what the API server makes of it.
func merge(into, change map[string]any) {
	for key, value := range change {
		inner, isMap := value.(map[string]any)
		target, hasMap := into[key].(map[string]any)
		if isMap && hasMap {
			merge(target, inner)
			continue
		}
		into[key] = value
	}
}
