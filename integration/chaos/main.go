// Command chaos runs Shiplog on a real cluster and a real NATS server, keeps rollouts going all the time, makes one or two
// faults at a time at moments that follow from a seed, and checks. What checks knows nothing of Shiplog's code: it has a watch of
// its own on the API server, the API server's audit log, and the log as `shiplog tail -o json` prints it.
//
// A run is a row of rounds. A round is: people change CloneSets and delete Pods, faults come and are healed; then everybody
// waits until every rollout has ended; then what happened is checked. It exits with 1 when anything was lost, done twice, done
// without a command, or did not end, and leaves the log as a bundle.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o options
	command := &cobra.Command{
		Use: "chaos", Short: "Break everything under rollouts, and check that nothing is lost",
		SilenceUsage: true, SilenceErrors: true, Args: cobra.NoArgs,
		Example: `  make chaos SEED=7 MINUTES=30
  make chaos CHAOS='--seed 7 --minutes 3 --layouts services --faults kill-planner,lost-answers'`,
		RunE: func(command *cobra.Command, _ []string) error {
			if !command.Flags().Changed("layouts") && !canRunServers() {
				say("the layout cluster is left out: there is no dockerd (Debian's docker.io)")
			}
			return run(command.Context(), o)
		},
	}
	flags := command.Flags()
	flags.Uint64Var(&o.seed, "seed", 1, "what faults come when, and what people do, follows from this `NUMBER`")
	flags.Float64Var(&o.minutes, "minutes", 5, "how long, the start of the cluster not counted")
	flags.StringSliceVar(&o.layouts, "layouts", usualLayouts(), "`LAYOUTS` that share the time: "+strings.Join(layoutNames(), ", "))
	flags.StringSliceVar(&o.faults, "faults", nil, "only these `FAULTS`: "+strings.Join(faultNames(), ", "))
	flags.DurationVar(&o.longest, "longest", time.Minute, "the longest that a fault lasts")
	flags.DurationVar(&o.bound, "bound", 90*time.Second, "how long rollouts may take to end after the last fault")
	flags.StringVar(&o.dir, "dir", "", "`DIRECTORY` for logs, and for the bundle of a run that failed (default: a new one in the temporary directory)")
	flags.StringVar(&o.summary, "summary", "", "write the result as JSON to this `FILE`")
	flags.BoolVar(&o.keepGoing, "keep-going", false, "go on after a round that failed")
	command.AddCommand(tableCommand())
	if err := command.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

type options struct {
	seed            uint64
	minutes         float64
	layouts, faults []string
	longest, bound  time.Duration
	dir, summary    string
	keepGoing       bool
}

var errFailed = errors.New("what must hold did not")

func run(ctx context.Context, o options) (err error) {
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "shiplog-chaos-"); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(o.dir, "logs"), 0o755); err != nil {
		return err
	}
	c, err := newCampaign(ctx, o)
	if err != nil {
		return err
	}
	err = c.run(ctx)
	c.close()
	if err = errors.Join(err, c.report()); err != nil {
		return fmt.Errorf("%w; see %s", err, o.dir)
	}
	if c.result.failed() {
		return fmt.Errorf("%w: seed %d, see %s", errFailed, o.seed, o.dir)
	}
	return os.RemoveAll(o.dir)
}

func say(format string, arguments ...any) {
	fmt.Printf("%s  %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, arguments...))
}
