// Command shiplog runs OpenKruise's workloads from a log: all services in one process, or each alone, and the tools that
// read the log. This file and its neighbours are wiring: they parse flags, connect, start and stop.
package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"shiplog.dev/cmd/internal/process"
)

func main() { process.Main(root()) }

func root() *cobra.Command {
	// As kubectl-shiplog on the PATH it is a plugin of kubectl.
	name := "shiplog"
	if filepath.Base(os.Args[0]) == "kubectl-shiplog" {
		name = "kubectl shiplog"
	}
	command := &cobra.Command{
		Use:   "shiplog",
		Short: "Run OpenKruise's workloads from one ordered log",
		Long: `Shiplog runs OpenKruise's workloads (CloneSet and its kin) on Kubernetes. Everything it observes, decides and does is
an entry of one ordered log, so you can watch a rollout, ask why, and replay an incident.

The watcher turns object changes into facts. The planner folds entries into a world and answers with commands. The
executor and the node agents carry out one command at a time and report the outcome. Whatever a decision depends on is
in the log.

Started as kubectl-shiplog it is a plugin: kubectl shiplog why cloneset/web.

Exit codes: 0 done; 1 failed; 2 a mistake on the command line; 3 the log knows nothing of what was asked for.`,
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: name},
		Version:     process.Version(),
	}
	command.AddCommand(up(), down(), serviceCommand(watcherService), serviceCommand(plannerService), serviceCommand(executorService),
		nodeagentCommand(), tail(), why(), timeline(), state(), diff(), exportCommand(), replayCommand(), verifyCommand(), whatIf(), decideCommand(), crds())
	return command
}
