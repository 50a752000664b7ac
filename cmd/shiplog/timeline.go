package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/narrate"
)

// reading says which log a tool reads and how it prints.
type reading struct {
	log, cluster, output string
	since                time.Duration
}

func (r *reading) bind(flags *pflag.FlagSet, outputs string) {
	flags.StringVar(&r.log, "log", ".shiplog", "`WHERE` the log is: the state directory of an instance, running or stopped, or the URL of a NATS server")
	flags.StringVar(&r.cluster, "cluster", "local", "`NAME` of the cluster in the subjects of the log")
	flags.StringVarP(&r.output, "output", "o", "", "output `FORMAT`: "+outputs)
	flags.DurationVar(&r.since, "since", 0, "start this long ago; 0: at the beginning of the log")
}

// each shows every entry of the log, from where the flags say to its present end, or for ever when follow is set.
func (r *reading) each(ctx context.Context, follow bool, show func(journal.Record) error) error {
	log, err := openToRead(ctx, r.log, r.cluster)
	if err != nil {
		return err
	}
	defer log.Close()
	state, err := log.State(ctx)
	if err != nil {
		return err
	}
	from := journal.From{Sequence: max(state.FirstSequence, 1)}
	if r.since > 0 {
		from = journal.From{Time: time.Now().Add(-r.since)}
	}
	reader, err := log.Read(ctx, from)
	if err != nil {
		return err
	}
	defer reader.Close()
	for last := uint64(0); follow || last < state.LastSequence; {
		records, err := reader.Next(ctx)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, record := range records {
			last = record.Sequence
			if !follow && last > state.LastSequence {
				return nil
			}
			if err := show(record); err != nil {
				return err
			}
		}
	}
	return nil
}

// timeline prints the account of one CloneSet.
func timeline() *cobra.Command {
	var read reading
	var namespace string
	var generation int64
	command := &cobra.Command{
		Use: "timeline cloneset/NAME", Short: "Show what happened to a workload, step by step, with the reasons",
		Example: `  shiplog timeline cloneset/web
  shiplog timeline cloneset/web -n shop --generation 4
  shiplog timeline cloneset/web --since 2h -o json`,
		Args: func(_ *cobra.Command, arguments []string) error {
			if len(arguments) != 1 {
				return usageError{fmt.Errorf("name one workload, for example cloneset/web")}
			}
			return nil
		},
		RunE: func(command *cobra.Command, arguments []string) error {
			kind, name, named := strings.Cut(arguments[0], "/")
			if !named || !(kind == "cloneset" || kind == "clonesets" || kind == "clone") {
				return usageError{fmt.Errorf("%q is not of the form cloneset/NAME", arguments[0])}
			}
			account := narrate.NewAccount(namespace, name)
			if err := read.each(command.Context(), false, func(record journal.Record) error {
				return account.Show(record.Sequence, record.Time, record.Entry)
			}); err != nil {
				return err
			}
			steps := account.Steps()
			if generation > 0 {
				kept := steps[:0:0]
				for _, step := range steps {
					if step.Rollout == generation {
						kept = append(kept, step)
					}
				}
				steps = kept
			}
			if len(steps) == 0 {
				return fmt.Errorf("the log says nothing about cloneset %s/%s", namespace, name)
			}
			return printSteps(command.OutOrStdout(), steps, read.output)
		},
	}
	read.bind(command.Flags(), "json or yaml; default: a table")
	command.Flags().StringVarP(&namespace, "namespace", "n", "default", "`NAMESPACE` of the workload")
	command.Flags().Int64Var(&generation, "generation", 0, "only the rollout of this generation of the workload")
	return command
}

func printSteps(out io.Writer, steps []narrate.Step, output string) error {
	switch output {
	case "json":
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(steps)
	case "yaml":
		data, err := yaml.Marshal(steps)
		if err != nil {
			return err
		}
		_, err = out.Write(data)
		return err
	case "":
	default:
		return usageError{fmt.Errorf("--output %q is neither json nor yaml", output)}
	}
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "SEQUENCE\tTIME\tAFTER\tWHAT\tWHY\tOUTCOME")
	for _, step := range steps {
		why := step.Why
		if step.Code != "" {
			why = step.Code + ": " + step.Why
		}
		outcome := step.Outcome
		if outcome != "" {
			outcome = fmt.Sprintf("%s (%d)", outcome, step.OutcomeSequence)
		}
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\n", step.Sequence, step.Time.Format(time.TimeOnly),
			"+"+step.Time.Sub(steps[0].Time).Round(time.Millisecond).String(), step.What, why, outcome)
	}
	return table.Flush()
}

// tail prints entries as they come.
func tail() *cobra.Command {
	var read reading
	var follow bool
	command := &cobra.Command{
		Use: "tail", Short: "Print the entries of the log", Args: noArguments,
		Example: "  shiplog tail\n  shiplog tail --follow --since 5m\n  shiplog tail --log nats://127.0.0.1:4222 -o json",
		RunE: func(command *cobra.Command, _ []string) error {
			out := command.OutOrStdout()
			if read.output != "" && read.output != "json" {
				return usageError{fmt.Errorf("--output %q is not json", read.output)}
			}
			return read.each(command.Context(), follow, func(record journal.Record) error {
				if read.output == "json" {
					return printJSON(out, record)
				}
				_, err := fmt.Fprintf(out, "%8d  %s  %s\n", record.Sequence, record.Time.Format("15:04:05.000"), narrate.Entry(record.Entry))
				return err
			})
		},
	}
	read.bind(command.Flags(), "json; default: a line for each entry")
	command.Flags().BoolVarP(&follow, "follow", "f", false, "wait for more")
	return command
}
