package cloneset

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"shiplog.dev/api/kruise/apps/v1beta1"
	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
	"shiplog.dev/services/planner/decide/inplace"
)

// Feature gates that the rules of CloneSet obey.
const (
	gateShortHash         = "CloneSetShortHash"                      // R17
	gatePartitionRollback = "CloneSetPartitionRollback"              // R24
	gatePreparingUpdate   = "PreparingUpdateAsUpdate"                // R58
	gateRecreateForClaims = "RecreatePodWhenChangeVCTInCloneSetGate" // R15
	gateExcludePreparing  = "CloneSetScalingExcludePreparingDelete"  // R22; OpenKruise has a flag for it
)

// Labels that CloneSet writes on Pods and revisions (R17, R11).
const (
	revisionLabel    = "controller-revision-hash"
	templateLabel    = "pod-template-hash"
	historyHashLabel = "controller.kubernetes.io/hash"
	unavailableLabel = "unavailable-pod.kruise.io/" // prefix (D19)
)

// round is one decision for one CloneSet.
type round struct {
	*decide.Turn
	set   *world.CloneSet
	spec  spec
	fresh bool // facts are fresh enough to take Pods down

	revisions       []*world.Revision // by number
	updateRevision  revision
	currentRevision revision
	collisions      int32

	pods     []pod        // active ones, by name, with what is under way
	facts    []pod        // active ones, by name, as the API server last showed them
	finished []*world.Pod // Succeeded or Failed, by name
	numbers  numbers      // for scaling
	updates  numbers      // for updating: the same, unless Pods that prepare their update count as updated when scaling (R58)
	// commanded Pods get a command in this round, by name.
	commanded map[string]bool
	// wanted are the kinds of effect, by code, that there is a need for in this round, whether or not they may be tried.
	wanted map[string]bool
	// updateRan: the update step has chosen, so Pods that are not among the chosen, by name, may go back to normal.
	updateRan bool
	chosen    map[string]bool

	// problem keeps the update from going on, for the FailedUpdate condition; empty: none.
	problem string

	// explains: somebody asks what is held back.
	explains bool
}

// pod is an active Pod with the answers to what rules ask of it. A command under way counts as done where that makes the
// Pod worse, and as not done where it would make it better.
type pod struct {
	*world.Pod
	updated      bool // R5
	countsNew    bool // updated, for the sake of scaling (R58)
	ready        bool // R3
	available    bool // R4, with minReadySeconds
	availableNow bool // R4, with 0
	specified    bool // R6
	preparing    bool // state PreparingDelete, or being deleted by a command under way
	complete     bool // its containers are what the newest update in place wanted (inplace-update R28)
}

// gather judges the active Pods (R2).
func (r *round) gather() {
	owned := r.World.PodsOf(r.set.UID)
	r.pods, r.facts = make([]pod, 0, len(owned)), make([]pod, 0, len(owned))
	for _, p := range owned {
		// A delete that is under way may still be refused: until then its Pod counts as there, and as unavailable.
		leaving := leaving(p)
		if !r.spec.selector.Matches(p.Labels) {
			r.release(p)
			continue
		}
		one := r.judge(p)
		switch {
		case p.Before != nil && p.Before.Active():
			before := r.judge(p.Before)
			r.facts = append(r.facts, before)
			one.ready, one.available, one.availableNow = one.ready && before.ready, one.available && before.available, one.availableNow && before.availableNow
			one.specified, one.preparing = one.specified || before.specified, one.preparing || before.preparing
		case p.Before == nil && p.Active() && p.UID != "":
			r.facts = append(r.facts, one)
		}
		if p.Active() || leaving {
			one.preparing = one.preparing || leaving
			r.pods = append(r.pods, one)
		} else if !p.Terminating {
			r.finished = append(r.finished, p)
		}
	}
}

// release lets go of a Pod that the selector no longer matches: somebody else may want it, and it is replaced (R1).
func (r *round) release(p *world.Pod) {
	if p.UID != "" && r.idle(p) && r.mayTry(ReleasePod) {
		r.command(p, decide.PatchPod(p, "", map[string]any{
			"metadata": map[string]any{"ownerReferences": []any{map[string]any{"$patch": "delete", "uid": string(r.set.UID)}}},
		}, decide.Why(ReleasePod, "its labels no longer match the selector %s", r.spec.selector)))
	}
}

