// Package watcher turns every change of the watched kinds into a fact in the log: in order for each object, once, and
// after a restart exactly what differs from what the log holds. It vouches for its facts: an entry that says that they were
// complete a moment ago, proven by a consistent read. It reads from Kubernetes and appends to the log; it decides nothing
// about what it sees and writes nothing to Kubernetes.
package watcher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"shiplog.dev/internal/journal"
)

// longestWatchPause is the longest pause before a watch that failed is tried again. Rollouts wait for it: they need a vouch.
const longestWatchPause = 3 * time.Second

// Options of Run. All but Registry and Version are required.
type Options struct {
	Config  *rest.Config
	Journal journal.Journal
	Logger  zerolog.Logger
	// Registry takes the metrics; nil: none.
	Registry prometheus.Registerer
	// Writer names this instance in the entries that it appends, for example "watcher/host-1". Unique among the running.
	Writer string
	// Version of the program.
	Version string
}

// watcher is what the parts of one Run share.
type watcher struct {
	options Options
	metrics *metrics
	queue   *queue
	views   []*view
	pace    pace
	thread  thread
}

// Run publishes facts and vouches until ctx ends, and then returns nil. Other errors: the connection to the API server
// cannot be set up, or the log cannot be read (ErrGap, ErrUndecodable). Trouble with the API server, and a log that is
// unavailable, are waited out.
func Run(ctx context.Context, options Options) error {
	return run(ctx, options, standard)
}

func run(ctx context.Context, options Options, pace pace) error {
	client, err := newClient(options.Config)
	if err != nil {
		return fmt.Errorf("set up the watcher's connection to the API server: %w", err)
	}
	w := &watcher{options: options, metrics: newMetrics(options.Registry), pace: pace}
	w.queue = newQueue(options.Journal, options.Logger, w.metrics)
	w.thread.unlisted = len(kinds)
	for _, kind := range kinds {
		w.views = append(w.views, newView(kind, client, w))
	}
	follower, err := w.learn(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("learn what the log holds: %w", err)
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var parts sync.WaitGroup
	start := func(part func(context.Context) error) {
		parts.Go(func() {
			if err := part(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	voucher := newVoucher(w)
	start(w.queue.run)
	start(func(ctx context.Context) error { return follower.run(ctx, voucher) })
	start(voucher.run)
	quiet := logr.Discard() // the sources say what went wrong
	for _, v := range w.views {
		reflector := cache.NewReflectorWithOptions(v.source, &item{}, v, cache.ReflectorOptions{
			Name: "shiplog-watcher " + v.kind.name, TypeDescription: v.kind.name, Logger: &quiet, Backoff: &wait.Backoff{
				Duration: firstPause, Factor: 2, Jitter: 0.5, Cap: longestWatchPause, Steps: 16,
			},
		})
		start(func(ctx context.Context) error { reflector.RunWithContext(klog.NewContext(ctx, quiet)); return nil })
	}
	<-ctx.Done()
	parts.Wait()
	follower.close()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return nil
}
