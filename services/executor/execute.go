package executor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/object"
)

// Codes of refusals that the API server did not give.
const (
	// unavailable: no usable answer while the command had patience.
	unavailable = "Unavailable"
	// malformed: the command itself cannot be carried out.
	malformed = "BadRequest"
)

// maxMessage bounds the server's words in an outcome, in bytes.
const maxMessage = 1 << 10

// verdict is what one try at a command came to. Without a result the command may be tried again.
type verdict struct {
	result shiplogv1.Outcome_Result
	// object is the newest state known from this try; nil: none, or the object is gone.
	object *object.Object
	// reason says why there is no result yet, or why it is a refusal.
	reason *shiplogv1.Reason
	// retryAfter is how long the API server wants to be left alone.
	retryAfter time.Duration
	// unsure: the effect may have happened.
	unsure bool
}

func applied(o *object.Object) verdict {
	return verdict{result: shiplogv1.Outcome_RESULT_APPLIED, object: o}
}

// refused is final. current is the object as it is now, if the try showed it: the planner looks again on fresh facts.
func refused(why *shiplogv1.Reason, current *object.Object) verdict {
	return verdict{result: shiplogv1.Outcome_RESULT_REFUSED, object: current, reason: why}
}

// failed judges an answer that is not ok and that has no meaning special to the command.
func failed(a answer) verdict {
	if a.temporary() {
		return verdict{reason: a.explain(), retryAfter: a.retryAfter, unsure: a.unsure()}
	}
	return refused(a.explain(), nil)
}

func reason(code, message string) *shiplogv1.Reason {
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "")
	}
	return &shiplogv1.Reason{Code: code, Message: strings.ToValidUTF8(message, "?")}
}

// call is one command under way.
type call struct {
	*client
	command *shiplogv1.Command
	ref     *shiplogv1.ObjectRef
	// sequence of the command in the log.
	sequence uint64
	timeout  time.Duration
	// unsure: an earlier try, perhaps another executor's, may have had its effect.
	unsure   bool
	requests uint32
}

// send makes one request for the command. The API server's audit log has it as shiplog-COMMAND-REQUEST, so that whoever reads it
// finds the reason in the log.
func (c *call) send(ctx context.Context, r request) answer {
	c.requests++
	r.auditID = fmt.Sprintf("shiplog-%d-%d", c.sequence, c.requests)
	return c.do(ctx, c.timeout, r)
}

// try makes one attempt at the effect.
func (c *call) try(ctx context.Context) verdict {
	switch effect := c.command.GetEffect().(type) {
	case *shiplogv1.Command_Create:
		return c.create(ctx, effect.Create)
	case *shiplogv1.Command_Patch:
		return c.patch(ctx, effect.Patch)
	case *shiplogv1.Command_Delete:
		return c.delete(ctx, effect.Delete)
	}
	return refused(reason(malformed, fmt.Sprintf("the executor cannot carry out %T", c.command.GetEffect())), nil)
}

// verbOf names the effect in metrics.
func verbOf(command *shiplogv1.Command) string {
	switch command.GetEffect().(type) {
	case *shiplogv1.Command_Create:
		return "create"
	case *shiplogv1.Command_Patch:
		return "patch"
	case *shiplogv1.Command_Delete:
		return "delete"
	}
	return "unknown"
}

// execute carries out the command and returns what the log gets to know: the fact of the object where there is one, then
// the outcome. It returns nothing if ctx ended before there was a result, or if another executor put the outcome into the log
// meanwhile. The error is that of the log: without it nobody knows whether that has happened, and nothing more is tried.
func (e *executor) execute(ctx context.Context, task *journal.Task) ([]*shiplogv1.Entry, error) {
	command := task.Entry.GetCommand()
	start := e.time().Now()
	c := &call{client: e.client, command: command, ref: command.GetObject(), sequence: task.Sequence, timeout: e.request, unsure: task.Again}
	var v verdict
	for retry := e.backoff(); ; {
		if made, err := e.made(ctx, c); err != nil {
			return nil, err
		} else if made != nil {
			v = verdict{result: shiplogv1.Outcome_RESULT_APPLIED}
			c.ref = made
			break
		}
		if lack, err := e.lack(ctx, c, task); err != nil {
			return nil, err
		} else if lack != nil {
			v = *lack
		} else {
			v = c.try(ctx)
		}
		if v.result != shiplogv1.Outcome_RESULT_UNSPECIFIED {
			break
		}
		c.unsure = c.unsure || v.unsure
		// No pause outlasts the command's patience: a server that wants to be left alone for longer is unavailable.
		if left := e.command - e.time().Now().Sub(start); left <= 0 || v.retryAfter > left {
			v = refused(reason(unavailable, v.reason.GetCode()+": "+v.reason.GetMessage()), v.object)
			break
		}
		if retry.wait(ctx, v.retryAfter) != nil {
			return nil, nil
		}
		if known, err := e.known(ctx, task); known || err != nil {
			return nil, err
		}
	}
	if ctx.Err() != nil && v.result != shiplogv1.Outcome_RESULT_APPLIED {
		return nil, nil // a refusal may be the doing of our own ending
	}
	switch {
	case v.result != shiplogv1.Outcome_RESULT_APPLIED:
	case command.GetCreate() != nil:
		e.present.note(c.ref)
	case command.GetDelete() != nil:
		e.present.forget(c.ref)
	}
	took, verb := e.time().Now().Sub(start), verbOf(command)
	result := strings.ToLower(strings.TrimPrefix(v.result.String(), "RESULT_"))
	e.metrics.commands.WithLabelValues(verb, result).Inc()
	e.metrics.seconds.WithLabelValues(verb, result).Observe(took.Seconds())
	return e.entries(task, c, v, took), nil
}

// made returns the object that an earlier try at a create made, if it is gone again: then its end is in the log behind the command.
// Making it again would be a second effect. Nil: it is there, or was never made, or nobody saw it yet.
func (e *executor) made(ctx context.Context, c *call) (*shiplogv1.ObjectRef, error) {
	if !c.unsure || c.command.GetCreate() == nil {
		return nil, nil
	}
	last, err := e.options.Journal.LastFact(ctx, c.ref)
	if err != nil {
		return nil, fmt.Errorf("read the last fact: %w", err)
	}
	if last == nil || last.Sequence < c.sequence {
		return nil, nil
	}
	return last.Entry.GetObjectDeleted().GetObject(), nil
}

func (e *executor) entries(task *journal.Task, c *call, v verdict, took time.Duration) []*shiplogv1.Entry {
	outcome := &shiplogv1.Outcome{
		Result: v.result, Object: c.ref, Attempt: c.command.GetAttempt(),
		Requests: c.requests, Took: durationpb.New(took),
	}
	entries := make([]*shiplogv1.Entry, 0, 2)
	if v.object != nil {
		entries = append(entries, v.object.Observed())
	}
	if v.result == shiplogv1.Outcome_RESULT_REFUSED {
		outcome.Reason, outcome.Unsure = v.reason, c.unsure
	} else if v.object != nil {
		outcome.Object, outcome.ResourceVersion = v.object.Ref(), v.object.ResourceVersion
	}
	entries = append(entries, &shiplogv1.Entry{Kind: &shiplogv1.Entry_Outcome{Outcome: outcome}})
	for _, entry := range entries {
		entry.Writer, entry.WriterVersion = e.options.Writer, e.options.Version
		entry.Cause, entry.Rollout = task.Sequence, task.Entry.GetRollout()
	}
	return entries
}
