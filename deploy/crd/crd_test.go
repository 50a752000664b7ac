package crd_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"sigs.k8s.io/yaml"

	"shiplog.dev/api/kruise/apps/v1alpha1"
	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/deploy/crd"
	"shiplog.dev/deploy/crd/apitest"
	"shiplog.dev/services/executor/webhook/hooktest"
)

var (
	alpha = v1alpha1.GroupVersion.WithResource("clonesets")
	beta  = v1beta1.GroupVersion.WithResource("clonesets")
)

// minimal is a CloneSet with nothing but what is required.
const minimal = `
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
	if err := crd.Install(t.Context(), config, nil); err != nil {
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

// cloneset 2.1: defaults are stored, partition 0 included, in the shape of each version.
func TestDefaultsAreStored(t *testing.T) {
	config := apitest.Config(t)
	hooktest.Start(t, config, "TemplateNoDefaults=true")
	namespace := apitest.Namespace(t, config)
	for _, version := range []struct {
		resource schema.GroupVersionResource
		scale    string
		update   string
	}{
		{alpha, `{}`, `{"maxUnavailable":"20%","partition":0,"type":"ReCreate"}`},
		{beta, `{"enablePVCReuse":false}`, `{"rollingUpdate":{"maxUnavailable":"20%","partition":0,"podUpdatePolicy":"ReCreate"},"type":"RollingUpdate"}`},
	} {
		client := dynamic.NewForConfigOrDie(config).Resource(version.resource).Namespace(namespace)
		for _, patch := range []string{`{}`, `{"spec":{"updateStrategy":{}}}`, `{"spec":{"replicas":null,"updateStrategy":null,"scaleStrategy":null}}`} {
			stored, err := client.Create(t.Context(), object(t, version.resource, patch), metav1.CreateOptions{})
			if err != nil {
				t.Fatalf("create %s with %s: %v", version.resource.Version, patch, err)
			}
			raw, _ := json.Marshal(stored.Object["spec"])
			want := `{"minReadySeconds":0,"replicas":1,"revisionHistoryLimit":10,"scaleStrategy":` + version.scale + `,"selector":{"matchLabels":{"app":"sample"}},` +
				`"template":{"metadata":{"annotations":{"kept":"yes"},"creationTimestamp":null,"labels":{"app":"sample"}},` +
				`"spec":{"containers":[{"image":"nginx:1","name":"main"}],"unknownField":"kept"}},` +
				`"updateStrategy":` + version.update + `}`
			if string(raw) != want {
				t.Errorf("%s with %s stored\n%s\nwant\n%s", version.resource.Version, patch, raw, want)
			}
		}
	}
}

// Each case is a merge patch on the minimal CloneSet of v1alpha1; the API server must refuse it with these words, or take
// it, in both versions: cloneset 2.1, A3, A4, A8, D1, D9, D17, inplace-update A2. UPDATE is where a version has the fields of a rolling update,
// TYPE its field for the type.
func TestSpecRules(t *testing.T) {
	config := apitest.Config(t)
	hooktest.Start(t, config, "")
	namespace := apitest.Namespace(t, config)
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
		{`{"spec":{"updateStrategy":{"type":"Other"}}}`, `TYPE: Unsupported value: "Other"`},
		{`{"spec":{"updateStrategy":{"type":"OnDelete"}}}`, ""},
		{`{"spec":{"updateStrategy":{"type":""}}}`, ""},
		{`{"spec":{"updateStrategy":{"partition":"5"}}}`, "UPDATE.partition: Invalid value: \"5\": partition must be"},
		{`{"spec":{"updateStrategy":{"partition":-1}}}`, "UPDATE.partition: Invalid value: -1: partition must be"},
		{`{"spec":{"updateStrategy":{"partition":"99.9%"}}}`, ""},
		{`{"spec":{"updateStrategy":{"maxUnavailable":"x%"}}}`, "UPDATE.maxUnavailable: Invalid value: \"x%\": maxUnavailable must be"},
		{`{"spec":{"updateStrategy":{"maxSurge":"-1%"}}}`, "UPDATE.maxSurge: Invalid value: \"-1%\": maxSurge must be"},
		{`{"spec":{"updateStrategy":{"maxUnavailable":0}}}`, "UPDATE.maxUnavailable: Invalid value: maxUnavailable and maxSurge should not both be less than 1"},
		{`{"spec":{"updateStrategy":{"maxUnavailable":"0%","maxSurge":"0.0%"}}}`, "maxUnavailable and maxSurge should not both be less than 1"},
		{`{"spec":{"updateStrategy":{"maxUnavailable":0,"maxSurge":1}}}`, ""},
		{`{"spec":{"updateStrategy":{"maxUnavailable":0,"maxSurge":"10%"}}}`, ""},
		{`{"spec":{"replicas":0,"updateStrategy":{"maxUnavailable":0}}}`, ""},
		{`{"spec":{"updateStrategy":{"type":"InPlaceOnly","maxSurge":1}}}`, "UPDATE.maxSurge: Invalid value: can not use maxSurge with strategy type InPlaceOnly"},
		{`{"spec":{"updateStrategy":{"type":"InPlaceOnly","maxSurge":"0%"}}}`, ""},
		{`{"spec":{"updateStrategy":{"priorityStrategy":{"orderPriority":[{"orderedKey":"k"}],"weightPriority":[{"weight":1,"matchSelector":{"matchLabels":{"a":"b"}}}]}}}}`, "must not both be set"},
		{`{"spec":{"updateStrategy":{"priorityStrategy":{"weightPriority":[{"weight":101,"matchSelector":{"matchLabels":{"a":"b"}}}]}}}}`, "weight"},
		{`{"spec":{"updateStrategy":{"priorityStrategy":{"weightPriority":[{"weight":1,"matchSelector":{}}]}}}}`, "matchSelector must not be empty"},
		{`{"spec":{"updateStrategy":{"priorityStrategy":{"orderPriority":[{"orderedKey":""}]}}}}`, "orderedKey"},
		{`{"spec":{"updateStrategy":{"scatterStrategy":[{"key":"a","value":"b"},{"key":"a","value":"b"}]}}}`, "Duplicate value"},
		{`{"spec":{"updateStrategy":{"scatterStrategy":[{"key":"a","value":"b"},{"key":"a","value":"c"}]}}}`, ""},
		{`{"spec":{"updateStrategy":{"inPlaceUpdateStrategy":{"gracePeriodSeconds":-1}}}}`, "gracePeriodSeconds must be"},
	} {
		for _, version := range []schema.GroupVersionResource{alpha, beta} {
			patch, refusal := c.patch, strings.NewReplacer("UPDATE", "spec.updateStrategy", "TYPE", "spec.updateStrategy.type").Replace(c.refusal)
			if version == beta {
				patch = rolling(t, c.patch)
				refusal = strings.NewReplacer("UPDATE", "spec.updateStrategy.rollingUpdate", "TYPE", "spec.updateStrategy.rollingUpdate.podUpdatePolicy").Replace(c.refusal)
			}
			client := dynamic.NewForConfigOrDie(config).Resource(version).Namespace(namespace)
			_, err := client.Create(t.Context(), object(t, version, patch), metav1.CreateOptions{})
			switch {
			case refusal == "" && err != nil:
				t.Errorf("%s: %s: %v", version.Version, patch, err)
			case refusal != "" && (err == nil || !strings.Contains(err.Error(), refusal)):
				t.Errorf("%s: %s: got %v, want %q", version.Version, patch, err, refusal)
			}
		}
	}
}

// rolling puts the fields of v1alpha1's update strategy where v1beta1 has them.
func rolling(t *testing.T, patch string) string {
	t.Helper()
	var whole map[string]any
	if err := json.Unmarshal([]byte(patch), &whole); err != nil {
		t.Fatal(err)
	}
	spec, _ := whole["spec"].(map[string]any)
	update, is := spec["updateStrategy"].(map[string]any)
	if !is {
		return patch
	}
	moved := map[string]any{"rollingUpdate": update}
	if policy, has := update["type"]; has && policy == "OnDelete" {
		moved["type"] = policy
	} else if has {
		update["podUpdatePolicy"] = policy
	}
	delete(update, "type")
	spec["updateStrategy"] = moved
	raw, _ := json.Marshal(whole)
	return string(raw)
}

// cloneset 2.1: what only v1beta1 has.
func TestV1beta1Rules(t *testing.T) {
	config := apitest.Config(t)
	hooktest.Start(t, config, "")
	client := dynamic.NewForConfigOrDie(config).Resource(beta).Namespace(apitest.Namespace(t, config))
	inPlace := func(fields string) string {
		return `{"spec":{"updateStrategy":{"rollingUpdate":{"inPlaceUpdateStrategy":` + fields + `}}}}`
	}
	for _, c := range []struct{ patch, refusal string }{
		{inPlace(`{"imagePreDownloadParallelism":"10%"}`), "imagePreDownloadParallelism: Invalid value: \"string\""},
		{inPlace(`{"imagePreDownloadParallelism":-1}`), "imagePreDownloadParallelism must be greater than or equal to 0"},
		{inPlace(`{"imagePreDownloadTimeoutSeconds":-1}`), "imagePreDownloadTimeoutSeconds must be greater than or equal to 0"},
		{inPlace(`{"imagePreDownloadMinUpdatedReadyPods":-1}`), "imagePreDownloadMinUpdatedReadyPods must be greater than or equal to 0"},
		{inPlace(`{"imagePreDownloadParallelism":2,"imagePreDownloadTimeoutSeconds":3,"imagePreDownloadMinUpdatedReadyPods":4}`), ""},
		{`{"spec":{"updateStrategy":{"type":"Other"}}}`, `spec.updateStrategy.type: Unsupported value: "Other"`},
		{`{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":{"podUpdatePolicy":"InPlaceOnly","maxSurge":1}}}}`, ""},
		{`{"spec":{"scaleStrategy":{"enablePVCReuse":true,"excludePreparingDelete":true}}}`, ""},
	} {
		_, err := client.Create(t.Context(), object(t, beta, c.patch), metav1.CreateOptions{})
		if c.refusal == "" && err != nil || c.refusal != "" && (err == nil || !strings.Contains(err.Error(), c.refusal)) {
			t.Errorf("%s: got %v, want %q", c.patch, err, c.refusal)
		}
	}
	// cloneset 2.3: v1alpha1 does not show the fields for which it has annotations.
	client = dynamic.NewForConfigOrDie(config).Resource(alpha).Namespace(apitest.Namespace(t, config))
	stored, err := client.Create(t.Context(), object(t, alpha, `{"spec":{"updateStrategy":{"inPlaceUpdateStrategy":{"imagePreDownloadParallelism":2}}}}`), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if in, _, _ := unstructured.NestedMap(stored.Object, "spec", "updateStrategy", "inPlaceUpdateStrategy"); len(in) > 0 {
		t.Errorf("v1alpha1 took %v", in)
	}
}

