package blackbox

import (
	"testing"
	"time"

	"shiplog.dev/integration/testbed"
)

// TestAutoscaler: Kubernetes' own autoscaler finds the scale subresource of both versions and uses it (cloneset section 2). It has no metrics
// here, so what it does of itself is to keep to its least and greatest number.
func TestAutoscaler(t *testing.T) {
	namespace := space(t)
	up(t, t.TempDir())
	kubectl(t, cloneSet("web", 2, "nginx:1.20", "true", inPlace), "apply", "-n", namespace, "-f", "-")
	for version, least := range map[string]string{"v1alpha1": "4", "v1beta1": "3"} {
		kubectl(t, `{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{"name":"`+version+`"},"spec":{"minReplicas":`+least+`,"maxReplicas":`+least+`,`+
			`"scaleTargetRef":{"apiVersion":"apps.kruise.io/`+version+`","kind":"CloneSet","name":"web"},`+
			`"metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":50}}}]}}`, "apply", "-n", namespace, "-f", "-")
		testbed.Eventually(t, 3*time.Minute, func() error {
			return errNot("Pods by the autoscaler of "+version, field(t, namespace, "web", ".status.replicas"), least)
		})
		kubectl(t, "", "delete", "hpa", version, "-n", namespace)
	}
}
