package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// maxTaken is how many records Next returns at most.
	maxTaken = 4096
	// A reader stops decoding ahead of its taker at either of these.
	aheadRecords = 2 * maxTaken
	aheadBytes   = 16 << 20
	// A message counts as damaged when it has not come to be removed by the last of maxLooks, lookAgain apart: the replica that is
	// asked may be behind the one that is read.
	maxLooks  = 3
	lookAgain = 200 * time.Millisecond
)

func (j *logStream) Read(ctx context.Context, from From) (Reader, error) {
	fail := func(err error) (Reader, error) { return nil, fmt.Errorf("read the log: %w", err) }
	info, err := j.info(ctx)
	if err != nil {
		return fail(err)
	}
	r := &reader{j: j, queue: newQueue()}
	sequence := from.Position()
	if from.Compacted {
		if r.view, err = j.newestView(ctx, info.State.LastSeq); err != nil {
			return fail(err)
		}
		sequence = r.view.at + 1
		if n := missing(r.view.at, info.State.FirstSeq); n > 0 {
			j.options.Log.Warn().Uint64("compacted", r.view.at).Uint64("first", info.State.FirstSeq).Uint64("missing", n).
				Msg("entries after the compacted view have left the log; the world is only complete after the next vouch")
			sequence = info.State.FirstSeq
		}
		if r.view.at == 0 {
			sequence = 0
		}
	}
	if sequence > info.State.LastSeq+1 {
		return fail(fmt.Errorf("%w: position %d is asked for, the log ends at %d", ErrGap, sequence, info.State.LastSeq))
	}
	if sequence > 0 {
		r.queue.expected = sequence
	}
	if r.feed, err = j.openFeed(ctx, sequence, from.Time); err != nil {
		return fail(err)
	}
	if last := from.After; last.Sequence > 0 && !from.Compacted {
		r.feed.last = raw{sequence: last.Sequence, time: last.Time, subject: last.Subject}
	}
	var end context.CancelFunc
	r.running, end = context.WithCancel(j.closing)
	r.close = sync.OnceFunc(func() {
		end()
		r.feed.close()
	})
	go r.run()
	return r, nil
}

// reader decodes ahead of its taker.
type reader struct {
	j       *logStream
	view    view // delivered first, unless at is 0
	feed    *feed
	queue   *queue
	running context.Context
	close   func()

	// removed are positions that the log has taken out itself, in order, as of the last time it was asked. Only Next uses them.
	removed []uint64
}

func (r *reader) Close() { r.close() }

func (r *reader) Compacted() uint64 { return r.view.at }

// run fills the queue until the reader is closed or something is wrong for good.
func (r *reader) run() {
	defer r.close()
	err := r.view.each(r.running, r.j, func(m raw) error { return r.take(m, true) })
	if errors.Is(err, errView) { // it was whole a moment ago: newer ones have replaced it
		err = fmt.Errorf("%w: %w", ErrGap, err)
	}
	for err == nil {
		var m raw
		var own bool
		if m, own, err = r.feed.next(r.running); err != nil {
			break
		}
		if own {
			err = r.queue.pass(m.sequence)
		} else {
			err = r.take(m, false)
		}
	}
	r.queue.end(err)
}

func (r *reader) take(m raw, old bool) error {
	entry, err := decode(m.sequence, m.subject, m.data)
	if err != nil {
		return err
	}
	return r.queue.put(r.running, Record{Sequence: m.sequence, Time: m.time, Subject: m.subject, Size: len(m.data), Entry: entry}, old)
}

func (r *reader) Next(ctx context.Context) ([]Record, error) {
	patience := r.j.patience
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		records, jumps, err := r.queue.peek()
		if len(records) > 0 {
			if len(jumps) > 0 {
				if records, err = r.verify(ctx, records, jumps); err != nil {
					return nil, err
				}
			}
			r.queue.drop(len(records))
			return records, nil
		}
		if err != nil {
			if r.running.Err() != nil && r.j.closing.Err() == nil && errors.Is(err, ErrUnavailable) {
				return nil, errors.New("read the log: the reader is closed")
			}
			return nil, fmt.Errorf("read the log: %w", err)
		}
		select {
		case <-r.queue.filled:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timer.C:
			if !r.j.nc.IsConnected() {
				return nil, fmt.Errorf("read the log: %w: no connection", ErrUnavailable)
			}
			if len(r.j.nc.Servers()) > 1 {
				_, _ = r.j.info(ctx) // nothing comes: a server that does not answer either is left
			}
			timer.Reset(patience)
		}
	}
}

// verify tells positions that were jumped over because the log took them out itself (notes that ticks replaced) from entries that
// retention took before they were read, and from messages that the server cannot read and leaves out without a word. It returns the
// records before the first loss or damage; ErrGap or ErrUndecodable if there are none.
func (r *reader) verify(ctx context.Context, records []Record, jumps []jump) ([]Record, error) {
	for _, jump := range jumps {
		for position := jump.expected; position < jump.came; position++ {
			err := r.explain(ctx, position)
			if err == nil {
				continue
			}
			if n := sort.Search(len(records), func(i int) bool { return records[i].Sequence > position }); n > 0 {
				return records[:n], nil
			}
			return nil, fmt.Errorf("read the log: %w", err)
		}
	}
	return records, nil
}

// explain returns nil if the log took out a position itself that was jumped over. Notes go at any time: only a list that was asked for
// after the jump says that this one did not. Only the front of the log goes otherwise; should it reach the position at this very moment,
// that is taken for ErrGap.
func (r *reader) explain(ctx context.Context, position uint64) error {
	for look := 0; ; look++ {
		if _, removed := slices.BinarySearch(r.removed, position); removed {
			return nil
		}
		switch look {
		case 0:
		case maxLooks:
			return fmt.Errorf("%w: sequence %d: %s", ErrUndecodable, position, damaged)
		default:
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(lookAgain):
			}
		}
		info, err := r.j.info(ctx, jetstream.WithDeletedDetails(true))
		if err != nil {
			return err
		}
		if first := info.State.FirstSeq; first > position {
			return fmt.Errorf("%w: position %d was due, the log begins at %d", ErrGap, position, first)
		}
		r.removed = info.State.Deleted
		slices.Sort(r.removed)
	}
}
