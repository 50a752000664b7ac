package narrate

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide/inplace"
)

// State of a Pod, for people.
type State string

// The states, as words.
const (
	Starting    State = "starting"             // exists and has not been ready yet
	Ready       State = "ready"                // and available
	Settling    State = "ready, not available" // for less than minReadySeconds
	Held        State = "ready, held"          // by its lifecycle state, or by a label that declares it unavailable
	Updating    State = "updating in place"    // a change in place has not come to its end
	NotReady    State = "not ready"            // was ready before
	Failing     State = "failing"              // a container cannot start or keeps ending
	Terminating State = "terminating"
	Finished    State = "finished" // all its containers ended for good
)

// States in the order of a Pod's life.
var States = []State{Starting, Updating, NotReady, Failing, Held, Settling, Ready, Terminating, Finished}

// failures are the reasons for which a container cannot be started, and that do not end by themselves.
var failures = []string{"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError",
	"RunContainerError", "ErrImageNeverPull"}

// revisionLabel names the revision that a Pod has.
const revisionLabel = "controller-revision-hash"

// podFact is what a fact shows of a Pod.
type podFact struct{ *world.Pod }

// state says what a Pod is doing, knowing what it did before (zero: it is new), and when time alone makes it available. One
// that fails does so until it is ready or changed again, though its containers may look well between two attempts.
func (p podFact) state(was Span, minReady int32) (now State, availableAt time.Time) {
	before := was.State
	if before == Failing && was.Revision != p.Labels.Get(revisionLabel) {
		before = NotReady
	}
	ready := p.Condition("Ready")
	isReady := ready.Status == "True" && p.Phase == string(corev1.PodRunning)
	switch {
	case p.Terminating:
		return Terminating, time.Time{}
	case p.Phase == string(corev1.PodSucceeded) || p.Phase == string(corev1.PodFailed):
		return Finished, time.Time{}
	case p.Update != nil && !inplace.Complete(p.Pod):
		if p.cannotStart() || before == Failing && !p.runs() {
			return Failing, time.Time{}
		}
		return Updating, time.Time{} // whatever the containers that are being replaced do
	case isReady && p.held() != "":
		return Held, time.Time{}
	case isReady:
		since := ready.LastTransitionTime
		if restarted := inplace.StartedAt(p.Pod); restarted.After(since) {
			since = restarted
		}
		return Ready, since.Add(time.Duration(minReady) * time.Second)
	case p.failing(), before == Failing && !p.runs():
		return Failing, time.Time{}
	case before == "" || before == Starting:
		return Starting, time.Time{}
	case before == Updating:
		return Updating, time.Time{}
	}
	return NotReady, time.Time{}
}

// held says what keeps a ready Pod from counting as available; empty: nothing does.
func (p podFact) held() string {
	if state := v1beta1.LifecycleStateType(p.Labels.Get(v1beta1.LifecycleStateKey)); state != "" && state != v1beta1.LifecycleStateNormal {
		return string(state)
	}
	for label := range p.Labels.All() {
		if strings.HasPrefix(label, unavailableLabel) {
			return label
		}
	}
	return ""
}

// unavailableLabel begins the labels by which others declare a Pod unavailable (cloneset D19).
const unavailableLabel = "unavailable-pod.kruise.io/"

// cannotStart says whether a container waits for a reason that does not end by itself.
func (p podFact) cannotStart() bool {
	return slices.ContainsFunc(p.Statuses, func(status world.ContainerStatus) bool {
		return slices.Contains(failures, status.Waiting().Reason)
	})
}

// runs says whether all containers are ready, whatever else the Pod waits for.
func (p podFact) runs() bool {
	return p.Condition(string(corev1.ContainersReady)).Status == "True"
}

// failing says whether a container cannot start, or keeps ending with an error.
func (p podFact) failing() bool {
	return p.cannotStart() || slices.ContainsFunc(p.Statuses, func(status world.ContainerStatus) bool {
		ended := status.State.Terminated
		return status.Waiting().Reason == "CrashLoopBackOff" || ended != nil && ended.ExitCode != 0
	})
}

// trouble says what keeps a Pod from being ready; empty: nothing that its status tells.
func (p podFact) trouble() string {
	var out []string
	if scheduled := p.Condition(string(corev1.PodScheduled)); scheduled.Status == "False" {
		out = append(out, strings.TrimSuffix("not scheduled: "+scheduled.Message, ": "))
	}
	for _, status := range p.Statuses {
		text := ""
		switch {
		case status.Ready:
			continue
		case status.Waiting().Reason != "":
			text = status.Waiting().Reason
		case status.State.Terminated != nil:
			text = "ended: " + status.State.Terminated.Reason
		case !status.State.Running.StartedAt.IsZero():
			text = "runs, not ready"
		}
		ended := status.State.Terminated
		if ended == nil {
			ended = status.LastState.Terminated
		}
		if ended != nil && status.RestartCount > 0 {
			text += fmt.Sprintf(", exit code %d", ended.ExitCode)
			if ended.Reason != "" && ended.Reason != "Error" && ended.Reason != "Completed" {
				text += " (" + ended.Reason + ")"
			}
			text += fmt.Sprintf(", %s", count(int(status.RestartCount), "restart"))
		}
		image := shortImage(status.Image, p.image(status.Name))
		if slices.Contains(failures, status.Waiting().Reason) {
			image = p.image(status.Name) // it is the wanted one that cannot be started
		}
		out = append(out, fmt.Sprintf("container %s (%s): %s", status.Name, image, text))
	}
	if len(out) == 0 {
		for _, gate := range p.Gates {
			if p.Condition(gate).Status != "True" {
				out = append(out, "its readiness gate "+gate+" is not open")
			}
		}
	}
	return strings.Join(out, "; ")
}

// shortImage is what a container ran, or is to run, as people write it.
func shortImage(ran, wanted string) string {
	if ran == "" || strings.Contains(ran, "@") || strings.HasPrefix(ran, "sha256:") {
		return wanted
	}
	return strings.TrimPrefix(ran, "docker.io/library/")
}

func (p podFact) image(container string) string {
	for _, one := range p.Containers {
		if one.Name == container {
			return one.Image
		}
	}
	return "?"
}

// disruption says who takes the Pod down where that is not us; empty: the Pod does not tell.
func (p podFact) disruption() string {
	target := p.Condition(string(corev1.DisruptionTarget))
	if target.Status != "True" {
		return ""
	}
	switch target.Reason {
	case "EvictionByEvictionAPI":
		return "evicted through the API, as kubectl drain does"
	case "DeletionByTaintManager":
		return "evicted because of a taint of its node"
	case "PreemptionByScheduler":
		return "preempted for a Pod of higher priority"
	case "TerminationByKubelet":
		return "ended by its kubelet: " + target.Message
	case "DeletionByPodGC":
		return "removed because its node is gone"
	}
	return strings.TrimSuffix(target.Reason+": "+target.Message, ": ")
}

// images of the Pod's spec, in order.
func (p podFact) images() string {
	var out []string
	for _, container := range p.Containers {
		out = append(out, container.Image)
	}
	return strings.Join(out, ", ")
}

func (p podFact) restarts() int {
	n := 0
	for _, status := range p.Statuses {
		n += int(status.RestartCount)
	}
	return n
}

// count words a number of things: "1 Pod", "2 Pods".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
