package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"shiplog.dev/cmd/internal/process"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/services/planner/replay"
)

// maxLine bounds a line that another program prints, in bytes.
const maxLine = 16 << 20

// parseGates reads NAME=true and NAME=false.
func parseGates(texts []string) (map[string]bool, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	gates := map[string]bool{}
	for _, text := range texts {
		name, value, _ := strings.Cut(text, "=")
		on, err := strconv.ParseBool(value)
		if name == "" || err != nil {
			return nil, process.Usage(fmt.Errorf("--gate %q: give NAME=true or NAME=false", text))
		}
		gates[name] = on
	}
	return gates, nil
}

// decideCommand prints the decisions of this program's rules: the one-shot protocol by which versions are compared.
func decideCommand() *cobra.Command {
	var read reading
	var since, until string
	var gates []string
	command := &cobra.Command{
		Use: "decide", Short: "Print what the rules of this program decide over a log, one line of JSON for each position",
		Long: `Fold a log and print what the rules of this program command at each position at which something about a workload changed: one line of
JSON with position, time, workload, how many Pods serve, and the commands. A decision is printed once, until it changes. Nothing is
written to any cluster. shiplog what-if --binary runs this of another version and compares.

Moments are ` + history.Forms + `.`,
		Example: `  shiplog decide --log incident.shiplog | jq -c '.actions[] | [.object, .reason]'`,
		Args:    process.NoArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			replaced, err := parseGates(gates)
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
			out := bufio.NewWriter(command.OutOrStdout())
			encoder := json.NewEncoder(out)
			encoder.SetEscapeHTML(false)
			if err := decisions(command.Context(), log, span, replaced, func(step replay.Step) error { return encoder.Encode(step) }); err != nil {
				return err
			}
			return out.Flush()
		},
	}
	read.bind(command, "json")
	bindWindow(command, &since, &until, &gates)
	return command
}

func bindWindow(command *cobra.Command, since, until *string, gates *[]string) {
	flags := command.Flags()
	flags.StringVar(since, "since", "", "start at this `MOMENT`; default: the beginning of the log")
	flags.StringVar(until, "until", "", "end at this `MOMENT`")
	flags.StringSliceVar(gates, "gate", nil, "feature `NAME=BOOL` that the rules obey, whatever the log says")
}

// decisions shows every step of a span.
func decisions(ctx context.Context, log *opened, span history.Span, gates map[string]bool, show func(replay.Step) error) error {
	from := span.From
	var run *replay.Decisions
	causes := replay.Causes{}
	if err := log.Each(ctx, history.Span{To: span.To}, func(record journal.Record) error { causes.Note(record); return nil }); err != nil {
		return err
	}
	return log.Each(ctx, history.Span{Past: true, To: span.To}, func(record journal.Record) error {
		if run == nil {
			run = replay.NewDecisions(causes, max(log.First, from.Sequence), log.ExactFrom, gates)
		}
		steps, err := run.Show(record)
		if err != nil || from.After(record) {
			return err
		}
		for _, step := range steps {
			if err := show(step); err != nil {
				return err
			}
		}
		return nil
	})
}

