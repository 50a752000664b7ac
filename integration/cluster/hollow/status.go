package hollow

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/kubernetes/pkg/kubelet/status"

	"shiplog.dev/integration/cluster/registry"
)

// moment is what a Pod's next status depends on besides the Pod itself.
type moment struct {
	now      metav1.Time
	mayStart bool // false while the start delay runs: what has to start is shown as not running yet
	hostIP   string
	podIP    string // for a Pod that has none yet
}

// next is the status that a kubelet would write for the Pod now. It is a function of the Pod and the moment alone, and
// of a Pod that already has that status it is the same status; that is why a restarted hollow node goes on where it was.
func next(pod *corev1.Pod, m moment) corev1.PodStatus {
	old := &pod.Status
	if terminal(old.Phase) {
		return *old
	}
	s := *old.DeepCopy()
	if s.StartTime == nil {
		s.StartTime = &m.now
	}
	s.HostIP, s.HostIPs = m.hostIP, []corev1.HostIP{{IP: m.hostIP}}
	if s.PodIP == "" && m.mayStart {
		s.PodIP = m.podIP
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	}

	initialised := true
	s.InitContainerStatuses = nil
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		next := nextInit(pod, c, m, initialised)
		initialised = initialised && (next.Ready || podutil.IsRestartableInitContainer(c) && next.State.Running != nil)
		s.InitContainerStatuses = append(s.InitContainerStatuses, next)
	}
	s.ContainerStatuses = nil
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		next := waiting(c, find(old.ContainerStatuses, c.Name), "PodInitializing", "")
		if initialised {
			next = nextContainer(pod, c, find(old.ContainerStatuses, c.Name), pod.Spec.RestartPolicy, m)
		}
		s.ContainerStatuses = append(s.ContainerStatuses, next)
	}
	s.Phase = phase(pod.Spec.RestartPolicy, s.ContainerStatuses)
	s.ObservedGeneration = podutil.CalculatePodStatusObservedGeneration(pod)
	s.Conditions = conditions(pod, &s, m.now)
	if equality.Semantic.DeepEqual(*old, s) {
		return *old
	}
	return s
}

// needsStart tells whether a container of the Pod is to be started, and names what: the same name is the same start.
func needsStart(pod *corev1.Pod) (string, bool) {
	if terminal(pod.Status.Phase) {
		return "", false
	}
	var names []string
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if !settled(c, find(pod.Status.ContainerStatuses, c.Name), pod.Spec.RestartPolicy) {
			names = append(names, c.Name+"="+c.Image)
		}
	}
	return strings.Join(names, ","), len(names) > 0
}

// settled tells whether a container's status already is what its spec leads to.
func settled(c *corev1.Container, old *corev1.ContainerStatus, restart corev1.RestartPolicy) bool {
	if old == nil {
		return false
	}
	switch tag := tagOf(c.Image); tag {
	case registry.Missing:
		return old.State.Waiting != nil && old.State.Waiting.Reason == "ImagePullBackOff" && old.State.Waiting.Message == backOffPull(c)
	case registry.Crash, registry.Done:
		if old.ImageID != imageID(c.Image) {
			return false
		}
		if restartsAfter(tag, restart) {
			return old.State.Waiting != nil && old.State.Waiting.Reason == "CrashLoopBackOff"
		}
		return old.State.Terminated != nil
	default:
		return old.State.Running != nil && old.ImageID == imageID(c.Image)
	}
}

