package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/services/nodeagent/cri"
)

// Codes of refusals.
const (
	failed      = "Failed"
	pullFailed  = "PullFailed"
	hookFailed  = "HookFailed"
	interrupted = "Interrupted"
	timedOut    = "TimedOut"
	stopped     = "Stopped"
	unsupported = "Unsupported"
)

const (
	// runWithin bounds a call whose command does not.
	runWithin = 10 * time.Minute
	// failuresToReopen is after how many failures in a row the commands are asked for anew.
	failuresToReopen = 3
)

// caller makes the calls that commands for the node ask for. Each runs beside the others; only pulls wait for a turn.
type caller struct {
	options Options
	pace    pace
	metrics *metrics
	runtime runtime
	writer  string
	// turns holds a place for each pull that may run; nil: as many as come.
	turns chan struct{}

	mu sync.Mutex
	// under holds the calls that are under way, by the sequence of their commands.
	under map[uint64]*call
}

// call is one command under way.
type call struct {
	*caller
	// sequence of the command; task is the delivery of it that is to be done, guarded by mu.
	sequence uint64
	task     *journal.Task
	log      zerolog.Logger
	// wanted ends when nobody wants the call any more, of which stop gives the reason, or with the process.
	wanted context.Context
	stop   context.CancelCauseFunc
}

// errStopped ends a call that was cancelled.
var errStopped = errors.New("the call was cancelled")

// run takes commands until ctx ends, and waits for the calls under way to see that.
func (c *caller) run(ctx context.Context) {
	var calls sync.WaitGroup
	defer calls.Wait()
	for failures := 1; ctx.Err() == nil; failures++ {
		if err := c.take(ctx, &calls, func() { failures = 0 }); err != nil && ctx.Err() == nil {
			if failures == 1 {
				c.options.Logger.Warn().Err(err).Msg("no commands can be had; trying again")
			}
			sleep(ctx, backoff(c.pace, max(failures, 1)))
		}
	}
}

// take takes commands until they cannot be had any more.
func (c *caller) take(ctx context.Context, calls *sync.WaitGroup, well func()) error {
	work, err := c.options.Log.Commands(ctx)
	if err != nil {
		return err
	}
	defer work.Close()
	for failures := 0; ; {
		task, err := work.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, journal.ErrUndecodable):
			c.options.Logger.Error().Err(err).Msg("a command cannot be read; this program may be too old")
			continue
		case err != nil:
			if failures++; failures == failuresToReopen {
				return err
			}
			sleep(ctx, backoff(c.pace, failures))
			continue
		}
		failures = 0
		well()
		if one := c.enter(ctx, task); one != nil {
			calls.Go(func() { one.finish(ctx) })
		}
	}
}

// enter notes that a call is under way; nil: it was, and its command came again.
func (c *caller) enter(ctx context.Context, task *journal.Task) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.under[task.Sequence]; known != nil {
		known.task = task // this one is to be done when the call is
		return nil
	}
	verb, target := journal.Call(task.Entry.GetCommand())
	one := &call{caller: c, sequence: task.Sequence, task: task,
		log: c.options.Logger.With().Uint64("command", task.Sequence).Str("verb", verb).Str("target", target).Logger()}
	one.wanted, one.stop = context.WithCancelCause(ctx)
	c.under[task.Sequence] = one
	return one
}

func (c *call) leave() *journal.Task {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.under, c.sequence)
	return c.task
}

// finish makes the call unless it is over, and tells what became of it. A command that is not done when ctx ends comes again.
func (c *call) finish(ctx context.Context) {
	defer c.stop(nil)
	outcome, err := c.make(ctx)
	task := c.leave()
	switch {
	case errors.Is(err, journal.ErrRefused):
		c.log.Info().Err(err).Msg("the call is nobody's wish any more")
	case err != nil:
		return // this process ends
	default:
		c.log.Debug().Stringer("result", outcome.GetResult()).Stringer("took", outcome.GetTook().AsDuration()).Msg("called")
	}
	if err := task.Done(ctx); err != nil && ctx.Err() == nil {
		c.log.Warn().Err(err).Msg("cannot tell the log that the command is done; its outcome stands")
	}
}

// make makes the call and says its outcome. Errors: journal.ErrRefused if nobody wants it, else that of ctx.
func (c *call) make(ctx context.Context) (*shiplogv1.Outcome, error) {
	command := c.task.Entry.GetCommand()
	outcome, err := c.attempt(ctx, command)
	if err != nil {
		return nil, err
	}
	verb, _ := journal.Call(command)
	result := "applied"
	if outcome.Result = shiplogv1.Outcome_RESULT_APPLIED; outcome.Reason != nil {
		outcome.Result, result = shiplogv1.Outcome_RESULT_REFUSED, outcome.Reason.Code
	}
	c.metrics.calls.WithLabelValues(verb, result).Inc()
	c.metrics.callSeconds.WithLabelValues(verb).Observe(outcome.GetTook().AsDuration().Seconds())
	_, err = c.offer(ctx, &shiplogv1.Entry{Kind: &shiplogv1.Entry_Outcome{Outcome: outcome}})
	return outcome, err
}

