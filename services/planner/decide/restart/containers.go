package restart

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide/stopping"
)

const (
	pending    = v1beta1.ContainerRecreateRequestPending
	recreating = v1beta1.ContainerRecreateRequestRecreating
	succeeded  = v1beta1.ContainerRecreateRequestSucceeded
	failed     = v1beta1.ContainerRecreateRequestFailed
)

type (
	container = v1beta1.ContainerRecreateRequestContainer
	state     = v1beta1.ContainerRecreateRequestContainerRecreateState
)

// walk goes through the containers in their order (R15, R16, R19).
func (r *round) walk() {
	states := make([]state, len(r.request.Spec.Containers))
	for i := range states {
		states[i] = r.judge(&r.request.Spec.Containers[i])
	}
	r.status.ContainerRecreateStates = states
	silent := false
	over := func() bool {
		for i := range states {
			switch one := &states[i]; one.Phase {
			case succeeded:
				continue
			case failed:
				if r.strategy.FailurePolicy != v1beta1.ContainerRecreateRequestFailurePolicyIgnore {
					return true
				}
			case recreating:
				if r.strategy.OrderedRecreate {
					return false
				}
			default:
				if r.statusOf(one.Name) == nil {
					return false
				}
				if silent = r.stop(&r.request.Spec.Containers[i], one); silent {
					return true
				}
				if one.Phase == failed {
					if r.strategy.FailurePolicy != v1beta1.ContainerRecreateRequestFailurePolicyIgnore {
						return true
					}
					continue
				}
				return false // one at a time
			}
		}
		return !slices.ContainsFunc(states, func(s state) bool { return s.Phase != succeeded && s.Phase != failed })
	}()
	switch {
	case silent: // R22
		r.complete(messageSilent)
	case over:
		r.status.Phase, r.status.Message = v1beta1.ContainerRecreateRequestCompleted, ""
		r.status.CompletionTime = r.stamp()
	}
}

// judge works out how far one container is (R15).
func (r *round) judge(c *container) state {
	held := state{Name: c.Name, Phase: pending}
	for _, one := range r.request.Status.ContainerRecreateStates {
		if one.Name == c.Name {
			held = one
		}
	}
	if held.Phase == succeeded || held.Phase == failed {
		return held
	}
	next := state{Name: c.Name, Phase: pending, IsKilled: held.IsKilled || r.stopOf(c) != nil}
	now := r.statusOf(c.Name)
	switch {
	case now == nil:
		next.Message = "not found container on Node"
	case r.strategy.ForceRecreate && !next.IsKilled:
	case !r.replaced(c, now):
		if next.IsKilled || now.State.Terminated != nil {
			next.Phase = recreating
			if r.staysDown(now) && next.IsKilled {
				next.Phase = succeeded // D7
			}
		}
	default:
		next.Phase, next.Message = r.runs(now)
	}
	return next
}

// runs says how far a container is that runs instead of the one before (R15, D8, D10).
func (r *round) runs(now *world.ContainerStatus) (v1beta1.ContainerRecreateRequestPhase, string) {
	started := now.State.Running.StartedAt
	switch {
	case now.State.Terminated != nil && r.staysDown(now):
		return succeeded, ""
	case started.IsZero():
		return recreating, ""
	case !now.Ready:
		return recreating, "waiting for ready"
	}
	least := r.strategy.MinStartedSeconds
	if !r.Passed(started.Add(time.Duration(least)*time.Second), "minStartedSeconds %d of %s pass", least, now.Name) {
		return recreating, "waiting for minStartedSeconds"
	}
	return succeeded, ""
}

// staysDown says whether the kubelet will not start a container that ended (D7).
func (r *round) staysDown(now *world.ContainerStatus) bool {
	if now.State.Terminated == nil {
		return false
	}
	return r.pod.RestartPolicy == string(corev1.RestartPolicyNever) || r.pod.Phase == string(corev1.PodSucceeded) || r.pod.Phase == string(corev1.PodFailed) ||
		r.pod.RestartPolicy == string(corev1.RestartPolicyOnFailure) && now.State.Terminated.ExitCode == 0
}

// replaced says whether another container runs than when the request was made, or, of one that it has stopped since, than the
// one that it stopped.
func (r *round) replaced(c *container, now *world.ContainerStatus) bool {
	if stop := r.stopOf(c); stop != nil {
		return stopping.BareID(now.ContainerID) != stop.Target
	}
	was := c.StatusContext
	return was != nil && (now.ContainerID != was.ContainerID || now.RestartCount > was.RestartCount)
}

