// Package rollout turns what is folded into rollout events: the public account of what happens to workloads. It reads one
// entry at a time, compares the world before and after it, and answers with the events that the entry caused. It writes
// nothing and decides nothing; the planner's loop appends the events.
//
// It is pure, and its memory rests on entries as the world's does: folding the same entries, or only those that Live names and
// those on which the world rests, gives the same events afterwards. An entry costs the same however many Pods there are, but
// for the one that completes a rollout.
package rollout

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/types"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/api/rolloutevent"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
	"shiplog.dev/services/planner/decide/cloneset"
)

// Event is one rollout event. Cause and Index identify it.
type Event struct {
	// Cause is the position of the entry that caused it, Time the log's time of that entry.
	Cause uint64
	Time  time.Time
	// Index counts the events of one cause, from 0.
	Index uint32
	// Rollout that it is part of: "UID/GENERATION" of the workload.
	Rollout  string
	Kind     string
	Workload *shiplogv1.ObjectRef
	// Type is one of package rolloutevent, Data of its type.
	Type string
	Data any
}

// Compare orders events as they were caused.
func Compare(a, b Event) int {
	return cmp.Or(cmp.Compare(a.Cause, b.Cause), cmp.Compare(a.Index, b.Index))
}

// Entry returns the event as an entry of the log, but for its writer.
func (e Event) Entry() *shiplogv1.Entry {
	data, err := json.Marshal(e.Data)
	if err != nil {
		panic(fmt.Sprintf("rollout: event %s of entry %d cannot be written: %v", e.Type, e.Cause, err))
	}
	return &shiplogv1.Entry{
		Cause: e.Cause, Rollout: e.Rollout, Skippable: true,
		Kind: &shiplogv1.Entry_RolloutEvent{RolloutEvent: &shiplogv1.RolloutEvent{
			Index: e.Index, Type: e.Type, Kind: e.Kind, Workload: e.Workload, Time: timestamppb.New(e.Time), Data: data,
		}},
	}
}

// Tracker folds entries into a world and tells the rollout events that they cause. It is not safe for concurrent use.
type Tracker struct {
	sets map[types.UID]*set
	pods map[types.UID]*pod
	// batch is the decision whose commands are being read; nil: none is.
	batch *batch
}

// New returns a tracker that has seen nothing.
func New() *Tracker {
	return &Tracker{sets: map[types.UID]*set{}, pods: map[types.UID]*pod{}}
}

// Fold folds the next entry into the world and returns the events that it caused, in order. Those of a batch come with the
// first entry that is no part of it.
func (t *Tracker) Fold(w *world.World, change world.Change) []Event {
	if change.Sequence <= w.Sequence() {
		return nil
	}
	var events []Event
	if t.batch != nil && !t.batch.holds(change.Entry) {
		events = t.batch.end(w)
		t.batch = nil
	}
	s := &step{tracker: t, world: w, change: change}
	switch kind := change.Entry.GetKind().(type) {
	case *shiplogv1.Entry_ObjectObserved:
		switch ref := world.RefOf(kind.ObjectObserved.GetObject()); change.Object().(type) {
		case *world.CloneSet:
			before := w.CloneSet(ref)
			w.Fold(change)
			if after := w.CloneSet(ref); after != before {
				s.cloneSet(before, after)
			}
		case *world.Pod:
			before, _ := w.Pod(ref)
			w.Fold(change)
			if after, _ := w.Pod(ref); after != before {
				s.pod(before, after)
			}
		case *world.NodeImage:
			before := w.NodeImage(ref.Name)
			w.Fold(change)
			if after := w.NodeImage(ref.Name); after != before {
				s.nodeImage(before, after)
			}
		case *world.RestartRequest:
			before := w.RestartRequest(ref)
			w.Fold(change)
			if after := w.RestartRequest(ref); after != before {
				s.restartRequest(before, after)
			}
		default:
			w.Fold(change)
		}
	case *shiplogv1.Entry_CallObserved:
		before := w.CallBy(change.Entry.GetCause())
		w.Fold(change)
		s.call(before, w.CallBy(change.Entry.GetCause()))
	case *shiplogv1.Entry_ObjectDeleted:
		ref := world.RefOf(kind.ObjectDeleted.GetObject())
		set := w.CloneSet(ref)
		pod, _ := w.Pod(ref)
		w.Fold(change)
		if left, _ := w.Pod(ref); pod != nil && left == nil {
			s.podGone(pod)
		}
		if set != nil && w.CloneSet(ref) == nil {
			delete(t.sets, set.UID)
		}
	case *shiplogv1.Entry_Command:
		if t.batch == nil {
			t.batch = startBatch(change)
		}
		t.batch.add(w, change)
		w.Fold(change)
	case *shiplogv1.Entry_Outcome:
		if called := w.CallBy(change.Entry.GetCause()); called != nil {
			w.Fold(change)
			if after := w.CallBy(change.Entry.GetCause()); after != called {
				s.call(called, after)
			}
			break
		}
		under := w.Command(change.Entry.GetCause())
		if under == nil {
			w.Fold(change)
			break
		}
		_, shown := w.Pod(under.Object)
		w.Fold(change)
		if under.Object.Resource == world.ResourceImagePullJobs {
			s.pullJob(under, kind.Outcome)
		} else {
			s.outcome(under, shown, kind.Outcome)
		}
	default:
		w.Fold(change)
	}
	return append(events, s.events...)
}

// Settled says whether every event that the folded entries cause has been told. Otherwise a batch is being read.
func (t *Tracker) Settled() bool { return t.batch == nil || len(t.batch.pods) == 0 }

