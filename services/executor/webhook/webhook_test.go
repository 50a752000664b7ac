package webhook_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"shiplog.dev/api/kruise/apps/v1alpha1"
	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/deploy/crd/apitest"
	"shiplog.dev/services/executor/webhook/hooktest"
)

var (
	alpha = v1alpha1.GroupVersion.WithResource("clonesets")
	beta  = v1beta1.GroupVersion.WithResource("clonesets")
)

// bench is an API server with webhooks, and a namespace on it.
type bench struct {
	*testing.T
	config    *rest.Config
	namespace string
	stop      func()
}

func open(t *testing.T, gates string) bench { return openWith(t, apitest.Config(t), gates) }

// openWith has everybody reach the API server by a configuration.
func openWith(t *testing.T, config *rest.Config, gates string) bench {
	stop := hooktest.Start(t, config, gates)
	return bench{t, config, apitest.Namespace(t, config), stop}
}

func (b bench) alpha() dynamic.ResourceInterface {
	return dynamic.NewForConfigOrDie(b.config).Resource(alpha).Namespace(b.namespace)
}

func (b bench) beta() dynamic.ResourceInterface {
	return dynamic.NewForConfigOrDie(b.config).Resource(beta).Namespace(b.namespace)
}

func (b bench) at(version string) dynamic.ResourceInterface {
	if version == alpha.Version {
		return b.alpha()
	}
	return b.beta()
}

// parse reads a CloneSet; what is required and not given is filled in.
func (b bench) parse(version, text string) *unstructured.Unstructured {
	b.Helper()
	whole := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &whole); err != nil {
		b.Fatal(err)
	}
	set := &unstructured.Unstructured{Object: whole}
	set.SetAPIVersion("apps.kruise.io/" + version)
	set.SetKind("CloneSet")
	if set.GetName() == "" {
		set.SetGenerateName("sample-")
	}
	for path, value := range map[string]any{
		"spec.selector":                 map[string]any{"matchLabels": map[string]any{"app": "sample"}},
		"spec.template.metadata.labels": map[string]any{"app": "sample"},
		"spec.template.spec.containers": []any{map[string]any{"name": "main", "image": "nginx:1"}},
	} {
		fields := strings.Split(path, ".")
		if _, has, _ := unstructured.NestedFieldNoCopy(whole, fields...); !has {
			if err := unstructured.SetNestedField(whole, value, fields...); err != nil {
				b.Fatal(err)
			}
		}
	}
	return set
}