// whatIf compares the decisions of these rules with those under other gates, or of another program.
func whatIf() *cobra.Command {
	var read reading
	var since, until, binary string
	var gates []string
	command := &cobra.Command{
		Use: "what-if", Short: "Show how decisions would have differed under other gates, or by another version",
		Long: `Let the rules decide over a recorded window twice, as recorded and with other feature gates or by another version of this program, and
show what differs: which commands, for which Pods, when on each side, and how many Pods would have been left serving.

Both sides see the world as it was recorded: what would have followed from a decision that was not taken, nobody recorded. So the
answer is exact up to the first difference, and afterwards says what the other side would have decided in the recorded moments.

The exit code is 0 where nothing differs, and 1 where something does. --binary names a program that answers to "decide" as this one
does (shiplog decide --help).

Moments are ` + history.Forms + `.`,
		Example: `  shiplog what-if --gate PreparingUpdateAsUpdate=true --log incident.shiplog
  shiplog what-if --binary ./shiplog-next --log incident.shiplog --since 14:00 --until 14:10`,
		Args: process.NoArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			replaced, err := parseGates(gates)
			switch {
			case err != nil:
				return err
			case replaced == nil && binary == "":
				return process.Usage(errors.New("say what is to be otherwise: --gate NAME=true, or --binary PATH"))
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
			compared := replay.Compare()
			keep := func(take func(replay.Step)) func(replay.Step) error {
				return func(step replay.Step) error { take(step); return nil }
			}
			if err := decisions(command.Context(), log, span, nil, keep(compared.Recorded)); err != nil {
				return err
			}
			if binary == "" {
				err = decisions(command.Context(), log, span, replaced, keep(compared.Other))
			} else {
				err = decisionsOf(command.Context(), binary, &read, since, until, gates, keep(compared.Other))
			}
			if err != nil {
				return err
			}
			compared.End()
			var failure error
			if n := len(compared.Deviations); n > 0 {
				failure = fmt.Errorf("decisions differ in %d places", n)
			}
			if read.output != "" {
				return errors.Join(print(command.OutOrStdout(), read.output, compared), failure)
			}
			return errors.Join(tellComparison(command.OutOrStdout(), compared), failure)
		},
	}
	read.bind(command, "json", "yaml")
	bindWindow(command, &since, &until, &gates)
	command.Flags().StringVar(&binary, "binary", "", "`PATH` of another version of this program")
	return command
}

// decisionsOf runs another program and reads the steps that it prints.
func decisionsOf(ctx context.Context, binary string, read *reading, since, until string, gates []string, show func(replay.Step) error) error {
	fail := func(err error) error { return fmt.Errorf("ask %s for its decisions: %w", binary, err) }
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	arguments := []string{"decide", "--log", read.where, "--cluster", read.cluster, "--since", since, "--until", until}
	for _, gate := range gates {
		arguments = append(arguments, "--gate", gate)
	}
	other := exec.CommandContext(ctx, binary, arguments...)
	other.Stderr = os.Stderr
	lines, err := other.StdoutPipe()
	if err != nil {
		return fail(err)
	}
	if err := other.Start(); err != nil {
		return fail(err)
	}
	scanner := bufio.NewScanner(lines)
	scanner.Buffer(nil, maxLine)
	for scanner.Scan() {
		var step replay.Step
		if err = json.Unmarshal(scanner.Bytes(), &step); err != nil {
			err = fmt.Errorf("it printed %.80q: %w", scanner.Bytes(), err)
			break
		}
		if err = show(step); err != nil {
			break
		}
	}
	if err = errors.Join(err, scanner.Err()); err != nil {
		cancel()
		return fail(errors.Join(err, other.Wait()))
	}
	if err := other.Wait(); err != nil {
		return fail(err)
	}
	return nil
}

func tellComparison(out io.Writer, compared *replay.Comparison) error {
	if len(compared.Deviations) == 0 {
		_, err := fmt.Fprintln(out, "Nothing differs.")
		return err
	}
	given := func(at *replay.Given) string {
		if at == nil {
			return "never"
		}
		return fmt.Sprintf("%d %s", at.Position, clock(at.Time))
	}
	rows := [][]string{{"WORKLOAD", "COMMAND", "REASON", "RECORDED RULES", "OTHER", "WHY"}}
	for _, one := range compared.Deviations {
		why := ""
		if one.Other != nil {
			why = one.Other.Why
		} else {
			why = "recorded: " + one.Recorded.Why
		}
		other := given(one.Other)
		if one.Recorded != nil && one.Other != nil && one.Recorded.Position == one.Other.Position {
			other += ", other content"
		}
		rows = append(rows, []string{one.Workload, one.Effect, one.Code, given(one.Recorded), other, why})
	}
	if err := printTable(out, rows); err != nil {
		return err
	}
	fmt.Fprintln(out, "\nPods left serving, at the least:")
	for _, workload := range slices.Sorted(maps.Keys(compared.Lowest)) {
		fmt.Fprintf(out, "  %s  %s\n", workload, compared.Lowest[workload])
	}
	return nil
}
