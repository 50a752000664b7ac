// Command shiplog-cluster runs a real Kubernetes cluster on one machine. It is also every component of that cluster:
// its sub-commands include kube-apiserver, kubelet, kubectl and the others, as if they were binaries of their own.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"shiplog.dev/integration/cluster"
	"shiplog.dev/integration/cluster/components"
	"shiplog.dev/integration/cluster/hollow"
	"shiplog.dev/integration/cluster/sandbox"
)

func main() {
	components.Run(os.Args)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := rootCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "shiplog-cluster:", err)
		os.Exit(1)
	}
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "shiplog-cluster",
		Short: "A real Kubernetes cluster on one machine",
		Long: `A real Kubernetes cluster on one machine: etcd, API server, controller-manager and scheduler, nodes with
containerd and kubelet, hollow nodes for scale, and a registry that has every image.

The components are sub-commands too: ` + strings.Join(components.Names(), ", ") + ".",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(upCommand(), downCommand(), statusCommand(), hollowCommand(), kubectlCommand(), sandboxCommand())
	return root
}

func upCommand() *cobra.Command {
	var o cluster.Options
	var delays []string
	var detach, detached bool
	command := &cobra.Command{
		Use:   "up --dir DIR",
		Short: "Start a cluster and keep it until interrupted",
		Long: `Starts a cluster whose files are all below DIR: kubeconfig, audit.log, logs/, cluster.json.

Real nodes need Linux, root and some Debian packages, which are installed where missing. Where real nodes cannot run,
hollow nodes take their place. A directory that holds an earlier cluster's files is cleared first.`,
		Example: `  # A cluster with two real nodes, until Ctrl-C
  shiplog-cluster up --dir .cluster

  # In the background, one real node and twenty hollow ones
  shiplog-cluster up --dir .cluster --nodes 1 --hollow 20 --detach
  export KUBECONFIG=$PWD/.cluster/kubeconfig

  # Pulls of nginx:slow take ten seconds, those of any redis three
  shiplog-cluster up --dir .cluster --pull-delay nginx:slow=10s --pull-delay redis=3s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			var err error
			if o.PullDelays, err = parseDelays(delays); err != nil {
				return err
			}
			if o.Self, err = os.Executable(); err != nil {
				return fmt.Errorf("find this program's own file: %w", err)
			}
			if o.Dir, err = filepath.Abs(o.Dir); err != nil {
				return fmt.Errorf("find the directory %s: %w", o.Dir, err)
			}
			if detach {
				args := []string{"up", "--detached", "--dir", o.Dir, fmt.Sprint("--nodes=", o.Nodes), fmt.Sprint("--hollow=", o.Hollow), fmt.Sprint("--start-delay=", o.StartDelay)}
				for _, delay := range delays {
					args = append(args, "--pull-delay", delay)
				}
				return cluster.Detach(ctx, o.Self, args, o.Dir, say)
			}
			o.Say = say
			ready := func() {}
			if detached {
				o.Say, ready = cluster.Reporter(say)
			}
			c, err := cluster.Up(ctx, o)
			if err != nil {
				if detached {
					o.Say("%v", err)
				}
				return err
			}
			ready()
			o.Say = say
			err = c.Wait(ctx)
			say("stopping the cluster")
			c.Down()
			return err
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.Dir, "dir", "", "directory for all files of the cluster")
	flags.IntVar(&o.Nodes, "nodes", 2, "number of real nodes")
	flags.IntVar(&o.Hollow, "hollow", 0, "number of hollow nodes: they write the status of Pods but run nothing")
	flags.DurationVar(&o.StartDelay, "start-delay", 0, "time that a container on a hollow node takes to start")
	flags.StringArrayVar(&delays, "pull-delay", nil, "NAME=DURATION: how much longer a pull of this image takes on real nodes; may be repeated")
	flags.BoolVar(&detach, "detach", false, "return when the cluster is ready, and leave it running")
	flags.BoolVar(&detached, "detached", false, "run as the background part of --detach")
	_ = flags.MarkHidden("detached")
	_ = command.MarkFlagRequired("dir")
	return command
}

func parseDelays(delays []string) (map[string]time.Duration, error) {
	result := map[string]time.Duration{}
	for _, delay := range delays {
		name, value, ok := strings.Cut(delay, "=")
		duration, err := time.ParseDuration(value)
		if !ok || err != nil {
			return nil, fmt.Errorf("--pull-delay %q: want NAME=DURATION, for instance nginx:slow=10s", delay)
		}
		result[name] = duration
	}
	return result, nil
}

func downCommand() *cobra.Command {
	var dir string
	var keep bool
	command := &cobra.Command{
		Use:   "down --dir DIR",
		Short: "Stop a cluster and remove all it left, also after a crash",
		Example: `  shiplog-cluster down --dir .cluster

  # Keep the logs
  shiplog-cluster down --dir .cluster --keep`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cluster.Down(cmd.Context(), dir, keep, say) },
	}
	command.Flags().StringVar(&dir, "dir", "", "directory of the cluster")
	command.Flags().BoolVar(&keep, "keep", false, "keep the directory")
	_ = command.MarkFlagRequired("dir")
	return command
}

func statusCommand() *cobra.Command {
	var dir, output string
	command := &cobra.Command{
		Use:   "status --dir DIR",
		Short: "Tell whether a cluster runs and how its nodes are",
		Long:  "Tells whether a cluster runs and how its nodes are. Ends with exit code 1 when none runs.",
		Example: `  shiplog-cluster status --dir .cluster

  # For programs: process ids, sockets, addresses
  shiplog-cluster status --dir .cluster -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := filepath.Abs(dir)
			if err != nil {
				return fmt.Errorf("find the directory %s: %w", dir, err)
			}
			state, err := cluster.Load(dir)
			if err != nil {
				return err
			}
			switch output {
			case "json":
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(state)
			case "":
				return printStatus(cmd, state)
			default:
				return fmt.Errorf("-o %s: want json or nothing", output)
			}
		},
	}
	command.Flags().StringVar(&dir, "dir", "", "directory of the cluster")
	command.Flags().StringVarP(&output, "output", "o", "", "json for everything known")
	_ = command.MarkFlagRequired("dir")
	return command
}

