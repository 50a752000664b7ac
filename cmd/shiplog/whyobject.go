package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/narrate"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
	"shiplog.dev/services/planner/replay"
	"shiplog.dev/services/planner/rules"
)

// objectAccount tells what happened to an object of a kind that has no account of its own, up to a moment.
func objectAccount(command *cobra.Command, read *reading, log *opened, at history.Moment, target history.Target) (*narrate.ObjectAccount, error) {
	account := narrate.NewObjectAccount(target)
	if err := log.Each(command.Context(), history.Span{Past: true, To: at}, account.Show); err != nil {
		return nil, err
	}
	if account.Object == nil {
		return nil, read.unknown(target)
	}
	return account, nil
}

// whyObject explains any object: what its rules hold back, if its kind has rules, and what happened to it last.
func whyObject(command *cobra.Command, read *reading, log *opened, at history.Moment, target history.Target) error {
	const most = 20
	account, err := objectAccount(command, read, log, at, target)
	if err != nil {
		return err
	}
	ref := account.Object.Ref
	decision, problem, err := askRules(command, log, at, ref, account)
	if err != nil {
		return err
	}
	held := narrate.Merge(decision.Held)
	if read.output != "" {
		return print(command.OutOrStdout(), read.output, struct {
			Object   string          `json:"object"`
			Position uint64          `json:"position"`
			Problem  string          `json:"problem,omitempty"`
			Held     []decide.Hold   `json:"held"`
			Due      []string        `json:"due"`
			UnderWay []*narrate.Step `json:"underWay"`
			Steps    []*narrate.Step `json:"steps"`
		}{target.String(), account.Sequence, problem, held, due(decision), account.Open(), account.Steps})
	}
	out := command.OutOrStdout()
	fmt.Fprint(out, target)
	if target.Namespace != "" {
		fmt.Fprint(out, " in ", target.Namespace)
	}
	if !account.Gone.IsZero() {
		fmt.Fprint(out, ", gone since ", log.when(account.Gone))
	}
	fmt.Fprintln(out)
	if problem != "" {
		fmt.Fprintf(out, "\n%s\n", problem)
	}
	printHeld(out, held)
	printOpen(out, account.Open())
	printDue(out, decision, account.Sequence)
	steps := account.View(history.Moment{}, 0)
	fmt.Fprintln(out)
	if len(steps) > most {
		fmt.Fprintf(out, "The last %d of %d steps (shiplog timeline %s shows all):\n", most, len(steps), target)
		steps = steps[len(steps)-most:]
	}
	return printSteps(out, steps, false)
}

// askRules lets the rules of an object's kind explain it on the world at a moment; the zero Decision where the kind has none.
func askRules(command *cobra.Command, log *opened, at history.Moment, ref world.Ref, account *narrate.ObjectAccount) (out decide.Decision, problem string, _ error) {
	if !rules.Know(ref) || !account.Gone.IsZero() {
		return out, "", nil
	}
	w, err := log.worldAt(command.Context(), at, ref.Namespace, func(journal.Record) error { return nil })
	if err != nil {
		return out, "", err
	}
	switch {
	case w.Fence() == 0:
		return out, "no planner has ever raised a fence in this log: is one running?", nil
	case !w.Trusted(ref):
		return out, fmt.Sprintf("nothing is decided before the watcher vouches for its facts after fence %d: is it running?", w.Fence()), nil
	}
	out, err = replay.Explain(w, ref)
	return out, "", err
}
