package admit

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/internal/gate"
)

// cluster is a Cluster of the test's own making.
type cluster struct {
	pods      map[string]*metav1.ObjectMeta
	pod       *corev1.Pod
	node      *metav1.ObjectMeta
	judgement Judgement
	err       error
	judged    int
}

func (c *cluster) Pod(_ context.Context, _, name string) (*metav1.ObjectMeta, error) {
	return c.pods[name], c.err
}

func (c *cluster) WholePod(context.Context, string, string) (*corev1.Pod, error) { return c.pod, c.err }

func (c *cluster) Node(context.Context, string) (*metav1.ObjectMeta, error) { return c.node, c.err }

func (c *cluster) Judge(context.Context, string, tree) (Judgement, error) {
	c.judged++
	return c.judgement, c.err
}

func (c *cluster) Remember(string, tree, Judgement) {}

// versions write the same update strategy in both versions.
var versions = map[string]func(policy string) string{
	"v1alpha1": func(policy string) string { return `updateStrategy: {type: ` + policy + `}` },
	"v1beta1": func(policy string) string {
		if policy == "OnDelete" {
			return `updateStrategy: {type: OnDelete}`
		}
		return `updateStrategy: {type: RollingUpdate, rollingUpdate: {podUpdatePolicy: ` + policy + `}}`
	},
}

const sound = `template: {metadata: {labels: {a: b}}, spec: {containers: [{name: main, image: "i:1"}]}}, selector: {matchLabels: {a: b}}`

