// Package planner is the loop around the pure core: it reads entries, folds them into a world, lets the rules decide, and
// appends their commands under its fence. It decides nothing itself and writes nothing but the log. One goroutine folds and
// decides; a standby folds the same entries and only lacks the fence.
package planner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/readahead"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
	"shiplog.dev/services/planner/rollout"
	"shiplog.dev/services/planner/rules"
)

const (
	// patience is how long a standby hears nothing of a leader before it raises its own fence.
	patience = 1500 * time.Millisecond
	// decideShare bounds the time spent on deciding for one workload to 1/decideShare of the time that passes, so that a
	// large workload is decided on in larger steps rather than more often.
	decideShare = 40
	// longestPace is how long a workload waits at most for the sake of decideShare. One of 10,000 Pods, whose decisions take some 10 ms, waits for
	// less than that.
	longestPace = 500 * time.Millisecond
	// retryFence is the pause before another fence is raised after the log did not answer.
	retryFence = time.Second
)

// Options of a planner.
type Options struct {
	Journal  journal.Journal
	Logger   zerolog.Logger
	Registry prometheus.Registerer
	// Writer names this instance in entries, Version its program.
	Writer, Version string
	// Gates are the feature gates that rules obey while this planner leads, by name. They stand in its fence.
	Gates map[string]bool
	// Settings are numbers that the operator chose for the rules, by name. They stand in its fence too.
	Settings map[string]int64
	// CompactAfter is how many entries may follow the compacted view before it is made anew; 0: as many as the log's limits
	// allow, at most 20,000.
	CompactAfter uint64
	// Ready is called once everything that was in the log at the start is folded; nil: nobody asks.
	Ready func()
}

// Run plans until ctx ends, which is no error. It returns an error when the log holds what cannot be folded or has lost
// entries that were not read: the caller must stop and say so.
func Run(ctx context.Context, options Options) error {
	p := newPlanner(options)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	state, err := p.Journal.State(ctx)
	if err != nil {
		return fmt.Errorf("plan: ask for the state of the log: %w", err)
	}
	p.caughtUp = state.LastSequence
	p.planCompaction(state)
	seals := time.NewTicker(sealWithin)
	defer seals.Stop()
	compactions := time.NewTicker(p.compactEvery)
	defer compactions.Stop()
	changes, failed, err := p.read(ctx)
	if err != nil {
		return fmt.Errorf("plan: %w", err)
	}
	var vacant <-chan struct{} // nil while we lead: that we do no more stands in the log
	for {
		if p.fence == 0 && vacant == nil {
			vacant = p.awaitVacancy(ctx)
		}
		select {
		case <-ctx.Done():
			p.sealAtEnd()
			p.compactAtEnd()
			return nil
		case err := <-failed:
			if ctx.Err() != nil {
				continue
			}
			return fmt.Errorf("plan: %w", err)
		case batch := <-changes:
			p.fold(batch)
		case <-vacant:
			vacant = nil
			p.lead(ctx)
		case <-compactions.C:
			p.compactionDue = true
		case <-seals.C:
			p.sealDue = true
		case <-p.pace.wait():
		}
		if err := p.decide(ctx); err != nil {
			return fmt.Errorf("plan: %w", err)
		}
		if err := p.tell(ctx, len(changes) > 0); err != nil {
			return fmt.Errorf("plan: %w", err)
		}
		if err := p.seal(ctx); err != nil {
			return fmt.Errorf("plan: %w", err)
		}
		p.compact(ctx)
	}
}

func newPlanner(options Options) *planner {
	return &planner{
		Options: options, now: time.Now, world: world.New(), metrics: newMetrics(options.Registry),
		telling: telling{tracker: rollout.New()},
		dirty:   map[world.Ref]bool{}, awaitsVouch: map[world.Ref]bool{}, folded: map[world.Ref]uint64{}, notBefore: map[world.Ref]time.Time{},
	}
}

type planner struct {
	Options
	now     func() time.Time // paces decisions; nothing that is decided depends on it
	world   *world.World
	metrics metrics

	// fence is ours while we lead; 0: we do not.
	fence       uint64
	stopLeading context.CancelFunc

	dirty       map[world.Ref]bool
	awaitsVouch map[world.Ref]bool
	// folded is the position that must be folded before a workload is decided on again: that of its last command.
	folded map[world.Ref]uint64
	// notBefore and pace space the decisions on one workload.
	notBefore map[world.Ref]time.Time
	pace      alarm
	// index counts the commands given at position cause.
	cause uint64
	index uint32

	// caughtUp is the position at which Ready is called.
	caughtUp uint64

	telling
	compaction
	sealing
}

