package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/world"
)

const (
	// settleWithin bounds the virtual time from the last edit or fault until everything is as the specs say.
	settleWithin = 20 * time.Minute
	// quietFor is how long before the end of that nothing may be commanded any more.
	quietFor = 5 * time.Minute
	// maxSteps bounds a run, should virtual time not move.
	maxSteps = 400_000
)

// Failure is what a check found.
type Failure struct {
	// Check names the check; shrinking keeps to failures of the same check.
	Check, Message string
}

// Result of one run.
type Result struct {
	Seed     uint64
	Steps    int
	Entries  int
	Commands int
	Took     time.Duration // virtual
	Failure  *Failure
	Trace    []string
}

// simulation is one run.
type simulation struct {
	rand *rand.Rand
	now  time.Time
	// clockOff is by how much the log's clock is off; due are the ticks that it owes.
	clockOff time.Duration
	due      []time.Time
	events   events
	steps    int
	tracing  bool
	trace    []string
	failure  *Failure

	log       *journal.Memory
	tap       journal.Reader
	api       *api
	watcher   *watcher
	planners  []*plannerProcess
	executors []*worker
	kubelets  *kubelets
	users     *users
	hooks     *hooks
	gates     map[string]bool
	faults    faults
	checks    *checks
}

// Run simulates the plan without the items dropped.
func Run(plan Plan, dropped map[int]bool, tracing bool) Result {
	s := &simulation{
		rand: rand.New(rand.NewPCG(plan.Seed, 1)), now: time.Date(2026, 1, 15, 8, 0, 0, 0, time.UTC), tracing: tracing,
	}
	began := s.now
	s.log = journal.NewMemory(s.logTime)
	s.api, s.checks, s.users = newAPI(s), newChecks(s), &users{s: s}
	s.watcher, s.kubelets, s.hooks, s.gates = newWatcher(s), newKubelets(s), newHooks(s), plan.Gates
	tap, err := s.log.Read(context.Background(), journal.From{Sequence: 1})
	if err != nil {
		panic(err) // a log in memory that was just made
	}
	s.tap = tap
	for _, name := range []string{"planner/a", "planner/b"} {
		s.planners = append(s.planners, newPlannerProcess(s, name))
	}
	for _, name := range []string{"executor/a", "executor/b"} {
		s.executors = append(s.executors, newWorker(s, name))
	}
	s.kubelets.begin()
	s.watcher.begin()
	s.lead()
	for i, item := range plan.Items {
		if !dropped[i] {
			s.after(item.At, func() {
				s.tell("plan", "%d: %s", i, item.What)
				item.do(s, rand.New(rand.NewPCG(plan.Seed, uint64(i)+100)))
			})
		}
	}
	s.after(plan.Until, s.heal)
	s.run(began.Add(plan.Until + settleWithin))
	if s.failure == nil {
		s.checks.settled()
	}
	if s.failure == nil {
		s.checks.replays()
	}
	return Result{
		Seed: plan.Seed, Steps: s.steps, Entries: len(s.checks.records), Commands: len(s.checks.commands),
		Took: s.now.Sub(began), Failure: s.failure, Trace: s.trace,
	}
}

func (s *simulation) run(until time.Time) {
	for s.failure == nil {
		at, due := s.events.next()
		if !due || at.After(until) {
			s.now = until
			return
		}
		if s.steps++; s.steps > maxSteps {
			s.fail("livelock", "%d steps without an end", maxSteps)
			return
		}
		s.now = at
		s.events.pop()()
	}
}

// heal ends all faults; what is wrong then must come right by itself.
func (s *simulation) heal() {
	s.tell("plan", "all faults end")
	s.faults = faults{}
	s.log.SetDown(false)
	s.setClock(0)
	s.kubelets.heal()
	s.hooks.stopped = time.Time{}
	s.watcher.heal()
	for _, w := range s.executors {
		w.start()
	}
	for _, p := range s.planners {
		p.start(true)
		p.heldUntil = time.Time{}
		p.wake()
	}
	s.users.heal()
}

// lead lets a planner that hears of no leader raise its fence, for ever.
func (s *simulation) lead() {
	s.after(s.between(1500*time.Millisecond, 3*time.Second), s.lead)
	var alive []*plannerProcess
	for _, p := range s.planners {
		if !p.alive {
			continue
		}
		if p.stepper.Leads() {
			return
		}
		alive = append(alive, p)
	}
	if len(alive) > 0 {
		alive[s.rand.IntN(len(alive))].lead()
	}
}

func (s *simulation) fail(check, format string, args ...any) {
	if s.failure == nil {
		s.failure = &Failure{check, fmt.Sprintf(format, args...)}
		s.tell("FAILED", "%s: %s", check, s.failure.Message)
	}
}

// tell adds a line to the trace.
func (s *simulation) tell(who, format string, args ...any) {
	if s.tracing {
		s.trace = append(s.trace, fmt.Sprintf("%s %-11s %s", s.now.Format("15:04:05.000"), who, fmt.Sprintf(format, args...)))
	}
}

// logChanged reads what is new in the log and wakes who reads it.
func (s *simulation) logChanged() {
	records := readAll(s.tap)
	if len(records) == 0 {
		return
	}
	for _, record := range records {
		s.checks.entry(record)
	}
	s.watcher.logMoved()
	for _, p := range s.planners {
		p.wake()
	}
	for _, w := range s.executors {
		w.wake()
	}
}

// cloneSets returns the truth of all CloneSets, by name.
func (s *simulation) cloneSets() []*object {
	return s.api.list(func(ref world.Ref) bool { return ref.Resource == world.ResourceCloneSets })
}

// podsOf returns the truth of the Pods of an owner, by name.
func (s *simulation) podsOf(uid string) []*object {
	pods := s.api.list(func(ref world.Ref) bool { return ref.Resource == world.ResourcePods })
	return slices.DeleteFunc(pods, func(o *object) bool { return o.pod.owner != uid })
}
