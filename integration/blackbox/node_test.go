package blackbox

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/integration/testbed"
)

// withAgent starts shiplog with the agent of the node that really runs containers, and with image jobs.
func withAgent(t *testing.T, stateDir string, more ...string) *testbed.Process {
	t.Helper()
	node, endpoint := realNode(t)
	return up(t, stateDir, append(more, "--nodeagent", node+"="+endpoint, "--nodeimage-creation-delay", "1s",
		"--feature-gates", "ImagePullJobGate=true,PreDownloadImageForInPlaceUpdate=true")...)
}

// read decodes an object as kubectl shows it.
func read[T any](t *testing.T, namespace, kind, name string) (object T) {
	t.Helper()
	if err := json.Unmarshal([]byte(kubectl(t, "", "get", kind, name, "-n", namespace, "-o", "json")), &object); err != nil {
		t.Fatal(err)
	}
	return object
}

// TestImagePullJob: an image that exists comes to the node, in both versions of the job, one that does not is told with the
// runtime's words, to the job and as Events; and a job goes when its time after the end is over (image-pull R15, R23, R44, R50).
func TestImagePullJob(t *testing.T) {
	namespace := space(t)
	node, _ := realNode(t)
	withAgent(t, t.TempDir())
	job := func(version, name, image, more string) {
		kubectl(t, fmt.Sprintf("apiVersion: apps.kruise.io/%s\nkind: ImagePullJob\nmetadata: {name: %s}\nspec: {image: %q, selector: {names: [%s]}%s}\n",
			version, name, image, node, more), "apply", "-n", namespace, "-f", "-")
	}
	job("v1alpha1", "good", "pulled:1", "")
	job("v1beta1", "brief", "pulled:2", ", completionPolicy: {type: Always, ttlSecondsAfterFinished: 2}")
	job("v1beta1", "bad", "pulled:missing", ", pullPolicy: {backoffLimit: 1, timeoutSeconds: 20}")
	testbed.Eventually(t, time.Minute, func() error {
		good, bad := read[v1beta1.ImagePullJob](t, namespace, "imagepulljob", "good"), read[v1beta1.ImagePullJob](t, namespace, "imagepulljob", "bad")
		if good.Status.CompletionTime == nil || bad.Status.CompletionTime == nil {
			return fmt.Errorf("not all jobs have ended: %+v, %+v", good.Status, bad.Status)
		}
		if good.Status.Succeeded != 1 || bad.Status.Failed != 1 || !slices.Equal(bad.Status.FailedNodes, []string{node}) || !strings.Contains(bad.Status.Message, "not found") {
			t.Errorf("ended as %+v and %+v", good.Status, bad.Status)
		}
		return nil
	})
	testbed.Eventually(t, time.Minute, func() error {
		if names := kubectl(t, "", "get", "imagepulljobs", "-n", namespace, "-o", "name"); strings.Contains(names, "brief") {
			return fmt.Errorf("still there: %s", names)
		}
		return nil
	})
	testbed.Eventually(t, time.Minute, func() error {
		image := read[v1beta1.NodeImage](t, "default", "nodeimage", node)
		for _, tag := range image.Status.ImageStatuses["pulled"].Tags {
			switch {
			case tag.Tag == "1" && (tag.Phase != v1beta1.ImagePhaseSucceeded || !strings.HasPrefix(tag.ImageID, "pulled@sha256:")):
				return fmt.Errorf("the status says %+v", tag)
			case tag.Tag == "2":
				return fmt.Errorf("the tag of the job that went is still there: %+v", tag)
			}
		}
		return nil
	})
	testbed.Eventually(t, time.Minute, func() error {
		events := kubectl(t, "", "get", "events", "-A", "-o", "custom-columns=R:.reason,K:.involvedObject.kind,N:.involvedObject.name,M:.message", "--no-headers")
		for _, want := range []string{"PullImageSucceed   NodeImage", "PullImageFailed    NodeImage", "PullImageFailed    ImagePullJob"} {
			if fields := strings.Fields(want); !slices.ContainsFunc(strings.Split(events, "\n"), func(line string) bool {
				has := strings.Fields(line)
				return len(has) > 3 && has[0] == fields[0] && has[1] == fields[1] && strings.Contains(line, "pulled:")
			}) {
				return fmt.Errorf("no Event %s in\n%s", want, events)
			}
		}
		return nil
	})
	columns := kubectl(t, "", "get", "imagepulljob.v1alpha1.apps.kruise.io", "good", "-n", namespace)
	if !strings.Contains(columns, "TOTAL   ACTIVE   SUCCEED   FAILED   AGE") || !strings.Contains(columns, "MESSAGE") {
		t.Errorf("kubectl get says\n%s", columns)
	}
	for spec, words := range map[string]string{
		`{image: "Not An Image"}`:                                                   "invalid image",
		`{image: "a", parallelism: "50%"}`:                                          "parallelism must be a valid integer",
		`{image: "a", selector: {}, podSelector: {}}`:                               "can not set both selector and podSelector",
		`{image: "a", podSelector: {matchLabels: {"a b": c}}}`:                      "spec.podSelector.matchLabels",
		`{image: "a", completionPolicy: {type: Never, ttlSecondsAfterFinished: 1}}`: "can only work with Always",
		`{image: "a", completionPolicy: {type: Always, activeDeadlineSeconds: 5}}`:  "must be greater than pullPolicy.timeoutSeconds",
	} {
		_, err := cluster.Kubectl(t.Context(), "apiVersion: apps.kruise.io/v1beta1\nkind: ImagePullJob\nmetadata: {name: wrong}\nspec: "+spec, "apply", "-n", namespace, "-f", "-")
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want %q", spec, err, words)
		}
	}
}

