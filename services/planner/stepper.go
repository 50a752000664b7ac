package planner

import (
	"context"
	"time"

	"shiplog.dev/internal/world"
)

// Stepper is a planner that its caller drives, for a simulation: the caller reads the log for it, says when nobody else
// leads, and lets it decide. Run is the same, driven by the log, by silence and by goroutines.
type Stepper struct{ p *planner }

// NewStepper returns a planner that has read nothing yet and paces itself by the given clock. Its caller will read a log that
// begins with a compacted view at the given position; 0: with none.
func NewStepper(options Options, now func() time.Time, compacted uint64) *Stepper {
	p := newPlanner(options)
	p.now = now
	p.toldBefore = compacted
	return &Stepper{p}
}

// Fold takes the next entries.
func (s *Stepper) Fold(batch []world.Change) { s.p.fold(batch) }

// Lead raises a fence, unless this planner believes that it leads already.
func (s *Stepper) Lead(ctx context.Context) { s.p.lead(ctx) }

// Leads says whether this planner believes that it leads.
func (s *Stepper) Leads() bool { return s.p.fence != 0 }

// Decide decides on what changed and appends the commands.
func (s *Stepper) Decide(ctx context.Context) error { return s.p.decide(ctx) }

// Tell appends the rollout events that are owed.
func (s *Stepper) Tell(ctx context.Context) error { return s.p.tell(ctx, false) }

// MayCompact says whether a compacted view may be made now, and which entries it must hold.
func (s *Stepper) MayCompact() (live []uint64, may bool) { return s.p.live(), s.p.allTold() }

// World is what the planner has folded. The caller must not fold into it.
func (s *Stepper) World() *world.World { return s.p.world }
