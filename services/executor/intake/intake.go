// Package intake stands between the agents of nodes and the log. An agent may write nothing itself: what it says is a word, which
// becomes an entry once the intake has found that it is about that agent's node, and about a command that this node was given and
// that has no outcome. Where agents say nothing, the intake says so: a command that nobody took, or whose agent fell silent,
// gets an outcome in time. Several intakes share the work. They keep nothing: the log says all.
package intake

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
)

const (
	// One node may say so many words a second, and so many at once. More wait.
	wordsPerSecond = 100
	wordsAtOnce    = 1000
	// A node is forgotten when it has said nothing for so long.
	forgetAfter = 10 * time.Minute
	// maxWriter and maxMessage bound texts of an agent, in bytes.
	maxWriter  = 128
	maxMessage = 1 << 10
	maxCode    = 64
)

// Options of Run. All but Credentials, Registry and Version are required.
type Options struct {
	Journal journal.Journal
	// Credentials answers agents that ask for the credentials of a pull; nil: nobody does.
	Credentials func(ctx context.Context, node string, request journal.CredentialsRequest) (journal.SealedCredentials, error)
	Logger      zerolog.Logger
	// Registry takes the metrics; nil: none.
	Registry prometheus.Registerer
	// Writer names this instance in the entries that it appends for silent agents.
	Writer string
	// Version of the program.
	Version string
}

type intake struct {
	options Options
	metrics *metrics
	pace    pace
	started time.Time
	// complaints limits how many refusals are logged.
	complaints rate.Sometimes

	mu    sync.Mutex
	nodes map[string]*node
	swept time.Time
}

// node is what an intake remembers of one: how much it says, and when it was last heard.
type node struct {
	words *rate.Limiter
	heard time.Time
	used  time.Time
}

// Run hears the agents and watches the deadlines of calls until ctx ends, and then returns nil. Other errors: the log's work
// ended with an error of journal.
func Run(ctx context.Context, options Options) error { return run(ctx, options, standard) }

func run(ctx context.Context, options Options, pace pace) error {
	i := &intake{
		options: options, metrics: newMetrics(options.Registry), pace: pace, started: time.Now(),
		complaints: rate.Sometimes{First: 10, Interval: 10 * time.Second}, nodes: map[string]*node{},
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return options.Journal.Hear(ctx, journal.Intake{Word: i.word, Alive: i.alive, Heard: i.heard, Credentials: i.credentials})
	})
	group.Go(func() error { return i.watch(ctx) })
	if err := group.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// of returns what is remembered of a node; the caller holds mu.
func (i *intake) of(name string) *node {
	now := time.Now()
	if now.Sub(i.swept) > forgetAfter {
		for name, n := range i.nodes {
			if now.Sub(n.used) > forgetAfter {
				delete(i.nodes, name)
			}
		}
		i.swept = now
	}
	n := i.nodes[name]
	if n == nil {
		n = &node{words: rate.NewLimiter(wordsPerSecond, wordsAtOnce)}
		i.nodes[name] = n
	}
	n.used = now
	return n
}

func (i *intake) heard(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.of(name).heard = time.Now()
}

func (i *intake) alive(ctx context.Context, name string) (uint64, error) {
	if err := i.options.Journal.Admit(ctx, name); err != nil {
		return 0, err
	}
	newest, err := i.options.Journal.LastOfNode(ctx, name)
	if err != nil && !errors.Is(err, journal.ErrUndecodable) {
		return 0, err
	}
	if newest == nil {
		return 0, nil
	}
	return newest.Sequence, nil
}

// allow says whether a node may say something now.
func (i *intake) allow(name string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.of(name).words.Allow() {
		return nil
	}
	i.metrics.words.WithLabelValues("busy").Inc()
	return fmt.Errorf("node %s says more than %d words a second", name, wordsPerSecond)
}

func (i *intake) complain(err error, name string) {
	i.complaints.Do(func() {
		i.options.Logger.Warn().Err(err).Str("node", name).Msg("refused what the agent of a node says; it may not be the agent")
	})
}

// credentials answers an agent that pulls.
func (i *intake) credentials(ctx context.Context, name string, request journal.CredentialsRequest) (journal.SealedCredentials, error) {
	if err := i.allow(name); err != nil {
		return journal.SealedCredentials{}, err
	}
	if i.options.Credentials == nil {
		return journal.SealedCredentials{}, refuse("nobody here reads Secrets")
	}
	answer, err := i.options.Credentials(ctx, name, request)
	switch {
	case err == nil:
		i.metrics.credentials.WithLabelValues("given").Inc()
	case errors.Is(err, journal.ErrRefused):
		i.metrics.credentials.WithLabelValues("refused").Inc()
		i.complain(err, name)
	default:
		i.metrics.credentials.WithLabelValues("failed").Inc()
		i.options.Logger.Warn().Err(err).Str("node", name).Msg("cannot answer an agent that asks for credentials; it will ask again")
	}
	return answer, err
}