// TestRestartContainers: a ContainerRecreateRequest restarts what it names and nothing else, in v1alpha1, with the hook first; a
// hook that fails is told; a second request takes its turn; and what cannot be is refused (container-restart R5, R8, R16, R20, R26).
func TestRestartContainers(t *testing.T) {
	namespace := space(t)
	withAgent(t, t.TempDir())
	kubectl(t, `apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  nodeSelector: {shiplog.dev/hollow: "false"}
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: "nginx:1", lifecycle: {preStop: {exec: {command: [/no/such/program]}}}}
  - {name: side, image: "nginx:1"}
`, "apply", "-n", namespace, "-f", "-")
	kubectl(t, "", "wait", "pod/web", "-n", namespace, "--for=condition=Ready", "--timeout=60s")
	request := func(name, spec string) (string, error) {
		return cluster.Kubectl(t.Context(), "apiVersion: apps.kruise.io/v1alpha1\nkind: ContainerRecreateRequest\nmetadata: {name: "+name+"}\nspec: "+spec, "create", "-n", namespace, "-f", "-")
	}
	for name, spec := range map[string]string{
		"first": `{podName: web, containers: [{name: main}], strategy: {terminationGracePeriodSeconds: 5}}`, "second": `{podName: web, containers: [{name: main}], ttlSecondsAfterFinished: 600}`,
	} {
		if _, err := request(name, spec); err != nil {
			t.Fatal(err)
		}
	}
	testbed.Eventually(t, 2*time.Minute, func() error {
		for _, name := range []string{"first", "second"} {
			done := read[v1beta1.ContainerRecreateRequest](t, namespace, "crr", name)
			if done.Status.Phase != v1beta1.ContainerRecreateRequestCompleted || done.Labels[v1beta1.ContainerRecreateRequestActiveKey] != "" {
				return fmt.Errorf("%s is %+v with labels %v", name, done.Status, done.Labels)
			}
			if state := done.Status.ContainerRecreateStates[0]; state.Phase != v1beta1.ContainerRecreateRequestSucceeded {
				t.Errorf("%s ended as %+v", name, done.Status)
			}
		}
		return nil
	})
	restarts := kubectl(t, "", "get", "pod", "web", "-n", namespace, "-o", `jsonpath={range .status.containerStatuses[*]}{.name}={.restartCount} {end}`)
	// The second one finds its container restarted since it was made, and leaves it alone (R28).
	if strings.TrimSpace(restarts) != "main=1 side=0" {
		t.Errorf("restarts are %s", restarts)
	}
	testbed.Eventually(t, time.Minute, func() error {
		events := kubectl(t, "", "get", "events", "-n", namespace, "--field-selector", "involvedObject.name=web", "-o", "custom-columns=R:.reason,P:.involvedObject.fieldPath", "--no-headers")
		for _, want := range []string{"Killing", "FailedPreStopHook"} {
			if !slices.ContainsFunc(strings.Split(events, "\n"), func(line string) bool {
				return slices.Equal(strings.Fields(line), []string{want, "spec.containers{main}"})
			}) {
				return fmt.Errorf("no Event %s in\n%s", want, events)
			}
		}
		return nil
	})
	for spec, words := range map[string]string{
		`{podName: gone, containers: [{name: main}]}`:                              "no found Pod named gone",
		`{podName: web, containers: [{name: other}]}`:                              "container other not found in Pod",
		`{podName: web, containers: [{name: main}, {name: main}]}`:                 "multi times",
		`{podName: web, containers: [{name: main}], activeDeadlineSeconds: 1}`:     "can not be less than 3s",
		`{podName: web, containers: [{name: main, ports: [{containerPort: 80}]}]}`: "ready-only fields",
	} {
		if _, err := request("wrong", spec); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want %q", spec, err, words)
		}
	}
	if _, err := cluster.Kubectl(t.Context(), "", "patch", "crr", "second", "-n", namespace, "--type=merge", "-p", `{"spec": {"podName": "other"}}`); err == nil || !strings.Contains(err.Error(), "immutable") {
		t.Errorf("the spec could be changed: %v", err)
	}
}

