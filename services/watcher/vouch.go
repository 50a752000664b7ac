package watcher

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
)

// pace is how often what is done.
type pace struct {
	// idle is the time from one proof's start to the next one's while nothing happens, busy while something does. Proving
	// costs at most one part in costs of the time, unless stalest is reached.
	idle, busy, stalest time.Duration
	costs               int
	// A kind of at least many objects is compared object by object only every so often (compare); else it is enough that the watch passes the
	// current version within pass.
	many          int
	compare, pass time.Duration
	// proof bounds one proof.
	proof time.Duration
	// vouch is the least time between two vouches; a proof older than fresh is no base for one.
	vouch, fresh time.Duration
}

var standard = pace{
	idle: 5 * time.Second, busy: 3 * time.Second, stalest: 12 * time.Second, costs: 50,
	many: 500, compare: 30 * time.Second, pass: 500 * time.Millisecond,
	proof: 10 * time.Second,
	vouch: 3 * time.Second, fresh: 15 * time.Second,
}

// voucher proves that the facts are complete, all the time, and says so in the log when that has moved since it was last
// said. An idle log stays idle.
type voucher struct {
	w *watcher

	mu sync.Mutex
	// moved is the newest entry on which decisions rest and that is no vouch, vouched the newest vouch, anybody's, and when it was read.
	moved, vouched uint64
	// fence is the newest fence read.
	fence     uint64
	vouchedAt time.Time
	newest    *proof
	// said is the proof of our newest vouch.
	said *proof
	// rewound is when a Rewound was read last: proofs that began before it prove nothing.
	rewound time.Time
	// wake tells both loops that something changed.
	wakeProver, wakeVoucher chan struct{}
}

func newVoucher(w *watcher) *voucher {
	v := &voucher{w: w, wakeProver: make(chan struct{}, 1), wakeVoucher: make(chan struct{}, 1)}
	w.queue.stamp = v.stamp
	return v
}

func (v *voucher) stamp(entry *shiplogv1.Entry) {
	entry.Writer, entry.WriterVersion = v.w.options.Writer, v.w.options.Version
}

// read takes an entry of the log.
func (v *voucher) read(record journal.Record) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if record.Entry.GetVouched() != nil {
		v.vouched, v.vouchedAt = max(v.vouched, record.Sequence), time.Now()
		return
	}
	if record.Entry.GetRewound() != nil {
		v.newest, v.rewound = nil, time.Now()
	}
	if record.Entry.GetRolloutEvent() != nil || record.Entry.GetSealed() != nil {
		return // they tell of what was decided and recorded; nothing waits for a word about it
	}
	if record.Entry.GetFenceRaised() != nil {
		// A planner that has just begun to lead waits for a word that is newer than its fence.
		v.fence = record.Sequence
		wake(v.wakeVoucher)
	}
	if v.moved <= v.vouched { // after a pause
		wake(v.wakeProver)
		wake(v.wakeVoucher)
	}
	v.moved = max(v.moved, record.Sequence)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (v *voucher) run(ctx context.Context) error {
	var prover sync.WaitGroup
	prover.Go(func() { v.proveAlways(ctx) })
	defer prover.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-v.wakeVoucher:
		case <-timer.C:
		}
		timer.Reset(v.maybe(ctx))
	}
}

// maybe vouches if it is time, and returns when to look again.
func (v *voucher) maybe(ctx context.Context) time.Duration {
	v.mu.Lock()
	p, first := v.newest, v.said == nil
	pause := v.w.pace.vouch - time.Since(v.vouchedAt)
	awaited := p != nil && v.fence > v.vouched
	due := awaited || p != nil && p != v.said && (first || v.moved > v.vouched)
	v.mu.Unlock()
	switch {
	case !due:
		return time.Hour // a proof or an entry wakes us
	case !first && !awaited && pause > 0:
		return pause
	}
	age := time.Since(p.start)
	if age > v.w.pace.fresh {
		return time.Hour
	}
	entry := &shiplogv1.Entry{Kind: &shiplogv1.Entry_Vouched{Vouched: &shiplogv1.Vouched{
		Complete: p.complete, Age: durationpb.New(age),
	}}}
	v.stamp(entry)
	sequence, err := v.w.options.Journal.Append(ctx, entry)
	if err != nil {
		if ctx.Err() == nil {
			v.w.options.Logger.Warn().Err(err).Msg("cannot vouch")
		}
		return v.w.pace.vouch
	}
	v.w.metrics.vouches.Inc()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.said, v.vouched, v.vouchedAt = p, max(v.vouched, sequence), time.Now()
	return v.w.pace.vouch
}

// proveAlways proves again and again until ctx ends.
func (v *voucher) proveAlways(ctx context.Context) {
	for {
		start := time.Now()
		p, err := v.w.prove(ctx)
		if ctx.Err() != nil {
			return
		}
		v.w.metrics.proofs.WithLabelValues(result(err)).Inc()
		v.w.metrics.proofSeconds.Observe(time.Since(start).Seconds())
		if err != nil {
			v.w.options.Logger.Warn().Err(err).Msg("cannot vouch for now")
			var rewound *rewoundError
			if errors.As(err, &rewound) {
				v.w.announce(ctx, rewound)
			}
		} else {
			v.mu.Lock()
			if p.start.After(v.rewound) {
				v.newest = p
			}
			v.mu.Unlock()
			wake(v.wakeVoucher)
		}
		if !v.rest(ctx, start, p.cost) {
			return
		}
	}
}

// rest waits until the next proof is due; false when ctx has ended.
func (v *voucher) rest(ctx context.Context, start time.Time, cost time.Duration) bool {
	select { // what woke us before this proof is answered by it
	case <-v.wakeProver:
	default:
	}
	for woken := false; ; woken = true {
		v.mu.Lock()
		busy := v.moved > v.vouched || v.said == nil || v.newest == nil
		v.mu.Unlock()
		pause := v.w.pace.spacing(cost, busy, woken) - time.Since(start)
		if pause <= 0 {
			return true
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
			return true
		case <-v.wakeProver:
			timer.Stop()
		}
	}
}

// spacing is the time from one proof's start to the next one's.
func (p pace) spacing(cost time.Duration, busy, woken bool) time.Duration {
	spacing := p.idle
	switch {
	case woken:
		spacing = p.busy / 10
	case busy:
		spacing = p.busy
	}
	return min(max(spacing, time.Duration(p.costs)*cost), p.stalest)
}

func result(err error) string {
	if err != nil {
		return "failed"
	}
	return "proven"
}
