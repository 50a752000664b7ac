package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shiplog.dev/cmd/internal/process"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/services/planner/replay"
)

// replayCommand proves a log.
func replayCommand() *cobra.Command {
	var read reading
	var until string
	var step bool
	var speed float64
	command := &cobra.Command{
		Use: "replay", Short: "Fold the log and prove it: the rules decide every command of it again",
		Long: `Fold the log from its beginning and let the rules decide at every position at which the planner decided. Every recorded command
must be what they decide, and every rollout event what folding tells; at the first that is not, both sides are shown and the exit
code is 1.

With --speed entries are shown as they are folded, at that multiple of the time that they took; with --step one for each line that is
read from standard input (press Enter); where that ends, the rest is shown at once.

Moments are ` + history.Forms + `.`,
		Example: `  shiplog replay --log incident.shiplog
  shiplog replay --log incident.shiplog --until 14:03:22
  shiplog replay --log incident.shiplog --speed 10     # watch it happen, ten times as fast`,
		Args: process.NoArguments,
		RunE: func(command *cobra.Command, _ []string) error {
			if speed < 0 || speed > 0 && step {
				return process.Usage(errors.New("--speed is a positive number, and not given together with --step"))
			}
			if (step || speed > 0) && read.output != "" {
				return process.Usage(errors.New("--step and --speed show entries to people: leave --output out"))
			}
			log, err := read.open(command.Context())
			if err != nil {
				return err
			}
			defer log.Close()
			to, err := log.moment("until", until)
			if err != nil {
				return err
			}
			proof, failure := prove(command.Context(), log, to, pacer(command, log.First, step, speed))
			var difference *replay.Difference
			if failure != nil && !errors.As(failure, &difference) {
				return failure
			}
			if read.output != "" {
				return errors.Join(print(command.OutOrStdout(), read.output, proof), failure)
			}
			fmt.Fprintln(command.OutOrStdout(), proof)
			return failure
		},
	}
	read.bind(command, "json", "yaml")
	flags := command.Flags()
	flags.StringVar(&until, "until", "", "end at this `MOMENT`")
	flags.BoolVar(&step, "step", false, "show entry after entry, each when a line is read from standard input")
	flags.Float64Var(&speed, "speed", 0, "show entries at this `MULTIPLE` of the time that they took; 0: show none")
	return command
}

// pacer shows entries at the speed that is asked for; nil: none are shown.
func pacer(command *cobra.Command, first uint64, step bool, speed float64) func(journal.Record) error {
	if !step && speed == 0 {
		return nil
	}
	lines := bufio.NewScanner(command.InOrStdin())
	var before time.Time
	return func(record journal.Record) error {
		if record.Sequence < first {
			return nil // from before the window
		}
		if step && !before.IsZero() && !lines.Scan() {
			step = false // the input has ended: show the rest
		}
		if speed > 0 && !before.IsZero() {
			select {
			case <-command.Context().Done():
				return command.Context().Err()
			case <-time.After(time.Duration(float64(record.Time.Sub(before)) / speed)):
			}
		}
		before = record.Time
		return printLine(command.OutOrStdout(), record)
	}
}

// replayed is what a replay found.
type replayed struct {
	Entries int `json:"entries"`
	// Proven commands are decided again; Skipped ones were decided before what the log still has.
	Proven int `json:"proven"`
	// Told are rollout events that folding tells again.
	Told       int                `json:"told"`
	Skipped    int                `json:"skipped,omitempty"`
	Last       uint64             `json:"last"`
	Difference *replay.Difference `json:"difference,omitempty"`
	Took       time.Duration      `json:"-"`
}

func (r replayed) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%d entries folded up to position %d in %s: ", r.Entries, r.Last, r.Took.Round(time.Millisecond))
	if r.Difference == nil {
		fmt.Fprintf(&text, "the rules decide all %d commands again", r.Proven)
		if r.Told > 0 {
			fmt.Fprintf(&text, ", and all %d rollout events follow", r.Told)
		}
	} else {
		fmt.Fprintf(&text, "the rules decide the first %d commands again", r.Proven)
	}
	if r.Skipped > 0 {
		fmt.Fprintf(&text, "; %d were decided on what is from before the log", r.Skipped)
	}
	return text.String()
}

// prove replays a log up to a moment. show is told of every entry before it is folded; nil: nobody is. The error is a
// *replay.Difference, or that of reading.
func prove(ctx context.Context, log *opened, to history.Moment, show func(journal.Record) error) (replayed, error) {
	span := history.Span{Past: true, To: to}
	causes := replay.Causes{}
	if err := log.Each(ctx, span, func(record journal.Record) error { causes.Note(record); return nil }); err != nil {
		return replayed{}, err
	}
	began := time.Now()
	out, run := replayed{}, replay.New(causes, log.ExactFrom)
	err := log.Each(ctx, span, func(record journal.Record) error {
		if show != nil {
			if err := show(record); err != nil {
				return err
			}
		}
		out.Entries++
		out.Last = record.Sequence
		return run.Show(record)
	})
	if err == nil {
		err = run.End()
	}
	out.Proven, out.Told, out.Skipped, out.Took = run.Proven, run.Told, run.Skipped, time.Since(began)
	if errors.As(err, &out.Difference) {
		return out, out.Difference
	}
	return out, err
}
