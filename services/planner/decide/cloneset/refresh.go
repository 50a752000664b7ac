package cloneset

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
	"shiplog.dev/services/planner/decide/inplace"
	"shiplog.dev/services/planner/decide/podready"
)

// refresh looks at every Pod that nothing else is done to (R36, inplace-update 3.5), whatever the update type and also while
// paused: it goes on with updates in place, and brings Pods back to normal.
func (r *round) refresh() {
	for i := range r.pods {
		p := &r.pods[i]
		if r.idle(p.Pod) && !r.goOn(p) {
			r.settle(p)
		}
	}
}

// goOn takes the next step of an update in place that is under way, and says whether there is nothing else to do for the Pod
// until it is done: a change that waits for the end of its grace period, later containers, other resources.
func (r *round) goOn(p *pod) bool {
	write, ends, waits, err := inplace.Released(p.Pod, r.Now())
	switch {
	case err != nil:
		r.heldUpdating(p, HeldBroken, fmt.Sprintf("%v", err), "an update begun anew")
		r.rebuild(p, err) // D20
		return true
	case waits && !ends.IsZero():
		r.hold(decide.Hold{Code: HeldGrace, Pods: []string{p.Name}, Until: &ends, Release: "time", Message: "the change waits for the end of the grace period"})
		r.WakeBy(ends, "the grace period of Pod %s ends at %s", p.Name, ends.UTC().Format(time.TimeOnly))
		return true
	case waits:
		r.writeNext(p, write, "the grace period is over")
		return true
	}
	if p.Update == nil {
		return false // most Pods, most of the time
	}
	if template, known := r.templateOf(p.Pod); known && p.Update.UpdateResources {
		if amounts := inplace.ToResize(p.Pod, template); amounts != nil {
			if r.mayTry(ResizePod) && r.mayTakeDown() {
				r.command(p.Pod, decide.PatchPod(p.Pod, "resize", inplace.ResizePatch(amounts), decide.Why(ResizePod, "resources of %s as the template has them", strings.Join(slices.Sorted(maps.Keys(amounts)), ", "))))
			}
			return true
		}
	}
	if why, never := inplace.ResizeTrouble(p.Pod); why != "" && !p.complete {
		r.problem = fmt.Sprintf("Pod %s: %s", p.Name, why)
		r.heldUpdating(p, HeldResize, why, "room on the node, or smaller resources")
		if never && r.spec.policy == v1beta1.InPlaceIfPossibleCloneSetPodUpdatePolicy && !p.specified {
			r.markForReplacement(p, r.updateRevision, why)
		}
		return true
	}
	if p.complete {
		return false
	}
	if template, known := r.templateOf(p.Pod); known && !inplace.Resized(p.Pod, template) {
		r.heldUpdating(p, HeldResize, "the kubelet has not given the containers their resources yet", "the kubelet")
		return p.Update.Pending()
	}
	if !p.Update.Pending() {
		return false
	}
	if write, ready := inplace.Next(p.Pod, r.Now()); ready {
		r.writeNext(p, write, "the containers before are ready")
	} else {
		r.heldUpdating(p, HeldBatch, "later containers wait until those before are ready", "the containers before being ready")
	}
	return true
}

func (r *round) writeNext(p *pod, write inplace.Write, why string) {
	if r.mayTry(NextBatch) && r.mayTakeDown() {
		r.command(p.Pod, decide.PatchPod(p.Pod, "", write.Patch(p.Pod), decide.Why(NextBatch, "%s: %s", why, write.Describe())))
	}
}

// rebuild starts the update of a Pod anew whose account of it cannot be read (inplace-update D20).
func (r *round) rebuild(p *pod, problem error) {
	r.problem = fmt.Sprintf("Pod %s: %v; its update is begun anew", p.Name, problem)
	template, known := r.templateOf(p.Pod)
	if !known || !r.mayTry(NextBatch) || !r.mayTakeDown() {
		return
	}
	change := inplace.Against(p.Pod, template)
	write := inplace.Start(p.Pod, change, p.Labels.Get(revisionLabel), r.Now())
	r.command(p.Pod, decide.PatchPod(p.Pod, "", write.Patch(p.Pod), decide.Why(NextBatch, "%v: begun anew, %s", problem, change.Describe())))
}

// mayTakeDown says whether facts are fresh enough to restart containers; if not, it asks for a vouch.
func (r *round) mayTakeDown() bool {
	if !r.fresh {
		r.Decision.AwaitsVouch = true
		r.heldByVouch(nil)
	}
	return r.fresh
}

// settle brings a Pod back to normal, in one write of its status: it opens the gates once the containers are complete, moves
// the lifecycle state on, and adds a missing hash label.
func (r *round) settle(p *pod) {
	patch := map[string]any{}
	var does []string
	var conditions []any
	done := p.running() && !p.preparing && p.complete
	if gate := p.Condition(inplace.ReadyCondition); done && p.HasGate(inplace.ReadyCondition) && !openGate(gate) && !r.drained(p, gate) {
		conditions = append(conditions, podready.Condition(inplace.ReadyCondition, "True", "", "", r.Now()))
		does = append(does, "opens its readiness gate")
	}
	state := lifecycleState(p.Pod)
	next := r.nextState(p)
	r.heldState(p, next)
	if next != state {
		patch["metadata"] = r.stateMetadata(next)
		does = append(does, fmt.Sprintf("goes from %s to %s", state, next))
	}
	if marks := r.marks(p.Pod, next); marks != nil && p.running() {
		conditions = append(conditions, marks...)
		if len(does) == 0 {
			does = append(does, "KruisePodReady says what its hooks want")
		}
	}
	if hash := shortHash(p.Labels.Get(revisionLabel)); done && p.Labels.Get(templateLabel) == "" && hash != "" {
		if patch["metadata"] == nil {
			patch["metadata"] = map[string]any{}
		}
		under(patch, "labels")[templateLabel] = hash
		does = append(does, "gets the hash of its template")
	}
	if len(does) == 0 || !r.mayTry(RefreshPod) {
		return
	}
	if len(conditions) > 0 {
		patch["status"] = map[string]any{"conditions": conditions}
	}
	why := strings.Join(does, ", ")
	if done {
		why = "the containers are as wanted: " + why
	}
	r.command(p.Pod, decide.PatchPod(p.Pod, "status", patch, decide.Why(RefreshPod, "%s", why)))
}

func openGate(gate world.Condition) bool {
	return gate.Status == "True" && gate.Reason == "" && gate.Message == ""
}

// drained says whether a Pod is between its drain and its change, and still meant to change: then the gate stays shut.
func (r *round) drained(p *pod, gate world.Condition) bool {
	if gate.Status != "False" || gate.Reason != inplace.StartReason || p.updated {
		return false
	}
	return !r.updateRan
}
