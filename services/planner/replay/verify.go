package replay

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/narrate"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide/cloneset"
	"shiplog.dev/services/planner/seal"
)

// Problem is a place at which a log breaks an invariant.
type Problem struct {
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	// Invariant is a stable name: "cause", "outcome", "fence", "budget", "gap" or "seal".
	Invariant string `json:"invariant"`
	Message   string `json:"message"`
}

// Facts say what is known of a log before it is verified.
type Facts struct {
	// First and Last are its positions, ExactFrom the one from which on folding is exact.
	First, Last, ExactFrom uint64
	// Cut: entries of it were left out, or changed: positions may be missing, and seals cannot be checked.
	Cut, Changed bool
}

// Verifier checks invariants of a log. Its account at the end says what was checked.
type Verifier struct {
	Facts
	World *world.World
	Account

	causes  Causes
	before  uint64 // position of the entry before
	floors  map[types.UID]*floor
	fence   *shiplogv1.Entry
	fenced  uint64
	open    map[uint64]journal.Record   // commands without an outcome
	newest  map[world.Ref]uint64        // the newest command for an object
	known   map[uint64]*shiplogv1.Entry // commands, by position, as long as an outcome may come
	order   []uint64                    // of known, oldest first
	sealed  *shiplogv1.Sealed
	sealAt  uint64
	running seal.Chain
}

// Account says what a verifier found.
type Account struct {
	Entries  int `json:"entries"`
	Commands int `json:"commands"`
	// Skipped positions hold no entry: the log keeps a note for each wish, and takes it back when the tick comes.
	Skipped uint64 `json:"skippedPositions"`
	Wishes  uint64 `json:"wishes"`
	// UnderWay are commands without an outcome at the end.
	UnderWay []string `json:"underWay"`
	// Budgets counts commands that took down a Pod that was available, each within the budget of its workload or a problem.
	Budgets int `json:"budgetsChecked"`
	// Seals that hold, and SealedUpTo the position up to which a chain of them covers the log. SealsSkipped cannot be checked,
	// because entries that they cover are not all there, or not as they were.
	Seals        int       `json:"seals"`
	SealsSkipped int       `json:"sealsSkipped"`
	SealedUpTo   uint64    `json:"sealedUpTo"`
	Problems     []Problem `json:"problems"`
}

// mostProblems bounds what is kept; a log that is broken in more places is broken enough.
const mostProblems = 100

// mostKnown bounds how many commands are remembered for outcomes that come again.
const mostKnown = 100_000

// floor is what was known of a workload's budget at the position at which it was decided on.
type floor struct {
	cause    uint64
	workload string
	limits   cloneset.Limits
	// Pods by name, less those that commands took down since: ready ones, which deletions are held against, and those that have been
	// so for minReadySeconds, which updates are held against.
	ready, available map[types.UID]string
}

// NewVerifier returns a verifier. The causes come from a first pass.
func NewVerifier(facts Facts, causes Causes) *Verifier {
	return &Verifier{
		Facts: facts, World: world.New(), Account: Account{UnderWay: []string{}, Problems: []Problem{}}, causes: causes, floors: map[types.UID]*floor{},
		open: map[uint64]journal.Record{}, newest: map[world.Ref]uint64{}, known: map[uint64]*shiplogv1.Entry{},
	}
}

func (v *Verifier) problem(record journal.Record, invariant, format string, args ...any) {
	if len(v.Problems) < mostProblems {
		v.Problems = append(v.Problems, Problem{record.Sequence, record.Time, invariant, fmt.Sprintf(format, args...)})
	}
}

// Show takes the next entry. An error means that it cannot be understood.
func (v *Verifier) Show(record journal.Record) error {
	change, err := world.Decode(record.Sequence, record.Time, record.Entry)
	if err != nil {
		return err
	}
	v.Entries++
	within := record.Sequence >= v.First
	if within && v.before >= v.First {
		v.Skipped += record.Sequence - v.before - 1
	}
	if within && record.Sequence <= v.before {
		v.problem(record, "gap", "the entry before it has position %d", v.before)
	}
	v.before = record.Sequence
	if within {
		v.cause(record)
	}
	switch kind := record.Entry.GetKind().(type) {
	case *shiplogv1.Entry_FenceRaised:
		v.fence, v.fenced = record.Entry, record.Sequence
	case *shiplogv1.Entry_Command:
		v.command(record, kind.Command, within)
	case *shiplogv1.Entry_Outcome:
		v.outcome(record, kind.Outcome)
	case *shiplogv1.Entry_Sealed:
		v.seal(record, kind.Sealed)
	}
	if within {
		v.running.Add(record)
	}
	v.World.Fold(change)
	v.measure(record)
	return nil
}

