package blackbox

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"shiplog.dev/integration/testbed"
)

// TestJobOfACloneSet is the demo's walk on real containers: create, scale one by one, delete a named Pod, update in place,
// roll back under a partition.
func TestJobOfACloneSet(t *testing.T) {
	namespace := space(t)
	up(t, t.TempDir())
	apply := func(manifest string) { kubectl(t, manifest, "apply", "-n", namespace, "-f", "-") }

	apply(cloneSet("web", 3, "nginx:1.20", "false", inPlace))
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 3, "nginx:1.20"))
	if got := kubectl(t, "", "get", alphaCloneSets, "web", "-n", namespace, "-o", "jsonpath={.spec.updateStrategy.partition}"); got != "0" {
		t.Errorf("partition is stored as %q, Argo CD's health check reads 0", got)
	}

	const seconds = 3
	slow := fmt.Sprintf("%s  minReadySeconds: %d\n  scaleStrategy:\n    maxUnavailable: 1\n", inPlace, seconds)
	apply(cloneSet("web", 5, "nginx:1.20", "false", slow))
	testbed.Eventually(t, time.Minute, func() error {
		onTheWay := 0
		for _, p := range pods(t, namespace, "web") {
			if !ready(p) {
				onTheWay++
			}
		}
		if onTheWay > 1 {
			t.Fatalf("%d Pods are on their way at once, scaleStrategy.maxUnavailable is 1", onTheWay)
		}
		return settled(t, namespace, "web", 5, "nginx:1.20")()
	})
	var born []time.Time
	for _, p := range pods(t, namespace, "web") {
		born = append(born, p.CreationTimestamp.Time)
	}
	slices.SortFunc(born, time.Time.Compare)
	if apart := born[4].Sub(born[3]); apart < seconds*time.Second {
		t.Errorf("the fifth Pod came %s after the fourth, which had to be ready for %d s first", apart, seconds)
	}

	all := pods(t, namespace, "web")
	victim := all[2].Name
	apply(cloneSet("web", 4, "nginx:1.20", "false", slow+"    podsToDelete: ["+victim+"]\n"))
	kept := slices.DeleteFunc(slices.Clone(all), func(p corev1.Pod) bool { return p.Name == victim })
	testbed.Eventually(t, time.Minute, func() error {
		return errNot("Pods", uids(pods(t, namespace, "web")), uids(kept))
	})
	testbed.Eventually(t, 10*time.Second, func() error {
		return errNot("podsToDelete", field(t, namespace, "web", ".spec.scaleStrategy.podsToDelete"), "[]")
	})

	before := pods(t, namespace, "web")
	apply(cloneSet("web", 4, "nginx:latest", "false", slow))
	testbed.Eventually(t, 2*time.Minute, settled(t, namespace, "web", 4, "nginx:latest"))
	after := pods(t, namespace, "web")
	if err := errNot("Pods", uids(after), uids(before)); err != nil {
		t.Error(err)
	}
	for i, p := range after {
		if p.Status.PodIP != before[i].Status.PodIP {
			t.Errorf("Pod %s had address %s and has %s", p.Name, before[i].Status.PodIP, p.Status.PodIP)
		}
		if restarts := p.Status.ContainerStatuses[0].RestartCount; restarts != 1 {
			t.Errorf("Pod %s restarted %d times", p.Name, restarts)
		}
		if out := kubectl(t, "", "exec", "-n", namespace, p.Name, "--", "sh", "-c", "nginx -v 2>&1"); !strings.Contains(out, "latest") {
			t.Errorf("Pod %s answers %q", p.Name, out)
		}
	}

	apply(cloneSet("web", 4, "nginx:1.20", "false", inPlace+"    partition: 2\n"+fmt.Sprintf("  minReadySeconds: %d\n", seconds)))
	testbed.Eventually(t, 2*time.Minute, func() error {
		return errNot("updated, available, expected",
			field(t, namespace, "web", ".status['updatedReplicas','updatedAvailableReplicas','expectedUpdatedReplicas']"), "2 2 2")
	})
	changed := 0
	for _, p := range pods(t, namespace, "web") {
		if p.Spec.Containers[0].Image == "nginx:1.20" {
			changed++
		}
	}
	if changed != 2 {
		t.Errorf("%d Pods went back, want 2", changed)
	}
}

