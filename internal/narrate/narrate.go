// Package narrate words entries of the log for people: one line for an entry, and the account of one workload over time.
// It reads entries and returns text and plain data; it connects to nothing and decides nothing.
package narrate

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// Entry words one entry in a line, without its position, time and type.
func Entry(entry *shiplogv1.Entry) string {
	switch kind := entry.GetKind().(type) {
	case *shiplogv1.Entry_ObjectObserved:
		text := fmt.Sprintf("%s at version %s", object(kind.ObjectObserved.GetObject()), kind.ObjectObserved.GetResourceVersion())
		if who := Who(kind.ObjectObserved.GetLastChange()); who != "" {
			text += ", last changed by " + who
		}
		return text
	case *shiplogv1.Entry_ObjectDeleted:
		return object(kind.ObjectDeleted.GetObject()) + " is gone"
	case *shiplogv1.Entry_Admitted:
		admitted := kind.Admitted
		return fmt.Sprintf("%s: %s by %s, generation %d", object(admitted.GetObject()), strings.ToLower(admitted.GetOperation()), admitted.GetUser(), admitted.GetGeneration())
	case *shiplogv1.Entry_NodeObserved:
		seen := kind.NodeObserved
		return fmt.Sprintf("node/%s has %s and %s in %s %s", seen.GetNode(), count(len(seen.GetContainers()), "container"), count(len(seen.GetImages()), "image"),
			seen.GetRuntimeName(), seen.GetRuntimeVersion())
	case *shiplogv1.Entry_CallObserved:
		return fmt.Sprintf("node/%s, command %d: %s", kind.CallObserved.GetNode(), entry.GetCause(), call(kind.CallObserved))
	case *shiplogv1.Entry_Rewound:
		return fmt.Sprintf("the API server went back from version %s to %s: etcd was restored; everything is read anew", kind.Rewound.GetSeen(), kind.Rewound.GetResourceVersion())
	case *shiplogv1.Entry_LogLost:
		return logLost(kind.LogLost)
	case *shiplogv1.Entry_Vouched:
		return fmt.Sprintf("facts were complete %s before", kind.Vouched.GetAge().AsDuration().Round(time.Millisecond))
	case *shiplogv1.Entry_Ticked:
		return fmt.Sprintf("%s, due %s", kind.Ticked.GetId(), kind.Ticked.GetDue().AsTime().Local().Format(time.TimeOnly))
	case *shiplogv1.Entry_Command:
		return Command(kind.Command)
	case *shiplogv1.Entry_Outcome:
		return fmt.Sprintf("%s, command %d: %s", object(kind.Outcome.GetObject()), entry.GetCause(), Outcome(kind.Outcome))
	case *shiplogv1.Entry_FenceRaised:
		return "raised by " + entry.GetWriter()
	case *shiplogv1.Entry_Sealed:
		sealed := kind.Sealed
		return fmt.Sprintf("over %d entries up to %d: %x", sealed.GetEntries(), sealed.GetUpTo(), sealed.GetDigest()[:min(6, len(sealed.GetDigest()))])
	case *shiplogv1.Entry_RolloutEvent:
		return RolloutEvent(kind.RolloutEvent)
	}
	if entry.GetSkippable() {
		return "an entry that is not shown: it belongs elsewhere, or to a newer version"
	}
	return "an entry that this version does not know"
}

// call words how far the call of a command is.
func call(called *shiplogv1.CallObserved) string {
	if called.GetState() == shiplogv1.CallObserved_STATE_TAKEN {
		return called.GetTarget() + " waits for its turn"
	}
	if called.GetBytesTotal() > 0 {
		return fmt.Sprintf("%s is under way, %d of %d bytes", called.GetTarget(), called.GetBytesDone(), called.GetBytesTotal())
	}
	return called.GetTarget() + " is under way"
}

func logLost(lost *shiplogv1.LogLost) string {
	ends := "the log was empty"
	if lost.GetLogEndsAt() != nil {
		ends = "the log ended at " + lost.GetLogEndsAt().AsTime().Local().Format(time.DateTime)
	}
	return fmt.Sprintf("entries were lost: Shiplog wrote %s at %s, and %s", object(lost.GetObject()), lost.GetWrittenAt().AsTime().Local().Format(time.DateTime), ends)
}

// object names an object as kubectl does, with its namespace in front where it has one.
func object(ref *shiplogv1.ObjectRef) string {
	name := singular(ref.GetResource()) + "/" + ref.GetName()
	if ref.GetNamespace() != "" {
		return ref.GetNamespace() + " " + name
	}
	return name
}

func singular(resource string) string { return strings.TrimSuffix(resource, "s") }

// Duration words a time span in the two units that matter.
func Duration(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}

// RolloutEvent words a rollout event, which brings a sentence of its own.
func RolloutEvent(event *shiplogv1.RolloutEvent) string {
	var data struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal(event.GetData(), &data) // without a sentence the type has to do
	return fmt.Sprintf("%s %s: %s", object(event.GetWorkload()), event.GetType(), data.Message)
}

// Command words a command: the effect and its reason.
func Command(command *shiplogv1.Command) string {
	once := ""
	if needed := command.GetNeeds(); needed != nil {
		once = " once " + singular(needed.GetResource()) + "/" + needed.GetName() + " is there"
	}
	return fmt.Sprintf("%s%s  %s: %s", Effect(command), once, command.GetReason().GetCode(), command.GetReason().GetMessage())
}

// Effect words what a command does to which object.
func Effect(command *shiplogv1.Command) string {
	name := singular(command.GetObject().GetResource()) + "/" + command.GetObject().GetName()
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
		return "wake " + name + " at " + effect.WakeAt.GetDue().AsTime().Local().Format(time.TimeOnly)
	case *shiplogv1.Command_PullImage:
		return fmt.Sprintf("pull %s on node/%s", effect.PullImage.GetImage(), command.GetNode())
	case *shiplogv1.Command_RunHook:
		return fmt.Sprintf("run a hook of %s in %s on node/%s", name, brief(effect.RunHook.GetContainerId()), command.GetNode())
	case *shiplogv1.Command_StopContainer:
		return fmt.Sprintf("stop %s of %s on node/%s", brief(effect.StopContainer.GetContainerId()), name, command.GetNode())
	case *shiplogv1.Command_InspectContainer:
		return fmt.Sprintf("inspect %s of %s on node/%s", brief(effect.InspectContainer.GetContainerId()), name, command.GetNode())
	case *shiplogv1.Command_CancelCall:
		return fmt.Sprintf("cancel the call of command %d on node/%s", effect.CancelCall.GetCommand(), command.GetNode())
	}
	return "unknown effect on " + name
}

// brief names a container as its runtime's tools do.
func brief(container string) string { return container[:min(12, len(container))] }

// Outcome words what became of a command.
func Outcome(outcome *shiplogv1.Outcome) string {
	took := outcome.GetTook().AsDuration().Round(100 * time.Microsecond)
	switch outcome.GetResult() {
	case shiplogv1.Outcome_RESULT_APPLIED:
		return fmt.Sprintf("applied in %s", took)
	case shiplogv1.Outcome_RESULT_REFUSED:
		refused := fmt.Sprintf("refused after %s, %s: %s", took, outcome.GetReason().GetCode(), outcome.GetReason().GetMessage())
		if outcome.GetUnsure() {
			refused += " (an answer was lost: it may have been done all the same)"
		}
		return refused
	case shiplogv1.Outcome_RESULT_SUPERSEDED:
		return "superseded"
	}
	return "unknown result"
}
