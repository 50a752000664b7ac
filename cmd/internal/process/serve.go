package process

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"shiplog.dev/internal/journal"
)

// Surroundings are what a service is given by the process that it runs in.
type Surroundings struct {
	Logger zerolog.Logger
	// Registry takes the service's metrics.
	Registry prometheus.Registerer
	Health   *Health
}

// Service is one of the parts of Shiplog.
type Service struct {
	Name string
	// Run runs it until ctx ends, and then returns nil. An error ends the process; journal.ErrGap has it run again.
	Run func(context.Context, Surroundings) error
}

// restartPause keeps a service that starts again from doing so all the time.
const restartPause = time.Second

// Serve runs services until ctx ends or one of them fails, and the health endpoint at an address with them.
func Serve(ctx context.Context, logger zerolog.Logger, health *Health, address string, services ...Service) error {
	group, ctx := errgroup.WithContext(ctx)
	if err := health.listen(ctx, group, logger, address); err != nil {
		return err
	}
	for _, one := range services {
		own := Surroundings{Logger: logger.With().Str("service", one.Name).Logger(), Health: health}
		group.Go(func() error {
			for {
				own.Registry = health.Metrics(one.Name)
				err := one.Run(ctx, own)
				if !errors.Is(err, journal.ErrGap) {
					if err != nil {
						return fmt.Errorf("%s: %w", one.Name, err)
					}
					return nil
				}
				// Entries left the log before they were read. The compacted view, and what the watcher publishes, fill in.
				own.Logger.Error().Err(err).Msg("starting again from the compacted view")
				select {
				case <-ctx.Done():
				case <-time.After(restartPause):
				}
			}
		})
	}
	return group.Wait()
}