func (b bench) create(version, text string) *unstructured.Unstructured {
	b.Helper()
	stored, err := b.at(version).Create(b.Context(), b.parse(version, text), metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return stored
}

func (b bench) get(version, name string) *unstructured.Unstructured {
	b.Helper()
	stored, err := b.at(version).Get(b.Context(), name, metav1.GetOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return stored
}

func (b bench) patch(version, name, patch string) error {
	_, err := b.at(version).Patch(b.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

func asJSON(value any) string {
	raw, _ := json.Marshal(value)
	return string(raw)
}

// cloneset 2.3: what was written in one version is read back from storage in it, to the last unknown field, whoever changed
// what in the other meanwhile.
func TestConversionThroughStorage(t *testing.T) {
	b := open(t, "TemplateNoDefaults=true")
	for version, texts := range map[string][]string{
		"v1alpha1": {
			`spec: {scaleStrategy: {disablePVCReuse: false, podsToDelete: []}, updateStrategy: {type: OnDelete, partition: 33.3%, maxSurge: 2, paused: true}}`,
			`{metadata: {labels: {apps.kruise.io/cloneset-scaling-exclude-preparing-delete: "true", a: b}, annotations: {apps.kruise.io/image-predownload-parallelism: "007",
			   apps.kruise.io/image-predownload-min-updated-ready-pods: 10%}}, spec: {updateStrategy: {type: InPlaceIfPossible, inPlaceUpdateStrategy: {gracePeriodSeconds: 4}}}}`,
			`spec: {template: {metadata: {labels: {app: sample}, creationTimestamp: null}, spec: {containers: [{name: main, image: "nginx:1"}], unknown: {ratio: 1.5, big: 9007199254740993}}},
			   volumeClaimTemplates: [{metadata: {name: data}, spec: {unknown: [1, a], volumeMode: Filesystem}, status: {phase: Pending}}]}`,
		},
		"v1beta1": {
			`spec: {updateStrategy: {type: OnDelete, rollingUpdate: {podUpdatePolicy: InPlaceOnly, partition: 1}}}`,
			`{metadata: {labels: {apps.kruise.io/cloneset-scaling-exclude-preparing-delete: "false"}}, spec: {scaleStrategy: {excludePreparingDelete: true, maxUnavailable: 1},
			   updateStrategy: {rollingUpdate: {podUpdatePolicy: InPlaceOnly, inPlaceUpdateStrategy: {imagePreDownloadParallelism: 2, imagePreDownloadTimeoutSeconds: 60}}}}}`,
		},
	} {
		other := map[string]string{"v1alpha1": "v1beta1", "v1beta1": "v1alpha1"}[version]
		for _, text := range texts {
			written := b.create(version, text)
			seen := b.get(other, written.GetName())
			if got, want := asJSON(b.get(version, written.GetName()).Object), asJSON(written.Object); got != want {
				t.Errorf("%s: read\n%s\nwritten\n%s", version, got, want)
			}
			// Written back unchanged through the other version, and changed where both have it.
			if _, err := b.at(other).Update(t.Context(), seen, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := b.patch(other, written.GetName(), `{"spec":{"replicas":7}}`); err != nil {
				t.Fatal(err)
			}
			if err := unstructured.SetNestedField(written.Object, int64(7), "spec", "replicas"); err != nil {
				t.Fatal(err)
			}
			read := b.get(version, written.GetName())
			if got, want := asJSON([]any{read.GetLabels(), read.GetAnnotations(), read.Object["spec"]}), asJSON([]any{written.GetLabels(), written.GetAnnotations(), written.Object["spec"]}); got != want {
				t.Errorf("%s, after a write through %s: read\n%s\nwritten\n%s", version, other, got, want)
			}
		}
	}
}

// cloneset A1, A5, A6, D16: refusals are 422 and name path and reason, in the words of the version asked in.
func TestAdmissionNamesFields(t *testing.T) {
	b := open(t, "")
	// A Pod of somebody else's, of a scheduler that does not exist.
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: corev1.PodSpec{SchedulerName: "none", Containers: []corev1.Container{{Name: "main", Image: "nginx:1"}}}}
	if _, err := kubernetes.NewForConfigOrDie(b.config).CoreV1().Pods(b.namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, field, words string }{
		{`spec: {template: {metadata: {labels: {app: sample}}, spec: {containers: [{name: main}]}}}`, "spec.template.spec.containers[0].image", "Required value"},
		{`spec: {template: {metadata: {labels: {app: sample}}, spec: {containers: [{name: main, image: i, volumeMounts: [{name: none, mountPath: /x}]}]}}}`,
			"spec.template.spec.containers[0].volumeMounts[0].name", `Not found: "none"`},
		{`spec: {template: {metadata: {labels: {app: sample}}, spec: {containers: [{name: main, image: i, ports: text}]}}}`, "spec.template", "cannot unmarshal"},
		{`spec: {volumeClaimTemplates: [{metadata: {name: d}}, {metadata: {name: d}}]}`, "spec.volumeClaimTemplates[1].metadata.name", "Duplicate value"},
		{`spec: {scaleStrategy: {podsToDelete: [none]}}`, "spec.scaleStrategy.podsToDelete[0]", "find pod none failed"},
		{`spec: {scaleStrategy: {podsToDelete: [other]}}`, "spec.scaleStrategy.podsToDelete[0]", "find pod other owner is not this CloneSet"},
	} {
		for _, version := range []string{"v1alpha1", "v1beta1"} {
			_, err := b.at(version).Create(t.Context(), b.parse(version, c.text), metav1.CreateOptions{})
			wantCause(t, version+" "+c.text, err, c.field, c.words)
		}
	}
	// A claim's volume is there although the template has none by its name.
	b.create("v1alpha1", `spec: {volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce]}}],
		template: {metadata: {labels: {app: sample}}, spec: {containers: [{name: main, image: i, volumeMounts: [{name: data, mountPath: /x}]}]}}}`)

	for _, version := range []string{"v1alpha1", "v1beta1"} {
		strategy := map[string]string{"v1alpha1": `{type: InPlaceOnly}`, "v1beta1": `{rollingUpdate: {podUpdatePolicy: InPlaceOnly}}`}[version]
		set := b.create(version, `spec: {updateStrategy: `+strategy+`}`)
		if err := b.patch(version, set.GetName(), `{"spec":{"template":{"metadata":{"labels":{"x":"y"}},"spec":{"containers":[{"name":"main","image":"nginx:2"}]}}}}`); err != nil {
			t.Error(err)
		}
		err := b.patch(version, set.GetName(), `{"spec":{"template":{"spec":{"containers":[{"name":"main","image":"nginx:2","env":[{"name":"X","value":"1"}]}]}}}}`)
		wantCause(t, version, err, "spec.template.spec", "only allowed to update images in spec for InPlaceOnly, but found add /containers/0/env")
	}
}

func wantCause(t *testing.T, what string, err error, field, words string) {
	t.Helper()
	status := (*apierrors.StatusError)(nil)
	if !errors.As(err, &status) || status.ErrStatus.Code != http.StatusUnprocessableEntity {
		t.Errorf("%s: got %v, want 422", what, err)
		return
	}
	for _, cause := range status.ErrStatus.Details.Causes {
		if cause.Field == field && strings.Contains(cause.Message, words) {
			return
		}
	}
	t.Errorf("%s: causes %+v, want %s: %s", what, status.ErrStatus.Details.Causes, field, words)
}

// cloneset A2: the API server's own defaults are in the stored template, once, and leave alone what is written there.
func TestDefaultsOfTheAPIServer(t *testing.T) {
	b := open(t, "")
	set := b.create("v1alpha1", `spec: {updateStrategy: {type: InPlaceIfPossible}, volumeClaimTemplates: [{metadata: {name: data}}],
		template: {metadata: {labels: {app: sample}}, spec: {unknown: kept, serviceAccountName: s, containers: [{name: main, image: "nginx:1", resources: {limits: {cpu: 1000m}}}]}}}`)
	want := `{"containers":[{"image":"nginx:1","imagePullPolicy":"IfNotPresent","name":"main","resources":{"limits":{"cpu":"1000m"}},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}],` +
		`"dnsPolicy":"ClusterFirst","restartPolicy":"Always","schedulerName":"default-scheduler","securityContext":{},"serviceAccountName":"s","terminationGracePeriodSeconds":30,"unknown":"kept"}`
	template, _, _ := unstructured.NestedMap(set.Object, "spec", "template", "spec")
	if got := asJSON(template); got != want && got != strings.Replace(want, `"limits":{"cpu":"1000m"}`, `"limits":{"cpu":"1000m"},"requests":{"cpu":"1"}`, 1) {
		t.Errorf("template is\n%s\nwant\n%s", got, want)
	}
	strategy, _, _ := unstructured.NestedMap(set.Object, "spec", "updateStrategy", "inPlaceUpdateStrategy")
	if strategy == nil {
		t.Error("no inPlaceUpdateStrategy")
	}
	claims, _, _ := unstructured.NestedSlice(set.Object, "spec", "volumeClaimTemplates")
	if got := asJSON(claims); got != `[{"metadata":{"name":"data"},"spec":{"volumeMode":"Filesystem"},"status":{"phase":"Pending"}}]` {
		t.Errorf("claims are %s", got)
	}
	// Putting the bare manifest again changes nothing.
	bare := b.parse("v1alpha1", `{metadata: {name: `+set.GetName()+`}, spec: {updateStrategy: {type: InPlaceIfPossible}, volumeClaimTemplates: [{metadata: {name: data}}],
		template: {metadata: {labels: {app: sample}}, spec: {unknown: kept, serviceAccountName: s, containers: [{name: main, image: "nginx:1", resources: {limits: {cpu: 1000m}}}]}}}}`)
	bare.SetResourceVersion(set.GetResourceVersion())
	again, err := b.alpha().Update(t.Context(), bare, metav1.UpdateOptions{})
	if err != nil || again.GetGeneration() != set.GetGeneration() {
		t.Errorf("generation went from %d to %d, %v", set.GetGeneration(), again.GetGeneration(), err)
	}
}

// TestTemplateIsAskedAboutOnce: validation needs no answer of its own about a template that defaulting has asked about, whatever defaulting made of it;
// and nobody is asked about other images.
func TestTemplateIsAskedAboutOnce(t *testing.T) {
	config := apitest.Config(t)
	var asked atomic.Int32
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/podtemplates") {
				asked.Add(1)
			}
			return next.RoundTrip(r)
		})
	})
	b := openWith(t, config, "")
	var set *unstructured.Unstructured
	update := func(patch string) func() error {
		return func() error { return b.patch("v1beta1", set.GetName(), patch) }
	}
	const container = `{%s"image":"%s","imagePullPolicy":"IfNotPresent","name":"main","resources":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}`
	for _, c := range []struct {
		what string
		do   func() error
		want string
		asks int32
	}{
		{"creation", func() error {
			set = b.create("v1beta1", `spec: {replicas: 1, volumeClaimTemplates: [{metadata: {name: data}}],
				template: {metadata: {labels: {app: sample}}, spec: {containers: [{name: main, image: "nginx:1", resources: {}}]}}}`)
			return nil
		}, fmt.Sprintf(container, "", "nginx:1"), 1},
		// A container that is replaced whole gets its defaults again, and keeps its policy.
		{"another image", update(`{"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "nginx:2"}]}}}}`), fmt.Sprintf(container, "", "nginx:2"), 0},
		{"another policy by default", update(`{"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "nginx:latest"}]}}}}`),
			fmt.Sprintf(container, "", "nginx:latest"), 0},
		{"another command", update(`{"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "nginx:3", "args": ["x"]}]}}}}`),
			fmt.Sprintf(container, `"args":["x"],`, "nginx:3"), 1},
		{"no other template", update(`{"spec": {"replicas": 2}}`), fmt.Sprintf(container, `"args":["x"],`, "nginx:3"), 0},
	} {
		before := asked.Load()
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if n := asked.Load() - before; n != c.asks {
			t.Errorf("%s: asked %d times, want %d", c.what, n, c.asks)
		}
		containers, _, _ := unstructured.NestedSlice(b.get("v1beta1", set.GetName()).Object, "spec", "template", "spec", "containers")
		if got, want := asJSON(containers), "["+c.want+"]"; got != want {
			t.Errorf("%s: containers are\n%s\nwant\n%s", c.what, got, want)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

// cloneset 2.1: a script that names no version writes v1beta1, with the fields where v1alpha1 has them.
func TestOldPlacesAreTaken(t *testing.T) {
	b := open(t, "")
	set := b.create("v1alpha1", `spec: {updateStrategy: {type: ReCreate}}`)
	for _, patch := range []string{
		`{"spec":{"updateStrategy":{"partition":"50%","paused":true}}}`, `{"spec":{"updateStrategy":{"type":"InPlaceOnly"}}}`, `{"spec":{"scaleStrategy":{"disablePVCReuse":true}}}`,
	} {
		if err := b.patch("v1beta1", set.GetName(), patch); err != nil {
			t.Fatal(err)
		}
	}
	spec := b.get("v1beta1", set.GetName()).Object["spec"].(map[string]any)
	got := asJSON([]any{spec["scaleStrategy"], spec["updateStrategy"]})
	want := `[{"enablePVCReuse":false},{"rollingUpdate":{"inPlaceUpdateStrategy":{},"maxUnavailable":"20%","partition":"50%","paused":true,"podUpdatePolicy":"InPlaceOnly"},"type":"RollingUpdate"}]`
	if got != want {
		t.Errorf("stored\n%s\nwant\n%s", got, want)
	}
	err := b.patch("v1beta1", set.GetName(), `{"spec":{"updateStrategy":{"maxSurge":1}}}`)
	wantCause(t, "surge", err, "spec.updateStrategy.rollingUpdate.maxSurge", "can not use maxSurge")
}

// cloneset A7.
func TestProtectedIsNotDeleted(t *testing.T) {
	b := open(t, "ResourcesDeletionProtection=true")
	set := b.create("v1beta1", `{metadata: {labels: {policy.kruise.io/delete-protection: Cascading}}, spec: {replicas: 2}}`)
	err := b.alpha().Delete(t.Context(), set.GetName(), metav1.DeleteOptions{})
	want := `admission webhook "vcloneset.kb.io" denied the request: forbidden by ResourcesProtectionDeletion for policy.kruise.io/delete-protection=Cascading and replicas 2>0`
	if !apierrors.IsForbidden(err) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := b.patch("v1beta1", set.GetName(), `{"spec":{"replicas":0}}`); err != nil {
		t.Fatal(err)
	}
	if err := b.beta().Delete(t.Context(), set.GetName(), metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

// With nobody to answer, the stored version is read and scaled, status written, Pods made and unprotected CloneSets deleted; a change
// waits (design: executor down).
func TestNobodyAnswers(t *testing.T) {
	b := open(t, "")
	set := b.create("v1alpha1", `{metadata: {finalizers: [example.com/held]}, spec: {replicas: 1}}`)
	b.stop()
	b.get("v1beta1", set.GetName())
	status := `{"status":{"replicas":1,"readyReplicas":0,"availableReplicas":0,"updatedReplicas":0,"updatedReadyReplicas":0}}`
	if _, err := b.beta().Patch(t.Context(), set.GetName(), types.MergePatchType, []byte(status), metav1.PatchOptions{}, "status"); err != nil {
		t.Error(err)
	}
	if _, err := b.beta().Patch(t.Context(), set.GetName(), types.MergePatchType, []byte(`{"spec":{"replicas":3}}`), metav1.PatchOptions{}, "scale"); err != nil {
		t.Error(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "free"}, Spec: corev1.PodSpec{SchedulerName: "none", Containers: []corev1.Container{{Name: "main", Image: "nginx:1"}}}}
	pods := kubernetes.NewForConfigOrDie(b.config).CoreV1().Pods(b.namespace)
	if _, err := pods.Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
	if err := pods.Delete(t.Context(), "free", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if err := b.patch("v1beta1", set.GetName(), `{"spec":{"replicas":2}}`); err == nil || !strings.Contains(err.Error(), `failed calling webhook "mcloneset.kb.io"`) {
		t.Errorf("a change: %v", err)
	}
	if err := b.beta().Delete(t.Context(), set.GetName(), metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if err := b.patch("v1beta1", set.GetName(), `{"metadata":{"finalizers":null}}`); err != nil {
		t.Errorf("a finalizer cannot be taken off: %v", err)
	}
}

// install-and-config R11, R30: the configurations of an earlier installation are taken over; in ours a user's edits of policy,
// timeout and selectors stay, the rest comes back.
func TestRegistration(t *testing.T) {
	config := apitest.Config(t)
	client := kubernetes.NewForConfigOrDie(config).AdmissionregistrationV1().MutatingWebhookConfigurations()
	const name = "kruise-mutating-webhook-configuration"
	left := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"template": "[]"}},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "mpod.kb.io", SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: ptr.To("https://127.0.0.1:1/mutate-pod")},
			Rules: []admissionregistrationv1.RuleWithOperations{{Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule: admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}}}},
		}}}
	if _, err := client.Create(t.Context(), left, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	stop := hooktest.Start(t, config, "")
	taken, err := client.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, hook := range taken.Webhooks {
		names = append(names, hook.Name)
	}
	if want := []string{"mcloneset.kb.io", "mcontainerrecreaterequest.kb.io"}; !slices.Equal(names, want) || taken.Annotations["template"] != "" {
		t.Errorf("taken over: %v with template %q, want %v without", names, taken.Annotations["template"], want)
	}
	edited := taken.DeepCopy()
	edited.Webhooks[0].TimeoutSeconds = ptr.To[int32](3)
	edited.Webhooks[0].NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"managed": "yes"}}
	edited.Webhooks[0].ClientConfig.CABundle = nil
	edited.Webhooks[0].Rules = nil
	if _, err := client.Update(t.Context(), edited, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	stop()
	hooktest.Start(t, config, "") // another replica, or the next turn
	kept, err := client.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	hook := kept.Webhooks[0]
	if *hook.TimeoutSeconds != 3 || hook.NamespaceSelector.MatchLabels["managed"] != "yes" {
		t.Errorf("a user's edits were lost: %+v", hook)
	}
	if len(hook.ClientConfig.CABundle) == 0 || len(hook.Rules) != 1 {
		t.Errorf("what is ours did not come back: %+v", hook)
	}
}
