package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"shiplog.dev/cmd/internal/process"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/services/planner/replay"
)

// verifyCommand checks the invariants of a log.
func verifyCommand() *cobra.Command {
	var read reading
	command := &cobra.Command{
		Use: "verify", Short: "Check the invariants of a log: causes, outcomes, fences, budgets, gaps and seals",
		Long: `Check what must hold in every log:

  cause    what an entry says caused it stands before it, and an outcome is that of a command
  outcome  each command has an outcome, or is the newest for its object and still under way
  fence    commands are appended by the planner that raised the newest fence, on a world that holds that fence
  budget   no command takes down a Pod that serves where its workload's maxUnavailable forbids it, as far as was known then:
           updates are held against Pods that are available, deletions against those that are ready, as the rules do
  gap      positions rise, and those without an entry are the log's own notes about wishes
  seal     ranges of entries are as their digests say, which the leading planner appends: what was changed or is lost shows

The exit code is 1 if one of them does not. Of a bundle that is redacted or cut to a namespace, gaps and seals cannot be checked; of a
bundle the digests of the file are checked while it is read.`,
		Example: `  shiplog verify
  shiplog verify --log incident.shiplog
  shiplog verify --log nats://nats:4222 -o json`,
		Args: process.NoArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			log, err := read.open(command.Context())
			if err != nil {
				return err
			}
			defer log.Close()
			began := time.Now()
			account, err := verify(command, log)
			if err != nil {
				return err
			}
			var failure error
			if n := len(account.Problems); n > 0 {
				failure = fmt.Errorf("the log breaks invariants in %d places", n)
			}
			if read.output != "" {
				return errors.Join(print(command.OutOrStdout(), read.output, account), failure)
			}
			tellAccount(command, log, account, time.Since(began))
			return failure
		},
	}
	read.bind(command, "json", "yaml")
	return command
}

// verify checks a log as it was when it was opened.
func verify(command *cobra.Command, log *opened) (replay.Account, error) {
	span := history.Span{Past: true}
	causes := replay.Causes{}
	if err := log.Each(command.Context(), span, func(record journal.Record) error { causes.Note(record); return nil }); err != nil {
		return replay.Account{}, err
	}
	facts := replay.Facts{First: log.First, Last: log.Last, ExactFrom: log.ExactFrom}
	if log.Bundle != nil {
		facts.Cut, facts.Changed = log.Bundle.Cut(), log.Bundle.Redacted
	}
	verifier := replay.NewVerifier(facts, causes)
	if err := log.Each(command.Context(), span, verifier.Show); err != nil {
		return replay.Account{}, err
	}
	verifier.End()
	return verifier.Account, nil
}

func tellAccount(command *cobra.Command, log *opened, account replay.Account, took time.Duration) {
	out := command.OutOrStdout()
	fmt.Fprintf(out, "%d entries from position %d to %d in %s\n", account.Entries, log.First, log.Last, took.Round(time.Millisecond))
	if log.Bundle != nil {
		fmt.Fprintf(out, "  bundle   sha256 %s\n", log.Bundle.Digest)
	}
	fmt.Fprintf(out, "  outcome  %d commands, %d of them under way\n", account.Commands, len(account.UnderWay))
	fmt.Fprintf(out, "  budget   %d commands took down a Pod that served\n", account.Budgets)
	switch {
	case account.Seals == 0 && account.SealsSkipped == 0:
		fmt.Fprintln(out, "  seal     there is none")
	case account.Seals == 0:
		fmt.Fprintf(out, "  seal     %d cannot be checked, because entries are not all there or not as they were\n", account.SealsSkipped)
	default:
		fmt.Fprintf(out, "  seal     %d hold, up to position %d; what came after is not sealed yet\n", account.Seals, account.SealedUpTo)
	}
	for _, open := range account.UnderWay {
		fmt.Fprintf(out, "  under way: %s\n", open)
	}
	for _, problem := range account.Problems {
		fmt.Fprintf(out, "  BROKEN   %s at %d (%s): %s\n", problem.Invariant, problem.Sequence, clock(problem.Time), problem.Message)
	}
	if len(account.Problems) == 0 {
		fmt.Fprintln(out, "Every invariant holds.")
	}
}
