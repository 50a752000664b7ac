package intake

import (
	"context"
	"errors"
	"fmt"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
)

// pace says how long is waited for agents.
type pace struct {
	// takeWithin and runWithin stand in for what a command leaves out.
	takeWithin, runWithin time.Duration
	// slack is what the outcome of a call may take to arrive after the call's time is over.
	slack time.Duration
	// silence is for how long an agent whose call waits for its turn may give no sign of life.
	silence time.Duration
	// settle is for how long after its start an intake gives nobody up: agents may not have found it yet.
	settle time.Duration
	// again is how often an open call is looked at, at least.
	again time.Duration
	// retry is the pause after the log did not answer.
	retry time.Duration
}

var standard = pace{
	takeWithin: 30 * time.Second, runWithin: 10 * time.Minute, slack: 15 * time.Second, silence: time.Minute, settle: 20 * time.Second,
	again: time.Minute, retry: time.Second,
}

// workName is shared by all intakes of a cluster.
const workName = "calls"

// watch looks at every open call when its next deadline passes. What is open, and when to look again, the log remembers.
func (i *intake) watch(ctx context.Context) error {
	work, err := i.options.Journal.Calls(ctx, workName)
	if err != nil {
		return fmt.Errorf("watch the calls: %w", err)
	}
	defer work.Close()
	for {
		task, err := work.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, journal.ErrUnavailable):
			if !sleep(ctx, i.pace.retry) {
				return nil
			}
			continue
		case err != nil:
			return fmt.Errorf("watch the calls: %w", err)
		}
		if wait, open := i.judge(ctx, task); open {
			task.Later(wait)
		} else if err := task.Done(ctx); err != nil && ctx.Err() == nil {
			i.options.Logger.Debug().Err(err).Uint64("command", task.Sequence).Msg("a call that ended is looked at again")
		}
	}
}

// judge returns after how long to look at a call again, or false if it has ended. A call whose deadline has passed ends here.
func (i *intake) judge(ctx context.Context, task *journal.Task) (wait time.Duration, open bool) {
	command := task.Entry.GetCommand()
	takeWithin := orElse(command.GetTakeWithin().AsDuration(), i.pace.takeWithin)
	if !task.Again {
		return min(takeWithin, i.pace.again), true
	}
	word, outcome, err := i.options.Journal.LastOfCall(ctx, command.GetNode(), task.Sequence)
	if err != nil {
		return i.pace.retry, true
	}
	if outcome != nil {
		return 0, false
	}
	now := time.Now()
	var over time.Time // when it is given up
	var silent *shiplogv1.Reason
	var heard uint64
	running := false // the agent had leave to begin
	switch {
	case word == nil:
		over = task.Time.Add(takeWithin)
		silent = reason("NoAgent", fmt.Sprintf("no agent of node %s took the command within %s", command.GetNode(), takeWithin))
	case word.Entry.GetCallObserved().GetState() == shiplogv1.CallObserved_STATE_TAKEN:
		heard = word.Sequence
		over = later(i.lastHeard(command.GetNode()), word.Time).Add(i.pace.silence)
		silent = reason("AgentSilent", fmt.Sprintf("the agent of node %s took the command and fell silent for %s", command.GetNode(), i.pace.silence))
	default:
		runWithin := orElse(command.GetRunWithin().AsDuration(), i.pace.runWithin) + i.pace.slack
		heard, running = word.Sequence, true
		over = word.Time.Add(runWithin)
		silent = reason("AgentSilent", fmt.Sprintf("the agent of node %s said nothing of the call for %s", command.GetNode(), runWithin))
	}
	over = later(over, i.started.Add(i.pace.settle))
	if left := over.Sub(now); left > 0 {
		return min(left, i.pace.again), true
	}
	if err := i.giveUp(ctx, task, silent, heard, running); err != nil {
		if !errors.Is(err, journal.ErrSettled) {
			i.options.Logger.Warn().Err(err).Uint64("command", task.Sequence).Msg("cannot give up a call; trying again")
		}
		return i.pace.retry, true
	}
	i.metrics.givenUp.WithLabelValues(silent.GetCode()).Inc()
	return 0, false
}

// giveUp appends the outcome of a call that nobody made, as far as anybody knows; unsure: somebody may have.
func (i *intake) giveUp(ctx context.Context, task *journal.Task, silent *shiplogv1.Reason, heard uint64, unsure bool) error {
	command := task.Entry.GetCommand()
	_, target := journal.Call(command)
	_, err := i.options.Journal.AppendSilence(ctx, &shiplogv1.Entry{
		Writer: i.options.Writer, WriterVersion: i.options.Version, Cause: task.Sequence, Rollout: task.Entry.GetRollout(),
		Kind: &shiplogv1.Entry_Outcome{Outcome: &shiplogv1.Outcome{
			Result: shiplogv1.Outcome_RESULT_REFUSED, Object: command.GetObject(), Attempt: command.GetAttempt(), Reason: silent,
			Node: command.GetNode(), Target: target, Unsure: unsure,
		}},
	}, heard)
	return err
}

func (i *intake) lastHeard(name string) time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	if n := i.nodes[name]; n != nil {
		return n.heard
	}
	return time.Time{}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func orElse(given, otherwise time.Duration) time.Duration {
	if given > 0 {
		return given
	}
	return otherwise
}

func sleep(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