func (r *round) judge(p *world.Pod) pod {
	state := lifecycleState(p)
	one := pod{
		Pod: p, updated: sameRevision(p.Labels.Get(revisionLabel), r.updateRevision.name),
		specified: p.Labels.Has(v1beta1.SpecifiedDeleteKey) || r.spec.specifiedDelete[p.Name],
		preparing: state == v1beta1.LifecycleStatePreparingDelete, complete: r.complete(p),
	}
	one.countsNew = one.updated || state == v1beta1.LifecycleStatePreparingUpdate && r.World.Gate(gatePreparingUpdate)
	ready := p.Condition(string(corev1.PodReady))
	gate := p.Condition(inplace.ReadyCondition)
	one.ready = p.Phase == string(corev1.PodRunning) && ready.Status == "True" && (!gate.Present() || gate.Status == "True")
	if !one.ready {
		return one
	}
	normal := state == "" || state == v1beta1.LifecycleStateNormal
	if r.explains && markedUnavailable(p) {
		r.hold(decide.Hold{Code: HeldMarked, By: []string{p.Name}, Message: "a label " + unavailableLabel + "... declares the Pod unavailable", Release: "the removal of the label"})
	}
	one.availableNow = normal && p.Active() && one.complete && !markedUnavailable(p)
	if one.availableNow {
		// A container that restarts at once may leave the Pod Ready throughout; minReadySeconds starts anew all the same.
		since := ready.LastTransitionTime
		if restarted := inplace.StartedAt(p); restarted.After(since) {
			since = restarted
		}
		until := since.Add(time.Duration(r.spec.minReadySeconds) * time.Second)
		one.available = r.spec.minReadySeconds == 0 || !until.After(r.Now())
		if !one.available {
			if r.explains {
				r.hold(decide.Hold{Code: HeldMinReady, By: []string{p.Name}, Until: &until, Release: "time",
					Message: fmt.Sprintf("ready Pods count as available after minReadySeconds %d", r.spec.minReadySeconds)})
			}
			r.WakeBy(until, "Pod %s is available after minReadySeconds %d, at %s", p.Name, r.spec.minReadySeconds, until.UTC().Format(time.TimeOnly))
		}
	}
	return one
}

// markedUnavailable is D19: others may declare a Pod unavailable by label.
func markedUnavailable(p *world.Pod) bool {
	for key := range p.Labels.All() {
		if strings.HasPrefix(key, unavailableLabel) {
			return true
		}
	}
	return false
}

// running says whether the kubelet has started the Pod. Before that it writes the status often, and our write would only
// collide with its.
func (p *pod) running() bool { return p.Phase == string(corev1.PodRunning) }

// complete works out whether the containers are what the newest update in place wanted.
func (r *round) complete(p *world.Pod) bool {
	if !inplace.Complete(p) {
		return false
	}
	if p.Update == nil || !p.Update.UpdateResources {
		return true
	}
	template, known := r.templateOf(p)
	return !known || inplace.Resized(p, template)
}

// templateOf returns the template of the revision that a Pod carries, and whether it is known.
func (r *round) templateOf(p *world.Pod) (world.Template, bool) {
	if held := r.revisionOf(p); held != nil {
		return held.Template, true
	}
	return world.Template{}, false
}

func (r *round) revisionOf(p *world.Pod) *world.Revision {
	for _, held := range r.revisions {
		if sameRevision(p.Labels.Get(revisionLabel), held.Name) {
			return held
		}
	}
	return nil
}

// counts is R19, for the sake of scaling or of updating (R58).
func (r *round) counts(scaling bool) counts {
	c := counts{pods: len(r.pods), rollsBack: r.World.Gate(gatePartitionRollback) && r.currentRevision.name != r.updateRevision.name}
	for i := range r.pods {
		p := &r.pods[i]
		updated := p.updated || scaling && p.countsNew
		add := func(ifNew, ifOld *int) {
			if updated {
				*ifNew++
			} else {
				*ifOld++
			}
		}
		if !updated {
			c.old++
		}
		if p.preparing {
			add(&c.preparingNew, &c.preparingOld)
			c.unavailableNow++
			continue
		}
		add(&c.actingNew, &c.actingOld)
		switch {
		case p.specified:
			add(&c.specifiedNew, &c.specifiedOld)
			if !p.availableNow {
				c.unavailableNow++ // its own deletion is free, but it is no spare for that of another
			}
		case !p.available:
			add(&c.unavailableNew, &c.unavailableOld)
			if !p.availableNow {
				c.unavailableNow++
			}
		}
	}
	return c
}

// command notes a command for a Pod, which gets no other in this round.
func (r *round) command(p *world.Pod, command *shiplogv1.Command) {
	r.commanded[p.Name] = true
	r.Append(command)
}

// idle says whether nothing is commanded of a Pod, now or under way.
func (r *round) idle(p *world.Pod) bool { return p.UnderWay == nil && !r.commanded[p.Name] }

func setRef(set *world.CloneSet) *shiplogv1.ObjectRef {
	return &shiplogv1.ObjectRef{
		Group: world.GroupKruise, Version: v1beta1.GroupVersion.Version, Resource: world.ResourceCloneSets,
		Namespace: set.Namespace, Name: set.Name, Uid: string(set.UID),
	}
}
