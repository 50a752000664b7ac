package watcher

import (
	"context"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
)

const (
	// distinguish is for how long after a Rewound facts say so: for longer than the log takes two facts of one version for the same.
	distinguish = 5 * time.Minute
	// unlogged is how long after its command entered the log a write may happen, clocks that disagree included.
	unlogged = 2 * time.Minute
)

// thread is what holds facts of different times together: where the log ends, and where the API server's versions begin anew.
type thread struct {
	mu sync.Mutex
	// ends is the time of the newest entry that was there at the start, or of a newer command: what Shiplog wrote later than that
	// has no command in the log.
	ends time.Time
	// begun says whether anything was there at the start that was observed or decided.
	begun bool
	// rewoundAt is the position and time of the newest Rewound, by the log.
	rewoundAt     uint64
	rewoundTime   time.Time
	rewoundSignal chan struct{} // closed when the next Rewound has been taken in
	// unlisted counts the kinds that have not been listed since the start, written is the object of the others that Shiplog wrote last.
	unlisted int
	written  *item
}

// learn takes note of an entry that is there at the start.
func (t *thread) learn(record journal.Record) {
	t.follow(record)
	t.mu.Lock()
	defer t.mu.Unlock()
	if record.Time.After(t.ends) {
		t.ends = record.Time
	}
	// Others, which start at the same time, may have told of themselves.
	entry := record.Entry
	t.begun = t.begun || entry.GetFenceRaised() == nil && entry.GetNodeObserved() == nil && entry.GetSealed() == nil
}

// follow takes note of an entry of the log.
func (t *thread) follow(record journal.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if record.Entry.GetCommand() != nil && record.Time.After(t.ends) {
		t.ends = record.Time
	}
	if record.Entry.GetRewound() == nil {
		return
	}
	t.rewoundAt, t.rewoundTime = record.Sequence, record.Time
}

// rewound is the position of a Rewound that facts have to name.
func (t *thread) rewound() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rewoundAt == 0 || time.Since(t.rewoundTime) > distinguish {
		return 0
	}
	return t.rewoundAt
}

// nextRewound returns a channel that is closed when the next Rewound has been taken in.
func (t *thread) nextRewound() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rewoundSignal == nil {
		t.rewoundSignal = make(chan struct{})
	}
	return t.rewoundSignal
}

// announce puts a Rewound into the log, behind every fact that was published before, and waits until it has been read back.
func (w *watcher) announce(ctx context.Context, e *rewoundError) {
	ctx, cancel := context.WithTimeout(ctx, w.pace.proof)
	defer cancel()
	w.metrics.rewinds.Inc()
	w.options.Logger.Error().Err(e).Msg("publishing everything anew")
	read := w.thread.nextRewound()
	w.queue.push(fact{lost: func() {}, entry: &shiplogv1.Entry{Kind: &shiplogv1.Entry_Rewound{Rewound: &shiplogv1.Rewound{
		Group: e.resource.Group, Resource: e.resource.Resource,
		ResourceVersion: strconv.FormatUint(e.at, 10), Seen: strconv.FormatUint(e.seen, 10),
	}}}})
	select {
	case <-read:
	case <-ctx.Done():
	}
}

// rewind begins anew: whatever the log holds is older than what the API server has now.
func (w *watcher) rewind() {
	for _, v := range w.views {
		v.rewind()
	}
	w.thread.mu.Lock()
	defer w.thread.mu.Unlock()
	if w.thread.rewoundSignal != nil {
		close(w.thread.rewoundSignal)
		w.thread.rewoundSignal = nil
	}
}

// rewind forgets which versions were seen and logged, and lists again.
func (v *view) rewind() {
	v.mu.Lock()
	for at, e := range v.entries {
		e.seen, e.logged = state{}, state{uid: e.logged.uid}
		if e.logged.uid == "" {
			delete(v.entries, at)
		}
	}
	clear(v.gone)
	v.progress = 0
	v.advance(0)
	v.mu.Unlock()
	v.source.drop(true)
}

// begin takes the first list of a kind. When all kinds have been listed it compares what Shiplog wrote last with where the log ends.
func (w *watcher) begin(list []any) {
	w.thread.mu.Lock()
	defer w.thread.mu.Unlock()
	w.thread.unlisted--
	for _, o := range list {
		if i := o.(*item); w.thread.written == nil || i.normal.Written.After(w.thread.written.normal.Written) {
			w.thread.written = i
		}
	}
	last := w.thread.written
	if w.thread.unlisted > 0 || last == nil || last.normal.Written.IsZero() {
		return
	}
	w.thread.written = nil
	ends := w.thread.ends
	if w.thread.begun && !last.normal.Written.After(ends.Add(unlogged)) {
		return
	}
	lost := &shiplogv1.LogLost{Object: last.normal.Ref(), WrittenAt: timestamppb.New(last.normal.Written)}
	if w.thread.begun {
		lost.LogEndsAt = timestamppb.New(ends)
	}
	w.metrics.losses.Inc()
	line := w.options.Logger.Error().Str("object", last.normal.Name).Time("written", last.normal.Written)
	if w.thread.begun {
		line = line.Time("log-ends", ends)
	}
	line.Msg("the log has lost entries: Shiplog has written to Kubernetes what they must tell of; what exists is published anew")
	w.queue.push(fact{lost: func() {}, entry: &shiplogv1.Entry{Skippable: true, Kind: &shiplogv1.Entry_LogLost{LogLost: lost}}})
}
