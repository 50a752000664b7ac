package admit

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/internal/gate"
)

const webPod = `
metadata: {name: web, namespace: default, uid: u1}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 42
  initContainers:
  - {name: mesh, restartPolicy: Always}
  - {name: setup}
  containers:
  - {name: main, ports: [{name: web, containerPort: 80}], lifecycle: {preStop: {tcpSocket: {port: web}}}}
  - {name: side, lifecycle: {preStop: {sleep: {seconds: 3}}}}
  - {name: fresh}
  - {name: unknown}
status:
  phase: Running
  initContainerStatuses: [{name: mesh, containerID: "containerd://m", restartCount: 1}, {name: setup, containerID: "containerd://x"}]
  containerStatuses: [{name: main, containerID: "containerd://a", restartCount: 2}, {name: side, containerID: "containerd://b"}, {name: fresh}]
`

func podOf(t *testing.T, text string) *corev1.Pod {
	t.Helper()
	var pod corev1.Pod
	if err := yaml.Unmarshal([]byte(text), &pod); err != nil {
		t.Fatal(err)
	}
	return &pod
}

func restartObject(t *testing.T, metadata, spec, status string) json.RawMessage {
	t.Helper()
	out, err := yaml.YAMLToJSON([]byte(`{apiVersion: apps.kruise.io/v1beta1, kind: ContainerRecreateRequest, metadata: {name: again, ` + metadata + `}, spec: {` + spec + `}, status: {` + status + `}}`))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func admitted(t *testing.T, c *cluster, gates string, q request) verdict {
	t.Helper()
	set, _, err := gate.Parse(gates)
	if err != nil {
		t.Fatal(err)
	}
	given, err := rules{set, c, nil}.admitRestart(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return given
}

// container-restart R3, R4, R6 to R8, D5, D9: what a request is completed with.
func TestRestartIsCompleted(t *testing.T) {
	c := &cluster{pod: podOf(t, webPod), node: &metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"type": "virtual-kubelet"}}}
	given := admitted(t, c, "", request{operation: "CREATE", namespace: "default",
		object: restartObject(t, `labels: {mine: "1", `+activeLabel+`: "no"}`, `podName: web, containers: [{name: main}, {name: side}, {name: mesh}]`, "")})
	if given.refusal != nil || len(given.patch) != 2 {
		t.Fatalf("got %+v", given)
	}
	labels, _ := given.patch[0].Value.(map[string]string)
	for label, want := range map[string]string{"mine": "1", activeLabel: "true", podUIDLabel: "u1", nodeLabel: "n1", "type": "virtual-kubelet"} {
		if labels[label] != want {
			t.Errorf("label %s is %q, want %q", label, labels[label], want)
		}
	}
	spec, _ := given.patch[1].Value.(*v1beta1.ContainerRecreateRequestSpec)
	if spec.Strategy.FailurePolicy != "Fail" || *spec.Strategy.TerminationGracePeriodSeconds != 42 {
		t.Errorf("the strategy is %+v", spec.Strategy)
	}
	main, side, mesh := spec.Containers[0], spec.Containers[1], spec.Containers[2]
	if main.PreStop.TCPSocket == nil || len(main.Ports) != 1 || main.StatusContext.ContainerID != "containerd://a" || main.StatusContext.RestartCount != 2 {
		t.Errorf("main is %+v", main)
	}
	if side.PreStop.Sleep == nil || side.Ports != nil {
		t.Errorf("side is %+v", side)
	}
	if mesh.PreStop != nil || mesh.StatusContext.ContainerID != "containerd://m" {
		t.Errorf("mesh is %+v", mesh)
	}
}

