// Package executor carries out the commands of the log: one command, one API write, one outcome. It takes commands as
// work, so several executors share them; preconditions and "already so" make an effect happen once although a command may
// be handed out again. It reads the objects that it writes and nothing else. It decides nothing: what the API server or a
// precondition refuses goes back to the log, and the planner looks again.
package executor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/linger"
	"shiplog.dev/services/executor/credentials"
	"shiplog.dev/services/executor/identity"
	"shiplog.dev/services/executor/intake"
	"shiplog.dev/services/executor/kubeevent"
)

const (
	// workName is shared by all executors of a cluster, so each command goes to one of them.
	workName = "executor"
	// maxHeld is how many commands are held at once: under way, waiting for their object's turn, or backing off.
	maxHeld = 1024
	// appendWithin bounds how long an outcome is offered to a log that does not take it. After that the command starts
	// again, and finds its effect there.
	appendWithin = 30 * time.Second
)

// Options of Run. All but Registry, Version, Agents and Clock are required.
type Options struct {
	Config  *rest.Config
	Journal journal.Journal
	Logger  zerolog.Logger
	// Registry takes the metrics; nil: none.
	Registry prometheus.Registerer
	// Writer names this instance in the entries that it appends, for example "executor/host-1".
	Writer string
	// Version of the program.
	Version string
	// Agents says how the agents of nodes are known.
	Agents identity.Options
	// Clock by which commands are given up and tried again; nil: the machine's.
	Clock Clock
}

type executor struct {
	options Options
	client  *client
	metrics *metrics
	present *present
	// outcomes that come within a moment enter the log together.
	outcomes *linger.Linger
	patience
}

// Run carries out commands, writes Kubernetes Events about them, and takes what node agents say, until ctx ends, and then returns nil. Commands that were
// under way are handed out again. Other errors: the connection to the API server cannot be set up, or the log's work ended with
// an error of journal.
func Run(ctx context.Context, options Options) error {
	e, err := newExecutor(options)
	if err != nil {
		return err
	}
	options.Agents.Config, options.Agents.Registry = options.Config, options.Registry
	agents, err := identity.New(options.Agents)
	if err != nil {
		return err
	}
	secrets, err := kubernetes.NewForConfig(options.Config)
	if err != nil {
		return fmt.Errorf("set up the reading of pull secrets: %w", err)
	}
	clerk := credentials.New(secrets, options.Journal)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return e.run(ctx) })
	group.Go(func() error { return options.Journal.Identify(ctx, agents.Identify) })
	group.Go(func() error {
		return kubeevent.Run(ctx, kubeevent.Options{
			Config: options.Config, Journal: options.Journal, Logger: options.Logger, Registry: options.Registry, Writer: options.Writer,
			Pressed: e.client.limiter.pressed,
		})
	})
	group.Go(func() error {
		return intake.Run(ctx, intake.Options{
			Journal: options.Journal, Credentials: clerk.Answer, Logger: options.Logger, Registry: options.Registry, Writer: options.Writer,
			Version: options.Version,
		})
	})
	return group.Wait()
}

// Carry carries out one command in the caller's goroutine, as Run does with each in one of its own: for a simulation, which
// hands out commands in an order of its choosing. Whether it ended before there was an outcome shows in the log.
func Carry(ctx context.Context, options Options, task *journal.Task) error {
	e, err := newExecutor(options)
	if err != nil {
		return err
	}
	if e.finish(ctx, task) {
		e.letGo(ctx, task)
	}
	return nil
}

func newExecutor(options Options) (*executor, error) {
	metrics := newMetrics(options.Registry)
	client, err := newClient(options.Config, newLimiter(metrics.limit.Set))
	if err != nil {
		return nil, fmt.Errorf("set up the executor's connection to the API server: %w", err)
	}
	e := &executor{options: options, client: client, metrics: metrics, present: newPresent(), outcomes: linger.New(linger.Moment), patience: standard}
	e.clock = options.Clock
	return e, nil
}

