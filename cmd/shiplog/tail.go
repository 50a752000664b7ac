package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"

	"shiplog.dev/cmd/internal/process"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/narrate"
)

// tail prints entries as they come.
func tail() *cobra.Command {
	var read reading
	var follow bool
	var since, until, selector, rollout string
	var types, reasons []string
	command := &cobra.Command{
		Use: "tail [KIND[/NAME]]", Short: "Print the entries of the log, one line each",
		Long: `Print the entries of the log, one line each: position, time, type, and what it says. All namespaces are shown unless -n names one.

Moments are ` + history.Forms + `.`,
		Example: `  shiplog tail --since -5m --follow                     # what happens now
  shiplog tail cloneset/web -n shop                     # one object
  shiplog tail pods -n shop -l app=web --type command   # what was commanded of some Pods, and why
  shiplog tail --reason UpdateInPlace,ScaleDown --since 14:00 --until 14:10
  shiplog tail --type outcome -o json | jq 'select(.entry.outcome.result == "RESULT_REFUSED")'`,
		Args: func(_ *cobra.Command, arguments []string) error {
			if len(arguments) > 2 {
				return process.Usage(fmt.Errorf("unexpected argument %q", arguments[2]))
			}
			return nil
		},
		RunE: func(command *cobra.Command, arguments []string) error {
			chosen := history.Selector{Namespace: read.namespace, Rollout: rollout, Types: types, Reasons: reasons}
			if read.allNamespaces {
				chosen.Namespace = ""
			}
			for _, kind := range types {
				if !slices.Contains(history.Types, kind) {
					return process.Usage(fmt.Errorf("--type %q is none of: %s", kind, strings.Join(history.Types, ", ")))
				}
			}
			var err error
			if chosen.Labels, err = labels.Parse(selector); err != nil {
				return process.Usage(fmt.Errorf("--selector: %w", err))
			}
			if len(arguments) > 0 {
				kinds, name, _ := strings.Cut(arguments[0], "/")
				if len(arguments) == 2 {
					name = arguments[1]
				}
				chosen.Name = name
				for kind := range strings.SplitSeq(kinds, ",") {
					chosen.Kinds = append(chosen.Kinds, history.FindKind(kind))
				}
			}
			log, err := read.open(command.Context())
			if err != nil {
				return err
			}
			defer log.Close()
			span, err := log.span("since", since, "until", until)
			if err != nil {
				return err
			}
			from := span.From
			if selector != "" {
				span.From, span.Past = history.Moment{}, true // labels are in facts that may be older
			}
			span.Follow = follow
			out := command.OutOrStdout()
			return log.Each(command.Context(), span, func(record journal.Record) error {
				if !chosen.Matches(record) || from.After(record) {
					return nil
				}
				if read.output == "json" {
					return printEntry(out, record)
				}
				return printLine(out, record)
			})
		},
	}
	read.bind(command, "json")
	flags := command.Flags()
	read.bindAll(flags)
	flags.StringVar(&since, "since", "", "start at this `MOMENT`; default: the beginning of the log")
	flags.StringVar(&until, "until", "", "end at this `MOMENT`")
	flags.BoolVarP(&follow, "follow", "f", false, "wait for more")
	flags.StringVarP(&selector, "selector", "l", "", "only objects with these `LABELS`, as kubectl takes them")
	flags.StringSliceVar(&types, "type", nil, "only entries of these `TYPES`: "+strings.Join(history.Types, ", "))
	flags.StringSliceVar(&reasons, "reason", nil, "only commands and refusals for these `REASONS`, for example UpdateInPlace")
	flags.StringVar(&rollout, "rollout", "", "only entries of this `ROLLOUT`: the UID of a workload, or UID/GENERATION")
	complete(command, "type", history.Types...)
	command.ValidArgsFunction = read.completeObjects("cloneset", "pod")
	return command
}

// printLine writes one entry for eyes.
func printLine(out io.Writer, record journal.Record) error {
	_, err := fmt.Fprintf(out, "%8d  %s  %-8s  %s\n", record.Sequence, record.Time.Local().Format("15:04:05.000"), history.TypeOf(record.Entry), narrate.Entry(record.Entry))
	return err
}

// clock shows a time of day as people read it, in their zone.
func clock(at time.Time) string { return at.Local().Format("15:04:05.000") }
