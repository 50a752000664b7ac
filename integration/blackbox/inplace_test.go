package blackbox

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"shiplog.dev/integration/testbed"
)

// TestBatchesAndGrace: two containers that really run are changed in order of launch priority after a grace period, the second
// once the first is ready (inplace-update R13, R17, R18), while the Pod is out of its Services (R9).
func TestBatchesAndGrace(t *testing.T) {
	namespace := space(t)
	up(t, t.TempDir())
	container := func(name, image string, priority int) string {
		return fmt.Sprintf(`{"name":%q,"image":%q,"env":[{"name":"KRUISE_CONTAINER_BARRIER","valueFrom":{"configMapKeyRef":{"name":"barrier","key":"p_%d","optional":true}}}]}`, name, image, priority)
	}
	manifest := func(image string) string {
		return `{"apiVersion":"apps.kruise.io/v1alpha1","kind":"CloneSet","metadata":{"name":"two"},"spec":{"replicas":1,"selector":{"matchLabels":{"app":"two"}},` +
			`"updateStrategy":{"type":"InPlaceOnly","inPlaceUpdateStrategy":{"gracePeriodSeconds":2}},"template":{"metadata":{"labels":{"app":"two"}},` +
			`"spec":{"terminationGracePeriodSeconds":1,"nodeSelector":{"shiplog.dev/hollow":"false"},"containers":[` + container("app", image, 0) + `,` + container("agent", image, 1) + `]}}}}`
	}
	kubectl(t, manifest("nginx:1.20"), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "two", 1, "nginx:1.20"))
	before := pods(t, namespace, "two")[0]

	edited := time.Now()
	kubectl(t, manifest("nginx:1.21"), "apply", "-n", namespace, "-f", "-")
	graced := false
	testbed.Eventually(t, time.Minute, func() error {
		p := pods(t, namespace, "two")[0]
		if _, waits := p.Annotations["apps.kruise.io/inplace-update-grace"]; waits {
			graced = graced || !ready(p) // a status that the kubelet was about to write may say otherwise for a moment
			if p.Spec.Containers[1].Image != "nginx:1.20" {
				t.Fatalf("in its grace period the Pod has image %s", p.Spec.Containers[1].Image)
			}
		}
		return settled(t, namespace, "two", 1, "nginx:1.21")()
	})
	after := pods(t, namespace, "two")[0]
	if after.UID != before.UID || !graced {
		t.Errorf("the Pod is the same: %v, a grace period in which it was not ready was seen: %v", after.UID == before.UID, graced)
	}
	started := map[string]time.Time{}
	for _, status := range after.Status.ContainerStatuses {
		started[status.Name] = status.State.Running.StartedAt.Time
		if status.RestartCount != 1 {
			t.Errorf("container %s restarted %d times", status.Name, status.RestartCount)
		}
	}
	if started["app"].Before(started["agent"]) || started["agent"].Sub(edited) < time.Second {
		t.Errorf("edited %s, agent started %s, app %s: want the grace period first, then agent, then app", edited, started["agent"], started["app"])
	}
	state := after.Annotations["apps.kruise.io/inplace-update-state"]
	if strings.Count(state, `"timestamp"`) != 2 || strings.Contains(state, "nextContainer") {
		t.Errorf("the Pod's account does not show two batches: %s", state)
	}
}

// TestSameContent: a new name for the old content restarts the container and is recognised as done, by the kubelet's word that it has
// seen the new spec (inplace-update R26, D5).
func TestSameContent(t *testing.T) {
	namespace := space(t)
	up(t, t.TempDir())
	kubectl(t, cloneSet("same", 1, "nginx:1.20", "false", inPlace), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "same", 1, "nginx:1.20"))
	digest := func(p corev1.Pod) string {
		_, digest, _ := strings.Cut(p.Status.ContainerStatuses[0].ImageID, "@")
		return digest
	}
	before := pods(t, namespace, "same")[0]
	kubectl(t, cloneSet("same", 1, "nginx@"+digest(before), "false", inPlace), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, func() error {
		return errNot("updated and available, generation", field(t, namespace, "same", ".status['updatedAvailableReplicas','observedGeneration']"), "1 2")
	})
	after := pods(t, namespace, "same")[0]
	if after.UID != before.UID || after.Status.ContainerStatuses[0].RestartCount != 1 || digest(after) != digest(before) {
		t.Errorf("same Pod: %v, restarts %d, image %s and %s", after.UID == before.UID, after.Status.ContainerStatuses[0].RestartCount,
			before.Status.ContainerStatuses[0].ImageID, after.Status.ContainerStatuses[0].ImageID)
	}
}
