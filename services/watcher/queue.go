package watcher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/linger"
)

const (
	// maxQueued bounds the facts, and maxQueuedBytes their JSON, that wait for the log. Then the watches wait.
	maxQueued      = 8192
	maxQueuedBytes = 64 << 20
	// maxBatch is how many facts go into one append.
	maxBatch = 1024
	// Pauses between appends that fail.
	firstPause, longestPause = 100 * time.Millisecond, 5 * time.Second
)

// fact waits for its place in the log.
type fact struct {
	entry *shiplogv1.Entry
	bytes int
	// lost is called if the log can never take it.
	lost func()
}

// queue brings facts to the log in the order in which they were pushed. What is at hand when an append has returned, and a moment has
// passed since it began, makes up the next one.
type queue struct {
	journal journal.Journal
	log     zerolog.Logger
	metrics *metrics
	linger  *linger.Linger

	mu      sync.Mutex
	waiting []fact
	bytes   int
	// pushed and acknowledged count facts since the start.
	pushed, acknowledged uint64
	ended                bool
	// changed is closed and replaced at every change.
	changed chan struct{}

	stamp func(*shiplogv1.Entry)
}

func newQueue(journal journal.Journal, log zerolog.Logger, metrics *metrics) *queue {
	return &queue{journal: journal, log: log, metrics: metrics, linger: linger.New(linger.Moment), changed: make(chan struct{})}
}

func (q *queue) wake() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// push waits for room. After the queue has ended it drops the fact: a next start publishes the difference.
func (q *queue) push(f fact) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.ended && (len(q.waiting) >= maxQueued || q.bytes >= maxQueuedBytes) {
		q.await()
	}
	if q.ended {
		return
	}
	q.waiting = append(q.waiting, f)
	q.bytes += f.bytes
	q.pushed++
	q.metrics.queued.Set(float64(len(q.waiting)))
	q.wake()
}

// await lets go of mu until something changes.
func (q *queue) await() {
	changed := q.changed
	q.mu.Unlock()
	<-changed
	q.mu.Lock()
}

// position counts what has been pushed so far.
func (q *queue) position() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.pushed
}

// flushed waits until the log holds everything up to position.
func (q *queue) flushed(ctx context.Context, position uint64) error {
	return q.until(ctx, func() bool { return q.acknowledged >= position })
}

// until waits until a condition holds, which is asked with mu held.
func (q *queue) until(ctx context.Context, holds func() bool) error {
	for {
		q.mu.Lock()
		done, changed := holds(), q.changed
		q.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// run appends until ctx ends.
func (q *queue) run(ctx context.Context) error {
	defer q.end()
	for {
		batch := q.take(ctx)
		if batch == nil {
			return nil
		}
		if err := q.append(ctx, batch); err != nil {
			return err
		}
	}
}

// end lets go of whoever waits to push.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.wake()
}

// take waits for facts, and a moment for more of them; nil when ctx has ended.
func (q *queue) take(ctx context.Context) []fact {
	if q.until(ctx, func() bool { return len(q.waiting) > 0 }) != nil || q.linger.Await(ctx) != nil {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.waiting), maxBatch)
	batch := append([]fact(nil), q.waiting[:n]...)
	clear(q.waiting[:n])
	q.waiting = q.waiting[n:]
	for _, f := range batch {
		q.bytes -= f.bytes
	}
	q.metrics.queued.Set(float64(len(q.waiting)))
	q.wake()
	return batch
}

// append stores the batch, however long the log takes; the queue bounds what waits behind it. A fact that the log can
// never take is left out.
func (q *queue) append(ctx context.Context, batch []fact) error {
	entries := make([]*shiplogv1.Entry, len(batch))
	for i, f := range batch {
		entries[i] = f.entry
		q.stamp(f.entry)
	}
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		_, err := q.journal.Append(ctx, entries...)
		switch {
		case err == nil:
			q.acknowledge(len(batch))
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, journal.ErrTooLarge) && len(batch) > 1:
			for i := range batch {
				if err := q.append(ctx, batch[i:i+1]); err != nil {
					return err
				}
			}
			return nil
		case errors.Is(err, journal.ErrTooLarge):
			q.log.Error().Err(err).Stringer("object", batch[0].entry.GetObjectObserved().GetObject()).
				Msg("the log cannot take a fact; its kind will not be vouched for")
			q.metrics.failures.Inc()
			batch[0].lost()
			q.acknowledge(1)
			return nil
		case !errors.Is(err, journal.ErrUnavailable) && !errors.Is(err, journal.ErrFull):
			return fmt.Errorf("append %d facts: %w", len(batch), err)
		}
		q.log.Warn().Err(err).Int("facts", len(batch)).Msg("the log does not take facts; trying again")
		q.metrics.failures.Inc()
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

func (q *queue) acknowledge(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.acknowledged += uint64(n)
	q.wake()
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
