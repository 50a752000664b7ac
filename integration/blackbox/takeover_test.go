package blackbox

import (
	"fmt"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"shiplog.dev/integration/testbed"
)

// TestTakeover: a cluster that OpenKruise 1.9 ran is taken over. Revision, Pods, labels and annotations are there as it writes
// them (cloneset R11, R16, R17), and no Pod is written, created or deleted (cloneset R1, R5, D23).
func TestTakeover(t *testing.T) {
	namespace := space(t)
	asOpenKruise(t)
	const template = `{"metadata":{"labels":{"app":"old"}},"spec":{"terminationGracePeriodSeconds":1,"nodeSelector":{"shiplog.dev/hollow":"false"},"containers":[{"name":"main","image":"nginx:1.20"}]}}`
	kubectl(t, `{"apiVersion":"apps.kruise.io/v1alpha1","kind":"CloneSet","metadata":{"name":"old"},"spec":{"replicas":2,"selector":{"matchLabels":{"app":"old"}},`+
		`"updateStrategy":{"type":"InPlaceIfPossible"},"template":`+template+`}}`, "apply", "-n", namespace, "-f", "-")
	owner := fmt.Sprintf(`"ownerReferences":[{"apiVersion":"apps.kruise.io/v1alpha1","kind":"CloneSet","name":"old","uid":%q,"controller":true,"blockOwnerDeletion":true}]`,
		kubectl(t, "", "get", alphaCloneSets, "old", "-n", namespace, "-o", "jsonpath={.metadata.uid}"))
	// OpenKruise's revision holds what its client library writes: creationTimestamp null and empty resources.
	recorded := strings.NewReplacer(`{"metadata":{`, `{"$patch":"replace","metadata":{"creationTimestamp":null,`, `"image":"nginx:1.20"`, `"image":"nginx:1.20","resources":{}`).Replace(template)
	kubectl(t, `{"apiVersion":"apps/v1","kind":"ControllerRevision","metadata":{"name":"old-7b8f9c5d6","labels":{"app":"old","controller.kubernetes.io/hash":"7b8f9c5d6"},`+owner+`},`+
		`"data":{"spec":{"template":`+recorded+`}},"revision":4}`, "create", "-n", namespace, "-f", "-")
	for _, id := range []string{"abcde", "bcdef"} {
		kubectl(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"old-`+id+`","generateName":"old-","labels":{"app":"old","apps.kruise.io/cloneset-instance-id":"`+id+`",`+
			`"controller-revision-hash":"old-7b8f9c5d6","pod-template-hash":"7b8f9c5d6","lifecycle.apps.kruise.io/state":"Normal"},"annotations":{"lifecycle.apps.kruise.io/timestamp":"2026-01-14T08:00:00Z"},`+owner+`},`+
			`"spec":{"terminationGracePeriodSeconds":1,"nodeSelector":{"shiplog.dev/hollow":"false"},"readinessGates":[{"conditionType":"InPlaceUpdateReady"}],"containers":[{"name":"main","image":"nginx:1.20"}]}}`,
			"create", "-n", namespace, "-f", "-")
		kubectl(t, "", "patch", "pod", "old-"+id, "-n", namespace, "--subresource=status", "--type=strategic", "-p",
			`{"status":{"conditions":[{"type":"InPlaceUpdateReady","status":"True","lastTransitionTime":"2026-01-14T08:00:00Z"}]}}`)
	}
	kubectl(t, "", "patch", alphaCloneSets, "old", "-n", namespace, "--subresource=status", "--type=merge", "-p",
		`{"status":{"observedGeneration":1,"replicas":2,"readyReplicas":2,"availableReplicas":2,"updatedReplicas":2,"updatedReadyReplicas":2,"updatedAvailableReplicas":2,"expectedUpdatedReplicas":2,`+
			`"currentRevision":"old-7b8f9c5d6","updateRevision":"old-7b8f9c5d6","labelSelector":"app=old"}}`)
	testbed.Eventually(t, time.Minute, settled(t, namespace, "old", 2, "nginx:1.20"))
	versions := func() (out []string) {
		for _, p := range pods(t, namespace, "old") {
			out = append(out, p.Name+"@"+p.ResourceVersion)
		}
		return out
	}
	before := versions()

	up(t, t.TempDir())
	// Shiplog has looked at the CloneSet once it answers an edit that concerns no Pod.
	kubectl(t, "", "patch", "clonesets", "old", "-n", namespace, "--type=merge", "-p", `{"spec":{"revisionHistoryLimit":9}}`)
	testbed.Eventually(t, 30*time.Second, func() error {
		return errNot("observedGeneration", field(t, namespace, "old", ".status.observedGeneration"), "2")
	})
	if err := errNot("Pods", versions(), before); err != nil {
		t.Errorf("taking over wrote to Pods: %v", err)
	}
	if err := errNot("revisions", kubectl(t, "", "get", "controllerrevisions", "-n", namespace, "-o", "name"), "controllerrevision.apps/old-7b8f9c5d6\n"); err != nil {
		t.Error(err)
	}

	// Its object is stored in v1beta1 before long (api-surface R8).
	testbed.Eventually(t, time.Minute, func() error {
		return errNot("stored versions", kubectl(t, "", "get", "crd", "clonesets.apps.kruise.io", "-o", "jsonpath={.status.storedVersions}"), `["v1beta1"]`)
	})

	// From here on it is a CloneSet like any other: an image changes in the very same Pods.
	same := uids(pods(t, namespace, "old"))
	kubectl(t, "", "patch", "clonesets", "old", "-n", namespace, "--type=json", "-p", `[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"nginx:1.21"}]`)
	testbed.Eventually(t, time.Minute, settled(t, namespace, "old", 2, "nginx:1.21"))
	if err := errNot("Pods", uids(pods(t, namespace, "old")), same); err != nil {
		t.Error(err)
	}
}

// asOpenKruise makes the cluster one on which OpenKruise 1.9 was, and is no more: its definition has v1alpha1 alone, and nobody
// converts or admits. CloneSets that are there go.
func asOpenKruise(t *testing.T) {
	t.Helper()
	crds, err := testbed.Output("crds")
	if err != nil {
		t.Fatal(err)
	}
	var definition apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal([]byte(crds), &definition); err != nil {
		t.Fatal(err)
	}
	definition.Spec.Conversion = nil
	definition.Spec.Versions = definition.Spec.Versions[:1]
	definition.Spec.Versions[0].Storage = true
	if name := definition.Spec.Versions[0].Name; name != "v1alpha1" {
		t.Fatalf("the first version is %s", name)
	}
	theirs, err := yaml.Marshal(definition)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"mutating", "validating"} {
		kubectl(t, "", "delete", kind+"webhookconfiguration", "kruise-"+kind+"-webhook-configuration", "--ignore-not-found")
	}
	kubectl(t, "", "delete", "crd", definition.Name, "--ignore-not-found", "--wait=true")
	kubectl(t, string(theirs), "create", "-f", "-")
	kubectl(t, "", "wait", "crd/"+definition.Name, "--for=condition=Established", "--timeout=30s")
}