// cause checks that what an entry says caused it stands before it.
func (v *Verifier) cause(record journal.Record) {
	if cause := record.Entry.GetCause(); cause >= record.Sequence {
		v.problem(record, "cause", "it says that entry %d caused it, which does not stand before it", cause)
	}
}

func (v *Verifier) command(record journal.Record, command *shiplogv1.Command, within bool) {
	if command.GetWakeAt() != nil {
		v.Wishes++
	} else {
		ref := world.RefOf(command.GetObject())
		v.open[record.Sequence], v.newest[ref] = record, record.Sequence
		v.known[record.Sequence] = record.Entry
		if v.order = append(v.order, record.Sequence); len(v.order) > mostKnown {
			delete(v.known, v.order[0])
			v.order = v.order[1:]
		}
	}
	if !within {
		return
	}
	v.Commands++
	switch cause := record.Entry.GetCause(); {
	case v.fence == nil && v.First == 1 && !v.Cut:
		v.problem(record, "fence", "no planner had raised a fence")
	case v.fence != nil && v.fence.GetWriter() != record.Entry.GetWriter():
		v.problem(record, "fence", "%s appended it under the fence %d of %s", record.Entry.GetWriter(), v.fenced, v.fence.GetWriter())
	case cause < v.fenced:
		v.problem(record, "fence", "it was decided at %d, before the fence %d was raised", cause, v.fenced)
	}
	v.withinBudget(record, command)
}

// measure notes what is known of the budgets of the workloads that are decided on at this position.
func (v *Verifier) measure(record journal.Record) {
	due := v.causes[record.Sequence]
	if len(due) == 0 || record.Sequence < v.ExactFrom {
		return
	}
	for _, uid := range slices.Sorted(maps.Keys(due)) {
		ref, _ := v.World.Workload(uid)
		set := v.World.CloneSet(ref)
		if set == nil {
			continue
		}
		limits, valid := cloneset.LimitsOf(set)
		if !valid {
			delete(v.floors, set.UID)
			continue
		}
		at := &floor{record.Sequence, ref.String(), limits, map[types.UID]string{}, map[types.UID]string{}}
		for _, pod := range v.World.PodsOf(set.UID) {
			if serves(pod, 0, v.World.Now()) {
				at.ready[pod.UID] = pod.Name
			}
			if serves(pod, limits.MinReadySeconds, v.World.Now()) {
				at.available[pod.UID] = pod.Name
			}
		}
		v.floors[set.UID] = at
	}
}

// serves says whether a Pod serves, and no command is about to take it down.
func serves(pod *world.Pod, minReady int32, now time.Time) bool {
	ready := pod.Condition("Ready")
	if pod.UID == "" || pod.Terminating || !pod.Active() || ready.Status != "True" {
		return false
	}
	// A command holds only for the state of the Pod that was decided on: a fact that came after it shows its effect, or that it
	// will be refused.
	if pod.UnderWay != nil && takesDown(pod.UnderWay.Code) && pod.Sequence < pod.UnderWay.Sequence {
		return false
	}
	return minReady == 0 || !ready.LastTransitionTime.Add(time.Duration(minReady)*time.Second).After(now)
}

// takesDown says whether commands for a reason can make an available Pod unavailable.
func takesDown(code string) bool {
	return slices.Contains([]string{cloneset.DrainPod, cloneset.UpdateInPlace, cloneset.PrepareUpdate, cloneset.PrepareDelete}, code)
}

// down says whether a command can make an available Pod unavailable. A patch of its metadata alone cannot.
func down(command *shiplogv1.Command) bool {
	code := command.GetReason().GetCode()
	switch {
	case command.GetObject().GetResource() != world.ResourcePods:
		return false
	case code == cloneset.UpdateInPlace:
		return bytes.Contains(command.GetPatch().GetJson(), []byte(`"spec"`))
	}
	return command.GetDelete() != nil || takesDown(code)
}

