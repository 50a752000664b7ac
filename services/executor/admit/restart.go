package admit

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/internal/gate"
	"shiplog.dev/internal/world"
)

const (
	activeLabel  = v1beta1.ContainerRecreateRequestActiveKey
	podUIDLabel  = v1beta1.ContainerRecreateRequestPodUIDKey
	nodeLabel    = v1beta1.ContainerRecreateRequestNodeNameKey
	acquiredNote = v1beta1.ContainerRecreateRequestUnreadyAcquiredKey
	// leastDeadline is in seconds.
	leastDeadline = 3
)

// restartRequest is a ContainerRecreateRequest of a request; both versions have the same spec.
type restartRequest struct {
	Metadata metav1.ObjectMeta
	Spec     v1beta1.ContainerRecreateRequestSpec
	Status   v1beta1.ContainerRecreateRequestStatus
}

// admitRestart judges and completes a ContainerRecreateRequest (container-restart 3.1, 5).
func (r rules) admitRestart(ctx context.Context, q request) (verdict, error) {
	var now, old restartRequest
	if err := json.Unmarshal(q.object, &now); err != nil {
		return badRequest("decode the ContainerRecreateRequest: %v", err), nil
	}
	if q.operation == "UPDATE" {
		if err := json.Unmarshal(q.old, &old); err != nil {
			return badRequest("decode the ContainerRecreateRequest: %v", err), nil
		}
		return keepRestart(&now, &old), nil
	}
	if !r.gates.On(gate.KruiseDaemon) {
		return forbidden("feature-gate %s is not enabled", gate.KruiseDaemon), nil
	}
	if wrong := shapeOfRestart(&now.Spec); wrong.refusal != nil {
		return wrong, nil
	}
	pod, err := r.cluster.WholePod(ctx, q.namespace, now.Spec.PodName)
	if err != nil {
		return verdict{}, fmt.Errorf("look up Pod %s: %w", now.Spec.PodName, err)
	}
	if wrong := podOfRestart(pod, now.Spec.PodName); wrong.refusal != nil {
		return wrong, nil
	}
	node, err := r.cluster.Node(ctx, pod.Spec.NodeName)
	if err != nil {
		return verdict{}, fmt.Errorf("look up Node %s: %w", pod.Spec.NodeName, err)
	}
	if node == nil {
		return badRequest("failed to get Node %s of Pod %s: there is none", pod.Spec.NodeName, pod.Name), nil
	}
	wanted := now.Spec.DeepCopy()
	if wrong := completeRestart(wanted, pod); wrong.refusal != nil {
		return wrong, nil
	}
	labels := map[string]string{}
	for key, value := range now.Metadata.Labels {
		labels[key] = value
	}
	labels[activeLabel], labels[podUIDLabel], labels[nodeLabel] = "true", string(pod.UID), pod.Spec.NodeName // R3, R6
	if node.Labels["type"] == "virtual-kubelet" {
		labels["type"] = node.Labels["type"]
	}
	return verdict{patch: []operation{{"add", "/metadata/labels", labels}, {"replace", "/spec", wanted}}}, nil
}

// keepRestart refuses what must not change (R9, D12).
func keepRestart(now, old *restartRequest) verdict {
	if !world.SameMeaning(asTree(now.Spec), asTree(old.Spec)) {
		return forbidden("spec of ContainerRecreateRequest is immutable")
	}
	for _, label := range []string{podUIDLabel, nodeLabel} {
		if now.Metadata.Labels[label] != old.Metadata.Labels[label] {
			return forbidden("not allowed to update immutable label %s", label)
		}
	}
	if was := old.Metadata.Annotations[acquiredNote]; was != "" && now.Metadata.Annotations[acquiredNote] != was {
		return forbidden("not allowed to update immutable annotation %s", acquiredNote)
	}
	if old.Metadata.Labels[activeLabel] != "" && now.Metadata.Labels[activeLabel] != old.Metadata.Labels[activeLabel] && old.Status.CompletionTime == nil {
		return forbidden("not allowed to update label %s before the request is completed", activeLabel)
	}
	return verdict{}
}

