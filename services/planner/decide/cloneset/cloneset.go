// Package cloneset holds the rules of CloneSet (spec: cloneset, and inplace-update for its part). Decide is the list of
// them, in the order of R7; each file is one concern. Pure: it reads a world and returns commands.
package cloneset

import (
	"cmp"
	"fmt"
	"slices"

	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
)

// Reason codes of the commands, stable: dashboards and refusals are keyed by them.
const (
	CreateRevision    = "CreateRevision"    // the template is new (R12)
	RaiseRevision     = "RaiseRevision"     // the template is an older one again (R13)
	PruneRevision     = "PruneRevision"     // more history than asked for (R18)
	ReleasePod        = "ReleasePod"        // the selector no longer matches it (R1)
	ScaleUp           = "ScaleUp"           // fewer Pods than wanted (R26.2)
	ScaleDown         = "ScaleDown"         // more Pods than wanted (R26.5)
	RemoveFinished    = "RemoveFinished"    // Succeeded or Failed, and replaced (D5)
	PrepareDelete     = "PrepareDelete"     // a hook holds the Pod that is to be deleted (R33)
	CancelDelete      = "CancelDelete"      // a Pod in PreparingDelete is needed again (R26.1)
	CleanClaim        = "CleanClaim"        // a claim whose Pod is gone (R31)
	SpecifiedDelete   = "SpecifiedDelete"   // named for deletion (R26.4)
	DrainPod          = "DrainPod"          // takes the Pod out of its Services before the change (inplace-update R9)
	PrepareUpdate     = "PrepareUpdate"     // a hook holds the Pod that is to be updated (R50)
	UpdateInPlace     = "UpdateInPlace"     // changes the running Pod (R43)
	NextBatch         = "NextBatch"         // goes on with an update in place: later containers, or after a grace period
	ResizePod         = "ResizePod"         // asks the kubelet for other resources (inplace-update R30)
	UpdateReCreate    = "UpdateReCreate"    // marks the Pod to be replaced (R44)
	KeepPod           = "KeepPod"           // takes the mark off a Pod that need not be replaced any more (D13)
	RefreshPod        = "RefreshPod"        // opens the readiness gate, moves the lifecycle state (R36)
	ReportStatus      = "ReportStatus"      // status differs from the facts
	PreDownload       = "PreDownload"       // images of an update in place are pulled ahead (R59)
	EndPreDownload    = "EndPreDownload"    // nothing has to be pulled ahead any more (R61)
	InspectContainer  = "InspectContainer"  // asks a node what a container runs with (inplace-update 2.5)
	RecordRuntime     = "RecordRuntime"     // writes down what the node said, for other tools
	PrunePodsToDelete = "PrunePodsToDelete" // named Pods that are gone (R34)
	AwaitTime         = decide.AwaitTime    // something depends on time that passes
)

// Decide returns what to do for one CloneSet. The answer to the same world is always the same, and once its commands are
// folded back it is empty until something else happens.
func Decide(w *world.World, ref world.Ref) decide.Decision { return answer(w, ref, false) }

// Explain is Decide and fills in what is held back.
func Explain(w *world.World, ref world.Ref) decide.Decision { return answer(w, ref, true) }

func answer(w *world.World, ref world.Ref, explains bool) decide.Decision {
	set := w.CloneSet(ref)
	if set == nil {
		return decide.Decision{}
	}
	spec, problem := readSpec(set)
	round := newRound(w, set, spec)
	round.explains = explains
	if problem != "" {
		round.reportInvalid(problem)
		return round.End()
	}
	if set.Terminating { // R8; what its Pods have begun they finish all the same (inplace-update D16)
		round.revisions, round.updateRevision.name, round.updateRan = w.RevisionsOf(set.UID), set.Status.UpdateRevision, true
		round.gather()
		round.refresh()
		return round.End()
	}
	round.findRevisions()
	round.gather()
	round.cleanClaims()
	round.updates = calculate(round.counts(false), spec)
	round.preDownload()
	round.numbers = round.updates
	if w.Gate(gatePreparingUpdate) {
		round.numbers = calculate(round.counts(true), spec)
	}
	if scaled := round.scale(); !scaled {
		round.update()
	} else {
		round.heldByScaling()
	}
	round.refresh()
	round.runtime()
	round.reportStatus()
	round.prunePodsToDelete()
	round.pruneRevisions()
	if explains {
		round.Decision.Standing = round.standing()
	}
	return round.End()
}

func newRound(w *world.World, set *world.CloneSet, spec spec) *round {
	object := setRef(set)
	ref := world.RefOf(object)
	spec.exclude = spec.exclude || w.Gate(gateExcludePreparing)
	turn := decide.NewTurn(w, ref, object, set.Generation)
	turn.Ticks = "cloneset" // as in logs from before there were other kinds
	return &round{
		Turn: turn, set: set, spec: spec, fresh: w.FactsAge(ref) <= decide.FreshFacts,
		commanded: map[string]bool{}, wanted: map[string]bool{}, chosen: map[string]bool{},
	}
}

// UpdateOrder returns Pods in the order in which their CloneSet would update them; those that it would not come last, in the
// order in which they are given.
func UpdateOrder(w *world.World, ref world.Ref, pods []*world.Pod) []*world.Pod {
	set := w.CloneSet(ref)
	spec, problem := readSpec(set)
	if problem != "" {
		return pods
	}
	round := newRound(w, set, spec)
	round.findRevisions()
	round.gather()
	round.updates.update = 1 // whatever the partition says, the order is that of Pods that are not at the revision
	ranks := map[string]int{}
	for i, candidate := range round.candidates() {
		ranks[candidate.Name] = i - len(round.pods)
	}
	pods = slices.Clone(pods)
	slices.SortStableFunc(pods, func(a, b *world.Pod) int { return cmp.Compare(ranks[a.Name], ranks[b.Name]) })
	return pods
}

// mayTry says whether a kind of effect may be tried now, seeing when it was last refused; if not, it asks to be woken.
func (r *round) mayTry(code string) bool {
	r.wanted[code] = true
	if r.MayTry(code) {
		return true
	}
	refusal := r.World.Refusal(r.set.UID, code)
	again := decide.Backoff(refusal, r.Now())
	r.hold(decide.Hold{Code: HeldBackoff, Until: &again, Release: "time, or a change of what was refused",
		Message: fmt.Sprintf("%s was refused %d times in a row (%s: %s)", code, refusal.Attempt, refusal.Code, refusal.Message)})
	return false
}
