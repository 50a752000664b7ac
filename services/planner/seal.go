package planner

import (
	"context"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/seal"
)

const (
	// sealAfter is how many entries are sealed together, sealWithin how long fewer of them wait for it.
	sealAfter  = 4096
	sealWithin = time.Minute
	// sealMost bounds what is collected while nobody leads; what is older then stays without a seal.
	sealMost = 1 << 20
)

// sealing is what this planner has folded and no seal covers yet. Every planner collects it, the leader seals it, so that the
// chain goes on when another one leads.
type sealing struct {
	unsealed seal.Chain
	// sealed is the newest seal, at sealedAt; nil: there is none whose range ends where this planner began to read, or later.
	sealed   *shiplogv1.Sealed
	sealedAt uint64
	// sealedUpTo is where what is collected begins.
	sealedUpTo uint64
	// worth: something is unsealed but seals, and vouches, which follow what else there is: else an idle log would not be idle.
	worth   bool
	sealDue bool
	// awaited is the seal of ours that we have not read back, by where it ends; 0: none.
	awaited uint64
}

// chain takes the next entry.
func (s *sealing) chain(change world.Change) {
	sealed := change.Entry.GetSealed()
	if sealed != nil && sealed.GetUpTo() >= s.sealedUpTo {
		s.unsealed.Forget(sealed.GetUpTo())
		s.sealed, s.sealedAt, s.sealedUpTo = sealed, change.Sequence, sealed.GetUpTo()
		s.worth = s.unsealed.Len() > 0
		s.awaited = 0
	}
	if s.unsealed.Len() >= sealMost {
		*s = sealing{sealedUpTo: s.unsealed.Last()}
	}
	if change.Sequence > s.sealedUpTo {
		s.unsealed.Add(journal.Record{Sequence: change.Sequence, Time: change.Time, Entry: change.Entry})
		s.worth = s.worth || sealed == nil && change.Entry.GetVouched() == nil
	}
}

// seal appends a seal over what no other covers, if we lead and it is time. An idle log gets none.
func (p *planner) seal(ctx context.Context) error {
	if p.fence == 0 || p.world.Fence() != p.fence || !p.worth || p.awaited != 0 || p.unsealed.Len() < sealAfter && !p.sealDue {
		return nil
	}
	p.sealDue = false
	upTo := p.unsealed.Last()
	digest, entries := p.unsealed.Sum(p.sealed, p.sealedUpTo, upTo)
	_, err := p.Journal.AppendSeal(ctx, p.fence, &shiplogv1.Entry{
		Writer: p.Writer, WriterVersion: p.Version, Cause: upTo, Skippable: true,
		Kind: &shiplogv1.Entry_Sealed{Sealed: &shiplogv1.Sealed{After: p.sealedUpTo, UpTo: upTo, Entries: entries, Digest: digest, Previous: p.sealedAt}},
	})
	if err != nil {
		return p.appendFailed(ctx, err)
	}
	p.awaited = upTo
	return nil
}

// sealAtEnd leaves a log behind that is sealed but for its last seal. That it cannot be is no failure: the next leader goes on.
func (p *planner) sealAtEnd() {
	ctx, cancel := context.WithTimeout(context.Background(), endBound)
	defer cancel()
	p.sealDue = true
	if err := p.seal(ctx); err != nil {
		p.Logger.Warn().Err(err).Msg("cannot seal the log")
	}
}
