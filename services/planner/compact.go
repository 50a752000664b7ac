package planner

import (
	"context"
	"slices"
	"time"

	"shiplog.dev/internal/journal"
)

const (
	// mostAfter is how many entries follow a compacted view at most: what a start has to fold one by one.
	mostAfter = 20_000
	// leastAfter keeps a tiny log from being compacted all the time.
	leastAfter = 100
	// bytesPerEntry is more than an entry takes in the log by far. A view is made before a quarter of the log's room is
	// used, so that no entry which the world rests on is dropped before it is in a view.
	bytesPerEntry = 16 << 10
	// compactWithin is how long a moved log goes without a new view at most; an eighth of the retention, if that is less.
	compactWithin = time.Hour
	// worthIt is how many entries make a view at the end worth the while, and endBound how long that may take.
	worthIt  = 1000
	endBound = 5 * time.Second
)

// compaction is when the compacted view is made anew. Only the leader makes it.
type compaction struct {
	compacted     uint64 // position of the newest view
	compacting    chan uint64
	compactEvery  time.Duration
	compactionDue bool
}

// planCompaction fits the making of views to the limits of the log, so that what the world rests on is always in a view
// before retention or size drop it.
func (p *planner) planCompaction(state journal.State) {
	p.compacted = state.Compacted
	if p.CompactAfter == 0 {
		p.CompactAfter = mostAfter
		if state.MaxBytes > 0 {
			p.CompactAfter = min(max(state.MaxBytes/bytesPerEntry, leastAfter), mostAfter)
		}
	}
	p.compactEvery = compactWithin
	if state.MaxAge > 0 {
		p.compactEvery = max(min(state.MaxAge/8, compactWithin), time.Second)
	}
	if state.Missing > 0 {
		p.Logger.Error().Uint64("entries", state.Missing).Uint64("view", state.Compacted).
			Msg("entries were dropped that no compacted view holds; restart the watcher too, so that it publishes what is missing")
	}
}

// compact makes the compacted view anew, in the background, when it is time.
func (p *planner) compact(ctx context.Context) {
	if p.compacting != nil {
		select {
		case at := <-p.compacting:
			// Also after a failure: the next try comes after as many entries again.
			p.compacted, p.compacting = at, nil
		default:
			return
		}
	}
	moved := p.world.Sequence() - min(p.compacted, p.world.Sequence())
	if p.fence == 0 || moved == 0 || !p.allTold() || (moved < p.CompactAfter && !p.compactionDue) {
		return
	}
	p.compactionDue = false
	at, live := p.world.Sequence(), p.live()
	p.compacting = make(chan uint64, 1)
	go func() {
		p.compactTo(ctx, at, live)
		p.compacting <- at
	}()
}

// live returns the sequences of the entries on which the world and the memory of rollouts rest, in order.
func (p *planner) live() []uint64 {
	live := append(p.world.Live(), p.tracker.Live()...)
	slices.Sort(live)
	return slices.Compact(live)
}

// compactTo makes the compacted view. That it cannot be made only costs time at the next start.
func (p *planner) compactTo(ctx context.Context, at uint64, live []uint64) {
	err := p.Journal.Compact(ctx, at, func(sequence uint64) bool {
		for len(live) > 0 && live[0] < sequence {
			live = live[1:]
		}
		return len(live) > 0 && live[0] == sequence
	})
	if err != nil {
		if ctx.Err() == nil {
			p.Logger.Warn().Err(err).Uint64("position", at).Msg("cannot make the compacted view")
		}
		return
	}
	p.Logger.Debug().Uint64("position", at).Msg("compacted view made")
}

// compactAtEnd saves the next start the work, when there is much and we are the one to do it.
func (p *planner) compactAtEnd() {
	if p.fence == 0 || p.compacting != nil || !p.allTold() || p.world.Sequence() < p.compacted+worthIt {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), endBound)
	defer cancel()
	p.compactTo(ctx, p.world.Sequence(), p.live())
}
