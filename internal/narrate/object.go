package narrate

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/world"
)

// ObjectAccount tells what happened to one object of any kind, from the entries it is shown in order: what changed of it and by
// whom, what was commanded for its sake, and what became of that.
type ObjectAccount struct {
	Target history.Target
	// Object as it is, or was last; nil: it has not been seen. Gone is when it was gone; zero: it is there.
	Object *history.Object
	Gone   time.Time
	Steps  []*Step
	// End is the time of the newest entry shown, Sequence its position.
	End      time.Time
	Sequence uint64

	objects    *history.Objects
	generation int64
	open       map[uint64]*Step
	users      map[string]string // who was admitted, by UID, operation and generation
}

// NewObjectAccount starts the account of an object.
func NewObjectAccount(target history.Target) *ObjectAccount {
	return &ObjectAccount{Target: target, objects: history.NewObjects(), open: map[uint64]*Step{}, users: map[string]string{}}
}

// UID of the object; empty: it has not been seen.
func (a *ObjectAccount) UID() types.UID {
	if a.Object == nil {
		return ""
	}
	return types.UID(a.Object.UID)
}

// Show takes the next entry. An error means that the entry cannot be understood.
func (a *ObjectAccount) Show(record journal.Record) error {
	a.End, a.Sequence = record.Time, record.Sequence
	entry := record.Entry
	ref, about := history.ObjectOf(entry)
	mine := about && a.Target.Is(ref)
	switch kind := entry.GetKind().(type) {
	case *shiplogv1.Entry_ObjectObserved, *shiplogv1.Entry_ObjectDeleted:
		if mine {
			return a.fact(record)
		}
	case *shiplogv1.Entry_Admitted:
		if mine {
			a.users[admission(kind.Admitted.GetObject().GetUid(), kind.Admitted.GetOperation(), kind.Admitted.GetGeneration())] = kind.Admitted.GetUser()
		}
	case *shiplogv1.Entry_Command:
		serves := a.UID() != "" && world.WorkloadOf(entry.GetRollout()) == a.UID()
		if mine || serves || kind.Command.GetNode() != "" && kind.Command.GetNode() == a.Target.Name && a.Target.Resource == world.ResourceNodes {
			a.command(record, kind.Command)
		}
	case *shiplogv1.Entry_Outcome:
		if step := a.open[entry.GetCause()]; step != nil {
			delete(a.open, step.Sequence)
			step.Outcome, step.OutcomeSequence = Outcome(kind.Outcome), record.Sequence
			step.Refused = kind.Outcome.GetResult() == shiplogv1.Outcome_RESULT_REFUSED
		}
	}
	return nil
}

func admission(uid, operation string, generation int64) string {
	if operation == "CREATE" {
		generation = 0 // an object is created once
	}
	return fmt.Sprintf("%s %s %d", uid, operation, generation)
}

func (a *ObjectAccount) add(record journal.Record, step *Step) {
	step.Sequence, step.Time, step.Generation = record.Sequence, record.Time, a.generation
	a.Steps = append(a.Steps, step)
}

func (a *ObjectAccount) fact(record journal.Record) error {
	before, after := a.objects.Show(record)
	if before == nil && after == nil {
		return nil
	}
	if after == nil {
		a.Gone = record.Time
		what := a.Target.String() + " is gone"
		if user := a.users[admission(before.UID, "DELETE", a.generation)]; user != "" {
			what += ", deleted by " + user
		}
		a.add(record, &Step{What: what})
		return nil
	}
	a.Object, a.Gone = after, time.Time{}
	a.generation = generationOf(after.JSON)
	who := Who(after.LastChange)
	by := func(operation string) string {
		user := a.users[admission(after.UID, operation, a.generation)]
		switch {
		case user != "" && who != "":
			return " by " + user + " with " + who
		case user != "" || who != "":
			return " by " + user + who
		}
		return ""
	}
	switch {
	case before == nil && a.generation <= 1 && a.users[admission(after.UID, "CREATE", a.generation)] != "":
		a.add(record, &Step{What: a.Target.String() + " is created" + by("CREATE"), Ours: ours(who)})
	case before == nil || before.UID != after.UID:
		a.add(record, &Step{What: a.Target.String() + " exists" + by("CREATE"), Ours: ours(who)})
	default:
		return a.changed(record, before, after, by("UPDATE"))
	}
	return nil
}

// changed tells in what an object changed. Who changed the status only is not known: an object names who changed the rest last.
func (a *ObjectAccount) changed(record journal.Record, before, after *history.Object, by string) error {
	differences, err := Differences(before.JSON, after.JSON, true)
	if err != nil || len(differences) == 0 {
		return err
	}
	ofSpec := slices.DeleteFunc(slices.Clone(differences), func(d Difference) bool { return strings.HasPrefix(d.Path, "status.") || d.Path == "status" })
	text := " reports "
	if len(ofSpec) > 0 {
		text, differences = " is changed"+by+": ", ofSpec
	}
	a.add(record, &Step{What: a.Target.String() + text + summary(differences), Ours: ours(Who(after.LastChange))})
	return nil
}

func generationOf(object []byte) int64 {
	var wire struct{ Metadata struct{ Generation int64 } }
	_ = json.Unmarshal(object, &wire) // an object without one has none
	return wire.Metadata.Generation
}

// summary says what changed in one line, the first few fields of many.
func summary(differences []Difference) string {
	var out []string
	for i, difference := range differences {
		if i == 3 && len(differences) > 4 {
			return strings.Join(out, "; ") + fmt.Sprintf("; and %d fields more", len(differences)-i)
		}
		out = append(out, strings.TrimPrefix(strings.TrimPrefix(difference.String(), "spec."), "status."))
	}
	return strings.Join(out, "; ")
}

func (a *ObjectAccount) command(record journal.Record, command *shiplogv1.Command) {
	step := &Step{
		What: Effect(command), Code: command.GetReason().GetCode(), Why: command.GetReason().GetMessage(), Cause: record.Entry.GetCause(),
		Rollout: record.Entry.GetRollout(), Writer: record.Entry.GetWriter(), Verb: world.Patch, command: command,
	}
	switch command.GetEffect().(type) {
	case *shiplogv1.Command_Create:
		step.Verb = world.Create
	case *shiplogv1.Command_Delete:
		step.Verb = world.Delete
	case *shiplogv1.Command_WakeAt:
		step.Verb = world.Wake
	case *shiplogv1.Command_Patch:
	default:
		verb, _ := journal.Call(command)
		step.Verb = world.Verb(verb)
	}
	if step.Verb != world.Wake {
		a.open[record.Sequence] = step
	}
	a.add(record, step)
}

// Open returns the commands that have no outcome, in order.
func (a *ObjectAccount) Open() (out []*Step) {
	for _, step := range a.Steps {
		if a.open[step.Sequence] == step {
			out = append(out, step)
		}
	}
	return out
}

// View cuts the steps at a moment (zero: the beginning) and to one generation (0: all).
func (a *ObjectAccount) View(since history.Moment, generation int64) (out []*Step) {
	for _, step := range a.Steps {
		if !since.After(journal.Record{Sequence: step.Sequence, Time: step.Time}) && (generation == 0 || step.Generation == generation) {
			out = append(out, step)
		}
	}
	return out
}
