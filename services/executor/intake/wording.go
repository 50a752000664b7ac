package intake

import (
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
)

// checkWriter: an agent signs as one, and with nothing that could mislead a reader.
func checkWriter(word *shiplogv1.Entry) error {
	for _, text := range []string{word.GetWriter(), word.GetWriterVersion()} {
		if len(text) > maxWriter || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return refuse("the name or version of the writer is no short plain text")
		}
	}
	if !strings.HasPrefix(word.GetWriter(), "nodeagent/") {
		return refuse("it is signed as %q", word.GetWriter())
	}
	return nil
}

// wording returns the entry that a word about a call becomes. What the log knows itself is taken from the command.
func wording(entry *shiplogv1.Entry, name string, word *shiplogv1.Entry) (*shiplogv1.Entry, error) {
	command := entry.GetCommand()
	_, target := journal.Call(command)
	own := &shiplogv1.Entry{
		Writer: word.GetWriter(), WriterVersion: word.GetWriterVersion(), Cause: word.GetCause(), Rollout: entry.GetRollout(),
	}
	switch kind := word.GetKind().(type) {
	case *shiplogv1.Entry_CallObserved:
		said := kind.CallObserved
		if said.GetState() != shiplogv1.CallObserved_STATE_TAKEN && said.GetState() != shiplogv1.CallObserved_STATE_RUNNING {
			return nil, refuse("the call is in the state %d", said.GetState())
		}
		own.Skippable = true
		own.Kind = &shiplogv1.Entry_CallObserved{CallObserved: &shiplogv1.CallObserved{
			Node: name, Target: target, State: said.GetState(), BytesDone: said.GetBytesDone(), BytesTotal: said.GetBytesTotal(),
		}}
	case *shiplogv1.Entry_Outcome:
		outcome, err := outcomeOf(command, name, target, kind.Outcome)
		if err != nil {
			return nil, err
		}
		own.Kind = &shiplogv1.Entry_Outcome{Outcome: outcome}
	default:
		return nil, refuse("it is neither a fact about the node nor the outcome of a call")
	}
	return own, nil
}

func outcomeOf(command *shiplogv1.Command, name, target string, said *shiplogv1.Outcome) (*shiplogv1.Outcome, error) {
	outcome := &shiplogv1.Outcome{
		Result: said.GetResult(), Object: command.GetObject(), Attempt: command.GetAttempt(), Node: name, Target: target,
	}
	if took := said.GetTook(); took.CheckValid() == nil && took.AsDuration() >= 0 {
		outcome.Took = durationpb.New(took.AsDuration())
	}
	switch said.GetResult() {
	case shiplogv1.Outcome_RESULT_APPLIED:
	case shiplogv1.Outcome_RESULT_REFUSED:
		code := said.GetReason().GetCode()
		if code == "" || len(code) > maxCode || strings.ContainsFunc(code, notLetter) {
			return nil, refuse("the reason has no code")
		}
		outcome.Reason = reason(code, said.GetReason().GetMessage())
	default:
		return nil, refuse("an agent's outcome is applied or refused, not %d", said.GetResult())
	}
	switch found := said.GetFound().(type) {
	case nil:
	case *shiplogv1.Outcome_PulledImage:
		pull := command.GetPullImage()
		if pull == nil || len(found.PulledImage.GetImageId()) > maxMessage || len(found.PulledImage.GetMissingSecrets()) > len(pull.GetPullSecrets()) {
			return nil, refuse("an image was not to be pulled, or not with so many secrets")
		}
		own := &shiplogv1.PulledImage{ImageId: strings.ToValidUTF8(found.PulledImage.GetImageId(), "?"), Present: found.PulledImage.GetPresent()}
		for _, missing := range found.PulledImage.GetMissingSecrets() {
			for _, named := range pull.GetPullSecrets() {
				if named.GetNamespace() == missing.GetNamespace() && named.GetName() == missing.GetName() {
					own.MissingSecrets = append(own.MissingSecrets, named)
					break
				}
			}
		}
		outcome.Found = &shiplogv1.Outcome_PulledImage{PulledImage: own}
	case *shiplogv1.Outcome_InspectedContainer:
		if command.GetInspectContainer() == nil {
			return nil, refuse("a container was not to be inspected")
		}
		outcome.Found = &shiplogv1.Outcome_InspectedContainer{InspectedContainer: &shiplogv1.InspectedContainer{
			PlainHash: found.InspectedContainer.GetPlainHash(), EnvironmentHash: found.InspectedContainer.GetEnvironmentHash(),
			RestartCount: found.InspectedContainer.GetRestartCount(),
		}}
	default:
		return nil, refuse("it says that %T was found", found)
	}
	return outcome, nil
}

func notLetter(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }

// reason words an agent's reason for the log: valid text of a bounded length.
func reason(code, message string) *shiplogv1.Reason {
	if len(message) > maxMessage {
		message = message[:maxMessage]
	}
	return &shiplogv1.Reason{Code: code, Message: strings.ToValidUTF8(message, "")}
}