// read decodes entries ahead of the loop, beginning with the compacted view.
func (p *planner) read(ctx context.Context) (<-chan []world.Change, <-chan error, error) {
	reader, err := p.Journal.Read(ctx, journal.From{Compacted: true})
	if err != nil {
		return nil, nil, err
	}
	p.toldBefore, p.sealedUpTo = reader.Compacted(), reader.Compacted()
	changes, failed := make(chan []world.Change, 4), make(chan error, 1)
	go func() {
		defer reader.Close()
		for {
			records, err := reader.Next(ctx)
			if err != nil {
				failed <- err
				return
			}
			batch, err := readahead.Decode(records)
			if err != nil {
				failed <- fmt.Errorf("%w: %w", journal.ErrUndecodable, err)
				return
			}
			select {
			case changes <- batch:
			case <-ctx.Done():
				failed <- ctx.Err()
				return
			}
		}
	}()
	return changes, failed, nil
}

// awaitVacancy returns a channel that is closed when nobody leads.
func (p *planner) awaitVacancy(ctx context.Context) <-chan struct{} {
	vacant := make(chan struct{})
	go func() {
		for {
			err := p.Journal.AwaitVacancy(ctx, patience)
			switch {
			case ctx.Err() != nil:
				return
			case err == nil:
				close(vacant)
				return
			}
			p.Logger.Warn().Err(err).Msg("cannot hear whether another planner leads")
			select {
			case <-ctx.Done():
			case <-time.After(retryFence):
			}
		}
	}()
	return vacant
}

// lead raises a fence, unless we lead already.
func (p *planner) lead(ctx context.Context) {
	if p.fence != 0 {
		return
	}
	fence, err := p.Journal.RaiseFence(ctx, p.Writer, p.Version, &shiplogv1.FenceRaised{Gates: p.Gates, Settings: p.Settings})
	if err != nil {
		p.Logger.Warn().Err(err).Msg("cannot raise the fence, trying again")
		return
	}
	p.fence = fence
	leading, stop := context.WithCancel(ctx)
	p.stopLeading = stop
	p.Journal.Lead(leading, p.Writer)
	for _, ref := range p.world.Workloads() {
		p.dirty[ref] = true
	}
	p.metrics.lead(true)
	p.Logger.Info().Uint64("fence", fence).Msg("leading")
}

// follow gives up leading. What we appended may still come back from the log; a new fence will stand behind it.
func (p *planner) follow(why string) {
	p.Logger.Warn().Uint64("fence", p.fence).Msg("no longer leading: " + why)
	p.stopLeading()
	p.fence, p.awaited = 0, 0
	p.appended = 0
	clear(p.folded)
	p.metrics.lead(false)
}

func (p *planner) fold(batch []world.Change) {
	for _, change := range batch {
		p.chain(change)
		p.metrics.folded.WithLabelValues(history.TypeOf(change.Entry)).Inc()
		p.owe(p.tracker.Fold(p.world, change))
		if event := change.Entry.GetRolloutEvent(); event != nil {
			p.seeTold(change.Entry.GetCause(), event.GetIndex())
		}
		if _, vouched := change.Entry.GetKind().(*shiplogv1.Entry_Vouched); vouched {
			for ref := range p.awaitsVouch {
				p.dirty[ref] = true
			}
			clear(p.awaitsVouch)
		}
	}
	for _, ref := range p.world.Touched() {
		p.dirty[ref] = true
	}
	if p.Ready != nil && p.world.Sequence() >= p.caughtUp {
		p.Ready()
		p.Ready = nil
	}
	if len(batch) > 0 {
		p.metrics.lag.Observe(max(0, p.now().Sub(batch[len(batch)-1].Time).Seconds()))
	}
	p.metrics.position.Set(float64(p.world.Sequence()))
	if fence := p.world.Fence(); p.fence != 0 && fence > p.fence {
		p.metrics.fenceChanges.Inc()
		p.follow(fmt.Sprintf("another planner raised fence %d", fence))
	}
}

