package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"shiplog.dev/cmd/internal/agent"
	"shiplog.dev/cmd/internal/process"
	"shiplog.dev/deploy/crd"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/services/executor/webhook"
)

// up runs everything in one process.
func up() *cobra.Command {
	var connect connection
	var local localCluster
	var features features
	var admission admission
	var listen string
	var profiling bool
	var nodeagents []string
	var agents agents
	var onNodes agent.Settings
	command := &cobra.Command{
		Use: "up", Short: "Run all services in one process", Args: process.NoArguments,
		Long: `Run the watcher, the planner and the executor in one process, with the log on an embedded NATS server whose data lives
below --state-dir, against an existing cluster or, with --local, one that is started on this machine.

The CustomResourceDefinitions are installed or updated, and the webhooks registered that the API server calls here to convert,
default and check CloneSets; it must be able to reach --webhook-listen. Ctrl-C stops cleanly; started again with the same
--state-dir, everything goes on where it ended. Until then CloneSets can be read and deleted, but not changed; Pods run on.`,
		Example: `  # A cluster on this machine, in directories below .shiplog:
  shiplog up --local

  # An existing cluster:
  shiplog up --kubeconfig ~/.kube/config --state-dir /var/lib/shiplog --durability strict

  # The log on NATS servers of your own:
  shiplog up --nats-url nats://nats-0:4222,nats://nats-1:4222,nats://nats-2:4222 --durability strict

  # With an agent for a node of this machine:
  shiplog up --nodeagent node-1=unix:///run/containerd/containerd.sock`,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx := command.Context()
			logger, err := connect.logger()
			if err != nil {
				return err
			}
			if local.wanted {
				if connect.kubeconfig != "" {
					return process.Usage(errors.New("--local starts a cluster of its own: leave out --kubeconfig"))
				}
				if connect.kubeconfig, err = local.start(ctx, connect.stateDir); err != nil {
					return err
				}
			}
			gates, err := features.parse(logger)
			if err != nil {
				return err
			}
			nodes, err := agent.Parse("--nodeagent", nodeagents)
			if err != nil {
				return err
			}
			if len(nodes) > 0 {
				if err := onNodes.Load(); err != nil {
					return err
				}
			}
			config, uid, err := connect.rest(ctx)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(connect.stateDir, 0o700); err != nil {
				return fmt.Errorf("create the state directory: %w", err)
			}
			known, err := agents.options()
			if err != nil {
				return err
			}
			health := process.NewHealth()
			health.Profiling = profiling
			log, err := connect.open(ctx, uid, logger, health.Refusals())
			if err != nil {
				if errors.Is(err, journal.ErrOtherCluster) {
					return fmt.Errorf("%w; give another --state-dir or --cluster", err)
				}
				return err
			}
			defer log.Close()
			health.Journal = log
			if err := connect.announceLog(ctx, log); err != nil {
				return err
			}
			around := surroundings{process.Surroundings{Logger: logger, Health: health}, config, log, gates, features.settings.Numbers(), known}
			if admission.listen == listenOff {
				return process.Usage(fmt.Errorf("--webhook-listen %s: nobody else would convert between versions", listenOff))
			}
			hook, err := admission.open(ctx, around, webhook.Directory(filepath.Join(connect.stateDir, "webhook")))
			if err != nil {
				return err
			}
			defer hook.Close()
			if err := crd.Install(ctx, config, hook.Conversion()); err != nil {
				return err
			}
			logger.Info().Str("api-server", config.Host).Str("version", process.Version()).Msg("up")
			services := append([]service{watcherService, plannerService, executorService, migrationService}, hook.services()...)
			for _, node := range nodes {
				one := onNodes.Service(node, func(ctx context.Context, _ process.Surroundings) (journal.Node, error) {
					return log.Join(ctx, node.Name)
				}, nil)
				services = append(services, service{name: one.Name, run: func(ctx context.Context, s surroundings) error { return one.Run(ctx, s.Surroundings) }})
			}
			err = around.serve(ctx, listen, services...)
			if err == nil {
				logger.Info().Msg("stopped")
			}
			return err
		},
	}
	flags := command.Flags()
	connect.bindKubernetes(flags)
	connect.bindJournal(flags)
	connect.Logging.Bind(flags)
	features.bind(flags)
	admission.bind(flags)
	flags.StringVar(&connect.stateDir, "state-dir", ".shiplog", "`DIRECTORY` of the embedded log")
	flags.StringVar(&connect.natsListen, "nats-listen", "127.0.0.1:0", "`ADDRESS` at which the embedded log can be reached by tools and dashboards; empty: none")
	flags.StringVar(&listen, "listen", "127.0.0.1:8080", "`ADDRESS` for /healthz, /readyz and /metrics; empty: none")
	flags.BoolVar(&profiling, "profiling", false, "serve /debug/pprof at --listen too")
	flags.StringArrayVar(&nodeagents, "nodeagent", nil, "run the agent of a node too, given as `NAME=unix:///path` of its container runtime; repeatable")
	onNodes.Bind(flags)
	agents.bind(flags)
	connect.bindCallout(flags)
	local.bind(flags)
	return command
}

// migrationPause lets every API server take note of new definitions before objects are stored by them.
const migrationPause = 10 * time.Second

// migrationService has objects of an older version stored in the newer one, once.
var migrationService = service{name: "migration", run: func(ctx context.Context, s surroundings) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(migrationPause):
	}
	switch rewritten, err := crd.Migrate(ctx, s.config); {
	case err != nil && ctx.Err() == nil:
		s.Logger.Warn().Err(err).Msg("some objects are still stored in an older version; the next start tries again")
	case rewritten > 0:
		s.Logger.Info().Int("objects", rewritten).Msg("stored in the newer version now")
	}
	return nil
}}

// announceLog leaves the address of the embedded server in the state directory, for the tools.
func (c *connection) announceLog(ctx context.Context, log journal.Journal) error {
	state, err := log.State(ctx)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.stateDir, history.AddressFile), []byte(state.URL+"\n"), 0o600); err != nil {
		return fmt.Errorf("leave the address of the log for the tools: %w", err)
	}
	return nil
}