// withinBudget checks that a command which takes an available Pod down leaves as many as the budget asks for, as far as was
// known when it was decided.
func (v *Verifier) withinBudget(record journal.Record, command *shiplogv1.Command) {
	uid := types.UID(command.GetObject().GetUid())
	at := v.floors[world.WorkloadOf(record.Entry.GetRollout())]
	if !down(command) || at == nil || at.cause != record.Entry.GetCause() {
		return
	}
	left := at.available
	if command.GetDelete() != nil {
		left = at.ready
	}
	served := left[uid] != ""
	delete(at.available, uid)
	delete(at.ready, uid)
	if !served {
		return
	}
	v.Budgets++
	if asked := at.limits.Replicas - at.limits.MaxUnavailable; len(left) < asked {
		v.problem(record, "budget", "%s leaves %d Pods of %s available, %d of %d may be unavailable", narrate.Command(command), len(left),
			at.workload, at.limits.MaxUnavailable, at.limits.Replicas)
	}
}

func (v *Verifier) outcome(record journal.Record, outcome *shiplogv1.Outcome) {
	cause := record.Entry.GetCause()
	command := v.known[cause]
	switch {
	case command == nil && cause < v.First, command == nil && v.Cut, command == nil && len(v.order) >= mostKnown:
		return
	case command == nil:
		v.problem(record, "cause", "it is the outcome of entry %d, which is no command", cause)
		return
	case world.RefOf(command.GetCommand().GetObject()) != world.RefOf(outcome.GetObject()):
		v.problem(record, "cause", "it is about %s, its command %d about %s", world.RefOf(outcome.GetObject()), cause, world.RefOf(command.GetCommand().GetObject()))
	}
	delete(v.open, cause)
}

// seal checks a link of the chain of digests.
func (v *Verifier) seal(record journal.Record, sealed *shiplogv1.Sealed) {
	defer func() { v.sealed, v.sealAt = sealed, record.Sequence }()
	if v.Cut || v.Changed || sealed.GetAfter()+1 < v.First || sealed.GetPrevious() != 0 && v.sealed == nil {
		v.SealsSkipped++
		v.running.Forget(sealed.GetUpTo())
		return
	}
	var before *shiplogv1.Sealed
	if sealed.GetPrevious() != 0 {
		if before = v.sealed; sealed.GetPrevious() != v.sealAt || sealed.GetAfter() != before.GetUpTo() {
			v.problem(record, "seal", "it continues the seal %d, the one before it is %d", sealed.GetPrevious(), v.sealAt)
		}
	}
	digest, entries := v.running.Sum(before, sealed.GetAfter(), sealed.GetUpTo())
	switch {
	case entries != sealed.GetEntries():
		v.problem(record, "seal", "between %d and %d the log has %d entries, %d were sealed", sealed.GetAfter()+1, sealed.GetUpTo(), entries, sealed.GetEntries())
	case !bytes.Equal(digest, sealed.GetDigest()):
		v.problem(record, "seal", "what stands between %d and %d is not what was sealed", sealed.GetAfter()+1, sealed.GetUpTo())
	default:
		v.Seals++
		v.SealedUpTo = sealed.GetUpTo()
	}
	v.running.Forget(sealed.GetUpTo())
}

// End takes note that the log ends here.
func (v *Verifier) End() {
	if !v.Cut && v.Skipped > 2*v.Wishes {
		v.problem(journal.Record{Sequence: v.Last}, "gap", "%d positions hold no entry, %d wishes account for at most %d", v.Skipped, v.Wishes, 2*v.Wishes)
	}
	var left []uint64
	for sequence := range v.open {
		left = append(left, sequence)
	}
	slices.Sort(left)
	for _, sequence := range left {
		record := v.open[sequence]
		command := record.Entry.GetCommand()
		if v.newest[world.RefOf(command.GetObject())] == sequence {
			v.UnderWay = append(v.UnderWay, fmt.Sprintf("%d %s", sequence, narrate.Command(command)))
			continue
		}
		v.problem(record, "outcome", "%s has no outcome, and command %d for the same object came after it", narrate.Command(command), v.newest[world.RefOf(command.GetObject())])
	}
}