// decide lets the rules look at every workload that changed, and appends what they answer.
func (p *planner) decide(ctx context.Context) error {
	if p.fence == 0 || p.world.Fence() != p.fence {
		return nil
	}
	var answers []answer
	written := map[world.Ref]bool{}
	for _, ref := range p.due(p.now()) {
		began := p.now()
		decision := decideOn(p.world, ref)
		took := p.now().Sub(began)
		p.metrics.decide.Observe(took.Seconds())
		delete(p.dirty, ref)
		p.notBefore[ref] = began.Add(min(decideShare*took, longestPace))
		if decision.AwaitsVouch {
			p.awaitsVouch[ref] = true
		}
		if len(decision.Commands) == 0 {
			continue
		}
		if slices.ContainsFunc(decision.Commands, func(c *shiplogv1.Command) bool { return writes(c) && written[world.RefOf(c.GetObject())] }) {
			p.dirty[ref] = true // another workload writes the same object: this one decides again once that is folded
			continue
		}
		for _, command := range decision.Commands {
			if writes(command) {
				written[world.RefOf(command.GetObject())] = true
			}
		}
		commands := make([]*shiplogv1.Entry, len(decision.Commands))
		for i, command := range decision.Commands {
			commands[i] = p.entry(decision.Rollout, command)
		}
		answers = append(answers, answer{ref, commands})
	}
	return p.append(ctx, answers)
}

// writes says whether a command writes an object of the API server.
func writes(command *shiplogv1.Command) bool {
	return command.GetNode() == "" && command.GetWakeAt() == nil
}

// answer is what the rules of one workload answered.
type answer struct {
	workload world.Ref
	commands []*shiplogv1.Entry
}

// due returns the workloads to decide on now, in order, and sets the alarm for those that must wait.
func (p *planner) due(now time.Time) []world.Ref {
	var out []world.Ref
	p.pace.clear()
	for _, ref := range slices.SortedFunc(maps.Keys(p.dirty), world.CompareRefs) {
		if p.world.Sequence() < p.folded[ref] || !p.world.Trusted(ref) {
			continue // its last commands are not folded back yet, or the facts are not vouched for; folding that wakes us
		}
		delete(p.folded, ref)
		if at, paced := p.notBefore[ref]; paced && at.After(now) {
			p.pace.at(at)
			continue
		}
		delete(p.notBefore, ref)
		out = append(out, ref)
	}
	return out
}

// decideOn lets the rules answer, and names the workload and the position should they break.
func decideOn(w *world.World, ref world.Ref) decide.Decision {
	defer func() {
		if broken := recover(); broken != nil {
			panic(fmt.Sprintf("planner: deciding on %s at position %d: %v", ref, w.Sequence(), broken))
		}
	}()
	return rules.Decide(w, ref)
}

func (p *planner) entry(rollout string, command *shiplogv1.Command) *shiplogv1.Entry {
	if p.cause != p.world.Sequence() {
		p.cause, p.index = p.world.Sequence(), 0
	}
	command.Index = p.index
	p.index++
	p.metrics.commands.WithLabelValues(command.GetReason().GetCode()).Inc()
	return &shiplogv1.Entry{
		Writer: p.Writer, WriterVersion: p.Version, Cause: p.cause, Rollout: rollout,
		Kind: &shiplogv1.Entry_Command{Command: command},
	}
}

// append stores answers in as few batches as the log takes. A part that is stored is harmless: the rest is decided again.
func (p *planner) append(ctx context.Context, answers []answer) error {
	for len(answers) > 0 {
		// As many whole answers as fit; one that does not fit alone goes in parts.
		batch, n := answers[0].commands, 1
		for n < len(answers) && len(batch)+len(answers[n].commands) <= journal.MaxCommands {
			batch = append(batch[:len(batch):len(batch)], answers[n].commands...)
			n++
		}
		var last uint64
		var err error
		for len(batch) > 0 && err == nil {
			part := batch[:min(len(batch), journal.MaxCommands)]
			batch = batch[len(part):]
			last, err = p.Journal.AppendCommands(ctx, p.fence, part...)
		}
		switch {
		case errors.Is(err, journal.ErrTooLarge) && n > 1:
			for _, one := range answers[:n] {
				if err := p.append(ctx, []answer{one}); err != nil {
					return err
				}
			}
		case errors.Is(err, journal.ErrTooLarge):
			// One workload's trouble; it is looked at again when it changes.
			p.Logger.Error().Err(err).Stringer("workload", answers[0].workload).Msg("a command does not fit into the log; make the object smaller")
		case err != nil:
			for _, one := range answers {
				p.dirty[one.workload] = true
			}
			return p.appendFailed(ctx, err)
		default:
			for _, one := range answers[:n] {
				p.folded[one.workload] = last
			}
		}
		answers = answers[n:]
	}
	return nil
}

func (p *planner) appendFailed(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, journal.ErrFenced):
		p.metrics.fenceChanges.Inc()
		p.follow("fenced out")
		return nil
	case errors.Is(err, journal.ErrUnavailable), errors.Is(err, journal.ErrFull):
		// Whether the commands are in the log is unknown. A new fence settles it: once it is folded, so are they.
		p.follow(err.Error())
		return nil
	}
	return fmt.Errorf("append commands: %w", err)
}
