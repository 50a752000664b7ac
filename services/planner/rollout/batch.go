package rollout

import (
	"fmt"
	"slices"
	"time"

	"shiplog.dev/api/kruise/apps/v1beta1"
	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/api/rolloutevent"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide/cloneset"
	"shiplog.dev/services/planner/decide/inplace"
)

// maxNamed is how many Pods a batch event names; the others are only counted.
const maxNamed = 500

// batch is the commands of one decision on one workload, which stand together in the log.
type batch struct {
	cause   uint64
	rollout string

	// last is the command that let the last Pod go, when at.
	last   uint64
	at     time.Time
	pods   []string
	reason *shiplogv1.Reason
}

func startBatch(change world.Change) *batch {
	return &batch{cause: change.Entry.GetCause(), rollout: change.Entry.GetRollout()}
}

// holds says whether an entry is a command of the decision.
func (b *batch) holds(entry *shiplogv1.Entry) bool {
	return entry.GetCommand() != nil && entry.GetCause() == b.cause && entry.GetRollout() == b.rollout
}

// add takes a command. It counts when it is the first that an update does to a Pod.
func (b *batch) add(w *world.World, change world.Change) {
	command := change.Entry.GetCommand()
	switch command.GetReason().GetCode() {
	case cloneset.PrepareUpdate, cloneset.UpdateReCreate:
	case cloneset.DrainPod, cloneset.UpdateInPlace:
		if held, _ := w.Pod(world.RefOf(command.GetObject())); held != nil && underUpdate(held) {
			return
		}
	default:
		return
	}
	if b.reason == nil {
		b.reason = command.GetReason()
	}
	b.last, b.at, b.pods = change.Sequence, change.Time, append(b.pods, command.GetObject().GetName())
}

// underUpdate says whether an update has begun with a Pod and not yet changed it: a hook was asked, or its gate was shut.
func underUpdate(p *world.Pod) bool {
	gate := p.Condition(inplace.ReadyCondition)
	return p.Labels.Get(v1beta1.LifecycleStateKey) == string(v1beta1.LifecycleStatePreparingUpdate) ||
		gate.Status == "False" && gate.Reason == inplace.StartReason
}

func counted(pods int) string {
	if pods == 1 {
		return "1 Pod begins"
	}
	return fmt.Sprintf("%d Pods begin", pods)
}

// end returns the event of the batch, if it let any Pod go.
func (b *batch) end(w *world.World) []Event {
	set := setOf(w, world.WorkloadOf(b.rollout))
	if len(b.pods) == 0 || set == nil {
		return nil
	}
	slices.Sort(b.pods)
	event := eventOf(set, b.last, b.at, 0, rolloutevent.TypeBatch, rolloutevent.Batch{
		Message: fmt.Sprintf("%s: %s", counted(len(b.pods)), b.reason.GetMessage()),
		Reason:  rolloutevent.Reason{Code: b.reason.GetCode(), Message: b.reason.GetMessage()},
		Count:   len(b.pods), Pods: b.pods[:min(len(b.pods), maxNamed)],
	})
	event.Rollout = b.rollout
	return []Event{event}
}