// attempt makes the call when it is its turn.
func (c *call) attempt(ctx context.Context, command *shiplogv1.Command) (*shiplogv1.Outcome, error) {
	if command.GetPullImage() != nil && c.turns != nil {
		switch mine, err := c.await(ctx); {
		case err != nil:
			return nil, err
		case !mine:
			return refused(stopped, fmt.Errorf("pulling image %s is stopped", command.GetPullImage().GetImage())), nil
		}
		defer func() { <-c.turns }()
	}
	// The intake's yes is the permission to begin: the call has no outcome, and is not given up while it may run.
	said, err := c.say(ctx, shiplogv1.CallObserved_STATE_RUNNING)
	if err != nil {
		return nil, err
	}
	if hook := command.GetRunHook(); hook != nil && said.Begun != "" && said.Begun != c.writer {
		return refused(interrupted, fmt.Errorf("the agent that ran the hook of container %s ended; how far it came nobody knows", hook.GetContainerId())), nil
	}
	limit := runWithin
	if given := command.GetRunWithin().AsDuration(); given > 0 {
		limit = given
	}
	bounded, cancel := context.WithTimeout(c.wanted, limit)
	defer cancel()
	began := time.Now()
	outcome := c.call(bounded, command)
	outcome.Took = durationpb.New(time.Since(began))
	return outcome, ctx.Err()
}

// await waits for a turn, and says so if there is none at once. It returns false if nobody wants the call any more.
func (c *call) await(ctx context.Context) (bool, error) {
	select {
	case c.turns <- struct{}{}:
		return true, nil
	default:
	}
	if _, err := c.say(ctx, shiplogv1.CallObserved_STATE_TAKEN); err != nil {
		return false, err
	}
	select {
	case c.turns <- struct{}{}:
		return true, nil
	case <-c.wanted.Done():
		return false, ctx.Err()
	}
}

// call makes the call. An outcome without a reason is applied.
func (c *call) call(ctx context.Context, command *shiplogv1.Command) *shiplogv1.Outcome {
	switch effect := command.GetEffect().(type) {
	case *shiplogv1.Command_PullImage:
		return c.pull(ctx, effect.PullImage)
	case *shiplogv1.Command_StopContainer:
		return c.stopContainer(ctx, effect.StopContainer)
	case *shiplogv1.Command_RunHook:
		return c.hook(ctx, effect.RunHook)
	case *shiplogv1.Command_InspectContainer:
		return c.inspect(ctx, effect.InspectContainer)
	case *shiplogv1.Command_CancelCall:
		c.cancel(effect.CancelCall.GetCommand())
		return &shiplogv1.Outcome{}
	}
	return refused(unsupported, fmt.Errorf("this agent cannot %T", command.GetEffect()))
}

// cancel ends another call, if it is under way. That has an outcome of its own.
func (c *caller) cancel(sequence uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if other := c.under[sequence]; other != nil {
		other.stop(errStopped)
	}
}

// ended words the end of a call that did not end well: cancelled, out of time, or failed with a code of its own.
func (c *call) ended(ctx context.Context, doing, code string, err error) *shiplogv1.Outcome {
	switch {
	case context.Cause(ctx) == errStopped:
		return refused(stopped, fmt.Errorf("%s is stopped", doing))
	case over(ctx):
		return refused(timedOut, fmt.Errorf("%s took too long: %s", doing, text(err)))
	}
	return refused(code, err)
}

// over says whether the time of a call is over. The runtime counts it too, and may say so before ctx does.
func over(ctx context.Context) bool {
	end, bounded := ctx.Deadline()
	return ctx.Err() != nil || bounded && !time.Now().Before(end)
}

func refused(code string, err error) *shiplogv1.Outcome {
	return &shiplogv1.Outcome{Reason: &shiplogv1.Reason{Code: code, Message: text(err)}}
}

// text returns the words of an error, without what gRPC puts around them.
func text(err error) string {
	if s, is := status.FromError(err); is {
		return s.Message()
	}
	return err.Error()
}

// patiently calls f again while the runtime does not answer, as long as ctx lasts.
func (c *call) patiently(ctx context.Context, f func(context.Context) error) error {
	for failures := 1; ; failures++ {
		err := f(ctx)
		if !cri.Unavailable(err) || !sleep(ctx, backoff(c.pace, failures)) {
			return err
		}
	}
}

// say tells how far the call is.
func (c *call) say(ctx context.Context, state shiplogv1.CallObserved_State) (journal.Said, error) {
	return c.offer(ctx, &shiplogv1.Entry{Kind: &shiplogv1.Entry_CallObserved{CallObserved: &shiplogv1.CallObserved{State: state}}})
}

// offer says a word about the call until the log holds it. Errors: journal.ErrRefused, or that of ctx.
func (c *call) offer(ctx context.Context, word *shiplogv1.Entry) (journal.Said, error) {
	c.sign(word)
	for failures := 1; ; failures++ {
		said, err := c.options.Log.Say(ctx, word)
		switch {
		case err == nil, errors.Is(err, journal.ErrRefused):
			return said, err
		case failures == 1:
			c.log.Warn().Err(err).Msg("the log does not answer; trying again")
		}
		if !sleep(ctx, backoff(c.pace, failures)) {
			return journal.Said{}, ctx.Err()
		}
	}
}

// sign says in a word who says it, and of which command.
func (c *call) sign(word *shiplogv1.Entry) *shiplogv1.Entry {
	word.Writer, word.WriterVersion, word.Cause = c.writer, c.options.Version, c.sequence
	return word
}