func nextContainer(pod *corev1.Pod, c *corev1.Container, old *corev1.ContainerStatus, restart corev1.RestartPolicy, m moment) corev1.ContainerStatus {
	if settled(c, old, restart) {
		kept := *old.DeepCopy()
		resources(c, &kept) // changed in place, without a restart
		return kept
	}
	if !m.mayStart {
		if old == nil || old.ContainerID == "" {
			return waiting(c, old, "ContainerCreating", "")
		}
		return stopped(old, m)
	}
	tag := tagOf(c.Image)
	if tag == registry.Missing {
		reason, message := "ErrImagePull", fmt.Sprintf("failed to resolve reference %q: not found", c.Image)
		if old != nil && old.State.Waiting != nil && old.State.Waiting.Reason == "ErrImagePull" {
			reason, message = "ImagePullBackOff", backOffPull(c)
		}
		if old == nil || old.ContainerID == "" {
			return waiting(c, old, reason, message)
		}
		// As the kubelet does: the status still tells of the container that ran before.
		next := stopped(old, m)
		if next.State.Terminated != nil {
			next.LastTerminationState = next.State
		}
		next.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
		return next
	}

	next := corev1.ContainerStatus{
		Name: c.Name, Image: imageName(c.Image), ImageID: imageID(c.Image),
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: m.now}},
		Ready: true, Started: new(true),
	}
	resources(c, &next)
	if old != nil && old.ContainerID != "" {
		next.RestartCount = old.RestartCount + 1
		next.LastTerminationState = stopped(old, m).State
		if next.LastTerminationState.Terminated == nil {
			next.LastTerminationState = old.LastTerminationState
		}
	}
	next.ContainerID = containerID(pod, c.Name, next.RestartCount)
	if tag != registry.Crash && tag != registry.Done {
		return next
	}
	code, reason := int32(0), "Completed"
	if tag == registry.Crash {
		code, reason = 1, "Error"
	}
	ended := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: code, Reason: reason, StartedAt: m.now, FinishedAt: m.now, ContainerID: next.ContainerID,
	}}
	next.Ready, next.Started, next.State = false, new(false), ended
	if restartsAfter(tag, restart) {
		next.LastTerminationState = ended
		next.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
			Reason:  "CrashLoopBackOff",
			Message: fmt.Sprintf("back-off 10s restarting failed container=%s pod=%s_%s(%s)", c.Name, pod.Name, pod.Namespace, pod.UID),
		}}
	}
	return next
}

// nextInit treats a restartable init container as a container, and any other as one that has done its work at once.
func nextInit(pod *corev1.Pod, c *corev1.Container, m moment, mayRun bool) corev1.ContainerStatus {
	old := find(pod.Status.InitContainerStatuses, c.Name)
	switch {
	case !mayRun || old == nil && !m.mayStart:
		return waiting(c, old, "PodInitializing", "")
	case podutil.IsRestartableInitContainer(c):
		return nextContainer(pod, c, old, corev1.RestartPolicyAlways, m)
	case old != nil && old.Ready:
		return *old
	}
	next := nextContainer(pod, c, old, corev1.RestartPolicyAlways, m)
	if next.State.Running != nil {
		next.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			Reason: "Completed", StartedAt: m.now, FinishedAt: m.now, ContainerID: next.ContainerID,
		}}
		next.Started = new(false)
	}
	return next
}

func waiting(c *corev1.Container, old *corev1.ContainerStatus, reason, message string) corev1.ContainerStatus {
	next := corev1.ContainerStatus{Name: c.Name, Image: c.Image, Started: new(false)}
	if old != nil {
		next = *old.DeepCopy()
		next.Ready, next.Started = false, new(false)
	}
	next.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	return next
}

// stopped is the status of a container once it has been stopped, if it ran.
func stopped(old *corev1.ContainerStatus, m moment) corev1.ContainerStatus {
	next := *old.DeepCopy()
	next.Ready, next.Started = false, new(false)
	if running := old.State.Running; running != nil {
		next.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			Reason: "Completed", StartedAt: running.StartedAt, FinishedAt: m.now, ContainerID: old.ContainerID,
		}}
	}
	return next
}

func resources(c *corev1.Container, s *corev1.ContainerStatus) {
	s.AllocatedResources = c.Resources.Requests
	s.Resources = &corev1.ResourceRequirements{Limits: c.Resources.Limits, Requests: c.Resources.Requests}
}