func (e *executor) run(ctx context.Context) error {
	work, err := e.options.Journal.Commands(ctx, workName)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("take commands from the log: %w", err)
	}
	defer work.Close()

	turns := newTurns()
	held := make(chan struct{}, maxHeld)
	var under sync.WaitGroup
	defer under.Wait()
	retry := e.backoff()
	for {
		select {
		case held <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		task, err := work.Next(ctx)
		if err != nil {
			<-held
			switch {
			case ctx.Err() != nil:
				return nil
			case !errors.Is(err, journal.ErrUnavailable):
				return fmt.Errorf("take a command from the log: %w", err)
			}
			e.options.Logger.Warn().Err(err).Msg("the log hands out no commands; trying again")
			if retry.wait(ctx, 0) != nil {
				return nil
			}
			continue
		}
		retry = e.backoff()
		turn := turnOf(turns, task.Entry.GetCommand())
		under.Go(func() {
			defer func() { <-held }()
			finished := turn.await(ctx) && e.finish(ctx, task)
			turn.done() // who waits for the outcome need not wait until the log lets go of the command
			if finished {
				e.letGo(ctx, task)
			}
		})
	}
}

// finish carries out the command until its outcome is in the log, and says whether it is; else ctx has ended. A command that is held is
// handed to nobody else, so it cannot be let go of before that. Each time round it is treated as one handed out again.
func (e *executor) finish(ctx context.Context, task *journal.Task) bool {
	for retry := e.backoff(); ; task.Again = true {
		err := e.settle(ctx, task)
		if ctx.Err() != nil {
			return false
		}
		if err == nil {
			return true
		}
		e.about(task).Error().Err(err).Msg("the log does not hold the command's outcome yet; trying again")
		if retry.wait(ctx, 0) != nil {
			return false
		}
	}
}

// letGo tells the log that the command, whose outcome it holds, is done.
func (e *executor) letGo(ctx context.Context, task *journal.Task) {
	if err := task.Done(ctx); err != nil && ctx.Err() == nil {
		e.about(task).Warn().Err(err).Msg("cannot tell the log that the command is done; its outcome stands")
	}
}

func (e *executor) about(task *journal.Task) *zerolog.Logger {
	log := e.options.Logger.With().Uint64("command", task.Sequence).Str("object", key(task.Entry.GetCommand().GetObject())).Logger()
	return &log
}

// settle executes the command unless its outcome is in the log, and puts the outcome there. The error is that of the log.
func (e *executor) settle(ctx context.Context, task *journal.Task) error {
	if task.Again {
		if known, err := e.known(ctx, task); known || err != nil {
			return err
		}
	}
	entries, err := e.execute(ctx, task)
	if err != nil || entries == nil {
		return errors.Join(err, ctx.Err())
	}
	return e.record(ctx, entries)
}

// known says whether the log holds an outcome of this command or of a later one for the same object.
func (e *executor) known(ctx context.Context, task *journal.Task) (bool, error) {
	last, err := e.options.Journal.LastOutcome(ctx, task.Entry.GetCommand().GetObject())
	if err != nil {
		return false, fmt.Errorf("read the last outcome: %w", err)
	}
	return last != nil && last.Entry.GetCause() >= task.Sequence, nil
}

// record appends the entries, and tries again while the log cannot take them.
func (e *executor) record(ctx context.Context, entries []*shiplogv1.Entry) error {
	ctx, cancel := context.WithTimeout(ctx, appendWithin)
	defer cancel()
	for retry := e.backoff(); ; {
		if err := e.outcomes.Await(ctx); err != nil {
			return fmt.Errorf("wait a moment to append the outcome: %w", err)
		}
		_, err := e.options.Journal.Append(ctx, entries...)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, journal.ErrTooLarge) && len(entries) > 1:
			entries = entries[len(entries)-1:] // the outcome without the fact
		case errors.Is(err, journal.ErrTooLarge), ctx.Err() != nil:
			return fmt.Errorf("append the outcome: %w", err)
		default:
			if retry.wait(ctx, 0) != nil {
				return fmt.Errorf("append the outcome: %w", err)
			}
		}
	}
}

func turnOf(turns *turns, command *shiplogv1.Command) *turn {
	if needed := command.GetNeeds(); needed != nil {
		return turns.take(key(command.GetObject()), key(needed))
	}
	return turns.take(key(command.GetObject()))
}

func key(ref *shiplogv1.ObjectRef) string {
	return ref.GetGroup() + "/" + ref.GetResource() + "/" + ref.GetNamespace() + "/" + ref.GetName()
}
