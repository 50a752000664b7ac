package hollow

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var noon = metav1.NewTime(time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC))

func at(seconds int, mayStart bool) moment {
	return moment{now: metav1.NewTime(noon.Add(time.Duration(seconds) * time.Second)), mayStart: mayStart, hostIP: "198.18.0.1", podIP: "100.64.0.1"}
}

func newPod(images ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "d", UID: "u", Generation: 1}}
	for i, image := range images {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: string(rune('a' + i)), Image: image})
	}
	p.Spec.RestartPolicy = corev1.RestartPolicyAlways
	p.Status.Phase = corev1.PodPending
	return p
}

// settle gives the Pod its next status until that no longer changes, and tells how many writes it took.
func settle(t *testing.T, p *corev1.Pod, m moment) int {
	t.Helper()
	for writes := range 5 {
		s := next(p, m)
		if equality.Semantic.DeepEqual(s, p.Status) {
			return writes
		}
		p.Status = s
	}
	t.Fatalf("the status does not settle: %+v", p.Status)
	return 0
}

func readiness(p *corev1.Pod) corev1.ConditionStatus {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status
		}
	}
	return ""
}

func TestStartTakesOneWrite(t *testing.T) {
	p := newPod("app:1", "side:1")
	if writes := settle(t, p, at(0, true)); writes != 1 {
		t.Errorf("the start took %d writes, want 1", writes)
	}
	if p.Status.Phase != corev1.PodRunning || readiness(p) != corev1.ConditionTrue || p.Status.PodIP != "100.64.0.1" || p.Status.ObservedGeneration != 1 {
		t.Errorf("status after the start: %+v", p.Status)
	}
	if writes := settle(t, p, at(60, true)); writes != 0 {
		t.Errorf("a minute later, %d writes without a reason", writes)
	}
}

func TestImageChangeRestartsThatContainerOnly(t *testing.T) {
	p := newPod("app:1", "side:1")
	settle(t, p, at(0, true))
	a, b := p.Status.ContainerStatuses[0], p.Status.ContainerStatuses[1]
	p.Spec.Containers[0].Image, p.Generation = "app:2", 2
	settle(t, p, at(10, true))
	got := p.Status.ContainerStatuses[0]
	if got.RestartCount != 1 || got.ImageID == a.ImageID || got.ContainerID == a.ContainerID || !got.State.Running.StartedAt.After(a.State.Running.StartedAt.Time) {
		t.Errorf("the changed container: %+v", got)
	}
	if ended := got.LastTerminationState.Terminated; ended == nil || ended.ContainerID != a.ContainerID {
		t.Errorf("nothing tells of the container that ran before: %+v", got.LastTerminationState)
	}
	if !equality.Semantic.DeepEqual(p.Status.ContainerStatuses[1], b) {
		t.Errorf("the other container changed: %+v", p.Status.ContainerStatuses[1])
	}
	if p.Status.ObservedGeneration != 2 {
		t.Errorf("observed generation is %d, want 2", p.Status.ObservedGeneration)
	}
}

func TestStartDelayShowsContainersDown(t *testing.T) {
	p := newPod("app:1")
	settle(t, p, at(0, false))
	if w := p.Status.ContainerStatuses[0].State.Waiting; p.Status.Phase != corev1.PodPending || w == nil || w.Reason != "ContainerCreating" {
		t.Errorf("before the first start: %+v", p.Status)
	}
	settle(t, p, at(1, true))
	p.Spec.Containers[0].Image = "app:2"
	settle(t, p, at(5, false))
	if c := p.Status.ContainerStatuses[0]; c.Ready || c.State.Terminated == nil || readiness(p) != corev1.ConditionFalse || p.Status.Phase != corev1.PodRunning {
		t.Errorf("between the containers: %+v", p.Status)
	}
	settle(t, p, at(6, true))
	if c := p.Status.ContainerStatuses[0]; c.RestartCount != 1 || readiness(p) != corev1.ConditionTrue {
		t.Errorf("after the restart: %+v", p.Status)
	}
}

func TestReadinessGate(t *testing.T) {
	p := newPod("app:1")
	p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "Gate"}}
	settle(t, p, at(0, true))
	if readiness(p) != corev1.ConditionFalse {
		t.Error("ready without the gate's condition")
	}
	gate := corev1.PodCondition{Type: "Gate", Status: corev1.ConditionTrue, Message: "somebody else's"}
	p.Status.Conditions = append(p.Status.Conditions, gate)
	settle(t, p, at(5, true))
	if readiness(p) != corev1.ConditionTrue {
		t.Error("not ready although the gate is open")
	}
	if last := p.Status.Conditions[len(p.Status.Conditions)-1]; last != gate {
		t.Errorf("the gate's condition was changed: %+v", last)
	}
}

func TestTagsThatMisbehave(t *testing.T) {
	for _, test := range []struct {
		image   string
		restart corev1.RestartPolicy
		phase   corev1.PodPhase
		waiting string
	}{
		{"app:missing", corev1.RestartPolicyAlways, corev1.PodPending, "ImagePullBackOff"},
		{"app:crash", corev1.RestartPolicyAlways, corev1.PodRunning, "CrashLoopBackOff"},
		{"app:crash", corev1.RestartPolicyOnFailure, corev1.PodRunning, "CrashLoopBackOff"},
		{"app:crash", corev1.RestartPolicyNever, corev1.PodFailed, ""},
		{"app:done", corev1.RestartPolicyOnFailure, corev1.PodSucceeded, ""},
	} {
		p := newPod(test.image)
		p.Spec.RestartPolicy = test.restart
		settle(t, p, at(0, true))
		waiting := ""
		if w := p.Status.ContainerStatuses[0].State.Waiting; w != nil {
			waiting = w.Reason
		}
		if p.Status.Phase != test.phase || waiting != test.waiting || readiness(p) != corev1.ConditionFalse {
			t.Errorf("%s with restart policy %s: phase %s, waiting %q; want %s, %q", test.image, test.restart, p.Status.Phase, waiting, test.phase, test.waiting)
		}
	}
}

func TestBadRolloutAndBack(t *testing.T) {
	p := newPod("app:1")
	settle(t, p, at(0, true))
	p.Spec.Containers[0].Image = "app:missing"
	settle(t, p, at(5, true))
	if c := p.Status.ContainerStatuses[0]; p.Status.Phase != corev1.PodRunning || c.Ready || c.LastTerminationState.Terminated == nil || c.RestartCount != 0 {
		t.Errorf("with the bad image: %+v", p.Status)
	}
	p.Spec.Containers[0].Image = "app:1"
	settle(t, p, at(9, true))
	if c := p.Status.ContainerStatuses[0]; readiness(p) != corev1.ConditionTrue || c.RestartCount != 1 {
		t.Errorf("with the good image again: %+v", p.Status)
	}
}

func TestImageNames(t *testing.T) {
	for image, want := range map[string]string{
		"nginx":                   "docker.io/library/nginx:latest",
		"nginx:1.20":              "docker.io/library/nginx:1.20",
		"team/app:1":              "docker.io/team/app:1",
		"example.com:5000/app":    "example.com:5000/app:latest",
		"localhost/app:1":         "localhost/app:1",
		"app@sha256:0123456789ab": "docker.io/library/app@sha256:0123456789ab",
	} {
		if got := imageName(image); got != want {
			t.Errorf("imageName(%q) = %q, want %q", image, got, want)
		}
	}
	if got := imageID("app:1@sha256:0123"); got != "docker.io/library/app@sha256:0123" {
		t.Errorf("the ID of an image named by digest is %q", got)
	}
}