func raw(t *testing.T, version, metadata, spec string) json.RawMessage {
	t.Helper()
	out, err := yaml.YAMLToJSON([]byte(`{apiVersion: apps.kruise.io/` + version + `, kind: CloneSet, metadata: {name: web, uid: u, ` + metadata + `}, spec: {` + spec + `}}`))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func judge(t *testing.T, c *cluster, gates string, q request) verdict {
	t.Helper()
	set, _, err := gate.Parse(gates)
	if err != nil {
		t.Fatal(err)
	}
	given, err := rules{set, c, func(string, string, string, string) {}}.validateCloneSet(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return given
}

func wantCauses(t *testing.T, what string, given verdict, want ...string) {
	t.Helper()
	var got []string
	if given.refusal != nil {
		for _, cause := range given.refusal.Details.Causes {
			got = append(got, cause.Field+": "+cause.Message)
		}
		if given.refusal.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s: refused with %d, want 422", what, given.refusal.Code)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
		return
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("%s: got %q, want %q", what, got[i], want[i])
		}
	}
}

// cloneset A6, A8: podsToDelete are judged against Pods, in both versions, and only those that the request adds.
func TestPodsToDelete(t *testing.T) {
	own := metav1.OwnerReference{UID: "u", Controller: ptr.To(true)}
	c := &cluster{pods: map[string]*metav1.ObjectMeta{
		"own":     {OwnerReferences: []metav1.OwnerReference{own}},
		"going":   {OwnerReferences: []metav1.OwnerReference{own}, DeletionTimestamp: ptr.To(metav1.Now())},
		"other":   {OwnerReferences: []metav1.OwnerReference{{UID: types.UID("x"), Controller: ptr.To(true)}}},
		"orphan":  {},
		"adopted": {OwnerReferences: []metav1.OwnerReference{{UID: "u"}}},
	}}
	for version := range versions {
		old := raw(t, version, "", sound+`, scaleStrategy: {podsToDelete: [absent-before]}`)
		set := raw(t, version, "", sound+`, scaleStrategy: {podsToDelete: [own, absent-before, absent, going, other, orphan, adopted]}`)
		wantCauses(t, version, judge(t, c, "", request{operation: "UPDATE", version: version, object: set, old: old}),
			`spec.scaleStrategy.podsToDelete[2]: Invalid value: "absent": find pod absent failed`,
			`spec.scaleStrategy.podsToDelete[3]: Invalid value: "going": find pod going already terminating`,
			`spec.scaleStrategy.podsToDelete[4]: Invalid value: "other": find pod other owner is not this CloneSet`,
			`spec.scaleStrategy.podsToDelete[5]: Invalid value: "orphan": find pod orphan owner is not this CloneSet`,
			`spec.scaleStrategy.podsToDelete[6]: Invalid value: "adopted": find pod adopted owner is not this CloneSet`)
	}
	c.err = errors.New("timeout")
	r := rules{gate.Default(), c, nil}
	_, err := r.podsToDelete(t.Context(), "n", &cloneSet{spec: mustSpec(t, `scaleStrategy: {podsToDelete: [own]}`)}, nil)
	if err == nil || !strings.Contains(err.Error(), "look up Pod own of spec.scaleStrategy.podsToDelete: timeout") {
		t.Errorf("got %v", err)
	}
}

func mustSpec(t *testing.T, spec string) v1beta1.CloneSetSpec {
	t.Helper()
	set, err := readCloneSet(raw(t, "v1beta1", "", spec), "v1beta1")
	if err != nil {
		t.Fatal(err)
	}
	return set.spec
}

// cloneset A5, D16, inplace-update A1, inplace-update R2: with InPlaceOnly the template changes only as a running Pod can.
func TestInPlaceOnly(t *testing.T) {
	const vertical = "InPlaceWorkloadVerticalScaling=true"
	template := func(metadata, pod, container string) string {
		return `selector: {matchLabels: {a: b}}, template: {metadata: {` + metadata + `}, spec: {` + pod + `containers: [{name: main, ` + container + `}]}}`
	}
	const limits = `image: "i:1", resources: {limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 500m, memory: 1Gi}}`
	for _, c := range []struct{ name, gates, old, now, found string }{
		{"image", "", template("", "", `image: "i:1"`), template("", "", `image: "i:2"`), ""},
		{"metadata", "", template("labels: {a: b}", "", `image: "i:1"`), template("annotations: {x: y}, finalizers: [f]", "", `image: "i:1"`), ""},
		{"equal by meaning", "", template("", "securityContext: {}, ", `image: "i:1"`), template("", "nodeSelector: null, ", `image: "i:1", resources: {}`), ""},
		{"env added", "", template("", "", `image: "i:1"`), template("", "", `image: "i:1", env: [{name: X}]`), "add /containers/0/env"},
		{"command replaced", "", template("", "", `command: [a]`), template("", "", `command: [b]`), "replace /containers/0/command/0"},
		{"image removed", "", template("", "", `image: "i:1"`), template("", "", `command: [a]`), "add /containers/0/command"},
		{"container added", "", template("", "", `image: "i:1"`), `selector: {matchLabels: {a: b}}, template: {spec: {containers: [{name: main, image: "i:1"}, {name: b}]}}`, "add /containers/1"},
		{"spec field", "", template("", "", `image: "i:1"`), template("", "hostNetwork: true, ", `image: "i:1"`), "add /hostNetwork"},
		{"node selector key", "", template("", `nodeSelector: {a/b: c}, `, `image: "i:1"`), template("", `nodeSelector: {a/b: d}, `, `image: "i:1"`), "replace /nodeSelector/a~1b"},
		{"resources, gate off", "", template("", "", limits), template("", "", strings.Replace(limits, "cpu: 1,", "cpu: 2,", 1)), "replace /containers/0/resources/limits/cpu"},
		{"resources", vertical, template("", "", limits), template("", "", strings.Replace(limits, "cpu: 1,", "cpu: 2,", 1)), ""},
		{"resource added", vertical, template("", "", `image: "i:1"`), template("", "", limits), "add /containers/0/resources"},
		{"other resource", vertical, template("", "", `resources: {limits: {x/gpu: 1}}`), template("", "", `resources: {limits: {x/gpu: 2}}`), "replace /containers/0/resources/limits/x~1gpu"},
		{"service class", vertical, template("", "", limits), template("", "", strings.Replace(limits, "500m", "1", 1)), "replace /containers: the quality of service class would become Guaranteed"},
	} {
		for version, strategy := range versions {
			strategy := ", " + strategy("InPlaceOnly")
			given := judge(t, &cluster{}, c.gates, request{operation: "UPDATE", version: version, object: raw(t, version, "", c.now+strategy), old: raw(t, version, "", c.old)})
			if c.found == "" {
				wantCauses(t, version+" "+c.name, given)
			} else {
				wantCauses(t, version+" "+c.name, given, "spec.template.spec: Forbidden: only allowed to update images in spec for InPlaceOnly, but found "+c.found)
			}
			// Other types take any template; so does OnDelete (cloneset A3, D1).
			for _, other := range []string{"ReCreate", "InPlaceIfPossible", "OnDelete"} {
				wantCauses(t, version+" "+other, judge(t, &cluster{}, c.gates, request{operation: "UPDATE", version: version,
					object: raw(t, version, "", c.now+", "+versions[version](other)), old: raw(t, version, "", c.old)}))
			}
		}
	}
}

// cloneset 2.1: what a schema cannot say, with the path of the version asked in.
func TestFieldsAreNamed(t *testing.T) {
	for _, c := range []struct{ alpha, beta, field string }{
		{`selector: {matchExpressions: [{key: a, operator: Some}]}, template: {}`, "", "spec.selector.matchExpressions[0].operator"},
		{`selector: {matchLabels: {"a b": c}}, template: {}`, "", "spec.selector.matchLabels"},
		{`selector: {matchLabels: {a: b}}, template: text`, "", "spec.template"},
		{sound + `, volumeClaimTemplates: {}`, "", "spec.volumeClaimTemplates"},
		{sound + `, volumeClaimTemplates: [{metadata: {name: d}, spec: {accessModes: x}}]`, "", "spec.volumeClaimTemplates[0].spec.accessModes"},
		{sound + `, volumeClaimTemplates: [{}]`, "", "spec.volumeClaimTemplates[0].metadata.name: Required"},
		{sound + `, volumeClaimTemplates: [{metadata: {name: d}}, {metadata: {name: d}}]`, "", "spec.volumeClaimTemplates[1].metadata.name: Duplicate"},
		{sound + `, volumeClaimTemplates: [{metadata: {name: D_}}]`, "", "spec.volumeClaimTemplates[0].metadata.name: Invalid"},
		{sound + `, updateStrategy: {priorityStrategy: {orderPriority: [{orderedKey: "a b"}]}}`,
			sound + `, updateStrategy: {rollingUpdate: {priorityStrategy: {orderPriority: [{orderedKey: "a b"}]}}}`, "priorityStrategy.orderPriority[0].orderedKey"},
		{sound + `, updateStrategy: {priorityStrategy: {weightPriority: [{weight: 1, matchSelector: {matchExpressions: [{key: a, operator: In}]}}]}}`,
			sound + `, updateStrategy: {rollingUpdate: {priorityStrategy: {weightPriority: [{weight: 1, matchSelector: {matchExpressions: [{key: a, operator: In}]}}]}}}`,
			"priorityStrategy.weightPriority[0].matchSelector.matchExpressions[0].values"},
	} {
		if c.beta == "" {
			c.beta = c.alpha
		}
		prefix := map[string]string{"v1alpha1": "spec.updateStrategy.", "v1beta1": "spec.updateStrategy.rollingUpdate."}
		for version, spec := range map[string]string{"v1alpha1": c.alpha, "v1beta1": c.beta} {
			want := c.field
			if strings.HasPrefix(want, "priority") {
				want = prefix[version] + want
			}
			wantCauses(t, version+" "+spec, judge(t, &cluster{}, "", request{operation: "CREATE", version: version, object: raw(t, version, "", spec)}), want)
		}
	}
}

// cloneset 2.1: what the API server says of the template, it says of spec.template; an update that is about something else is
// not held up by it.
func TestTemplateIsJudged(t *testing.T) {
	c := &cluster{judgement: Judgement{
		Problems: []metav1.StatusCause{{Type: "FieldValueRequired", Field: "template.spec.containers[0].image", Message: "Required value"}}, Warnings: []string{"w"},
	}}
	set := raw(t, "v1alpha1", "", sound)
	given := judge(t, c, "", request{operation: "CREATE", version: "v1alpha1", object: set})
	wantCauses(t, "create", given, "spec.template.spec.containers[0].image: Required value")
	if want := `CloneSet.apps.kruise.io "web" is invalid: spec.template.spec.containers[0].image: Required value`; given.refusal.Message != want {
		t.Errorf("says %q, want %q", given.refusal.Message, want)
	}
	if !reflect.DeepEqual(given.warnings, []string{"w"}) {
		t.Errorf("warns %q", given.warnings)
	}
	wantCauses(t, "update", judge(t, c, "", request{operation: "UPDATE", version: "v1alpha1", object: raw(t, "v1alpha1", "", sound+", replicas: 2"), old: set}))
	if c.judged != 1 {
		t.Errorf("asked %d times", c.judged)
	}
}

// cloneset A7, deletion-protection R1 to R8.
func TestDeletionProtection(t *testing.T) {
	const on = "ResourcesDeletionProtection=true"
	const label = "policy.kruise.io/delete-protection"
	for _, c := range []struct{ name, gates, metadata, spec, refusal string }{
		{"gate off", "", `labels: {` + label + `: Always}`, "", ""},
		{"no label", on, "", "replicas: 2", ""},
		{"Always", on, `labels: {` + label + `: Always}`, "replicas: 0", "forbidden by ResourcesProtectionDeletion for " + label + "=Always"},
		{"Cascading", on, `labels: {` + label + `: Cascading}`, "replicas: 3", "forbidden by ResourcesProtectionDeletion for " + label + "=Cascading and replicas 3>0"},
		{"Cascading, scaled to 0", on, `labels: {` + label + `: Cascading}`, "replicas: 0", ""},
		{"Cascading, no replicas", on, `labels: {` + label + `: Cascading}`, "", ""},
		{"other value", on, `labels: {` + label + `: always}`, "replicas: 3", ""},
		{"going already", on, `deletionTimestamp: "2026-01-01T00:00:00Z", labels: {` + label + `: Always}`, "", ""},
	} {
		for version := range versions {
			given := judge(t, &cluster{}, c.gates, request{operation: "DELETE", version: version, old: raw(t, version, c.metadata, c.spec)})
			switch {
			case c.refusal == "" && given.refusal != nil, c.refusal != "" && given.refusal == nil:
				t.Errorf("%s %s: got %v", version, c.name, given.refusal)
			case c.refusal != "" && (given.refusal.Message != c.refusal || given.refusal.Code != http.StatusForbidden):
				t.Errorf("%s %s: got %d %q", version, c.name, given.refusal.Code, given.refusal.Message)
			}
		}
	}
}

// well-known-keys R8, cloneset 2.3, R17: what is allowed and yet not meant.
func TestWarnings(t *testing.T) {
	long := strings.Repeat("n", 60)
	for _, c := range []struct{ version, metadata, words string }{
		{"v1alpha1", `labels: {policy.kruise.io/delete-protection: always}`, `"always" protects nothing`},
		{"v1beta1", `labels: {apps.kruise.io/cloneset-scaling-exclude-preparing-delete: "true"}`, "set spec.scaleStrategy.excludePreparingDelete"},
		{"v1alpha1", `labels: {apps.kruise.io/cloneset-scaling-exclude-preparing-delete: "true"}`, ""},
		{"v1beta1", `annotations: {apps.kruise.io/image-predownload-parallelism: "2"}`, "imagePreDownloadParallelism"},
		{"v1beta1", `annotations: {apps.kruise.io/image-predownload-min-updated-ready-pods: "10%"}`, ""},
		{"v1beta1", `name: ` + long, "longer than 52 characters"},
	} {
		given := judge(t, &cluster{}, "", request{operation: "CREATE", version: c.version, object: raw(t, c.version, c.metadata, sound)})
		if got := strings.Join(given.warnings, " "); c.words == "" && got != "" || !strings.Contains(got, c.words) {
			t.Errorf("%s %s: warns %q, want %q", c.version, c.metadata, got, c.words)
		}
	}
}

// cloneset 2.1: kubectl takes the newest version, scripts write the places of v1alpha1.
func TestOldPlaces(t *testing.T) {
	for _, c := range []struct{ version, spec, patch string }{
		{"v1alpha1", `updateStrategy: {type: InPlaceOnly, partition: 2, inPlaceUpdateStrategy: {}}`, `null`},
		{"v1beta1", `updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 0, paused: true}}`, `null`},
		{"v1beta1", `updateStrategy: {type: RollingUpdate, partition: 2, paused: false, rollingUpdate: {podUpdatePolicy: ReCreate, partition: 0, paused: true}}`,
			`[{"op":"replace","path":"/spec/updateStrategy","value":{"rollingUpdate":{"partition":2,"paused":false,"podUpdatePolicy":"ReCreate"},"type":"RollingUpdate"}}]`},
		{"v1beta1", `updateStrategy: {type: InPlaceIfPossible, rollingUpdate: {podUpdatePolicy: ReCreate, inPlaceUpdateStrategy: {imagePreDownloadParallelism: 2}}, inPlaceUpdateStrategy: {gracePeriodSeconds: 5}}`,
			`[{"op":"replace","path":"/spec/updateStrategy","value":{"rollingUpdate":{"inPlaceUpdateStrategy":{"gracePeriodSeconds":5,"imagePreDownloadParallelism":2},"podUpdatePolicy":"InPlaceIfPossible"},"type":"RollingUpdate"}}]`},
		{"v1beta1", `scaleStrategy: {disablePVCReuse: true, enablePVCReuse: true, podsToDelete: [a]}`,
			`[{"op":"replace","path":"/spec/scaleStrategy","value":{"enablePVCReuse":false,"podsToDelete":["a"]}}]`},
	} {
		given, err := rules{gate.Set{gate.TemplateNoDefaults: true}, &cluster{}, nil}.mutateCloneSet(t.Context(),
			request{operation: "UPDATE", version: c.version, object: raw(t, c.version, "", sound+", "+c.spec), old: raw(t, c.version, "", sound)})
		if got, _ := json.Marshal(given.patch); err != nil || string(got) != c.patch {
			t.Errorf("%s: patch is\n%s\nwant\n%s", c.spec, got, c.patch)
		}
		if (len(given.warnings) > 0) != (c.patch != "null") {
			t.Errorf("%s: warns %q", c.spec, given.warnings)
		}
	}
}

// cloneset A2, A5: kubectl apply replaces lists whole, and a new tag makes no new policy, so that a running Pod can take it.
func TestPullPolicyStays(t *testing.T) {
	for _, c := range []struct{ was, policy, now, defaulted, want string }{
		{"i:1", "IfNotPresent", "i:latest", "Always", "IfNotPresent"},
		{"i", "Always", "i:1", "IfNotPresent", "Always"},
		{"i:1", "Always", "i:2", "IfNotPresent", "IfNotPresent"}, // the user had set it, and took it away
		{"i@sha256:" + strings.Repeat("a", 64), "IfNotPresent", "i", "Always", "IfNotPresent"},
		{"I::", "Always", "i:2", "IfNotPresent", "IfNotPresent"},
	} {
		got := fill(tree{"name": "main", "image": c.now}, tree{"name": "main", "image": c.now, "imagePullPolicy": c.defaulted},
			tree{"name": "main", "image": c.was, "imagePullPolicy": c.policy}, false).(tree)["imagePullPolicy"]
		if got != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
}

// What is wrong with a template validation says, with claims too: there is nothing to fill in.
func TestRefusedTemplateIsNotFilled(t *testing.T) {
	refused := &cluster{judgement: Judgement{Problems: []metav1.StatusCause{{Field: "template.spec.containers[0].image", Message: "Required value"}}}}
	for _, claims := range []string{"", `, volumeClaimTemplates: [{metadata: {name: data}, spec: {volumeMode: Block}, status: {phase: Pending}}]`} {
		q := request{operation: "CREATE", version: "v1beta1", object: raw(t, "v1beta1", "", sound+claims)}
		given, err := rules{gate.Default(), refused, nil}.mutateCloneSet(t.Context(), q)
		if err != nil || given.refusal != nil || len(given.patch) > 0 {
			t.Errorf("%q: %v, refused with %v, patched with %v", claims, err, given.refusal, given.patch)
		}
	}
}

// An update of images alone is judged without the API server, whatever defaults it left out; with anything else, or an image that is none, the
// API server is asked.
func TestImagesAreJudgedHere(t *testing.T) {
	const probe = `readinessProbe: {httpGet: {path: /, port: 80`
	old := `{metadata: {labels: {a: b}}, spec: {dnsPolicy: ClusterFirst, containers: [` +
		`{name: main, image: "i:1", command: [run], imagePullPolicy: IfNotPresent, resources: {}, ports: [{containerPort: 80, protocol: TCP}], ` +
		probe + `, scheme: HTTP}, timeoutSeconds: 1, periodSeconds: 10, successThreshold: 1, failureThreshold: 3}, terminationMessagePath: /dev/termination-log, terminationMessagePolicy: File}, ` +
		`{name: side, image: "s:1", imagePullPolicy: Always}]}}`
	parse := func(text string) tree {
		t.Helper()
		raw, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var out tree
		if err := decodeTree(raw, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	bare := func(main, side string) string {
		return `{metadata: {labels: {a: b}}, spec: {dnsPolicy: ClusterFirst, containers: [{name: main, ports: [{containerPort: 80}], ` + probe + `}}, ` + main + `}, {name: side, ` + side + `}]}}`
	}
	for _, c := range []struct {
		name, now string
		here      bool
	}{
		{"image", bare(`image: "i:2", command: [run]`, `image: "s:1", imagePullPolicy: Always`), true},
		{"image with another policy by default", bare(`image: "i:latest", command: [run]`, `image: "s:2", imagePullPolicy: Always`), true},
		{"nothing", bare(`image: "i:1", command: [run]`, `image: "s:1", imagePullPolicy: Always`), true},
		{"no command any more", bare(`image: "i:2"`, `image: "s:1", imagePullPolicy: Always`), false},
		{"no policy of its own any more", bare(`image: "i:2", command: [run]`, `image: "s:1"`), false},
		{"no image", bare(`command: [run]`, `image: "s:1", imagePullPolicy: Always`), false},
		{"blank image", bare(`image: "", command: [run]`, `image: "s:1", imagePullPolicy: Always`), false},
		{"image with a space", bare(`image: "i:2 ", command: [run]`, `image: "s:1", imagePullPolicy: Always`), false},
		{"label", strings.Replace(bare(`image: "i:2", command: [run]`, `image: "s:1", imagePullPolicy: Always`), "a: b", "a: c", 1), false},
		{"another container", strings.Replace(bare(`image: "i:2", command: [run]`, `image: "s:1", imagePullPolicy: Always`), "name: side", "name: new", 1), false},
	} {
		before := parse(old)
		restored := restore(parse(c.now), before).(tree)
		if here := onlyImages(before, restored); here != c.here {
			t.Errorf("%s: judged here is %v", c.name, here)
		}
		if c.here {
			got := strings.NewReplacer(`"i:2"`, `"i:1"`, `"i:latest"`, `"i:1"`, `"s:2"`, `"s:1"`).Replace(asJSON(t, restored))
			if was := asJSON(t, before); got != was {
				t.Errorf("%s: becomes\n%s\nwant but for images\n%s", c.name, got, was)
			}
		}
	}
}

// What is empty may mean something: a term of affinity with an empty selector is about all Pods, one without about none.
func TestEmptyIsNotRestored(t *testing.T) {
	before := tree{"topologyKey": "zone", "labelSelector": tree{}, "resources": tree{}}
	if got := asJSON(t, restore(tree{"topologyKey": "zone"}, before)); got != `{"resources":{},"topologyKey":"zone"}` {
		t.Errorf("becomes %s", got)
	}
}

func asJSON(t *testing.T, value any) string {
	t.Helper()
	raw, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// cloneset A2: the patch is in the version of the request.
func TestDefaults(t *testing.T) {
	defaulted := tree{"metadata": tree{"labels": tree{"a": "b"}, "creationTimestamp": nil}, "spec": tree{
		"containers": []any{tree{"name": "main", "image": "i:1", "imagePullPolicy": "IfNotPresent"}}, "dnsPolicy": "ClusterFirst", "serviceAccount": "x",
	}}
	claimed := withClaims(defaulted, []any{tree{"metadata": tree{"name": "data"}}})
	const template = `{"op":"replace","path":"/spec/template","value":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"image":"i:1","imagePullPolicy":"IfNotPresent","name":"main"}],"dnsPolicy":"ClusterFirst"}}}`
	const claims = `{"op":"replace","path":"/spec/volumeClaimTemplates","value":[{"metadata":{"name":"data"},"spec":{"volumeMode":"Filesystem"},"status":{"phase":"Pending"}}]}`
	for _, c := range []struct{ name, gates, version, spec, old, patch string }{
		{"create", "", "v1alpha1", sound, "", `[` + template + `]`},
		{"gate", "TemplateNoDefaults=true", "v1alpha1", sound, "", `null`},
		{"in place, v1alpha1", "TemplateNoDefaults=true", "v1alpha1", sound + `, updateStrategy: {type: InPlaceOnly}`, "",
			`[{"op":"add","path":"/spec/updateStrategy/inPlaceUpdateStrategy","value":{}}]`},
		{"in place, v1beta1", "TemplateNoDefaults=true", "v1beta1", sound + `, updateStrategy: {rollingUpdate: {podUpdatePolicy: InPlaceIfPossible}}`, "",
			`[{"op":"add","path":"/spec/updateStrategy/rollingUpdate/inPlaceUpdateStrategy","value":{}}]`},
		{"in place, given", "TemplateNoDefaults=true", "v1alpha1", sound + `, updateStrategy: {type: InPlaceOnly, inPlaceUpdateStrategy: {gracePeriodSeconds: 1}}`, "", `null`},
		{"claims", "", "v1beta1", sound + `, volumeClaimTemplates: [{metadata: {name: data}}]`, "", `[` + template + `,` + claims + `]`},
		{"update of something else", "", "v1alpha1", sound + `, replicas: 3`, sound, `null`},
		{"update of the template adds no defaults that it had not", "", "v1alpha1", sound, strings.Replace(sound, "i:1", "i:0", 1), `null`},
		{"update of the template keeps defaults that it had", "", "v1alpha1", sound, strings.Replace(sound, `image: "i:1"}]`, `image: "i:0", imagePullPolicy: IfNotPresent}], dnsPolicy: ClusterFirst`, 1), `[` + template + `]`},
	} {
		gates, _, err := gate.Parse(c.gates)
		if err != nil {
			t.Fatal(err)
		}
		q := request{operation: "CREATE", version: c.version, object: raw(t, c.version, "", c.spec)}
		if c.old != "" {
			q.operation, q.old = "UPDATE", raw(t, c.version, "", c.old)
		}
		answered := defaulted
		if strings.Contains(c.spec, "volumeClaimTemplates") {
			answered = claimed // as it was asked
		}
		given, err := rules{gates, &cluster{judgement: Judgement{Defaulted: answered}}, nil}.mutateCloneSet(t.Context(), q)
		if err != nil || given.refusal != nil {
			t.Fatal(err, given.refusal)
		}
		if got, _ := json.Marshal(given.patch); string(got) != c.patch {
			t.Errorf("%s: patch is\n%s\nwant\n%s", c.name, got, c.patch)
		}
	}
}