func printStatus(cmd *cobra.Command, state cluster.State) error {
	config, err := clientcmd.BuildConfigFromFlags("", state.Kubeconfig)
	if err != nil {
		return fmt.Errorf("read %s: %w", state.Kubeconfig, err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 10*time.Second)
	defer cancel()
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("ask the API server at %s for its nodes (logs: %s/logs): %w", state.Server, state.Dir, err)
	}
	conditions := map[string]string{}
	for _, node := range nodes.Items {
		for _, condition := range node.Status.Conditions {
			if condition.Type == "Ready" {
				conditions[node.Name] = map[bool]string{true: "Ready", false: "NotReady"}[condition.Status == "True"]
			}
		}
	}
	out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "API server\t%s\nkubeconfig\t%s\nsupervisor\tprocess %d\n", state.Server, state.Kubeconfig, state.Supervisor)
	for _, node := range state.Nodes {
		kind := "real, " + node.Address
		if node.Hollow {
			kind = "hollow"
		}
		condition := conditions[node.Name]
		if condition == "" {
			condition = "gone"
		}
		fmt.Fprintf(out, "%s\t%s (%s)\n", node.Name, condition, kind)
	}
	return out.Flush()
}

func hollowCommand() *cobra.Command {
	var kubeconfig string
	o := hollow.Options{Log: say}
	command := &cobra.Command{
		Use:   "hollow --kubeconfig FILE",
		Short: "Add hollow nodes to a cluster and run them until interrupted",
		Long: `Registers nodes that run nothing but write the status of the Pods bound to them as a kubelet would.

Image tags choose how a container behaves: "missing" cannot be pulled, "crash" ends with exit code 1 and "done" with 0
as soon as it starts; any other runs. The nodes stay registered after the end, as real ones do.`,
		Example: `  shiplog-cluster hollow --kubeconfig .cluster/kubeconfig --nodes 20

  # Containers take a second to start
  shiplog-cluster hollow --kubeconfig .cluster/kubeconfig --nodes 5 --prefix slow --start-delay 1s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Nodes < 1 || o.Prefix == "" {
				return errors.New("--nodes must be at least 1 and --prefix not empty")
			}
			if kubeconfig == "" {
				return errors.New("which cluster? Give --kubeconfig FILE or set KUBECONFIG")
			}
			config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				return fmt.Errorf("read the kubeconfig: %w", err)
			}
			say("registering %d hollow nodes", o.Nodes)
			return hollow.Run(cmd.Context(), config, o, func() { say("%d hollow nodes ready", o.Nodes) })
		},
	}
	flags := command.Flags()
	flags.StringVar(&kubeconfig, "kubeconfig", os.Getenv("KUBECONFIG"), "how to reach the cluster, as a cluster administrator")
	flags.IntVar(&o.Nodes, "nodes", 20, "number of nodes")
	flags.StringVar(&o.Prefix, "prefix", "hollow", "the nodes are PREFIX-1, PREFIX-2, ...")
	flags.DurationVar(&o.StartDelay, "start-delay", 0, "time that a container takes to start")
	return command
}

// kubectlCommand is only there for the help: components.Run has taken the real calls.
func kubectlCommand() *cobra.Command {
	return &cobra.Command{
		Use: "kubectl", Short: "Plain kubectl", DisableFlagParsing: true,
		Example: "  shiplog-cluster kubectl --kubeconfig .cluster/kubeconfig get nodes",
		RunE: func(*cobra.Command, []string) error {
			return errors.New("kubectl must be the first word after shiplog-cluster")
		},
	}
}

func sandboxCommand() *cobra.Command {
	return &cobra.Command{
		Use: sandbox.InitCommand, Hidden: true, Args: cobra.NoArgs,
		Short: "Be the first process of the namespaces in which real nodes run",
		RunE:  func(*cobra.Command, []string) error { return sandbox.Init() },
	}
}
