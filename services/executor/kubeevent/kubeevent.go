// Package kubeevent writes Kubernetes Events about workloads: what kubectl describe and kubectl get events show. They are a
// projection of the rollout events of the log, which tell of every outcome, so none is lost: the position up to which they are
// written lives in the log and survives restarts. It reads nothing of the cluster and changes nothing but Events.
//
// Events come after everything else: one write at a time, at a bounded rate, and what comes in numbers is combined.
package kubeevent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/rs/zerolog"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"

	"shiplog.dev/internal/journal"
)

const (
	// workName is shared by all executors of a cluster, so each rollout event goes to one of them.
	workName = "kubernetes-events"
	// The rate of writes, and how many may come at once after a pause.
	writesPerSecond, writesAtOnce = 20, 40
	// maxAge is for how long the API server keeps an Event, unless told otherwise: an older one would be gone.
	maxAge = time.Hour
	// writeWithin bounds one write, retryFirst and retryLongest the pause before it is tried again.
	writeWithin              = 10 * time.Second
	retryFirst, retryLongest = 100 * time.Millisecond, 10 * time.Second
)

// Options of Run. All but Registry and Pressed are required.
type Options struct {
	Config  *rest.Config
	Journal journal.Journal
	Logger  zerolog.Logger
	// Registry takes the metrics; nil: none.
	Registry prometheus.Registerer
	// Writer names this instance in the Events.
	Writer string
	// Pressed says that other writes wait for the API server: rollout events stay in the log for a while then, and Events are combined. Nil: none ever do.
	Pressed func() bool
}

// Run writes Events until ctx ends, and then returns nil. Rollout events that were not written are handed out again. Other
// errors: the connection to the API server cannot be set up, or an entry of the log cannot be decoded.
func Run(ctx context.Context, options Options) error {
	w, err := newWriter(options)
	if err != nil {
		return fmt.Errorf("set up the connection to write Events: %w", err)
	}
	for pause := retryFirst; ; pause = min(2*pause, retryLongest) {
		err := w.run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, journal.ErrUnavailable) {
			return fmt.Errorf("write Events: %w", err)
		}
		options.Logger.Warn().Err(err).Msg("the log hands out no rollout events; trying again")
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func newWriter(options Options) (*writer, error) {
	if options.Pressed == nil {
		options.Pressed = func() bool { return false }
	}
	config := rest.CopyConfig(options.Config)
	config.UserAgent = "shiplog-events"
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.QPS = -1 // the writer has a rate of its own
	client, err := corev1client.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &writer{
		options: options, client: client, pace: standard, rate: flowcontrol.NewTokenBucketRateLimiter(writesPerSecond, writesAtOnce), groups: map[key]*group{},
		written: promauto.With(options.Registry).NewCounterVec(prometheus.CounterOpts{
			Name: "shiplog_executor_kubernetes_events_total",
			Help: "What Kubernetes Events were to tell, by reason and by what became of it: written, refused or dropped.",
		}, []string{"reason", "result"}),
	}, nil
}

// writer turns rollout events into Events. One goroutine runs it.
type writer struct {
	options Options
	client  corev1client.EventsGetter
	pace
	rate   flowcontrol.RateLimiter
	groups map[key]*group
	held   int // notices in all groups
	// pressedSince is since when other writes have been waiting; zero: none were, when it was last looked at.
	pressedSince time.Time
	written      *prometheus.CounterVec
}

// run takes rollout events until ctx ends or the log fails. What is held then is handed out again.
func (w *writer) run(ctx context.Context) error {
	clear(w.groups)
	w.held = 0
	work, err := w.options.Journal.Events(ctx, workName)
	if err != nil {
		return err
	}
	defer work.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tasks, failed := make(chan *journal.Task), make(chan error, 1)
	go func() {
		for {
			task, err := work.Next(ctx)
			if err != nil {
				failed <- err
				return
			}
			select {
			case tasks <- task:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		taken := tasks
		if w.yields() {
			taken = nil
		}
		var flush <-chan time.Time
		if w.held > 0 || taken == nil {
			flush = time.After(w.combineFor / 4)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			return err
		case task := <-taken:
			w.take(ctx, task)
		case <-flush:
		}
		w.flush(ctx)
	}
}
