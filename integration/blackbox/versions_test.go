package blackbox

import (
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"shiplog.dev/integration/testbed"
)

// Names of the resource that make kubectl ask for one version.
const (
	alphaCloneSets = "clonesets.v1alpha1.apps.kruise.io"
	betaCloneSets  = "clonesets.v1beta1.apps.kruise.io"
)

// TestVersions: a manifest written for OpenKruise 1.9 is applied, seen, changed and scaled in both versions (cloneset 2, 2.3),
// mistakes are refused with their path (cloneset A6), and after a restart at another address everything works on.
func TestVersions(t *testing.T) {
	namespace := space(t)
	state := t.TempDir()
	first := up(t, state)
	manifest := strings.Replace(cloneSet("web", 2, "nginx:1.20", "true", inPlace), "  name: web\n",
		"  name: web\n  annotations:\n    apps.kruise.io/image-predownload-parallelism: \"2\"\n", 1)
	kubectl(t, manifest, "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 2, "nginx:1.20"))

	seen := func(resource string) map[string]any {
		t.Helper()
		var whole map[string]any
		if err := yaml.Unmarshal([]byte(kubectl(t, "", "get", resource, "web", "-n", namespace, "-o", "yaml")), &whole); err != nil {
			t.Fatal(err)
		}
		return whole
	}
	at := func(whole map[string]any, path string) any {
		var value any = whole
		for part := range strings.SplitSeq(path, ".") {
			object, _ := value.(map[string]any)
			value = object[part]
		}
		return value
	}
	for resource, wanted := range map[string]map[string]any{
		alphaCloneSets: {"spec.updateStrategy.type": "InPlaceIfPossible", "spec.updateStrategy.partition": 0.0, "spec.updateStrategy.maxUnavailable": "20%", "status.readyReplicas": 2.0},
		betaCloneSets: {"spec.updateStrategy.type": "RollingUpdate", "spec.updateStrategy.rollingUpdate.podUpdatePolicy": "InPlaceIfPossible",
			"spec.updateStrategy.rollingUpdate.inPlaceUpdateStrategy.imagePreDownloadParallelism": 2.0, "spec.scaleStrategy.enablePVCReuse": true, "status.readyReplicas": 2.0},
	} {
		whole := seen(resource)
		for path, want := range wanted {
			if got := at(whole, path); got != want {
				t.Errorf("%s: %s is %v, want %v", resource, path, got, want)
			}
		}
	}

	// Changed in v1beta1, seen and applied again in v1alpha1.
	kubectl(t, "", "patch", betaCloneSets, "web", "-n", namespace, "--type=merge", "-p", `{"spec":{"updateStrategy":{"rollingUpdate":{"paused":true}}}}`)
	if got := at(seen(alphaCloneSets), "spec.updateStrategy.paused"); got != true {
		t.Errorf("paused is %v in v1alpha1", got)
	}
	kubectl(t, "", "patch", alphaCloneSets, "web", "-n", namespace, "--type=merge", "-p", `{"spec":{"updateStrategy":{"paused":null}}}`)
	if out := kubectl(t, manifest, "diff", "-n", namespace, "-f", "-"); out != "" {
		t.Errorf("applying the same again would change:\n%s", out)
	}
	kubectl(t, "", "scale", alphaCloneSets+"/web", "-n", namespace, "--replicas=3")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 3, "nginx:1.20"))

	_, err := cluster.Kubectl(t.Context(), "", "patch", alphaCloneSets, "web", "-n", namespace, "--type=merge", "-p", `{"spec":{"scaleStrategy":{"podsToDelete":["none"]}}}`)
	if err == nil || !strings.Contains(err.Error(), "spec.scaleStrategy.podsToDelete[0]: Invalid value: \"none\": find pod none failed") {
		t.Errorf("a Pod that does not exist: %v", err)
	}

	// Another process, which listens elsewhere.
	first.Kill()
	up(t, state)
	kubectl(t, "", "scale", alphaCloneSets+"/web", "-n", namespace, "--replicas=1")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 1, "nginx:1.20"))
	kubectl(t, strings.Replace(manifest, "nginx:1.20", "nginx:1.21", 1), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 2, "nginx:1.21"))
}
