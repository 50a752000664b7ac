package decide

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
)

// AwaitTime is the code of the wish for a tick.
const AwaitTime = "AwaitTime"

// Turn is one decision for one workload: the rules of a kind put their commands into it one after another.
type Turn struct {
	World *world.World
	// Ref and Object name the workload.
	Ref    world.Ref
	Object *shiplogv1.ObjectRef
	// Decision as far as it goes.
	Decision Decision
	// Ticks is what the ids of its ticks begin with.
	Ticks string

	wake time.Time
	why  *shiplogv1.Reason
}

// NewTurn begins a decision. The UID in object, and the generation, name the rollout.
func NewTurn(w *world.World, ref world.Ref, object *shiplogv1.ObjectRef, generation int64) *Turn {
	return &Turn{World: w, Ref: ref, Object: object, Ticks: ref.Resource, Decision: Decision{Rollout: Rollout(w.WorkloadUID(ref), generation)}}
}

// Now is the time by which everything is decided.
func (t *Turn) Now() time.Time { return t.World.Now() }

// Append notes a command.
func (t *Turn) Append(command *shiplogv1.Command) {
	if refusal := t.refusal(command.GetReason().GetCode()); refusal != nil && command.GetNode() == "" {
		command.Attempt = refusal.Attempt
	}
	t.Decision.Append(command)
}

// Writes says whether the decision holds a write of the workload itself, of which one goes at a time.
func (t *Turn) Writes() bool {
	return slices.ContainsFunc(t.Decision.Commands, func(c *shiplogv1.Command) bool {
		return c.GetNode() == "" && world.RefOf(c.GetObject()) == t.Ref
	})
}

// Hold notes what is held back.
func (t *Turn) Hold(code, release, format string, args ...any) {
	t.Decision.Held = append(t.Decision.Held, Hold{Code: code, Message: fmt.Sprintf(format, args...), Release: release})
}

// MayTry says whether a kind of effect may be tried now, seeing when it was last refused; if not, the workload is looked at
// again when it may.
func (t *Turn) MayTry(code string) bool {
	refusal := t.refusal(code)
	if refusal == nil {
		return true
	}
	again := Backoff(refusal, t.Now())
	if !again.After(t.Now()) {
		return true
	}
	t.WakeBy(again, "%s was refused %d times in a row (%s), tried again at %s", code, refusal.Attempt, refusal.Code, again.UTC().Format(time.TimeOnly))
	return false
}

// Refused says whether a kind of effect was refused when it was last tried.
func (t *Turn) Refused(code string) bool { return t.refusal(code) != nil }

func (t *Turn) refusal(code string) *world.Refusal {
	return t.World.Refusal(t.World.WorkloadUID(t.Ref), code)
}

// Fresh says whether the facts are known to be fresh enough to take something away because of them; if not, the workload is
// looked at again when they are.
func (t *Turn) Fresh() bool {
	fresh := t.World.FactsAge(t.Ref) <= FreshFacts
	t.Decision.AwaitsVouch = t.Decision.AwaitsVouch || !fresh
	return fresh
}

// WakeBy notes that the workload must be looked at again at a time; the earliest one counts.
func (t *Turn) WakeBy(at time.Time, why string, args ...any) {
	if t.wake.IsZero() || at.Before(t.wake) {
		t.wake, t.why = at, Why(AwaitTime, why, args...)
	}
}

// Passed says whether a time has come; if not, the workload is looked at again then.
func (t *Turn) Passed(at time.Time, why string, args ...any) bool {
	if !at.After(t.Now()) {
		return true
	}
	t.WakeBy(at, why, args...)
	return false
}

// End returns the decision, with the wish for a tick where none comes early enough anyway. Ticks fall on whole seconds.
func (t *Turn) End() Decision {
	if !t.wake.IsZero() {
		id := t.Ticks + "-" + string(t.World.WorkloadUID(t.Ref))
		due := t.wake.Truncate(time.Second)
		if due.Before(t.wake) {
			due = due.Add(time.Second)
		}
		if asked, is := t.World.WakeTime(id); !is || asked.After(due) {
			t.Decision.Append(WakeAt(t.Object, id, due, t.why))
		}
	}
	return t.Decision
}

// StatusChange is the merge patch, as JSON, that makes one status out of another; nil: they are equal. Of an object that has no
// status yet (has) the whole is written, for its schema may require what is zero.
func StatusChange(has bool, held, wanted any) json.RawMessage {
	before := map[string]any{}
	if has {
		before["status"] = held
	}
	return Difference(before, map[string]any{"status": wanted})
}

// VersionOf is the resource version that a command which holds only for this very state of an object names.
func VersionOf(object *world.Meta) string { return strconv.FormatUint(object.Version, 10) }

// Difference is the merge patch, as JSON, that makes one value out of another; nil: they are equal as the API server keeps them.
func Difference(held, wanted any) json.RawMessage {
	patch, err := jsonpatch.CreateMergePatch(encode(held), encode(wanted))
	if err != nil {
		panic(fmt.Sprintf("decide: two values cannot be compared: %v", err)) // both were just encoded
	}
	if string(patch) == "{}" {
		return nil
	}
	return patch
}

// Call words a call to a node's agent, but for the effect.
func Call(node string, object *shiplogv1.ObjectRef, reason *shiplogv1.Reason, take, run time.Duration) *shiplogv1.Command {
	return &shiplogv1.Command{Object: object, Reason: reason, Node: node, TakeWithin: durationpb.New(take), RunWithin: durationpb.New(run)}
}
