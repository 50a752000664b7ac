package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"shiplog.dev/integration/testbed"
)

// tableBegins is the line of a document below which the table stands.
const tableBegins = "<!-- made by make reliability from docs/reliability/*.json -->"

// tableCommand writes what runs came to into a document.
func tableCommand() *cobra.Command {
	var into string
	command := &cobra.Command{
		Use: "table SUMMARY...", Short: "Make the table of faults from the summaries of runs", Args: cobra.MinimumNArgs(1),
		RunE: func(command *cobra.Command, paths []string) error {
			var text strings.Builder
			if err := table(&text, paths); err != nil || into == "" {
				fmt.Fprint(command.OutOrStdout(), text.String())
				return err
			}
			return testbed.WriteInto(into, tableBegins, text.String())
		},
	}
	command.Flags().StringVar(&into, "into", "", "write it into this `DOCUMENT`, between its marks (default: print it)")
	return command
}

// tried is how a fault went.
type tried struct {
	alone, paired, wrong int
	layouts, seeds       map[string]bool
	settled              float64
}

func table(out io.Writer, paths []string) error {
	faults := map[string]*tried{}
	fmt.Fprintln(out, "| seed | when | minutes | rounds | changes by people | commands | entries | what was wrong |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|")
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var r result
		if err := json.Unmarshal(data, &r); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		wrong := 0
		for _, round := range r.Rounds {
			if len(round.Wrong) > 0 {
				wrong++
			}
			for _, f := range round.Faults {
				if f.Hit == "nobody" {
					continue
				}
				t := faults[f.Name]
				if t == nil {
					t = &tried{layouts: map[string]bool{}, seeds: map[string]bool{}}
					faults[f.Name] = t
				}
				if len(round.Faults) == 1 {
					t.alone++
				} else {
					t.paired++
				}
				if len(round.Wrong) > 0 {
					t.wrong++
				}
				t.layouts[round.Layout], t.seeds[fmt.Sprint(r.Seed)] = true, true
				t.settled = max(t.settled, round.Settled)
			}
		}
		fmt.Fprintf(out, "| %d | %s | %.0f | %d | %d | %d | %d | %s |\n", r.Seed, r.Began.UTC().Format("2006-01-02 15:04"), r.Minutes, len(r.Rounds), r.Changes,
			r.Commands, r.Entries, amiss(wrong, len(r.Wrong)))
	}
	fmt.Fprintln(out, "\n| fault | layouts | alone | in pairs | seeds | slowest to settle | what was wrong |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|")
	for _, name := range slices.SortedFunc(maps.Keys(faults), cmp.Compare[string]) {
		t := faults[name]
		fmt.Fprintf(out, "| %s | %s | %d | %d | %s | %.1f s | %s |\n", name, list(t.layouts), t.alone, t.paired, list(t.seeds), t.settled, amiss(t.wrong, 0))
	}
	return nil
}

func list(of map[string]bool) string { return strings.Join(slices.Sorted(maps.Keys(of)), ", ") }

// amiss says in how many rounds something was wrong, and what at the end of a run.
func amiss(rounds, atTheEnd int) string {
	var out []string
	switch {
	case rounds == 1:
		out = append(out, "1 round")
	case rounds > 1:
		out = append(out, fmt.Sprintf("%d rounds", rounds))
	}
	if atTheEnd > 0 {
		out = append(out, fmt.Sprintf("%d at the end", atTheEnd))
	}
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, ", ")
}
