// Package agent is the node agent as a command: its flags, who it says it is, and the agents that another process runs beside
// other services.
package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"shiplog.dev/cmd/internal/process"
	"shiplog.dev/internal/journal"
	"shiplog.dev/services/nodeagent/cri"
)

// Command runs the agent of one node. It needs the log and the node's container runtime, and no Kubernetes. Program is how people
// call it.
func Command(program string) *cobra.Command {
	var address process.LogAddress
	var logging process.Logging
	var own Node
	var settings Settings
	var listen string
	var proof proof
	var socketFile string
	command := &cobra.Command{
		Use: "nodeagent", Short: "Report what really runs on a node, pull images and stop containers there", Args: process.NoArguments,
		Long: `The node agent looks at the container runtime of its node and says whenever its containers or images are others than the log
says. It carries out the commands for its node: pull an image, run a container's hook, stop it, look into it. It holds no Kubernetes
credentials: it gets the runtime's socket, and of the log the commands for its node and the ear of an executor, which writes down what it
says. With a token that is good for nothing else, or a key, it proves which node it is of.`,
		Example: strings.ReplaceAll(`  # On a node, with the runtime where it usually listens:
  PROGRAM --nats-url nats://nats-0:4222,nats://nats-1:4222

  # In a container, with the name of the node and the socket given:
  PROGRAM --nats-url nats://nats:4222 --node "$NODE_NAME" --cri unix:///host/run/containerd/containerd.sock`, "PROGRAM", program),
		RunE: func(command *cobra.Command, _ []string) error {
			ctx := command.Context()
			logger, err := logging.Logger()
			if err != nil {
				return err
			}
			if err := address.Shared(); err != nil {
				return err
			}
			if own.Name == "" {
				host, err := os.Hostname()
				if err != nil {
					return process.Usage(fmt.Errorf("name the node with --node: %w", err))
				}
				own.Name = strings.ToLower(host) // as the kubelet does
			}
			switch {
			case own.Endpoint != "" && socketFile != "":
				return process.Usage(errors.New("give --cri or --socket-file, not both"))
			case socketFile != "":
				own.Endpoint = cri.InHostRun(socketFile)
			case own.Endpoint == "":
				if own.Endpoint = cri.Find(ctx, cri.WellKnown); own.Endpoint == "" {
					return process.Usage(fmt.Errorf("no container runtime answers at %s: give its socket with --cri", strings.Join(cri.WellKnown, ", ")))
				}
			}
			if err := own.check("--cri"); err != nil {
				return err
			}
			credential, public, err := proof.credential()
			if err != nil {
				return err
			}
			if public != "" {
				logger.Info().Str("line", own.Name+" "+public).Msg("known by this key; the executor finds the line in its --nodeagent-nkeys")
			}
			if err := settings.Load(); err != nil {
				return err
			}
			open := func(ctx context.Context, s process.Surroundings) (journal.Node, error) {
				return journal.OpenNode(ctx, journal.Options{
					URL: address.URL, Cluster: address.Cluster, Log: s.Logger.With().Str("service", "log").Logger(),
				}, own.Name, credential)
			}
			health := process.NewHealth()
			logger.Info().Str("node", own.Name).Str("runtime", own.Endpoint).Str("version", process.Version()).Msg("at work")
			return process.Serve(ctx, logger, health, listen, settings.Service(own, open, health.Ready("nodeagent")))
		},
	}
	flags := command.Flags()
	flags.StringVar(&own.Name, "node", "", "`NAME` of the node (default: the host's name)")
	flags.StringVar(&own.Endpoint, "cri", "", "`SOCKET` of the container runtime, as unix:///path (default: the first that answers of those that\n"+
		"containerd, CRI-O and cri-dockerd have below /hostvarrun, /run and /var/run)")
	flags.StringVar(&socketFile, "socket-file", "", "`FILE` of that socket below /hostvarrun instead, as OpenKruise's daemon takes it")
	settings.Bind(flags)
	proof.bind(flags)
	address.Bind(flags)
	logging.Bind(flags)
	flags.StringVar(&listen, "listen", "127.0.0.1:8080", "`ADDRESS` for /healthz, /readyz and /metrics; empty: none")
	return command
}
