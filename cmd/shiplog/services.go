package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"shiplog.dev/internal/gate"
	"shiplog.dev/internal/journal"
	"shiplog.dev/services/executor"
	"shiplog.dev/services/executor/identity"
	"shiplog.dev/services/planner"
	"shiplog.dev/services/watcher"
)

// surroundings are what every service is given.
type surroundings struct {
	config   *rest.Config    // nil for services that do not talk to Kubernetes
	journal  journal.Journal // nil for a node's agent that runs alone: it does not see the log
	logger   zerolog.Logger
	registry prometheus.Registerer // of the service that is given it
	health   *health
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

var watcherService = service{
	name: "watcher", short: "Publish object changes to the log as facts",
	long: "The watcher observes the API server and appends every change as a fact. It reads Kubernetes and never writes to it.",
	run: func(ctx context.Context, s surroundings) error {
		return watcher.Run(ctx, watcher.Options{
			Config: s.config, Journal: s.journal, Logger: s.logger, Registry: s.registry, Writer: writer("watcher"), Version: version(),
		})
	},
}

var plannerService = service{
	name: "planner", short: "Fold the log and decide",
	long: "The planner folds the log into a world, lets the rules decide, and appends their commands. Of several planners one\nleads; the others follow and take over within seconds. It talks to the log only.",
	run: func(ctx context.Context, s surroundings) error {
		return planner.Run(ctx, planner.Options{
			Journal: s.journal, Logger: s.logger, Registry: s.registry, Writer: writer("planner"), Version: version(),
			Ready: s.health.ready("planner"), Gates: s.gates, Settings: s.settings,
		})
	},
}

var executorService = service{
	name: "executor", short: "Carry out commands against the API server",
	long: `The executor takes commands from the log, makes one API call for each, and appends the outcome. It decides nothing. It also
answers the API server's webhooks: conversion between versions, defaults, and refusals of what cannot work.`,
	run: func(ctx context.Context, s surroundings) error {
		return executor.Run(ctx, executor.Options{
			Config: s.config, Journal: s.journal, Logger: s.logger, Registry: s.registry, Writer: writer("executor"), Version: version(), Agents: s.agents,
		})
	},
}

// writer names an instance of a service in the entries that it appends.
func writer(service string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%s-%d", service, host, os.Getpid())
}

// restartPause keeps a service that starts again from doing so all the time.
const restartPause = time.Second

// serve runs services until ctx ends or one of them fails, and the health endpoint with them.
func serve(ctx context.Context, s surroundings, listen string, services ...service) error {
	group, ctx := errgroup.WithContext(ctx)
	if err := s.health.listen(ctx, group, listen, s); err != nil {
		return err
	}
	for _, one := range services {
		own := s
		own.logger = s.logger.With().Str("service", one.name).Logger()
		group.Go(func() error {
			for {
				own.registry = s.health.metrics(one.name)
				err := one.run(ctx, own)
				if !errors.Is(err, journal.ErrGap) {
					if err != nil {
						return fmt.Errorf("%s: %w", one.name, err)
					}
					return nil
				}
				// Entries left the log before they were read. The compacted view, and what the watcher publishes, fill in.
				own.logger.Error().Err(err).Msg("starting again from the compacted view")
				select {
				case <-ctx.Done():
				case <-time.After(restartPause):
				}
			}
		})
	}
	return group.Wait()
}

// serviceCommand runs one service alone, against an external log.
func serviceCommand(one service) *cobra.Command {
	var connect connection
	var listen string
	var features features
	var admission admission
	var agents agents
	admits := one.name == executorService.name
	command := &cobra.Command{
		Use: one.name, Short: one.short, Long: one.long, Args: noArguments,
		Example: fmt.Sprintf("  shiplog %s --nats-url nats://127.0.0.1:4222 --kubeconfig ~/.kube/config", one.name),
		RunE: func(command *cobra.Command, _ []string) error {
			ctx := command.Context()
			logger, err := connect.logger()
			if err != nil {
				return err
			}
			if connect.natsURL == "" {
				return usageError{errors.New("--nats-url is required: a service that runs alone shares the log with the others")}
			}
			config, uid, err := connect.rest(ctx)
			if err != nil {
				return err
			}
			health := newHealth()
			log, err := connect.open(ctx, uid, logger, health.refusals())
			if err != nil {
				return err
			}
			defer log.Close()
			gates, err := features.parse(logger)
			if err != nil {
				return err
			}
			known, err := agents.options()
			if err != nil {
				return err
			}
			around := surroundings{config, log, logger, nil, health, gates, features.settings.Numbers(), known}
			services := []service{one}
			if admits && admission.listen != listenOff {
				hook, err := admission.open(ctx, around, nil)
				if err != nil {
					return err
				}
				defer hook.Close()
				services = append(services, hook.services()...)
			}
			return serve(ctx, around, listen, services...)
		},
	}
	connect.bindKubernetes(command.Flags())
	connect.bindJournal(command.Flags())
	connect.bindLogging(command.Flags())
	features.bind(command.Flags())
	if admits {
		admission.bind(command.Flags())
		agents.bind(command.Flags())
		connect.bindCallout(command.Flags())
	}
	command.Flags().StringVar(&listen, "listen", "127.0.0.1:8080", "`ADDRESS` for /healthz, /readyz and /metrics; empty: none")
	return command
}