// TestEnvironmentFromMetadata: a label that feeds a container's environment is changed in place; the agent finds the container
// with the old value, and it is restarted with the new one, in the same Pod (inplace-update R24, pod-probe B8).
func TestEnvironmentFromMetadata(t *testing.T) {
	namespace := space(t)
	withAgent(t, t.TempDir())
	manifest := func(color string) string {
		text := cloneSet("web", 1, "nginx:1", "false", inPlace)
		text = strings.Replace(text, "        app: web\n    spec:", "        app: web\n        color: "+color+"\n    spec:", 1)
		return strings.Replace(text, "        image: nginx:1\n", `        image: nginx:1
        env:
        - name: COLOR
          valueFrom: {fieldRef: {fieldPath: "metadata.labels['color']"}}
`, 1)
	}
	kubectl(t, manifest("red"), "apply", "-n", namespace, "-f", "-")
	const annotation = "apps.kruise.io/runtime-containers-meta"
	testbed.Eventually(t, time.Minute, func() error {
		all := pods(t, namespace, "web")
		if len(all) != 1 || !ready(all[0]) || !strings.Contains(all[0].Annotations[annotation], "extractedEnvFromMetadataHash") {
			return fmt.Errorf("Pods are %v", all)
		}
		return nil
	})
	before := pods(t, namespace, "web")[0]
	kubectl(t, manifest("blue"), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, func() error {
		after := pods(t, namespace, "web")[0]
		if after.UID != before.UID {
			t.Fatalf("Pod %s was replaced", before.Name)
		}
		// Twice, if the kubelet started it again before it heard of the label.
		if n := after.Status.ContainerStatuses[0].RestartCount; after.Labels["color"] != "blue" || !ready(after) || n < 1 || n > 2 {
			return fmt.Errorf("Pod %s has labels %v, restarts %d, ready %v", after.Name, after.Labels, after.Status.ContainerStatuses[0].RestartCount, ready(after))
		}
		return nil
	})
	if color := kubectl(t, "", "exec", before.Name, "-n", namespace, "--", "/bin/sh", "-c", "echo $COLOR"); strings.TrimSpace(color) != "blue" {
		t.Errorf("the container has COLOR=%s", color)
	}
}