// container-restart R1, R2, R5, R8, D1: what is refused, with which code and words.
func TestRestartIsRefused(t *testing.T) {
	const sound = `podName: web, containers: [{name: main}]`
	for _, c := range []struct {
		spec, pod, gates string
		code             int32
		words            string
	}{
		{sound, webPod, "KruiseDaemon=false", 403, "feature-gate KruiseDaemon is not enabled"},
		{`containers: [{name: main}]`, webPod, "", 400, "podName can not be empty"},
		{`podName: web, containers: []`, webPod, "", 400, "containers list can not be null"},
		{sound + `, activeDeadlineSeconds: 2`, webPod, "", 400, "activeDeadlineSeconds can not be less than 3s"},
		{sound + `, strategy: {terminationGracePeriodSeconds: -1}`, webPod, "", 400, "terminationGracePeriodSeconds must be non-negative integer"},
		{sound + `, strategy: {unreadyGracePeriodSeconds: -1}`, webPod, "", 400, "unreadyGracePeriodSeconds must be non-negative integer"},
		{sound + `, strategy: {failurePolicy: Sometimes}`, webPod, "", 400, "unknown failurePolicy Sometimes"},
		{`podName: web, containers: [{name: main}, {name: main}]`, webPod, "", 400, "can not recreate main multi times"},
		{`podName: web, containers: [{name: main, statusContext: {containerID: x, restartCount: 0}}]`, webPod, "", 400, "ready-only fields"},
		{`podName: web, containers: [{name: none}]`, webPod, "", 400, "container none not found in Pod"},
		{`podName: web, containers: [{name: setup}]`, webPod, "", 400, "container setup not found in Pod"},
		{`podName: web, containers: [{name: unknown}]`, webPod, "", 400, "not found unknown containerStatus in Pod Status"},
		{`podName: web, containers: [{name: fresh}]`, webPod, "", 400, "no containerID in fresh containerStatus"},
		{sound, "", "", 400, "no found Pod named web"},
		{sound, strings.Replace(webPod, "phase: Running", "phase: Succeeded", 1), "", 400, "inactive Pod"},
		{sound, strings.Replace(webPod, "nodeName: n1", "", 1), "", 400, "pending Pod"},
		{sound, strings.Replace(webPod, "phase: Running", "phase: Failed\n  conditions: [{type: SidecarTerminated, status: 'True'}]", 1), "", 0, ""},
	} {
		held := &cluster{node: &metav1.ObjectMeta{Name: "n1"}}
		if c.pod != "" {
			held.pod = podOf(t, c.pod)
		}
		given := admitted(t, held, c.gates, request{operation: "CREATE", namespace: "default", object: restartObject(t, "", c.spec, "")})
		switch {
		case c.code == 0 && given.refusal == nil:
		case given.refusal == nil || given.refusal.Code != c.code || !strings.Contains(given.refusal.Message, c.words):
			t.Errorf("%s: got %+v, want %d %q", c.spec, given.refusal, c.code, c.words)
		}
	}
	given := admitted(t, &cluster{pod: podOf(t, webPod)}, "", request{operation: "CREATE", namespace: "default", object: restartObject(t, "", sound, "")})
	if given.refusal == nil || !strings.Contains(given.refusal.Message, "failed to get Node n1") {
		t.Errorf("without a Node: got %+v", given.refusal)
	}
}

