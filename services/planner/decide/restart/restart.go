// Package restart holds the rules of ContainerRecreateRequest (spec: container-restart): the containers that a request names are
// stopped in their order by the agent of the Pod's node, the kubelet starts them again, and the request is over when they
// run. Pure: it reads a world and returns commands.
package restart

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"shiplog.dev/api/kruise/apps/v1beta1"
	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/gate"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
	"shiplog.dev/services/planner/decide/podready"
)

// Reason codes of the commands, stable.
const (
	ReportStatus  = "ReportStatus"  // status differs from the facts
	HoldUnready   = "HoldUnready"   // the Pod is taken out of its Services before the first stop (R25)
	ReleaseReady  = "ReleaseReady"  // and may be ready again (R26)
	TidyRequest   = "TidyRequest"   // finalizer and label of a request that is, or is not, over (R25, R26)
	RemoveRequest = "RemoveRequest" // ended long enough ago (R26)
)

// Codes of what is held back.
const (
	HeldTurn    = "OtherRequest"
	HeldUnready = "UnreadyGracePeriod"
)

// Messages (R21 to R23).
const (
	messageGone     = "pod has gone"
	messageSilent   = "daemon has not responded for a long time"
	messageDeadline = "recreating has exceeded the activeDeadlineSeconds"
)

const (
	// userAgent is the name by which a request holds the Pod's gate shut (R25).
	userAgent = "ContainerRecreateRequest"
	acquired  = v1beta1.ContainerRecreateRequestUnreadyAcquiredKey
)

// Decide returns what to do for one ContainerRecreateRequest.
func Decide(w *world.World, ref world.Ref) decide.Decision {
	request := w.RestartRequest(ref)
	if request == nil || !w.Gate(gate.KruiseDaemon) {
		return decide.Decision{}
	}
	r := &round{
		Turn: decide.NewTurn(w, ref, &shiplogv1.ObjectRef{
			Group: ref.Group, Version: "v1beta1", Resource: ref.Resource, Namespace: ref.Namespace, Name: ref.Name, Uid: string(request.UID),
		}, request.Generation),
		request: request, strategy: request.Spec.Strategy, status: *request.Status.DeepCopy(),
	}
	if r.strategy == nil { // D15
		r.strategy = &v1beta1.ContainerRecreateRequestStrategy{}
	}
	r.pod, _ = w.Pod(world.Ref{Resource: world.ResourcePods, Namespace: ref.Namespace, Name: request.Spec.PodName})
	if r.pod != nil && r.pod.UID != types.UID(request.Labels.Get(v1beta1.ContainerRecreateRequestPodUIDKey)) {
		r.pod = nil
	}
	switch {
	case request.Terminating || request.Status.CompletionTime != nil:
		r.clean()
	case request.Malformed != "":
		r.complete(request.Malformed)
		r.report()
	default:
		r.run()
		r.report()
	}
	return r.End()
}

type round struct {
	*decide.Turn
	request  *world.RestartRequest
	strategy *v1beta1.ContainerRecreateRequestStrategy
	// pod that the request is about; nil: it is gone.
	pod *world.Pod
	// status as it should be.
	status v1beta1.ContainerRecreateRequestStatus
}

// run takes the request further.
func (r *round) run() {
	if r.pod == nil || r.pod.Terminating { // R21
		r.complete(messageGone)
		return
	}
	if seconds := r.request.Spec.ActiveDeadlineSeconds; seconds != nil { // R23
		if r.Passed(r.request.Created.Add(time.Duration(*seconds)*time.Second), "activeDeadlineSeconds %d pass", *seconds) {
			r.complete(messageDeadline)
			return
		}
	}
	if first := r.picked(); first != r.request { // R11
		r.Hold(HeldTurn, "that request being over", "request %s restarts containers of the Pod", first.Name)
		if r.status.Phase == "" {
			r.status.Phase = v1beta1.ContainerRecreateRequestPending
		}
		return
	}
	r.status.Phase = v1beta1.ContainerRecreateRequestRecreating // R12
	r.snapshot()
	if r.drained() {
		r.walk()
	}
}