// statusOf returns what the kubelet says of a container, native sidecars included (D9), or nil.
func (r *round) statusOf(name string) *world.ContainerStatus {
	for _, list := range [][]world.ContainerStatus{r.pod.Statuses, r.pod.InitStatuses} {
		for i := range list {
			if list[i].Name == name && list[i].ContainerID != "" {
				return &list[i]
			}
		}
	}
	return nil
}

// target is the runtime's identity of the container that is to be stopped.
func (r *round) target(c *container) string {
	id := ""
	if c.StatusContext != nil {
		id = stopping.BareID(c.StatusContext.ContainerID)
	}
	now := r.statusOf(c.Name)
	if id == "" || r.strategy.ForceRecreate && now != nil && stopping.CallOf(r.World, r.pod, r.request.UID, world.Stop, id) == nil {
		id = stopping.BareID(now.ContainerID)
	}
	return id
}

// stopOf returns the newest call by which this request has stopped a container, whatever runs in its place by now; nil: it has
// not, or long ago.
func (r *round) stopOf(c *container) *world.Call {
	var newest *world.Call
	for _, call := range r.World.EndedCalls(r.pod.Node, world.Stop, r.request.UID) {
		if call.Applied() && call.Container == c.Name {
			newest = call
		}
	}
	return newest
}

// stop brings a container to its end (R17). It notes in one what came of it, and returns whether the agent of the node does not
// answer.
func (r *round) stop(c *container, one *state) (silent bool) {
	target := stopping.Container{Name: c.Name, ID: r.target(c), PreStop: c.PreStop, Ports: c.Ports, Grace: stopping.DefaultGrace}
	if seconds := r.strategy.TerminationGracePeriodSeconds; seconds != nil {
		target.Grace = time.Duration(*seconds) * time.Second
	}
	command, progress, call := stopping.Next(r.World, r.pod, r.request.UID, target)
	if command != nil {
		r.Append(command)
	}
	switch progress {
	case stopping.Stopped:
		one.IsKilled, one.Phase = true, recreating
	case stopping.Failed:
		one.Phase, one.Message = failed, "kill container error: "+call.Outcome.GetReason().GetMessage()
	}
	return progress == stopping.Silent
}

// snapshot notes what the kubelet says of the containers that run instead of those before (R24, D3).
func (r *round) snapshot() {
	var snapshot []v1beta1.ContainerRecreateRequestSyncContainerStatus
	for i := range r.request.Spec.Containers {
		c := &r.request.Spec.Containers[i]
		now := r.statusOf(c.Name)
		if now == nil || now.State.Running.StartedAt.IsZero() || !r.replaced(c, now) {
			continue
		}
		snapshot = append(snapshot, v1beta1.ContainerRecreateRequestSyncContainerStatus{
			Name: c.Name, Ready: now.Ready, RestartCount: now.RestartCount, ContainerID: now.ContainerID,
		})
	}
	if len(snapshot) > 0 {
		r.status.ContainerStatusSnapshot = snapshot
	}
}

// complete ends the request before its containers are restarted: those that are not have failed (R21 to R23, D4).
func (r *round) complete(message string) {
	r.status.Phase, r.status.Message, r.status.CompletionTime = v1beta1.ContainerRecreateRequestCompleted, message, r.stamp()
	states := make([]state, len(r.request.Spec.Containers))
	for i := range r.request.Spec.Containers {
		states[i] = state{Name: r.request.Spec.Containers[i].Name, Phase: failed, Message: message}
		for _, one := range r.status.ContainerRecreateStates {
			if one.Name != states[i].Name {
				continue
			}
			states[i].IsKilled = one.IsKilled
			if one.Phase == succeeded || one.Phase == failed {
				states[i] = one
			}
		}
	}
	r.status.ContainerRecreateStates = states
}

func (r *round) stamp() *metav1.Time {
	now := metav1.NewTime(r.Now().UTC().Truncate(time.Second))
	return &now
}

// unreadySince is when the Pod was made not ready, and whether it was.
func unreadySince(status *v1beta1.ContainerRecreateRequestStatus) (time.Time, bool) {
	for _, condition := range status.Conditions {
		if condition.Type == v1beta1.PreRecreateGrace && condition.Status == metav1.ConditionTrue {
			return condition.LastTransitionTime.Time, true
		}
	}
	return time.Time{}, false
}

func grace(since time.Time) metav1.Condition {
	return metav1.Condition{
		Type: v1beta1.PreRecreateGrace, Status: metav1.ConditionTrue, Reason: v1beta1.PreRecreateGrace, LastTransitionTime: metav1.NewTime(since.UTC().Truncate(time.Second)),
		Message: "Pod has been forced to not-ready for unreadyGracePeriodSeconds drain",
	}
}
