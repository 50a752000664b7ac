// Package longlog writes long logs, for measuring what reads them. The planner of a long log is the real one, with the real rules, so a
// replay proves every command of it; executor, API server and kubelets are a few lines that write the facts which those of a
// real cluster write. What is in a log follows from a seed; only the log's own times do not.
package longlog

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner"
)

// Plan says what a log is to hold.
type Plan struct {
	Seed uint64
	// Entries is how many there are at the least; a decision that is under way is written to its end.
	Entries uint64
	// Workloads are spread over namespaces, with Pods for each. One more has Large Pods and is updated once, at the end; 0: there is none.
	Workloads, Pods, Large int
}

// Million is the log of the figures in docs/log.md.
var Million = Plan{Seed: 1, Entries: 1_000_000, Workloads: 40, Pods: 50, Large: 1000}

const (
	namespaces = 8
	// LargeNamespace and LargeName name the workload with many Pods.
	LargeNamespace, LargeName = "team-0", "large"
	// together is how many workloads are rolled out at a time.
	together = 6
	// patience is how many turns a rollout gets until its user takes it back.
	patience = 400
	// vouchEvery so many turns the facts are said to be complete.
	vouchEvery = 8
	writer     = "longlog"
)

// run is the making of one log.
type run struct {
	Plan
	ctx     context.Context
	rand    *rand.Rand
	log     journal.Journal
	reader  journal.Reader
	planner *planner.Stepper
	api     *api
	turn    int
	last    uint64
	pacing  time.Time // the planner's clock, which leaps so that it never waits
	due     map[int][]func() []*shiplogv1.Entry
	active  map[string]int // turn at which the rollout of a workload began
	failed  error
}

// Write writes a log into an empty journal. progress is told now and then how many entries there are.
func Write(ctx context.Context, log journal.Journal, plan Plan, progress func(entries uint64)) error {
	reader, err := log.Read(ctx, journal.From{})
	if err != nil {
		return err
	}
	defer reader.Close()
	r := &run{
		Plan: plan, ctx: ctx, rand: rand.New(rand.NewPCG(plan.Seed, 0)), log: log, reader: reader, pacing: time.Unix(0, 0),
		due: map[int][]func() []*shiplogv1.Entry{}, active: map[string]int{},
	}
	r.api = newAPI(r)
	r.planner = planner.NewStepper(planner.Options{Journal: quiet{log}, Writer: writer, Version: "v0.0.0"}, r.clock, 0)
	if err := r.begin(); err != nil {
		return err
	}
	for r.last < plan.Entries {
		if err := r.rollOut(); err != nil {
			return err
		}
		if r.turn%1000 == 0 {
			progress(r.last)
		}
	}
	return r.end()
}

// quiet keeps the planner from telling others that it leads: there are none.
type quiet struct{ journal.Journal }

func (quiet) Lead(context.Context, string) {}

func (r *run) clock() time.Time {
	r.pacing = r.pacing.Add(time.Second)
	return r.pacing
}

// begin makes the cluster and its workloads.
func (r *run) begin() error {
	entries := r.api.cluster()
	for i := range r.Workloads {
		entries = append(entries, r.api.createWorkload(fmt.Sprintf("team-%d", i%namespaces), fmt.Sprintf("web-%d", i), r.Pods))
	}
	if r.Large > 0 {
		entries = append(entries, r.api.createWorkload(LargeNamespace, LargeName, r.Large))
	}
	if err := r.append(entries); err != nil {
		return err
	}
	r.planner.Lead(r.ctx)
	if err := r.sync(); err != nil {
		return err
	}
	return r.until(func() bool { return !slices.ContainsFunc(r.api.workloads, r.api.unsettled) })
}