// picked is the request of the Pod whose turn it is (R11).
func (r *round) picked() *world.RestartRequest {
	weight := func(q *world.RestartRequest) int {
		return slices.Index([]v1beta1.ContainerRecreateRequestPhase{
			v1beta1.ContainerRecreateRequestRecreating, v1beta1.ContainerRecreateRequestPending, "",
		}, q.Status.Phase)
	}
	waiting := slices.DeleteFunc(r.World.RestartsOf(r.request.Namespace, r.request.Spec.PodName), func(q *world.RestartRequest) bool {
		return q.Terminating || q.Status.CompletionTime != nil ||
			q.Labels.Get(v1beta1.ContainerRecreateRequestPodUIDKey) != r.request.Labels.Get(v1beta1.ContainerRecreateRequestPodUIDKey)
	})
	return slices.MinFunc(waiting, func(a, b *world.RestartRequest) int {
		return cmp.Or(cmp.Compare(weight(a), weight(b)), a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
}

// drained says whether the containers may be stopped: the Pod was made not ready, if the request asks for that, for long enough
// (R12, R25).
func (r *round) drained() bool {
	seconds := r.strategy.UnreadyGracePeriodSeconds
	if seconds == nil {
		return true
	}
	since, is := unreadySince(&r.status)
	if !is {
		if r.pod.HasGate(podready.Gate) {
			switch {
			case !slices.Contains(r.request.Finalizers, acquired):
				r.tidy(append(slices.Clone(r.request.Finalizers), acquired), r.request.Labels, "the Pod is to be ready again whatever becomes of the request")
				return false
			case !r.mark(true, HoldUnready, "the Pod is kept from being ready for %d s before its containers stop", *seconds):
				return false
			}
		}
		since = r.Now()
		r.status.Conditions = append(r.status.Conditions, grace(since))
	}
	until := since.Add(time.Duration(*seconds) * time.Second)
	if !r.Passed(until, "unreadyGracePeriodSeconds %d pass", *seconds) {
		r.Hold(HeldUnready, "time", "the Pod is not ready since %s, its containers stop %d s later", since.UTC().Format(time.TimeOnly), *seconds)
		return false
	}
	return true
}

// mark holds the Pod's gate shut, or lets go of it. It says whether the Pod shows it.
func (r *round) mark(shut bool, code, why string, args ...any) bool {
	holder := podready.Holder{UserAgent: userAgent, Key: r.request.Namespace + "/" + r.request.Name}
	conditions := podready.Mark(r.pod, r.Now(), podready.Wish{Holder: holder, Holds: shut})
	if conditions == nil {
		return true
	}
	if _, shown := r.World.Pod(world.Ref{Resource: world.ResourcePods, Namespace: r.pod.Namespace, Name: r.pod.Name}); shown.UnderWay != nil {
		if shown.UnderWay.Workload == r.request.UID {
			return false
		}
		r.WakeBy(r.Now().Add(time.Second), "Pod %s is being written by somebody else", r.pod.Name)
	} else if r.MayTry(code) {
		r.Append(decide.PatchPod(r.pod, "status", map[string]any{"status": map[string]any{"conditions": conditions}}, decide.Why(code, why, args...)))
	}
	return false
}

// tidy writes finalizers and labels.
func (r *round) tidy(finalizers []string, labels world.Pairs, why string) {
	if r.request.UnderWay != nil || r.Writes() || !r.MayTry(TidyRequest) {
		return
	}
	type part struct {
		Metadata struct {
			Finalizers []string    `json:"finalizers"`
			Labels     world.Pairs `json:"labels"`
		} `json:"metadata"`
	}
	var before, after part
	before.Metadata.Finalizers, before.Metadata.Labels = r.request.Finalizers, r.request.Labels
	after.Metadata.Finalizers, after.Metadata.Labels = finalizers, labels
	patch := decide.Difference(before, after)
	if patch == nil {
		return
	}
	command := decide.PatchMerge(r.Object, "", patch, decide.Why(TidyRequest, "%s", why))
	command.ResourceVersion = decide.VersionOf(&r.request.Meta)
	r.Append(command)
}

// clean takes back what a request that is over has done to the Pod and to itself, and deletes it in time (R26).
func (r *round) clean() {
	finalizers, labels := r.request.Finalizers, r.request.Labels
	if slices.Contains(finalizers, acquired) {
		if r.pod != nil && !r.pod.Terminating && !r.mark(false, ReleaseReady, "the request no longer keeps the Pod from being ready") {
			return
		}
		finalizers = slices.DeleteFunc(slices.Clone(finalizers), func(f string) bool { return f == acquired })
	}
	if r.request.Terminating {
		if len(finalizers) < len(r.request.Finalizers) {
			r.tidy(finalizers, labels, "the Pod no longer depends on the request")
		}
		return
	}
	if labels.Get(v1beta1.ContainerRecreateRequestActiveKey) != "" || len(finalizers) < len(r.request.Finalizers) {
		r.tidy(finalizers, labels.Without(v1beta1.ContainerRecreateRequestActiveKey), "the request is over")
		return
	}
	seconds := r.request.Spec.TTLSecondsAfterFinished
	if seconds == nil || r.request.UnderWay != nil {
		return
	}
	if r.Passed(r.request.Status.CompletionTime.Add(time.Duration(*seconds)*time.Second), "ttlSecondsAfterFinished %d pass", *seconds) && r.MayTry(RemoveRequest) {
		r.Append(decide.Delete(r.Object, decide.Why(RemoveRequest, "it ended %d s ago", *seconds)))
	}
}

// report writes the status when it differs.
func (r *round) report() {
	patch := decide.StatusChange(r.request.HasStatus, r.request.Status, r.status)
	if patch == nil || r.request.UnderWay != nil || r.Writes() || !r.MayTry(ReportStatus) {
		return
	}
	var words []string
	for _, state := range r.status.ContainerRecreateStates {
		words = append(words, state.Name+" "+strings.ToLower(string(state.Phase)))
	}
	command := decide.PatchMerge(r.Object, "status", patch, decide.Why(ReportStatus, "%s: %s", r.status.Phase, cmp.Or(strings.Join(words, ", "), "no container yet")))
	command.ResourceVersion = decide.VersionOf(&r.request.Meta)
	r.Append(command)
}
