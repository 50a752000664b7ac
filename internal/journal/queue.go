package journal

import (
	"context"
	"fmt"
	"sync"
)

// queue is what a reader has decoded and nobody has taken yet, bounded by count and bytes.
type queue struct {
	mu      sync.Mutex
	records []Record
	bytes   int
	err     error // after the records
	// expected is the position that should come next; 0: any.
	expected uint64
	// jumps are the expected positions that something else came instead of, in order, each with the sequence that came.
	jumps []jump

	filled, emptied chan struct{} // hold one signal each
}

type jump struct{ expected, came uint64 }

func newQueue() *queue {
	return &queue{filled: make(chan struct{}, 1), emptied: make(chan struct{}, 1)}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// put waits for room and appends a record. An old one, from a compacted view, may leave out what it wants.
func (q *queue) put(ctx context.Context, record Record, old bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.records) >= aheadRecords || q.bytes >= aheadBytes {
		q.mu.Unlock()
		select {
		case <-q.emptied:
		case <-ctx.Done():
			q.mu.Lock()
			return ctx.Err()
		}
		q.mu.Lock()
	}
	if !old {
		if err := q.advance(record.Sequence); err != nil {
			return err
		}
	}
	q.records = append(q.records, record)
	q.bytes += record.Size
	signal(q.filled)
	return nil
}

// pass counts a position that is not handed out.
func (q *queue) pass(sequence uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.advance(sequence)
}

func (q *queue) advance(sequence uint64) error {
	if sequence < q.expected {
		return fmt.Errorf("%w: the log was rolled back: position %d was due, %d came", ErrGap, q.expected, sequence)
	}
	if q.expected > 0 && sequence > q.expected {
		q.jumps = append(q.jumps, jump{q.expected, sequence})
	}
	q.expected = sequence + 1
	return nil
}

func (q *queue) end(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.err = err
	signal(q.filled)
}

// peek returns the records at hand, the jumps among them, and, if there are no records, why there never will be.
func (q *queue) peek() (records []Record, jumps []jump, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.records) == 0 {
		return nil, nil, q.err
	}
	n := min(len(q.records), maxTaken)
	records = q.records[:n:n] // the taker may append to it
	last := records[n-1].Sequence
	for len(jumps) < len(q.jumps) && q.jumps[len(jumps)].came <= last {
		jumps = q.jumps[: len(jumps)+1 : len(jumps)+1]
	}
	return records, jumps, nil
}

// drop forgets the first n records, which the taker now owns.
func (q *queue) drop(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	last := q.records[n-1].Sequence
	for _, r := range q.records[:n] {
		q.bytes -= r.Size
	}
	q.records = q.records[n:]
	if len(q.records) == 0 {
		q.records = nil
		q.bytes = 0
	}
	for len(q.jumps) > 0 && q.jumps[0].came <= last {
		q.jumps = q.jumps[1:]
	}
	signal(q.emptied)
	if len(q.records) > 0 || q.err != nil {
		signal(q.filled)
	}
}