// rollOut keeps some rollouts going for one turn.
func (r *run) rollOut() error {
	var entries []*shiplogv1.Entry
	for _, w := range r.api.workloads {
		since, active := r.active[w.name]
		switch {
		case !active:
		case !r.api.unsettled(w):
			delete(r.active, w.name)
		case r.turn-since > patience:
			r.active[w.name] = r.turn
			entries = append(entries, r.api.rollBack(w))
		}
	}
	for len(r.active) < min(together, r.Workloads) {
		w := r.api.workloads[r.rand.IntN(r.Workloads)]
		if _, active := r.active[w.name]; active {
			continue
		}
		r.active[w.name] = r.turn
		entries = append(entries, r.api.edit(w)...)
	}
	return r.step(entries)
}

// end lets everything come to its end, and then updates the large workload.
func (r *run) end() error {
	settled := func() bool { return !slices.ContainsFunc(r.api.workloads, r.api.unsettled) }
	for _, w := range r.api.workloads {
		if w.bad {
			if err := r.step([]*shiplogv1.Entry{r.api.rollBack(w)}); err != nil {
				return err
			}
		}
	}
	if err := r.until(settled); err != nil {
		return err
	}
	if r.Large > 0 {
		if err := r.step([]*shiplogv1.Entry{r.api.newImage(r.api.workloads[r.Workloads])}); err != nil {
			return err
		}
		if err := r.until(settled); err != nil {
			return err
		}
	}
	return nil
}

// until takes turns until something holds.
func (r *run) until(holds func() bool) error {
	for began := r.turn; !holds(); {
		if r.turn-began > 100*patience {
			return fmt.Errorf("write a long log: after %d entries nothing goes on", r.last)
		}
		if err := r.step(nil); err != nil {
			return err
		}
	}
	return nil
}

// step appends entries and what is due at this turn, and lets the planner answer.
func (r *run) step(entries []*shiplogv1.Entry) error {
	r.turn++
	for _, do := range r.due[r.turn] {
		entries = append(entries, do()...)
	}
	delete(r.due, r.turn)
	if r.turn%vouchEvery == 0 {
		entries = append(entries, r.vouch())
	}
	if err := r.append(entries); err != nil {
		return err
	}
	return r.sync()
}

// later plans something for one of the next turns.
func (r *run) later(least, most int, do func() []*shiplogv1.Entry) {
	at := r.turn + least + r.rand.IntN(most-least+1)
	r.due[at] = append(r.due[at], do)
}

func (r *run) vouch() *shiplogv1.Entry {
	vouched := &shiplogv1.Vouched{Age: durationpb.New(5 * time.Millisecond)}
	for _, resource := range world.Watched {
		vouched.Complete = append(vouched.Complete, &shiplogv1.Completeness{Group: resource.Group, Resource: resource.Resource, ResourceVersion: fmt.Sprint(r.api.version)})
	}
	return &shiplogv1.Entry{Writer: writer, Kind: &shiplogv1.Entry_Vouched{Vouched: vouched}}
}

func (r *run) append(entries []*shiplogv1.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	_, err := r.log.Append(r.ctx, entries...)
	return err
}

// sync folds what the log holds, lets the planner decide, and hands its commands to the executor.
func (r *run) sync() error {
	for again := true; again; {
		state, err := r.log.State(r.ctx)
		if err != nil {
			return err
		}
		again = state.LastSequence > r.last
		for r.last < state.LastSequence {
			records, err := r.reader.Next(r.ctx)
			if err != nil {
				return err
			}
			var batch []world.Change
			for _, record := range records {
				change, err := world.Decode(record.Sequence, record.Time, record.Entry)
				if err != nil {
					return err
				}
				batch = append(batch, change)
				r.last = record.Sequence
				if command := record.Entry.GetCommand(); command != nil && command.GetWakeAt() == nil {
					r.later(1, 3, func() []*shiplogv1.Entry { return r.api.carryOut(record) })
				}
			}
			r.planner.Fold(batch)
		}
		if err := r.planner.Decide(r.ctx); err != nil {
			return err
		}
		if err := r.planner.Tell(r.ctx); err != nil {
			return err
		}
		if r.failed != nil {
			return r.failed
		}
	}
	return nil
}
