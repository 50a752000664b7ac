package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"shiplog.dev/cmd/internal/process"
)

// clusterProgram runs a real cluster on this machine; it is built from integration/cluster.
const clusterProgram = "shiplog-cluster"

// localCluster is a cluster on this machine, below the state directory.
type localCluster struct {
	wanted        bool
	nodes, hollow int
}

func (l *localCluster) bind(flags *pflag.FlagSet) {
	flags.BoolVar(&l.wanted, "local", false, "start a cluster on this machine and use it; it keeps running until `shiplog down`")
	flags.IntVar(&l.nodes, "local-nodes", 2, "with --local: how many real nodes (containerd and kubelet)")
	flags.IntVar(&l.hollow, "local-hollow", 0, "with --local: how many hollow nodes, which only pretend to run Pods")
	flags.Lookup("local").NoOptDefVal = "true"
}

func clusterDirectory(stateDir string) string { return filepath.Join(stateDir, "cluster") }

// start starts the cluster, unless it runs already, and returns its kubeconfig.
func (l *localCluster) start(ctx context.Context, stateDir string) (string, error) {
	directory := clusterDirectory(stateDir)
	kubeconfig := filepath.Join(directory, "kubeconfig")
	program, err := findClusterProgram()
	if err != nil {
		return "", err
	}
	if exec.CommandContext(ctx, program, "status", "--dir", directory).Run() == nil {
		fmt.Fprintln(os.Stderr, "using the local cluster that runs in", directory)
		return kubeconfig, nil
	}
	if err := setAsideLog(stateDir); err != nil {
		return "", err
	}
	command := exec.CommandContext(ctx, program, "up", "--dir", directory, "--detach",
		"--nodes", strconv.Itoa(l.nodes), "--hollow", strconv.Itoa(l.hollow))
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("start a local cluster in %s (its logs are in %s): %w", directory, filepath.Join(directory, "logs"), err)
	}
	return kubeconfig, nil
}

// setAsideLog moves away the log of a local cluster that is gone: a new cluster starts with a new log.
func setAsideLog(stateDir string) error {
	held := filepath.Join(stateDir, "log")
	if _, err := os.Stat(held); err != nil {
		return nil
	}
	aside := held + "-until-" + time.Now().UTC().Format("20060102T150405Z")
	if err := os.Rename(held, aside); err != nil {
		return fmt.Errorf("set aside the log of an earlier local cluster: %w", err)
	}
	fmt.Fprintln(os.Stderr, "the earlier local cluster is gone; its log is kept in", aside)
	return nil
}

// findClusterProgram looks beside this program, then on the path.
func findClusterProgram() (string, error) {
	if self, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(self), clusterProgram); exec.Command(beside, "--help").Run() == nil {
			return beside, nil
		}
	}
	program, err := exec.LookPath(clusterProgram)
	if err != nil {
		return "", errors.New("--local needs the program " + clusterProgram + " beside shiplog or on the PATH: `make build` makes both")
	}
	return program, nil
}

// down ends a local cluster.
func down() *cobra.Command {
	var stateDir string
	var keep bool
	command := &cobra.Command{
		Use: "down", Short: "End the cluster that `up --local` started", Args: process.NoArguments,
		Long:    "End the cluster that `shiplog up --local` started, and remove it and the log that belongs to it.",
		Example: "  shiplog down\n  shiplog down --keep-log",
		RunE: func(command *cobra.Command, _ []string) error {
			program, err := findClusterProgram()
			if err != nil {
				return err
			}
			end := exec.CommandContext(command.Context(), program, "down", "--dir", clusterDirectory(stateDir))
			end.Stdout, end.Stderr = os.Stderr, os.Stderr
			if err := end.Run(); err != nil {
				return fmt.Errorf("end the local cluster in %s: %w", clusterDirectory(stateDir), err)
			}
			if keep {
				return nil
			}
			return os.RemoveAll(filepath.Join(stateDir, "log"))
		},
	}
	command.Flags().StringVar(&stateDir, "state-dir", ".shiplog", "`DIRECTORY` that was given to up")
	command.Flags().BoolVar(&keep, "keep-log", false, "keep the log, to read it with the tools")
	return command
}