// cloneset A5: the selector is the only field that cannot change.
func TestSelectorIsImmutable(t *testing.T) {
	config := apitest.Config(t)
	client := dynamic.NewForConfigOrDie(config).Resource(beta).Namespace(apitest.Namespace(t, config))
	stored, err := client.Create(t.Context(), object(t, beta, `{"spec":{"template":{"metadata":{"labels":{"tier":"web"}}}}}`), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	patch := []byte(`{"spec":{"selector":{"matchLabels":{"tier":"web"}}}}`)
	_, err = client.Patch(t.Context(), stored.GetName(), types.MergePatchType, patch, metav1.PatchOptions{})
	if err == nil || !strings.Contains(err.Error(), "selector is immutable") {
		t.Errorf("got %v, want a refusal", err)
	}
}

// cloneset 2: status and scale are subresources of both versions, and updatedAvailableReplicas is never absent.
func TestStatusAndScale(t *testing.T) {
	config := apitest.Config(t)
	hooktest.Start(t, config, "")
	namespace := apitest.Namespace(t, config)
	for _, version := range []schema.GroupVersionResource{alpha, beta} {
		client := dynamic.NewForConfigOrDie(config).Resource(version).Namespace(namespace)
		stored, err := client.Create(t.Context(), object(t, version, `{}`), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		name := stored.GetName()

		if _, err := client.Patch(t.Context(), name, types.MergePatchType, []byte(`{"status":{"replicas":1}}`), metav1.PatchOptions{}, "status"); err == nil {
			t.Error("a status without readyReplicas was taken")
		}
		status, _ := json.Marshal(map[string]any{"status": v1beta1.CloneSetStatus{Replicas: 3, LabelSelector: "app=sample"}})
		written, err := client.Patch(t.Context(), name, types.MergePatchType, status, metav1.PatchOptions{}, "status")
		if err != nil {
			t.Fatal(err)
		}
		got, _ := json.Marshal(written.Object["status"])
		want := `{"availableReplicas":0,"expectedUpdatedReplicas":0,"labelSelector":"app=sample","readyReplicas":0,"replicas":3,` +
			`"updatedAvailableReplicas":0,"updatedReadyReplicas":0,"updatedReplicas":0}`
		if string(got) != want {
			t.Errorf("%s: status is\n%s\nwant\n%s", version.Version, got, want)
		}

		scaled, err := client.Patch(t.Context(), name, types.MergePatchType, []byte(`{"spec":{"replicas":5}}`), metav1.PatchOptions{}, "scale")
		if err != nil {
			t.Fatal(err)
		}
		got, _ = json.Marshal([]any{scaled.Object["spec"], scaled.Object["status"]})
		if want := `[{"replicas":5},{"replicas":3,"selector":"app=sample"}]`; string(got) != want {
			t.Errorf("%s: scale is %s, want %s", version.Version, got, want)
		}

		// The way of a HorizontalPodAutoscaler: by group, kind and name, in the version that discovery prefers.
		discovered, err := discovery.NewDiscoveryClientForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		groups, err := restmapper.GetAPIGroupResources(discovered)
		if err != nil {
			t.Fatal(err)
		}
		scales, err := scale.NewForConfig(config, restmapper.NewDiscoveryRESTMapper(groups), dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(discovered))
		if err != nil {
			t.Fatal(err)
		}
		read, err := scales.Scales(namespace).Get(t.Context(), version.GroupResource(), name, metav1.GetOptions{})
		if err != nil || read.Spec.Replicas != 5 || read.Status.Replicas != 3 || read.Status.Selector != "app=sample" {
			t.Errorf("an autoscaler reads %v, %v", read, err)
		}
	}
}

// cloneset 2: what kubectl get prints.
func TestPrinterColumns(t *testing.T) {
	config := apitest.Config(t)
	hooktest.Start(t, config, "")
	namespace := apitest.Namespace(t, config)
	stored, err := dynamic.NewForConfigOrDie(config).Resource(beta).Namespace(namespace).Create(t.Context(), object(t, beta, `{"spec":{"replicas":7}}`), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	core := kubernetes.NewForConfigOrDie(config).CoreV1().RESTClient()
	for _, version := range []schema.GroupVersionResource{alpha, beta} {
		var table metav1.Table
		raw, err := core.Get().AbsPath("/apis", version.Group, version.Version, "namespaces", namespace, "clonesets", stored.GetName()).
			SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").Do(t.Context()).Raw()
		if err == nil {
			err = json.Unmarshal(raw, &table)
		}
		if err != nil {
			t.Fatal(err)
		}
		var columns []string
		for _, c := range table.ColumnDefinitions {
			columns = append(columns, fmt.Sprintf("%s/%d", c.Name, c.Priority))
		}
		want := "Name/0 DESIRED/0 UPDATED/0 UPDATED_READY/0 UPDATED_AVAILABLE/0 READY/0 TOTAL/0 AGE/0 CONTAINERS/1 IMAGES/1 SELECTOR/1"
		if got := strings.Join(columns, " "); got != want {
			t.Errorf("%s prints %s, want %s", version.Version, got, want)
		}
		if cells := fmt.Sprint(table.Rows[0].Cells[1], table.Rows[0].Cells[8:10]); cells != "7 [main nginx:1]" {
			t.Errorf("%s prints %s", version.Version, cells)
		}
	}
}

func object(t *testing.T, version schema.GroupVersionResource, patch string) *unstructured.Unstructured {
	t.Helper()
	var whole, change map[string]any
	if err := yaml.Unmarshal([]byte(minimal), &whole); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(patch), &change); err != nil {
		t.Fatal(err)
	}
	merge(whole, change)
	whole["apiVersion"] = version.GroupVersion().String()
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
