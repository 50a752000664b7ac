package sim

import (
	"context"
	"time"

	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner"
)

// plannerProcess is one planner: the real loop, reading and deciding when the simulation says.
type plannerProcess struct {
	s         *simulation
	name      string
	stepper   *planner.Stepper
	reader    journal.Reader
	ahead     []world.Change // read and not folded
	alive     bool
	awake     bool // a turn is planned
	heldUntil time.Time
}

func newPlannerProcess(s *simulation, name string) *plannerProcess {
	p := &plannerProcess{s: s, name: name}
	p.start(false)
	return p
}

// start begins anew, from the compacted view where there is one and it is asked for. It does nothing to one that runs.
func (p *plannerProcess) start(compacted bool) {
	if p.alive {
		return
	}
	reader, err := p.s.log.Read(context.Background(), journal.From{Compacted: compacted, Sequence: 1})
	if err != nil {
		p.s.after(time.Second, func() { p.start(compacted) })
		return
	}
	p.s.tell(p.name, "starts")
	p.reader, p.ahead, p.alive = reader, nil, true
	p.stepper = planner.NewStepper(planner.Options{Journal: plannerLog{p.s.log, p.s}, Writer: p.name, Gates: p.s.gates}, p.s.Now, reader.Compacted())
	p.wake()
}

func (p *plannerProcess) crash() {
	if p.alive {
		p.s.tell(p.name, "crashes")
		p.alive = false
		p.reader.Close()
	}
}

func (p *plannerProcess) lead() {
	p.stepper.Lead(context.Background())
	if p.stepper.Leads() {
		p.s.tell(p.name, "leads")
	}
}

// wake plans a turn.
func (p *plannerProcess) wake() {
	if p.awake || !p.alive {
		return
	}
	p.awake = true
	pause := p.s.between(time.Millisecond, 20*time.Millisecond)
	if held := p.heldUntil.Sub(p.s.now); held > 0 {
		pause += held
	}
	p.s.after(pause, func() {
		p.awake = false
		switch {
		case p.heldUntil.After(p.s.now):
			p.wake()
		case p.alive:
			p.turn()
		}
	})
}

// turn folds what is at hand, or a part of it, and decides.
func (p *plannerProcess) turn() {
	defer func() {
		if broken := recover(); broken != nil {
			p.s.fail("panic", "%s: %v", p.name, broken)
		}
	}()
	for _, record := range readAll(p.reader) {
		change, err := world.Decode(record.Sequence, record.Time, record.Entry)
		if err != nil {
			p.s.fail("decode", "%v", err)
			return
		}
		p.ahead = append(p.ahead, change)
	}
	n := len(p.ahead)
	if n > 1 && p.s.chance(0.3) {
		n = 1 + p.s.rand.IntN(n)
	}
	p.stepper.Fold(p.ahead[:n])
	p.ahead = p.ahead[n:]
	if err := p.stepper.Decide(context.Background()); err != nil {
		p.s.fail("decide", "%s: %v", p.name, err)
		return
	}
	// Events wait while there is more to fold, and a crash may come first.
	if p.s.chance(0.7) || len(p.ahead) == 0 {
		if err := p.stepper.Tell(context.Background()); err != nil {
			p.s.fail("tell", "%s: %v", p.name, err)
			return
		}
	}
	if len(p.ahead) > 0 {
		p.wake()
	}
}

// compact makes the compacted view as of what a leading planner has folded.
func (s *simulation) compact() {
	for _, p := range s.planners {
		if !p.alive || !p.stepper.Leads() || p.stepper.World().Sequence() == 0 {
			continue
		}
		sequences, may := p.stepper.MayCompact()
		if !may {
			continue
		}
		live := map[uint64]bool{}
		for _, sequence := range sequences {
			live[sequence] = true
		}
		err := s.log.Compact(context.Background(), p.stepper.World().Sequence(), func(sequence uint64) bool { return live[sequence] })
		s.tell(p.name, "compacts at %d: %s", p.stepper.World().Sequence(), orDone(err))
	}
}

func orDone(err error) string {
	if err != nil {
		return err.Error()
	}
	return "done"
}