// container-restart R9, D12: what cannot be changed, and that label active stays until the request is completed.
func TestRestartIsKept(t *testing.T) {
	labels := func(active string) string {
		return `labels: {` + podUIDLabel + `: u1, ` + nodeLabel + `: n1` + active + `}`
	}
	const spec, on = `podName: web, containers: [{name: main}]`, `, ` + activeLabel + `: "true"`
	old := restartObject(t, labels(on)+`, annotations: {`+acquiredNote+`: then}`, spec, "phase: Recreating")
	over := restartObject(t, labels(on), spec, `phase: Completed, completionTime: "2026-01-15T08:00:00Z"`)
	for _, c := range []struct {
		now, old json.RawMessage
		words    string
	}{
		{old, old, ""},
		{restartObject(t, labels(on)+`, annotations: {`+acquiredNote+`: then}`, `podName: web, containers: [{name: side}]`, ""), old, "spec of ContainerRecreateRequest is immutable"},
		{restartObject(t, `labels: {`+podUIDLabel+`: u2, `+nodeLabel+`: n1`+on+`}, annotations: {`+acquiredNote+`: then}`, spec, ""), old, "immutable label " + podUIDLabel},
		{restartObject(t, labels(on)+`, annotations: {`+acquiredNote+`: now}`, spec, ""), old, "immutable annotation"},
		{restartObject(t, labels("")+`, annotations: {`+acquiredNote+`: then}`, spec, ""), old, "before the request is completed"},
		{restartObject(t, labels(""), spec, `phase: Completed`), over, ""},
	} {
		given := admitted(t, &cluster{}, "KruiseDaemon=false", request{operation: "UPDATE", object: c.now, old: c.old})
		switch {
		case c.words == "" && given.refusal == nil:
		case c.words == "" || given.refusal == nil || given.refusal.Code != 403 || !strings.Contains(given.refusal.Message, c.words):
			t.Errorf("%s: got %+v, want %q", c.now, given.refusal, c.words)
		}
	}
}

// image-pull R1, D3, D15: what admission says of jobs beyond their schema; with the gate off a write that leaves the spec alone
// goes through.
func TestImageJobs(t *testing.T) {
	object := func(kind, metadata, spec string) json.RawMessage {
		out, err := yaml.YAMLToJSON([]byte(`{kind: ` + kind + `, metadata: {name: j, ` + metadata + `}, spec: {` + spec + `}}`))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, c := range []struct{ kind, gates, spec, old, words string }{
		{"ImagePullJob", "ImagePullJobGate=true", `image: "nginx:1"`, "", ""},
		{"ImagePullJob", "", `image: "nginx:1"`, "", "feature-gate ImagePullJobGate is not enabled"},
		{"ImagePullJob", "", `image: "nginx:1"`, `image: "nginx:1"`, ""},
		{"ImagePullJob", "", `image: "nginx:2"`, `image: "nginx:1"`, "feature-gate ImagePullJobGate is not enabled"},
		{"ImagePullJob", "KruiseDaemon=false,ImagePullJobGate=true", `image: "nginx:1"`, "", "feature-gate KruiseDaemon is not enabled"},
		{"ImagePullJob", "ImagePullJobGate=true", `image: "No Such"`, "", "spec.image: Invalid value"},
		{"ImagePullJob", "ImagePullJobGate=true", `image: a, selector: {matchExpressions: [{key: a, operator: Near}]}`, "", "spec.selector.matchExpressions[0].operator"},
		{"ImagePullJob", "ImagePullJobGate=true", `image: a, podSelector: {matchLabels: {"a b": c}}`, "", "spec.podSelector.matchLabels"},
		{"ImageListPullJob", "ImagePullJobGate=true", `images: [a, "b c"]`, "", "spec.images[1]: Invalid value"},
		{"ImageListPullJob", "ImagePullJobGate=true", `images: [a, b]`, "", ""},
	} {
		set, _, err := gate.Parse(c.gates)
		if err != nil {
			t.Fatal(err)
		}
		r, q := rules{set, &cluster{}, nil}, request{operation: "CREATE", object: object(c.kind, "", c.spec)}
		if c.old != "" {
			q.operation, q.old = "UPDATE", object(c.kind, "finalizers: [f]", c.old)
		}
		judge := r.validateImagePullJob
		if c.kind == "ImageListPullJob" {
			judge = r.validateImageListPullJob
		}
		given, err := judge(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case c.words == "" && given.refusal == nil:
		case c.words == "" || given.refusal == nil || !strings.Contains(given.refusal.Message, c.words):
			t.Errorf("%s {%s}: got %+v, want %q", c.kind, c.spec, given.refusal, c.words)
		}
	}
}