// word judges and stores one word.
func (i *intake) word(ctx context.Context, name string, word *shiplogv1.Entry) (journal.Said, error) {
	if err := i.allow(name); err != nil {
		return journal.Said{}, err
	}
	said, err := i.take(ctx, name, word)
	switch {
	case err == nil:
		i.metrics.words.WithLabelValues("stored").Inc()
	case errors.Is(err, journal.ErrSettled):
		// The call was given up, or its outcome is told twice. The agent forgets it.
		i.metrics.words.WithLabelValues("late").Inc()
		err = fmt.Errorf("%w: %w", journal.ErrRefused, err)
	case errors.Is(err, journal.ErrRefused):
		i.metrics.words.WithLabelValues("refused").Inc()
		i.complain(err, name)
	default:
		i.metrics.words.WithLabelValues("failed").Inc()
		i.options.Logger.Debug().Err(err).Str("node", name).Msg("cannot store what an agent says; it will say it again")
	}
	return said, err
}

func refuse(why string, arguments ...any) error {
	return fmt.Errorf("%w: %s", journal.ErrRefused, fmt.Sprintf(why, arguments...))
}

func (i *intake) take(ctx context.Context, name string, word *shiplogv1.Entry) (journal.Said, error) {
	if err := checkWriter(word); err != nil {
		return journal.Said{}, err
	}
	if seen := word.GetNodeObserved(); seen != nil {
		return i.runtime(ctx, name, word)
	}
	if word.GetCause() == 0 {
		return journal.Said{}, refuse("it names no command")
	}
	record, err := i.options.Journal.At(ctx, word.GetCause())
	if errors.Is(err, journal.ErrUndecodable) || err == nil && (record == nil || record.Entry.GetCommand().GetNode() != name) {
		return journal.Said{}, refuse("entry %d is no command for node %s", word.GetCause(), name)
	}
	if err != nil {
		return journal.Said{}, err
	}
	own, err := wording(record.Entry, name, word)
	if err != nil {
		return journal.Said{}, err
	}
	return i.store(ctx, name, own)
}

// runtime stores what the runtime of a node has, unless the log says so already.
func (i *intake) runtime(ctx context.Context, name string, word *shiplogv1.Entry) (journal.Said, error) {
	seen := word.GetNodeObserved()
	if seen.GetNode() != name {
		return journal.Said{}, refuse("the fact is about node %q", seen.GetNode())
	}
	newest, err := i.options.Journal.LastOfNode(ctx, name)
	if err != nil && !errors.Is(err, journal.ErrUndecodable) {
		return journal.Said{}, err
	}
	if newest != nil && proto.Equal(newest.Entry.GetNodeObserved(), seen) {
		return journal.Said{Sequence: newest.Sequence}, nil
	}
	sequence, err := i.options.Journal.Append(ctx, &shiplogv1.Entry{
		Writer: word.GetWriter(), WriterVersion: word.GetWriterVersion(), Skippable: true, Kind: word.GetKind(),
	})
	if errors.Is(err, journal.ErrTooLarge) {
		return journal.Said{}, refuse("%v", err)
	}
	return journal.Said{Sequence: sequence}, err
}

// store stores a word about a call, once.
func (i *intake) store(ctx context.Context, name string, own *shiplogv1.Entry) (journal.Said, error) {
	before, outcome, err := i.options.Journal.LastOfCall(ctx, name, own.GetCause())
	if err != nil {
		return journal.Said{}, err
	}
	if outcome != nil {
		if proto.Equal(outcome.Entry, own) {
			return journal.Said{Sequence: outcome.Sequence}, nil
		}
		return journal.Said{}, fmt.Errorf("%w: by the entry at %d", journal.ErrSettled, outcome.Sequence)
	}
	var said journal.Said
	if before != nil && before.Entry.GetCallObserved().GetState() == shiplogv1.CallObserved_STATE_RUNNING {
		said.Begun = before.Entry.GetWriter()
	}
	if before != nil && proto.Equal(before.Entry, own) {
		said.Sequence = before.Sequence
		return said, nil
	}
	said.Sequence, err = i.options.Journal.AppendWord(ctx, own)
	return said, err
}