// TestRoutedPodsAreDrained: while a Service routes to a Pod it is taken out of the endpoints before its container restarts.
func TestRoutedPodsAreDrained(t *testing.T) {
	namespace := space(t)
	up(t, t.TempDir())
	kubectl(t, cloneSet("web", 3, "nginx:1", "true", inPlace+"    maxUnavailable: 1\n"), "apply", "-n", namespace, "-f", "-")
	kubectl(t, "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n", "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 3, "nginx:1"))
	kubectl(t, cloneSet("web", 3, "nginx:2", "true", inPlace+"    maxUnavailable: 1\n"), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, func() error {
		notReady := 0
		for _, p := range pods(t, namespace, "web") {
			if !ready(p) {
				notReady++
			}
		}
		if notReady > 1 {
			t.Fatalf("%d Pods are not ready, maxUnavailable is 1", notReady)
		}
		return settled(t, namespace, "web", 3, "nginx:2")()
	})
	for _, p := range pods(t, namespace, "web") {
		if state := p.Labels["lifecycle.apps.kruise.io/state"]; state != "Normal" {
			t.Errorf("Pod %s is left in state %q", p.Name, state)
		}
	}
}

// TestInvalidCloneSetDoesNotStopOthers: what cannot be acted on, and came past admission, says so on the object. A user's
// selector on the webhooks lets it past, and stays although Shiplog keeps the rest of them as it should be.
func TestInvalidCloneSetDoesNotStopOthers(t *testing.T) {
	namespace := space(t)
	up(t, t.TempDir())
	pass := func(selector string) {
		for _, kind := range []string{"mutating", "validating"} {
			kubectl(t, "", "patch", kind+"webhookconfiguration", "kruise-"+kind+"-webhook-configuration", "--type=json",
				"-p", `[{"op":"replace","path":"/webhooks/0/objectSelector","value":`+selector+`}]`)
		}
	}
	pass(`{"matchExpressions":[{"key":"unchecked","operator":"DoesNotExist"}]}`)
	defer pass(`{}`)
	unnamed := strings.Replace(cloneSet("unnamed", 1, "nginx:1", "true", "  volumeClaimTemplates: [{spec: {}}]\n"), "  name: unnamed\n", "  name: unnamed\n  labels: {unchecked: \"yes\"}\n", 1)
	testbed.Eventually(t, 10*time.Second, func() error { // the API server takes a moment to take note
		_, err := cluster.Kubectl(t.Context(), unnamed, "apply", "-n", namespace, "-f", "-")
		return err
	})
	kubectl(t, cloneSet("web", 2, "nginx:1", "true", ""), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 2, "nginx:1"))
	testbed.Eventually(t, 10*time.Second, func() error {
		return errNot("condition", field(t, namespace, "unnamed", `.status.conditions[?(@.type=="Stalled")].message`), "spec.volumeClaimTemplates[0].metadata.name: is empty")
	})
	testbed.Eventually(t, 10*time.Second, func() error {
		events := kubectl(t, "", "get", "events", "-n", namespace, "--field-selector", "involvedObject.name=unnamed,reason=InvalidSpec", "-o", "name")
		return errNot("Events about it", len(strings.Fields(events)), 1)
	})
}

// TestRefusedAtApply: what the schema can say is said at apply, field first.
func TestRefusedAtApply(t *testing.T) {
	namespace := space(t)
	up(t, t.TempDir())
	for what, more := range map[string]string{
		"partition":      "  updateStrategy:\n    partition: -1\n",
		"maxUnavailable": "  updateStrategy:\n    maxUnavailable: \"5\"\n",
		"maxSurge":       "  updateStrategy:\n    type: InPlaceOnly\n    maxSurge: 1\n",
	} {
		_, err := cluster.Kubectl(t.Context(), cloneSet("web", 1, "nginx:1", "true", more), "apply", "-n", namespace, "-f", "-")
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: want an error that names it, got %v", what, err)
		}
	}
}
