// Package narrate words entries of the log for people: one line for an entry, and the account of one workload over time.
// It reads entries and returns text and plain data; it connects to nothing and decides nothing.
package narrate

import (
	"fmt"
	"strings"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
)

// Entry words one entry in a line, without its position and time.
func Entry(entry *shiplogv1.Entry) string {
	switch kind := entry.GetKind().(type) {
	case *shiplogv1.Entry_ObjectObserved:
		return fmt.Sprintf("fact     %s at version %s", world.RefOf(kind.ObjectObserved.GetObject()), kind.ObjectObserved.GetResourceVersion())
	case *shiplogv1.Entry_ObjectDeleted:
		return fmt.Sprintf("fact     %s is gone", world.RefOf(kind.ObjectDeleted.GetObject()))
	case *shiplogv1.Entry_NodeObserved:
		seen := kind.NodeObserved
		return fmt.Sprintf("fact     node/%s has %d containers and %d images in %s %s", seen.GetNode(), len(seen.GetContainers()), len(seen.GetImages()),
			seen.GetRuntimeName(), seen.GetRuntimeVersion())
	case *shiplogv1.Entry_Vouched:
		return fmt.Sprintf("vouch    facts were complete %s before", kind.Vouched.GetAge().AsDuration().Round(time.Millisecond))
	case *shiplogv1.Entry_Ticked:
		return fmt.Sprintf("tick     %s, due %s", kind.Ticked.GetId(), kind.Ticked.GetDue().AsTime().Format(time.TimeOnly))
	case *shiplogv1.Entry_Command:
		return "command  " + Command(kind.Command)
	case *shiplogv1.Entry_Outcome:
		return fmt.Sprintf("outcome  of %d: %s", entry.GetCause(), Outcome(kind.Outcome))
	case *shiplogv1.Entry_FenceRaised:
		return "fence    raised by " + entry.GetWriter()
	}
	return "an entry that this version does not know"
}

// Command words a command: the effect and its reason.
func Command(command *shiplogv1.Command) string {
	return fmt.Sprintf("%s  %s: %s", Effect(command), command.GetReason().GetCode(), command.GetReason().GetMessage())
}

// Effect words what a command does to which object.
func Effect(command *shiplogv1.Command) string {
	object := command.GetObject()
	name := strings.TrimSuffix(object.GetResource(), "s") + "/" + object.GetName()
	switch effect := command.GetEffect().(type) {
	case *shiplogv1.Command_Create:
		return "create " + name
	case *shiplogv1.Command_Patch:
		if subresource := effect.Patch.GetSubresource(); subresource != "" {
			return "patch " + name + " (" + subresource + ")"
		}
		return "patch " + name
	case *shiplogv1.Command_Delete:
		return "delete " + name
	case *shiplogv1.Command_WakeAt:
		return "wake " + name + " at " + effect.WakeAt.GetDue().AsTime().Format(time.TimeOnly)
	}
	return "unknown effect on " + name
}

// Outcome words what became of a command.
func Outcome(outcome *shiplogv1.Outcome) string {
	took := outcome.GetTook().AsDuration().Round(100 * time.Microsecond)
	switch outcome.GetResult() {
	case shiplogv1.Outcome_RESULT_APPLIED:
		return fmt.Sprintf("applied in %s", took)
	case shiplogv1.Outcome_RESULT_REFUSED:
		return fmt.Sprintf("refused after %s, %s: %s", took, outcome.GetReason().GetCode(), outcome.GetReason().GetMessage())
	case shiplogv1.Outcome_RESULT_SUPERSEDED:
		return "superseded"
	}
	return "unknown result"
}
