package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"shiplog.dev/cmd/internal/process"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/narrate"
	"shiplog.dev/internal/page"
	"shiplog.dev/internal/world"
)

// timeline prints the account of one CloneSet.
func timeline() *cobra.Command {
	var read reading
	var since, until, html string
	var generation int64
	var lanes, noLanes, ticks bool
	command := &cobra.Command{
		Use: "timeline KIND/NAME", Short: "Show what happened to a workload, step by step, with the reasons",
		Long: `Show what happened to a workload, or any other object, step by step, with the reasons: edits, commands with their outcomes, and what Pods
did. Of a CloneSet, in a terminal, and with --lanes, a lane for each Pod shows its states over time, above them how many Pods were available.

Moments are ` + history.Forms + `.`,
		Example: `  shiplog timeline cloneset/web
  shiplog timeline cloneset/web -n shop --generation 4 --html web.html
  shiplog timeline cloneset/web --since 14:00 --until 14:10 -o json`,
		Args: objectArguments,
		RunE: func(command *cobra.Command, arguments []string) error {
			target, err := read.target(arguments)
			if err != nil {
				return err
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
			if target.Resource != world.ResourceCloneSets {
				if html != "" || lanes {
					return process.Usage(fmt.Errorf("--html and --lanes show the rollouts of CloneSets, not %s", target))
				}
				account, err := objectAccount(command, &read, log, span.To, target)
				if err != nil {
					return err
				}
				steps := account.View(span.From, generation)
				if read.output != "" {
					return print(command.OutOrStdout(), read.output, steps)
				}
				return printSteps(command.OutOrStdout(), steps, ticks)
			}
			// What came before the span says what the Pods were when it began.
			account := narrate.NewAccount(target.Namespace, target.Name)
			if err := log.Each(command.Context(), history.Span{Past: true, To: span.To}, func(record journal.Record) error {
				if !account.Concerns(record.Entry) {
					return nil
				}
				return account.Show(record)
			}); err != nil {
				return err
			}
			view := account.View(span.From, generation)
			if len(view.Steps) == 0 {
				return read.unknown(target)
			}
			out := command.OutOrStdout()
			switch {
			case html != "":
				return writePage(html, view)
			case read.output != "":
				return print(out, read.output, view)
			}
			if lanes || process.IsTerminal(out) && !noLanes {
				fmt.Fprintln(out, narrate.Lanes(view, laneWidth(), process.IsTerminal(out) && os.Getenv("NO_COLOR") == ""))
			}
			return printSteps(out, view.Steps, ticks)
		},
	}
	read.bind(command, "json", "yaml")
	flags := command.Flags()
	flags.StringVar(&since, "since", "", "start at this `MOMENT`; default: the beginning of the log")
	flags.StringVar(&until, "until", "", "end at this `MOMENT`")
	flags.Int64Var(&generation, "generation", 0, "only the rollout of this generation of the workload")
	flags.StringVar(&html, "html", "", "write one page to this `FILE`, for a browser, to keep with a postmortem")
	flags.BoolVar(&lanes, "lanes", false, "show the lanes of Pods too where the output is no terminal")
	flags.BoolVar(&ticks, "ticks", false, "show wishes for ticks, and the ticks, too")
	flags.BoolVar(&noLanes, "no-lanes", false, "show no lanes in a terminal")
	command.ValidArgsFunction = read.completeObjects(explained...)
	return command
}

// writePage writes the page of a view to a file.
func writePage(path string, view narrate.View) error {
	var text bytes.Buffer
	if err := page.Write(&text, view, process.Version()); err != nil {
		return err
	}
	if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the page (--html): %w", err)
	}
	return nil
}

// laneWidth is how many columns lanes may take: those of the terminal, as the shell knows them.
func laneWidth() int {
	if width, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && width > 0 {
		return width
	}
	if width, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil && width > 0 {
		return width
	}
	return 120
}

func printSteps(out io.Writer, steps []*narrate.Step, ticks bool) error {
	rows := [][]string{{"SEQUENCE", "TIME", "AFTER", "WHAT", "WHY", "OUTCOME"}}
	for _, step := range steps {
		if !ticks && (step.Tick || step.Verb == world.Wake) {
			continue
		}
		row := []string{strconv.FormatUint(step.Sequence, 10), step.Time.Local().Format(time.TimeOnly), "+" + narrate.Duration(step.Time.Sub(steps[0].Time)), step.What}
		if step.Code != "" {
			row = append(row, step.Code+": "+step.Why)
		}
		if step.Outcome != "" {
			row = append(row, fmt.Sprintf("%s (%d)", step.Outcome, step.OutcomeSequence))
		}
		rows = append(rows, row)
	}
	return printTable(out, rows)
}

// printTable aligns columns. The last cell of a row may be as long as it likes without widening its column.
func printTable(out io.Writer, rows [][]string) error {
	var widths []int
	for _, row := range rows {
		for i, cell := range row[:len(row)-1] {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var text strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			text.WriteString(cell)
			if i < len(row)-1 {
				text.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		text.WriteByte('\n')
	}
	_, err := io.WriteString(out, text.String())
	return err
}