// phase follows getPhase of the kubelet.
func phase(restart corev1.RestartPolicy, statuses []corev1.ContainerStatus) corev1.PodPhase {
	var pending, running, stopped, succeeded int
	for _, s := range statuses {
		switch {
		case s.State.Running != nil:
			running++
		case s.State.Terminated != nil:
			stopped++
			if s.State.Terminated.ExitCode == 0 {
				succeeded++
			}
		case s.LastTerminationState.Terminated != nil:
			stopped++
		default:
			pending++
		}
	}
	switch {
	case pending > 0:
		return corev1.PodPending
	case running > 0 || restart == corev1.RestartPolicyAlways:
		return corev1.PodRunning
	case stopped == succeeded:
		return corev1.PodSucceeded
	case restart == corev1.RestartPolicyNever:
		return corev1.PodFailed
	default:
		return corev1.PodRunning
	}
}

// conditions replaces the conditions that a kubelet owns and leaves those of other writers as they are. The kubelet's
// own code decides, so gates and generations are judged as on a real node.
func conditions(pod *corev1.Pod, s *corev1.PodStatus, now metav1.Time) []corev1.PodCondition {
	old := &pod.Status
	all := slices.Concat(s.InitContainerStatuses, s.ContainerStatuses)
	generation := func(t corev1.PodConditionType) int64 {
		return podutil.CalculatePodConditionObservedGeneration(old, pod.Generation, t)
	}
	sandbox := corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionFalse, ObservedGeneration: generation(corev1.PodReadyToStartContainers)}
	if s.PodIP != "" && !terminal(s.Phase) {
		sandbox.Status = corev1.ConditionTrue
	}
	owned := []corev1.PodCondition{
		sandbox,
		status.GeneratePodInitializedCondition(pod, old, all, s.Phase),
		status.GeneratePodReadyCondition(pod, old, old.Conditions, all, s.Phase),
		status.GenerateContainersReadyCondition(pod, old, all, s.Phase),
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, ObservedGeneration: generation(corev1.PodScheduled)},
	}
	result := slices.Clone(old.Conditions)
	for _, c := range owned {
		i, before := podutil.GetPodConditionFromList(result, c.Type)
		c.LastTransitionTime = now
		if before == nil {
			result = append(result, c)
			continue
		}
		if before.Status == c.Status {
			c.LastTransitionTime = before.LastTransitionTime
		}
		c.LastProbeTime = before.LastProbeTime
		result[i] = c
	}
	return result
}

func terminal(phase corev1.PodPhase) bool {
	return phase == corev1.PodSucceeded || phase == corev1.PodFailed
}

func restartsAfter(tag string, restart corev1.RestartPolicy) bool {
	return restart == corev1.RestartPolicyAlways || restart == "" || restart == corev1.RestartPolicyOnFailure && tag == registry.Crash
}

func backOffPull(c *corev1.Container) string {
	return fmt.Sprintf("Back-off pulling image %q: ErrImagePull: not found", c.Image)
}

func find(statuses []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range statuses {
		if statuses[i].Name == name {
			return &statuses[i]
		}
	}
	return nil
}

func containerID(pod *corev1.Pod, name string, restart int32) string {
	return fmt.Sprintf("containerd://%x", sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d", pod.UID, name, restart)))
}

// imageName is the image's full name, as containerd reports it: nginx:1 is docker.io/library/nginx:1.
func imageName(image string) string {
	first, _, several := strings.Cut(image, "/")
	switch {
	case !several:
		image = "docker.io/library/" + image
	case !strings.ContainsAny(first, ".:") && first != "localhost":
		image = "docker.io/" + image
	}
	if tagOf(image) == "" && !strings.Contains(image, "@") {
		image += ":latest"
	}
	return image
}

// imageID is the digest by which containerd knows an image; here it is one of the image's name.
func imageID(image string) string {
	full := imageName(image)
	if name, digest, ok := strings.Cut(full, "@"); ok {
		return strings.TrimSuffix(name, ":"+tagOf(name)) + "@" + digest
	}
	return fmt.Sprintf("%s@sha256:%x", strings.TrimSuffix(full, ":"+tagOf(full)), sha256.Sum256([]byte(full)))
}

// tagOf is the tag of an image, or "" if it names none.
func tagOf(image string) string {
	image, _, _ = strings.Cut(image, "@")
	last := image[strings.LastIndex(image, "/")+1:]
	_, tag, _ := strings.Cut(last, ":")
	return tag
}
