package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	"shiplog.dev/cmd/internal/process"
	"shiplog.dev/internal/gate"
	"shiplog.dev/internal/journal"
	"shiplog.dev/services/executor"
	"shiplog.dev/services/executor/identity"
	"shiplog.dev/services/planner"
	"shiplog.dev/services/watcher"
)

// surroundings are what every service is given.
type surroundings struct {
	process.Surroundings
	config   *rest.Config
	journal  journal.Journal
	gates    gate.Set
	settings map[string]int64
	// agents says how the executor knows the agents of nodes.
	agents identity.Options
}

// service is one of the parts of Shiplog.
type service struct {
	name, short, long string
	run               func(context.Context, surroundings) error
}

// garbagePercent is by how much the memory in use may grow before garbage is collected, unless GOGC says so. Services hold little and let go of
// much: every entry is decoded and forgotten. With Go's own 100 % that was a tenth of what they did.
const garbagePercent = 200

// serve runs services in these surroundings until ctx ends or one of them fails, and the health endpoint with them.
func (s surroundings) serve(ctx context.Context, listen string, services ...service) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	hosted := make([]process.Service, len(services))
	for i, one := range services {
		hosted[i] = process.Service{Name: one.name, Run: func(ctx context.Context, given process.Surroundings) error {
			own := s
			own.Surroundings = given
			return one.run(ctx, own)
		}}
	}
	return process.Serve(ctx, s.Logger, s.Health, listen, hosted...)
}

var watcherService = service{
	name: "watcher", short: "Publish object changes to the log as facts",
	long: "The watcher observes the API server and appends every change as a fact. It reads Kubernetes and never writes to it.",
	run: func(ctx context.Context, s surroundings) error {
		return watcher.Run(ctx, watcher.Options{
			Config: s.config, Journal: s.journal, Logger: s.Logger, Registry: s.Registry, Writer: process.Writer("watcher"), Version: process.Version(),
		})
	},
}

var plannerService = service{
	name: "planner", short: "Fold the log and decide",
	long: "The planner folds the log into a world, lets the rules decide, and appends their commands. Of several planners one\nleads; the others follow and take over within seconds. It talks to the log only.",
	run: func(ctx context.Context, s surroundings) error {
		return planner.Run(ctx, planner.Options{
			Journal: s.journal, Logger: s.Logger, Registry: s.Registry, Writer: process.Writer("planner"), Version: process.Version(),
			Ready: s.Health.Ready("planner"), Gates: s.gates, Settings: s.settings,
		})
	},
}

var executorService = service{
	name: "executor", short: "Carry out commands against the API server",
	long: `The executor takes commands from the log, makes one API call for each, and appends the outcome. It decides nothing. It also
answers the API server's webhooks: conversion between versions, defaults, and refusals of what cannot work.`,
	run: func(ctx context.Context, s surroundings) error {
		return executor.Run(ctx, executor.Options{
			Config: s.config, Journal: s.journal, Logger: s.Logger, Registry: s.Registry, Writer: process.Writer("executor"), Version: process.Version(), Agents: s.agents,
		})
	},
}

// serviceCommand runs one service alone, against an external log.
func serviceCommand(one service) *cobra.Command {
	var connect connection
	var listen string
	var profiling bool
	var features features
	var admission admission
	var agents agents
	admits := one.name == executorService.name
	command := &cobra.Command{
		Use: one.name, Short: one.short, Long: one.long, Args: process.NoArguments,
		Example: fmt.Sprintf("  shiplog %s --nats-url nats://127.0.0.1:4222 --kubeconfig ~/.kube/config", one.name),
		RunE: func(command *cobra.Command, _ []string) error {
			ctx := command.Context()
			logger, err := connect.logger()
			if err != nil {
				return err
			}
			if err := connect.Shared(); err != nil {
				return err
			}
			config, uid, err := connect.rest(ctx)
			if err != nil {
				return err
			}
			health := process.NewHealth()
			health.Profiling = profiling
			log, err := connect.open(ctx, uid, logger, health.Refusals())
			if err != nil {
				return err
			}
			defer log.Close()
			health.Journal = log
			gates, err := features.parse(logger)
			if err != nil {
				return err
			}
			known, err := agents.options()
			if err != nil {
				return err
			}
			around := surroundings{process.Surroundings{Logger: logger, Health: health}, config, log, gates, features.settings.Numbers(), known}
			services := []service{one}
			if admits && admission.listen != listenOff {
				hook, err := admission.open(ctx, around, nil)
				if err != nil {
					return err
				}
				defer hook.Close()
				services = append(services, hook.services()...)
			}
			return around.serve(ctx, listen, services...)
		},
	}
	connect.bindKubernetes(command.Flags())
	connect.bindJournal(command.Flags())
	connect.Logging.Bind(command.Flags())
	features.bind(command.Flags())
	if admits {
		admission.bind(command.Flags())
		agents.bind(command.Flags())
		connect.bindCallout(command.Flags())
	}
	command.Flags().StringVar(&listen, "listen", "127.0.0.1:8080", "`ADDRESS` for /healthz, /readyz and /metrics; empty: none")
	command.Flags().BoolVar(&profiling, "profiling", false, "serve /debug/pprof at --listen too")
	return command
}
