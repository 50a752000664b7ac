// Command bench measures Shiplog on a real API server with hollow nodes and puts each figure beside the floor: the time
// that a bare client needs for the very writes that the log recorded, right after, on a cluster of the same kind with no controller.
// It makes docs/performance.md of what it measured. It promises nothing and asserts nothing: it prints figures beside their
// budgets, and exits with 1 only when something could not be measured.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := benchCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options of a run.
type options struct {
	sizes, shapes, growth  []int
	layouts                []string
	idle                   time.Duration
	nodes, rounds, changes int
	workers                int
	profile, verbose       bool
	results, keep          string
	document
}

func benchCommand() *cobra.Command {
	var o options
	command := &cobra.Command{
		Use: "bench", Short: "Measure Shiplog against a bare client on hollow nodes", Args: cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true,
		Long: `Measure Shiplog against a bare client on hollow nodes.

Each cell is a number of Pods in a number of CloneSets: the Pods are created, updated in place, updated by recreation and scaled
down, in turns on one cluster by Shiplog and on another by a bare client, which makes the writes that the log recorded. The
first cell also measures an idle cluster, and runs with Shiplog in one process too. What a cell came to is left in a JSON file, so
that cells can be measured one by one; "bench table" makes the document from all of them.`,
		Example: `  make bench
  make bench BENCH='--sizes 1000 --shapes 1 --growth 0'
  go run ./integration/bench --sizes 200 --shapes 1,10 --growth 0 --results /tmp/bench --into ''
  go run ./integration/bench table docs/performance/*.json`,
		RunE: func(command *cobra.Command, _ []string) error { return o.run(command.Context()) },
	}
	flags := command.Flags()
	flags.IntSliceVar(&o.sizes, "sizes", []int{1000, 5000}, "`PODS` of a cell")
	flags.IntSliceVar(&o.shapes, "shapes", []int{1, 100}, "`CLONESETS` over which the Pods of a cell are spread; each size is measured with each")
	flags.IntSliceVar(&o.growth, "growth", []int{10000}, "`PODS` of more cells, with the first shape only; 0: none")
	flags.StringSliceVar(&o.layouts, "layouts", layoutNames, "how Shiplog runs: services (a process each) or one (shiplog up). The first in all cells, the others in the first cell")
	flags.IntVar(&o.nodes, "nodes", 20, "hollow nodes, of at most 5,000 Pods each")
	flags.IntVar(&o.rounds, "rounds", 5, "how often cells of up to 1,000 Pods are updated in place, larger ones half as often; the median counts")
	flags.IntVar(&o.workers, "workers", 64, "requests that the bare client has under way")
	flags.IntVar(&o.changes, "changes", 40, "spec changes on the idle cluster; 0: measure no idle cluster")
	flags.DurationVar(&o.idle, "idle", time.Minute, "how long the idle cluster is watched")
	flags.BoolVar(&o.profile, "profile", true, "take CPU profiles, in the first round of each job")
	flags.StringVar(&o.keep, "keep-profiles", "", "`DIRECTORY` for the CPU profiles themselves, for go tool pprof; empty: only what they come to is kept")
	flags.BoolVarP(&o.verbose, "verbose", "v", false, "show what Shiplog says")
	flags.StringVar(&o.results, "results", "docs/performance", "`DIRECTORY` for a JSON file of each cell; what other runs left there goes into the document too")
	o.document.bind(command)
	command.AddCommand(tableCommand(), logCommand(), imagesCommand())
	return command
}

// run measures all cells. One that fails is told of and does not end the others.
func (o *options) run(ctx context.Context) error {
	cells, err := o.cells()
	if err != nil {
		return err
	}
	for _, directory := range []string{o.results, o.keep} {
		if directory == "" {
			continue
		}
		if err := os.MkdirAll(directory, 0o755); err != nil {
			return err
		}
	}
	estimate := time.Duration(0)
	for _, c := range cells {
		estimate += c.estimate()
	}
	began := time.Now()
	say("%d cells, about %s", len(cells), estimate.Round(time.Minute))
	var failed error
	for i, c := range cells {
		say("---- cell %d of %d: %s, about %s", i+1, len(cells), c.name(), c.estimate().Round(time.Minute))
		err := c.measure(ctx)
		if ctx.Err() != nil { // what an earlier run left of the cell stays
			return errors.Join(failed, ctx.Err())
		}
		if err != nil {
			say("%s: %v", c.name(), err)
			c.result.Failed = err.Error()
			failed = errors.Join(failed, fmt.Errorf("%s: %w", c.name(), err))
		}
		if err := save(c.result, filepath.Join(o.results, c.name()+".json")); err != nil {
			return err
		}
	}
	say("measured in %s", time.Since(began).Round(time.Second))
	paths, err := filepath.Glob(filepath.Join(o.results, "*.json"))
	if err != nil {
		return err
	}
	return errors.Join(failed, o.document.make(os.Stdout, paths))
}

// cells are what is to be measured: each size with each shape, and what shows how it grows.
func (o *options) cells() ([]*cell, error) {
	for _, layout := range o.layouts {
		if layouts[layout] == nil {
			return nil, fmt.Errorf("--layouts: there is no layout %q: give some of %v", layout, layoutNames)
		}
	}
	if len(o.layouts) == 0 || len(o.sizes)*len(o.shapes) == 0 && len(o.growth) == 0 {
		return nil, errors.New("nothing to measure: give --sizes and --shapes, and --layouts")
	}
	var cells []*cell
	for _, pods := range o.sizes {
		for _, sets := range o.shapes {
			cells = append(cells, newCell(o, pods, sets, o.layouts[0]))
			if len(cells) > 1 {
				continue
			}
			cells[0].idles = o.changes > 0
			for _, layout := range o.layouts[1:] {
				other := newCell(o, pods, sets, layout)
				other.idles = o.changes > 0
				cells = append(cells, other)
			}
		}
	}
	for _, pods := range o.growth {
		if pods > 0 {
			cells = append(cells, newCell(o, pods, max(1, append(o.shapes, 1)[0]), o.layouts[0]))
		}
	}
	for _, c := range cells {
		if c.pods < c.sets || c.sets < 1 || c.pods%c.sets != 0 {
			return nil, fmt.Errorf("%d Pods cannot be spread evenly over %d CloneSets", c.pods, c.sets)
		}
	}
	return cells, nil
}

func say(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, arguments...))
}