// shapeOfRestart judges what can be judged of a request by itself (R2, D1).
func shapeOfRestart(spec *v1beta1.ContainerRecreateRequestSpec) verdict {
	switch strategy := spec.Strategy; {
	case spec.PodName == "":
		return badRequest("podName can not be empty")
	case len(spec.Containers) == 0:
		return badRequest("containers list can not be null")
	case spec.ActiveDeadlineSeconds != nil && *spec.ActiveDeadlineSeconds < leastDeadline:
		return badRequest("activeDeadlineSeconds can not be less than %ds", leastDeadline)
	case strategy == nil:
	case strategy.TerminationGracePeriodSeconds != nil && *strategy.TerminationGracePeriodSeconds < 0:
		return badRequest("terminationGracePeriodSeconds must be non-negative integer")
	case strategy.UnreadyGracePeriodSeconds != nil && *strategy.UnreadyGracePeriodSeconds < 0:
		return badRequest("unreadyGracePeriodSeconds must be non-negative integer")
	case !slices.Contains([]v1beta1.ContainerRecreateRequestFailurePolicyType{
		"", v1beta1.ContainerRecreateRequestFailurePolicyFail, v1beta1.ContainerRecreateRequestFailurePolicyIgnore,
	}, strategy.FailurePolicy):
		return badRequest("unknown failurePolicy %s", strategy.FailurePolicy)
	}
	seen := map[string]bool{}
	for _, container := range spec.Containers {
		switch {
		case seen[container.Name]:
			return badRequest("can not recreate %s multi times", container.Name)
		case container.PreStop != nil || container.Ports != nil || container.StatusContext != nil:
			return badRequest("preStop, ports, statusContext in container are ready-only fields, they must not be set for %s", container.Name)
		}
		seen[container.Name] = true
	}
	return verdict{}
}

// podOfRestart judges the Pod of a request (R5).
func podOfRestart(pod *corev1.Pod, name string) verdict {
	switch {
	case pod == nil:
		return badRequest("no found Pod named %s", name)
	case (pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || pod.DeletionTimestamp != nil) &&
		!slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == "SidecarTerminated" }):
		return badRequest("not allowed to recreate containers in an inactive Pod")
	case pod.Spec.NodeName == "":
		return badRequest("not allowed to recreate containers in a pending Pod")
	}
	return verdict{}
}

// completeRestart fills in what the Pod says of its containers (R4, R7, R8, D5, D9).
func completeRestart(spec *v1beta1.ContainerRecreateRequestSpec, pod *corev1.Pod) verdict {
	if spec.Strategy == nil {
		spec.Strategy = &v1beta1.ContainerRecreateRequestStrategy{}
	}
	if spec.Strategy.FailurePolicy == "" {
		spec.Strategy.FailurePolicy = v1beta1.ContainerRecreateRequestFailurePolicyFail
	}
	if spec.Strategy.TerminationGracePeriodSeconds == nil {
		spec.Strategy.TerminationGracePeriodSeconds = pod.Spec.TerminationGracePeriodSeconds
	}
	for i := range spec.Containers {
		one := &spec.Containers[i]
		container, status := containerOf(pod, one.Name)
		switch {
		case container == nil:
			return badRequest("container %s not found in Pod", one.Name)
		case status == nil:
			return badRequest("not found %s containerStatus in Pod Status", one.Name)
		case status.ContainerID == "":
			return badRequest("no containerID in %s containerStatus, maybe the container has not been initialized", one.Name)
		}
		one.StatusContext = &v1beta1.ContainerRecreateRequestContainerContext{ContainerID: status.ContainerID, RestartCount: status.RestartCount}
		if container.Lifecycle == nil || container.Lifecycle.PreStop == nil {
			continue
		}
		hook := container.Lifecycle.PreStop
		one.PreStop = &v1beta1.ContainerRecreateRequestHandler{Exec: hook.Exec, HTTPGet: hook.HTTPGet, TCPSocket: hook.TCPSocket, Sleep: hook.Sleep}
		if hook.HTTPGet != nil || hook.TCPSocket != nil {
			one.Ports = container.Ports
		}
	}
	return verdict{}
}

// containerOf returns a container that the kubelet keeps running, a native sidecar included, and its status; nil: there is none.
func containerOf(pod *corev1.Pod, name string) (*corev1.Container, *corev1.ContainerStatus) {
	find := func(containers []corev1.Container, statuses []corev1.ContainerStatus, counts func(*corev1.Container) bool) (*corev1.Container, *corev1.ContainerStatus) {
		at := slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == name })
		if at < 0 || !counts(&containers[at]) {
			return nil, nil
		}
		if status := slices.IndexFunc(statuses, func(s corev1.ContainerStatus) bool { return s.Name == name }); status >= 0 {
			return &containers[at], &statuses[status]
		}
		return &containers[at], nil
	}
	if container, status := find(pod.Spec.Containers, pod.Status.ContainerStatuses, func(*corev1.Container) bool { return true }); container != nil {
		return container, status
	}
	return find(pod.Spec.InitContainers, pod.Status.InitContainerStatuses, func(c *corev1.Container) bool {
		return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
	})
}

func badRequest(format string, arguments ...any) verdict {
	return refuse(http.StatusBadRequest, metav1.StatusReasonBadRequest, format, arguments...)
}

func forbidden(format string, arguments ...any) verdict {
	return refuse(http.StatusForbidden, metav1.StatusReasonForbidden, format, arguments...)
}
