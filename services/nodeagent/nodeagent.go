// Package nodeagent reports what really runs on one node: the containers and images of its runtime, as facts in the log,
// whenever they differ from what the log says; and it makes the calls to that runtime which commands ask for: one command, one
// call, one outcome. It holds no Kubernetes credentials: it is given a socket, the commands for its node, and an intake that takes
// its word. It decides nothing about what it sees, and keeps nothing: what is under way the log remembers.
package nodeagent

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/keyring"
	"shiplog.dev/services/nodeagent/cri"
)

// Options of Run. All but NodeIP, Providers, Pulls, Registry, Version and Ready are required.
type Options struct {
	// Node is the name of the Node object.
	Node string
	// Endpoint of the container runtime, for example unix:///run/containerd/containerd.sock.
	Endpoint string
	Log      journal.Node
	// NodeIP is the address of Pods that share the node's network; empty: that of the interface with the default route.
	NodeIP string
	// Providers give credentials of the node's own, after those of a command; nil: there are none.
	Providers Providers
	// Pulls is how many images are pulled at a time; 0 or less: as many as are wanted.
	Pulls  int
	Logger zerolog.Logger
	// Registry takes the metrics; nil: none.
	Registry prometheus.Registerer
	// Writer names this instance in the entries that it appends, for example "nodeagent/host-1".
	Writer string
	// Version of the program.
	Version string
	// Ready is called once the log says what the runtime has.
	Ready func()
}

// Providers are the node's own sources of credentials.
type Providers interface {
	// Lookup returns credentials for an image, given in full and without tag and digest, and why providers that match it
	// gave none.
	Lookup(ctx context.Context, image string) ([]keyring.Credential, error)
}

// runtime is what an agent asks of a container runtime.
type runtime interface {
	Look(context.Context) (*shiplogv1.NodeObserved, error)
	Watch(ctx context.Context, changed func()) error
	Image(ctx context.Context, image string) (id string, _ error)
	Pull(ctx context.Context, image string, labels, annotations map[string]string, credential *keyring.Credential) (id string, _ error)
	Progress(ctx context.Context, image string) (done, total uint64, _ error)
	Stop(ctx context.Context, container string, grace time.Duration) error
	Inspect(ctx context.Context, container string, environment bool) (cri.Details, error)
	Exec(ctx context.Context, container string, command []string) (cri.Executed, error)
	Address(ctx context.Context, container string) (ip string, _ error)
}

type agent struct {
	options Options
	pace    pace
	metrics *metrics
	runtime runtime
	bootID  string
	writer  string
	// newest is the sequence of the newest fact of this node in the log, as an intake last said.
	newest atomic.Uint64
	// prompted holds at most one note that something happened at the runtime.
	prompted chan struct{}

	state state
	// lost is set while the runtime does not answer, silent is how many appends in a row failed, by the log's fault.
	lost   bool
	silent int
}

// Run reports, and carries out commands, until ctx ends, and then returns nil. It fails only if the options are wrong: a runtime that does not answer,
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
		// Another one in each life, so that a later one can tell what an earlier one began.
		writer:   options.Writer + "-" + strings.ToLower(rand.Text()[:6]),
		prompted: make(chan struct{}, 1),
	}
	calls := &caller{options: options, pace: pace, metrics: a.metrics, runtime: client, writer: a.writer, under: map[uint64]*call{}}
	if options.Pulls > 0 {
		calls.turns = make(chan struct{}, options.Pulls)
	}
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	beside.Go(func() { a.watch(ctx) })
	beside.Go(func() { a.live(ctx) })
	beside.Go(func() { calls.run(ctx) })
	a.loop(ctx)
	return nil
}

// live says every beat that the agent lives, and hears which fact about its node the log holds.
func (a *agent) live(ctx context.Context) {
	for {
		newest, err := a.options.Log.Alive(ctx)
		if err == nil && a.newest.Swap(newest) != newest {
			a.prompt()
		}
		if !sleep(ctx, a.pace.beat) {
			return
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
		if a.state.sequence != a.newest.Load() {
			a.state.reported = nil // the log lost it, or somebody wrote another one
		}
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
	said, err := a.options.Log.Say(ctx, &shiplogv1.Entry{
		Writer: a.writer, WriterVersion: a.options.Version, Skippable: true,
		Kind: &shiplogv1.Entry_NodeObserved{NodeObserved: fact},
	})
	switch {
	case ctx.Err() != nil:
		return true
	case errors.Is(err, journal.ErrTooLarge), errors.Is(err, journal.ErrRefused):
		a.metrics.failures.Inc()
		a.options.Logger.Error().Err(err).Int("images", len(fact.GetImages())).Int("containers", len(fact.GetContainers())).
			Msg("the log will never take what the runtime has; it is reported when it has something else")
		a.state.refused = fact
		return true
	case err != nil:
		a.metrics.failures.Inc()
		a.silent++
		a.sayLog(err, a.silent)
		return false
	}
	a.silent = 0
	a.newest.Store(said.Sequence)
	a.state.reported, a.state.sequence, a.state.refused, a.state.reportedAt = fact, said.Sequence, nil, time.Now()
	a.metrics.facts.Inc()
	a.options.Logger.Debug().Uint64("sequence", said.Sequence).Int("images", len(fact.GetImages())).Int("containers", len(fact.GetContainers())).
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
