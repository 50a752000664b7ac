// Package nodeagent reports what really runs on one node: the containers and images of its runtime, as facts in the log,
// whenever they differ from what the log says. It holds no Kubernetes credentials: it is given a socket and a log. It decides
// nothing about what it sees, and changes nothing on the node.
package nodeagent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/services/nodeagent/cri"
)

// Options of Run. All but Registry, Version and Ready are required.
type Options struct {
	// Node is the name of the Node object.
	Node string
	// Endpoint of the container runtime, for example unix:///run/containerd/containerd.sock.
	Endpoint string
	Journal  journal.Journal
	Logger   zerolog.Logger
	// Registry takes the metrics; nil: none.
	Registry prometheus.Registerer
	// Writer names this instance in the entries that it appends, for example "nodeagent/host-1".
	Writer string
	// Version of the program.
	Version string
	// Ready is called once the log says what the runtime has.
	Ready func()
}

// runtime is what an agent asks of a container runtime.
type runtime interface {
	Look(context.Context) (*shiplogv1.NodeObserved, error)
	Watch(ctx context.Context, changed func()) error
}

type agent struct {
	options Options
	pace    pace
	metrics *metrics
	runtime runtime
	bootID  string
	// prompted holds at most one note that something happened at the runtime.
	prompted chan struct{}

	state state
	// lost is set while the runtime does not answer, silent is how many appends in a row failed, by the log's fault.
	lost   bool
	silent int
}

// Run reports until ctx ends, and then returns nil. It fails only if the options are wrong: a runtime that does not answer,
// and a log that is unavailable or full, are waited out.
func Run(ctx context.Context, options Options) error {
	return run(ctx, options, standard)
}

func run(ctx context.Context, options Options, pace pace) error {
	if options.Node == "" {
		return errors.New("report what runs on a node: the node has no name")
	}
	client, err := cri.New(options.Endpoint)
	if err != nil {
		return err
	}
	defer client.Close()
	a := &agent{
		options: options, pace: pace, metrics: newMetrics(options.Registry), runtime: client, bootID: bootID(),
		prompted: make(chan struct{}, 1),
	}
	if !a.recall(ctx) {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() { a.watch(ctx) })
	a.loop(ctx)
	return nil
}

// recall reads what the log says of this node, so that a restart alone adds nothing. It returns false when ctx ends.
func (a *agent) recall(ctx context.Context) bool {
	for failures := 1; ; failures++ {
		record, err := a.options.Journal.LastOfNode(ctx, a.options.Node)
		switch {
		case errors.Is(err, journal.ErrUndecodable):
			a.options.Logger.Warn().Err(err).Msg("the last fact of this node cannot be read; another one follows")
			return true
		case err == nil:
			if record != nil {
				a.state.reported = record.Entry.GetNodeObserved()
			}
			return true
		}
		a.sayLog(err, failures)
		if !sleep(ctx, backoff(a.pace, failures)) {
			return false
		}
	}
}

// watch turns the runtime's events into prompts. It ends with ctx, or when there are no events to be had.
func (a *agent) watch(ctx context.Context) {
	for failures := 1; ; failures++ {
		err := a.runtime.Watch(ctx, func() {
			failures = 0
			a.prompt()
		})
		if errors.Is(err, cri.ErrNoEvents) {
			a.options.Logger.Info().Dur("period", a.pace.period).Msg("the runtime has no events for this agent; it is looked at periodically")
			return
		}
		a.prompt() // what ended the stream may be the end of the runtime
		if !sleep(ctx, backoff(a.pace, max(failures, 1))) {
			return
		}
	}
}

func (a *agent) prompt() {
	select {
	case a.prompted <- struct{}{}:
	default:
	}
}

// loop looks, lets step decide, and does what it says.
func (a *agent) loop(ctx context.Context) {
	for ctx.Err() == nil {
		a.look(ctx)
		next := step(a.state, a.pace)
		if next.report != nil && !a.report(ctx, next.report) {
			next.notBefore = backoff(a.pace, a.silent)
			next.notAfter = next.notBefore
		}
		if a.state.seen != nil && proto.Equal(a.state.seen, a.state.reported) {
			a.ready()
		}
		if !a.rest(ctx, next) {
			return
		}
	}
}

// look asks the runtime. The first of several failures is said, and so is the end of them.
func (a *agent) look(ctx context.Context) {
	began := time.Now()
	seen, err := a.runtime.Look(ctx)
	a.state.now, a.state.seen = time.Now(), nil
	if ctx.Err() != nil {
		return
	}
	log := a.options.Logger.With().Str("runtime", a.options.Endpoint).Logger()
	if err != nil {
		a.state.failures++
		a.metrics.looks.WithLabelValues("failed").Inc()
		a.metrics.up.Set(0)
		if !a.lost {
			a.lost = true
			a.metrics.lost.Inc()
			log.Warn().Err(err).Msg("the container runtime does not answer; trying again")
		}
		return
	}
	if a.lost {
		log.Info().Int("failures", a.state.failures).Msg("the container runtime answers again")
	}
	a.lost, a.state.failures = false, 0
	a.metrics.looks.WithLabelValues("ok").Inc()
	a.metrics.lookSeconds.Observe(a.state.now.Sub(began).Seconds())
	a.metrics.up.Set(1)
	seen.Node, seen.BootId = a.options.Node, a.bootID
	a.state.seen = seen
}

// report appends a fact and returns whether there is nothing to try again.
func (a *agent) report(ctx context.Context, fact *shiplogv1.NodeObserved) bool {
	sequence, err := a.options.Journal.Append(ctx, &shiplogv1.Entry{
		Writer: a.options.Writer, WriterVersion: a.options.Version, Skippable: true,
		Kind: &shiplogv1.Entry_NodeObserved{NodeObserved: fact},
	})
	switch {
	case ctx.Err() != nil:
		return true
	case errors.Is(err, journal.ErrTooLarge):
		a.metrics.failures.Inc()
		a.options.Logger.Error().Err(err).Int("images", len(fact.GetImages())).Int("containers", len(fact.GetContainers())).
			Msg("what the runtime has is too much for one entry; it is reported when there is less")
		a.state.refused = fact
		return true
	case err != nil:
		a.metrics.failures.Inc()
		a.silent++
		a.sayLog(err, a.silent)
		return false
	}
	a.silent = 0
	a.state.reported, a.state.refused, a.state.reportedAt = fact, nil, time.Now()
	a.metrics.facts.Inc()
	a.options.Logger.Debug().Uint64("sequence", sequence).Int("images", len(fact.GetImages())).Int("containers", len(fact.GetContainers())).
		Msg("reported")
	return true
}

// sayLog says the first of several failures of the log.
func (a *agent) sayLog(err error, failures int) {
	if failures == 1 {
		a.options.Logger.Warn().Err(err).Msg("the log does not answer, or does not take facts; trying again")
	}
}

func (a *agent) ready() {
	if a.options.Ready != nil {
		a.options.Ready()
		a.options.Ready = nil
	}
}

// rest waits as an action says and returns false when ctx ends.
func (a *agent) rest(ctx context.Context, next action) bool {
	if !sleep(ctx, next.notBefore) {
		return false
	}
	timer := time.NewTimer(next.notAfter - next.notBefore)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-a.prompted:
	}
	return true
}

func sleep(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
