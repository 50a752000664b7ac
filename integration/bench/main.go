// Command bench measures Shiplog on a real API server with hollow nodes and prints each figure beside the floor: the time
// that a bare client needs for the very writes that the log recorded, on the same cluster in the same run, with no controller. It promises nothing and asserts nothing:
// it prints ratios, and exits with 1 only when something could not be measured.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"

	"shiplog.dev/deploy/crd"
	"shiplog.dev/integration/testbed"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var b bench
	command := &cobra.Command{
		Use: "bench", Short: "Measure Shiplog against a bare client on hollow nodes",
		SilenceUsage: true, SilenceErrors: true,
		Example: "  make bench\n  make bench BENCH='--pods 5000 --rounds 3 --json bench.json'",
		RunE:    func(command *cobra.Command, _ []string) error { return b.run(command.Context()) },
	}
	command.Flags().IntVar(&b.pods, "pods", 1000, "Pods of the CloneSet")
	command.Flags().IntVar(&b.nodes, "nodes", 20, "hollow nodes")
	command.Flags().IntVar(&b.rounds, "rounds", 3, "updates measured; the median counts")
	command.Flags().IntVar(&b.changes, "changes", 40, "spec changes for the latency figures")
	command.Flags().DurationVar(&b.idle, "idle", time.Minute, "how long an idle cluster is watched")
	command.Flags().StringVar(&b.jsonFile, "json", "", "write the figures to this `FILE` too")
	command.Flags().StringVar(&b.profile, "profile", "", "write a CPU profile of the updates to this `FILE`")
	command.Flags().BoolVarP(&b.verbose, "verbose", "v", false, "show what Shiplog says")
	command.AddCommand(logCommand(), imagesCommand())
	if err := command.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	pods, nodes, rounds, changes int
	idle                         time.Duration
	jsonFile, profile            string
	verbose                      bool

	cluster *testbed.Cluster
	client  *kubernetes.Clientset
	audit   audit
	figures []figure

	stateDir         string
	created, updated time.Duration
}

// figure is one line of the result.
type figure struct {
	What   string  `json:"what"`
	Floor  float64 `json:"floor,omitempty"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Ratio  float64 `json:"ratio,omitempty"`
	Budget string  `json:"budget,omitempty"`
}

func (b *bench) run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "shiplog-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if b.cluster, err = testbed.StartCluster(ctx, filepath.Join(dir, "cluster"), 0, b.nodes, os.Stderr); err != nil {
		return err
	}
	defer b.cluster.Down()
	b.audit.log = b.cluster.AuditLog()
	config, err := b.cluster.Config()
	if err != nil {
		return err
	}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.UserAgent = "bench"
	if b.client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	if config, err = b.cluster.Config(); err != nil {
		return err
	}
	if err := crd.Install(ctx, config, nil); err != nil {
		return err
	}
	b.stateDir = filepath.Join(dir, "state")
	shiplog, err := testbed.StartShiplog("up", "--kubeconfig", b.cluster.Kubeconfig, "--state-dir", b.stateDir, "--profiling")
	if err != nil {
		return err
	}
	defer func() {
		if b.verbose {
			fmt.Fprintln(os.Stderr, shiplog.Output())
		}
		shiplog.Kill()
	}()
	if err := shiplog.Ready(ctx); err != nil {
		return err
	}
	for _, measure := range []func(context.Context, *testbed.Process) error{b.rollout, b.latency, b.quiet, b.compare} {
		if err := measure(ctx, shiplog); err != nil {
			return fmt.Errorf("%w\n%s", err, shiplog.Output())
		}
	}
	return b.print()
}

func say(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, arguments...))
}

func (b *bench) add(f figure) {
	b.figures = append(b.figures, f)
}

func (b *bench) print() error {
	table := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "WHAT\tFLOOR\tSHIPLOG\tUNIT\tRATIO\tBUDGET")
	for _, f := range b.figures {
		floor, ratio := "", ""
		if f.Floor > 0 {
			floor, ratio = fmt.Sprintf("%.2f", f.Floor), fmt.Sprintf("%.2f", f.Ratio)
		}
		fmt.Fprintf(table, "%s\t%s\t%.2f\t%s\t%s\t%s\n", f.What, floor, f.Value, f.Unit, ratio, f.Budget)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if b.jsonFile == "" {
		return nil
	}
	data, err := json.MarshalIndent(b.figures, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(b.jsonFile, append(data, '\n'), 0o644)
}