// Live returns the sequences of the entries on which the memory rests, in order, beyond those that the world rests on.
func (t *Tracker) Live() []uint64 {
	var live []uint64
	for _, s := range t.sets { //shiplog:unordered: sorted below
		live = append(live, s.live()...)
	}
	for _, p := range t.pods { //shiplog:unordered: sorted below
		live = append(live, p.live()...)
	}
	slices.Sort(live)
	live = slices.Compact(live)
	if len(live) > 0 && live[0] == 0 {
		live = live[1:]
	}
	return live
}

// Describe returns the whole memory as text, the same for the same memory: for tests.
func (t *Tracker) Describe() string {
	var lines []string
	for uid, s := range t.sets { //shiplog:unordered: sorted below
		lines = append(lines, fmt.Sprintf("cloneset %s %+v\n", uid, *s))
	}
	for uid, p := range t.pods { //shiplog:unordered: sorted below
		lines = append(lines, fmt.Sprintf("pod %s %+v\n", uid, *p))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// step is the telling of one entry.
type step struct {
	tracker *Tracker
	world   *world.World
	change  world.Change
	events  []Event
}

// tell adds an event about a workload.
func (s *step) tell(set *world.CloneSet, eventType string, data any) {
	s.events = append(s.events, eventOf(set, s.change.Sequence, s.change.Time, uint32(len(s.events)), eventType, data))
}

func eventOf(set *world.CloneSet, cause uint64, at time.Time, index uint32, eventType string, data any) Event {
	return Event{
		Cause: cause, Time: at, Index: index, Rollout: decide.Rollout(set.UID, set.Generation), Kind: "CloneSet",
		Workload: &shiplogv1.ObjectRef{
			Group: world.GroupKruise, Version: "v1beta1", Resource: world.ResourceCloneSets,
			Namespace: set.Namespace, Name: set.Name, Uid: string(set.UID),
		},
		Type: eventType, Data: data,
	}
}

// setOf returns the CloneSet of a UID, or nil.
func setOf(w *world.World, uid types.UID) *world.CloneSet {
	ref, known := w.Workload(uid)
	if !known {
		return nil
	}
	return w.CloneSet(ref)
}

// outcome tells what became of a command; shown is its Pod, where it has one, as the command was to leave it.
func (s *step) outcome(under *world.UnderWay, shown *world.Pod, outcome *shiplogv1.Outcome) {
	set := setOf(s.world, under.Workload)
	if set == nil {
		return
	}
	name, revision := under.Object.Name, ""
	var uid types.UID
	if shown != nil {
		revision, uid = shown.Labels.Get(revisionLabel), shown.UID
	}
	if under.Code == cloneset.UpdateReCreate || under.Code == cloneset.DrainPod {
		revision = s.target(set)
	}
	if created := types.UID(outcome.GetObject().GetUid()); created != "" {
		uid = created
	}
	switch pods := under.Object.Resource == world.ResourcePods; {
	case outcome.GetResult() == shiplogv1.Outcome_RESULT_REFUSED && world.Final(outcome.GetReason().GetCode()):
		why := rolloutevent.Reason{Code: outcome.GetReason().GetCode(), Message: outcome.GetReason().GetMessage()}
		s.tell(set, rolloutevent.TypeWriteRefused, rolloutevent.WriteRefused{
			Message: fmt.Sprintf("The API server refused to %s %s %s: %s", under.Verb(), singular(under.Object.Resource), name, why.Message),
			Verb:    string(under.Verb()), Resource: under.Object.Resource, Name: name, Revision: revision,
			Reason: under.Code, Error: why, Attempt: int(under.Attempt()) + 1,
		})
	case outcome.GetResult() != shiplogv1.Outcome_RESULT_APPLIED:
	case under.Object.Resource == world.ResourceClaims && under.Verb() == world.Delete:
		s.tell(set, rolloutevent.TypeClaimDeleted, rolloutevent.ClaimDeleted{
			Message: fmt.Sprintf("Claim %s is deleted: %s", name, under.Code), Claim: name, Reason: under.Code,
		})
	case !pods:
	case under.Verb() == world.Create:
		s.tell(set, rolloutevent.TypePodCreated, rolloutevent.Pod{
			Message: fmt.Sprintf("Pod %s is created with revision %s", name, revision), Pod: name, UID: string(uid), Revision: revision,
		})
	case under.Verb() == world.Delete:
		s.tell(set, rolloutevent.TypePodDeleted, rolloutevent.PodDeleted{
			Pod: rolloutevent.Pod{
				Message: fmt.Sprintf("Pod %s is deleted: %s", name, under.Code), Pod: name, UID: string(uid), Revision: revision,
			},
			Reason: under.Code,
		})
	case under.Code == cloneset.UpdateReCreate:
		before := ""
		if shown != nil {
			before = shown.Labels.Get(revisionLabel)
		}
		s.tell(set, rolloutevent.TypePodReplacing, rolloutevent.PodUpdating{
			Message: fmt.Sprintf("Pod %s is marked to be replaced by one of revision %s", name, revision),
			Pod:     name, UID: string(uid), Revision: revision, PreviousRevision: before,
		})
	}
}

func singular(resource string) string { return strings.TrimSuffix(resource, "s") }

// seconds rounds a duration of log time to milliseconds. It is 0 where the log's clock was put back meanwhile.
func seconds(d time.Duration) float64 { return math.Max(0, math.Round(d.Seconds()*1000)/1000) }
