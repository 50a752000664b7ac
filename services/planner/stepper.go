package planner

import (
	"context"
	"time"

	"shiplog.dev/internal/world"
)

// Stepper is a planner that its caller drives, for a simulation: the caller reads the log for it, says when nobody else
// leads, and lets it decide. Run is the same, driven by the log, by silence and by goroutines.
type Stepper struct{ p *planner }

// NewStepper returns a planner that has read nothing yet and paces itself by the given clock.
func NewStepper(options Options, now func() time.Time) *Stepper {
	p := newPlanner(options)
	p.now = now
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

// World is what the planner has folded. The caller must not fold into it.
func (s *Stepper) World() *world.World { return s.p.world }
