package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// Memory is a log in memory with the contract of the real one, for tests and for simulation with virtual time. It has no
// goroutines: time passes for it when FireTicks is called. Several services share one Memory as they share a server.
type Memory struct {
	now func() time.Time

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change, to wake whoever waits
	// messages hold the whole log in order; those before first have been dropped.
	messages []raw
	first    uint64
	last     uint64
	bytes    int64
	limits   MemoryLimits
	down     bool
	closed   bool

	seen   map[string]memorySeen // message identities of the duplicates window
	fence  uint64
	wishes map[string]memoryWish
	view   []raw
	viewAt uint64
	queues map[string]*memoryQueue
	// intakes answer the agents of nodes.
	intakes []*Intake
	heard   time.Time // the last time a leader was there
	leads   int
}

// MemoryLimits bound a Memory; 0 stands for no limit.
type MemoryLimits struct {
	// Bytes of all entries before the oldest go.
	Bytes int64
	// StoreBytes of all entries before no more are taken.
	StoreBytes int64
	// EntryBytes of one entry.
	EntryBytes int
	// Retention of an entry.
	Retention time.Duration
}

type memorySeen struct {
	sequence uint64
	at       time.Time
}

type memoryWish struct {
	due  time.Time
	tick message
	// order in which wishes came, for those that fall due at one time.
	order uint64
}

var _ Journal = (*Memory)(nil)

// NewMemory returns an empty log whose clock is now.
func NewMemory(now func() time.Time) *Memory {
	return &Memory{
		now:     now,
		changed: make(chan struct{}),
		first:   1,
		seen:    map[string]memorySeen{},
		wishes:  map[string]memoryWish{},
		queues:  map[string]*memoryQueue{},
	}
}

// SetLimits changes the limits; entries that are too many go with the next one that comes.
func (m *Memory) SetLimits(limits MemoryLimits) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limits = limits
}

// SetDown makes every call fail with ErrUnavailable, and takers and readers wait, until it is called with false.
func (m *Memory) SetDown(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = down
	m.wake()
}

// Reopen lets a closed log be used again, with everything it held.
func (m *Memory) Reopen() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = false
}

// NextDue returns when the next tick falls due, for a clock that jumps there; false: there is none.
func (m *Memory) NextDue() (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var next time.Time
	for _, w := range m.wishes {
		if next.IsZero() || w.due.Before(next) {
			next = w.due
		}
	}
	return next, !next.IsZero()
}

// FireTicks does what time does to the log: ticks that have fallen due are appended in the order of their due times, commands
// whose taker is gone come back, a leader's silence is noticed. It returns how many ticks were appended.
func (m *Memory) FireTicks() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	var due []memoryWish
	for id, w := range m.wishes {
		if !w.due.After(now) {
			due = append(due, w)
			delete(m.wishes, id)
		}
	}
	slices.SortFunc(due, func(a, b memoryWish) int {
		return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.order, b.order))
	})
	for _, w := range due {
		m.store(w.tick)
	}
	m.wake()
	return len(due)
}

func (m *Memory) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *Memory) reachable(ctx context.Context) error {
	if m.down || m.closed {
		return ErrUnavailable
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
	return nil
}

// await waits for the next change. m.mu is held, and again when it returns.
func (m *Memory) await(ctx context.Context, more <-chan struct{}) error {
	changed := m.changed
	m.mu.Unlock()
	defer m.mu.Lock()
	select {
	case <-changed:
	case <-more:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// room says whether messages are taken at all.
func (m *Memory) room(messages []message) error {
	bytes := m.bytes
	for _, x := range messages {
		if m.limits.EntryBytes > 0 && len(x.data) > m.limits.EntryBytes {
			return fmt.Errorf("%w: %d bytes at %s, the log takes %d", ErrTooLarge, len(x.data), x.subject, m.limits.EntryBytes)
		}
		bytes += int64(len(x.data))
	}
	if m.limits.StoreBytes > 0 && bytes > m.limits.StoreBytes {
		return fmt.Errorf("%w: %d of %d bytes are taken", ErrFull, m.bytes, m.limits.StoreBytes)
	}
	return nil
}

// store appends a message unless the duplicates window holds it, and returns its sequence.
func (m *Memory) store(x message) uint64 {
	now := m.now()
	if x.id != "" {
		if seen, ok := m.seen[x.id]; ok && now.Sub(seen.at) < duplicates {
			return seen.sequence
		}
		m.seen[x.id] = memorySeen{m.last + 1, now}
	}
	m.last++
	m.messages = append(m.messages, raw{sequence: m.last, time: now, subject: x.subject, data: x.data})
	m.bytes += int64(len(x.data))
	for len(m.messages) > 1 && (m.limits.Bytes > 0 && m.bytes > m.limits.Bytes ||
		m.limits.Retention > 0 && now.Sub(m.messages[0].time) > m.limits.Retention) {
		m.bytes -= int64(len(m.messages[0].data))
		m.messages = m.messages[1:]
		m.first++
	}
	return m.last
}

func (m *Memory) Append(ctx context.Context, entries ...*shiplogv1.Entry) (uint64, error) {
	messages, err := composeAll("local", 1, entries)
	if err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := cmp.Or(m.reachable(ctx), m.room(messages)); err != nil {
		return 0, fmt.Errorf("append %d entries: %w", len(messages), err)
	}
	var last uint64
	for _, x := range messages {
		last = m.store(x)
	}
	m.wake()
	return last, nil
}

func (m *Memory) RaiseFence(ctx context.Context, writer, version string, raised *shiplogv1.FenceRaised) (uint64, error) {
	x, err := compose("local", 1, fenceEntry(writer, version, raised))
	if err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := cmp.Or(m.reachable(ctx), m.room([]message{x})); err != nil {
		return 0, fmt.Errorf("raise the fence for %s: %w", writer, err)
	}
	m.fence = m.store(x)
	m.wake()
	return m.fence, nil
}

func (m *Memory) AppendCommands(ctx context.Context, fence uint64, commands ...*shiplogv1.Entry) (uint64, error) {
	return m.AppendFirst(ctx, len(commands), fence, commands...)
}

// AppendFirst does what AppendCommands may do when it fails: it stores the first n commands, and the notes of all wishes, which stand in front.
func (m *Memory) AppendFirst(ctx context.Context, n int, fence uint64, commands ...*shiplogv1.Entry) (uint64, error) {
	messages, ticks, err := composeCommands("local", 1, commands)
	if err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	err = cmp.Or(m.reachable(ctx), m.room(messages))
	if err == nil && fence != m.fence {
		err = fmt.Errorf("%w: the newest is at %d", ErrFenced, m.fence)
	}
	if err != nil {
		return 0, fmt.Errorf("append %d commands under fence %d: %w", len(commands), fence, err)
	}
	for _, tick := range ticks {
		m.wishes[tick.wish.GetId()] = memoryWish{due: tick.wish.GetDue().AsTime(), tick: tick, order: m.last + uint64(len(m.wishes))}
	}
	var last uint64
	for _, x := range messages[:n] {
		last = m.store(x)
	}
	m.wake()
	return last, nil
}

func (m *Memory) AppendEvents(ctx context.Context, fence uint64, events ...*shiplogv1.Entry) error {
	messages, err := composeEvents("local", 1, events)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	err = cmp.Or(m.reachable(ctx), m.room(messages))
	if err == nil && fence != m.fence {
		err = fmt.Errorf("%w: the newest is at %d", ErrFenced, m.fence)
	}
	if err != nil {
		return fmt.Errorf("append %d rollout events under fence %d: %w", len(events), fence, err)
	}
	for _, x := range messages {
		m.store(x)
	}
	m.wake()
	return nil
}

func (m *Memory) AppendSeal(ctx context.Context, fence uint64, seal *shiplogv1.Entry) (uint64, error) {
	sealed, err := composeSeal("local", 1, seal)
	if err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	err = cmp.Or(m.reachable(ctx), m.room([]message{sealed}))
	if err == nil && fence != m.fence {
		err = fmt.Errorf("%w: the newest is at %d", ErrFenced, m.fence)
	}
	if err != nil {
		return 0, fmt.Errorf("append a seal under fence %d: %w", fence, err)
	}
	last := m.store(sealed)
	m.wake()
	return last, nil
}

// from returns the messages at and after a position, which the caller must not change.
func (m *Memory) from(sequence uint64) []raw {
	if sequence <= m.first {
		return m.messages
	}
	return m.messages[min(sequence-m.first, uint64(len(m.messages))):]
}

func (m *Memory) LastOutcome(ctx context.Context, object *shiplogv1.ObjectRef) (*Record, error) {
	return m.lastAt(ctx, Address{Cluster: "local", Space: spaceOutcome, Object: object})
}

func (m *Memory) LastFact(ctx context.Context, object *shiplogv1.ObjectRef) (*Record, error) {
	return m.lastAt(ctx, Address{Cluster: "local", Space: spaceFact, Object: object})
}

func (m *Memory) LastOfNode(ctx context.Context, node string) (*Record, error) {
	return m.lastAt(ctx, runtimeOf("local", node))
}

// lastAt returns the newest entry at an address, or nil.
func (m *Memory) lastAt(ctx context.Context, at Address) (*Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.reachable(ctx); err != nil {
		return nil, fmt.Errorf("read the last entry at %s: %w", at, err)
	}
	if sequence := m.newest(at); sequence > 0 {
		return m.from(sequence)[0].record()
	}
	return nil, nil
}

// record decodes a message.
func (x raw) record() (*Record, error) {
	entry, err := decode(x.sequence, x.subject, x.data)
	if err != nil {
		return nil, err
	}
	return &Record{Sequence: x.sequence, Time: x.time, Subject: x.subject, Size: len(x.data), Entry: entry}, nil
}

func (m *Memory) Compact(ctx context.Context, at uint64, live func(sequence uint64) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	fail := func(err error) error { return fmt.Errorf("compact the log at %d: %w", at, err) }
	switch {
	case m.reachable(ctx) != nil:
		return fail(m.reachable(ctx))
	case at == 0 || at > m.last:
		return fail(fmt.Errorf("the log ends at %d", m.last))
	case at < m.viewAt:
		return fail(fmt.Errorf("it is compacted up to %d", m.viewAt))
	}
	var kept []raw
	for _, x := range m.view {
		if x.sequence == at || live(x.sequence) {
			kept = append(kept, x)
		}
	}
	for _, x := range m.from(m.viewAt + 1) {
		if x.sequence <= at && (x.sequence == at || live(x.sequence)) {
			kept = append(kept, x)
		}
	}
	m.view, m.viewAt = kept, at
	return nil
}

func (m *Memory) State(ctx context.Context) (State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.reachable(ctx); err != nil {
		return State{}, err
	}
	return State{FirstSequence: m.first, LastSequence: m.last, Compacted: m.viewAt, Missing: missing(m.viewAt, m.first),
		Bytes: uint64(m.bytes), MaxBytes: uint64(m.limits.Bytes)}, nil
}

func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for _, q := range m.queues {
		clear(q.held)
	}
	m.wake()
	return nil
}

func (m *Memory) Lead(ctx context.Context, _ string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leads++
	context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.leads--
		m.heard = m.now()
		m.wake()
	})
}

func (m *Memory) AwaitVacancy(ctx context.Context, patience time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	began := m.now()
	for {
		if m.closed {
			return fmt.Errorf("listen for a leader: %w: the log is closed", ErrUnavailable)
		}
		if m.leads > 0 {
			m.heard = m.now()
		}
		quiet := began
		if m.heard.After(quiet) {
			quiet = m.heard
		}
		if m.leads == 0 && !m.down && m.now().Sub(quiet) >= patience {
			return nil
		}
		if err := m.await(ctx, nil); err != nil {
			return err
		}
	}
}

func (m *Memory) Read(ctx context.Context, from From) (Reader, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fail := func(err error) (Reader, error) { return nil, fmt.Errorf("read the log: %w", err) }
	if err := m.reachable(ctx); err != nil {
		return fail(err)
	}
	r := &memoryReader{m: m, closed: make(chan struct{})}
	r.closeOnce = sync.OnceFunc(func() { close(r.closed) })
	switch {
	case from.Compacted && m.viewAt > 0:
		r.compacted = m.viewAt
		r.view, r.next = slices.Clone(m.view), max(m.viewAt+1, m.first)
	case from.Compacted:
		r.next = m.first
	case from.Position() > m.last+1:
		return fail(fmt.Errorf("%w: position %d is asked for, the log ends at %d", ErrGap, from.Position(), m.last))
	case from.Position() > 0: // After is still there: this log is never rolled back
		r.next = from.Position()
	default:
		i, _ := slices.BinarySearchFunc(m.messages, from.Time, func(x raw, t time.Time) int { return x.time.Compare(t) })
		r.next = m.first + uint64(i)
	}
	return r, nil
}

type memoryReader struct {
	m         *Memory
	closed    chan struct{}
	closeOnce func()
	// view is what is left of the compacted view; next is the position after it.
	view            []raw
	next, compacted uint64
}

func (r *memoryReader) Close() { r.closeOnce() }

func (r *memoryReader) Compacted() uint64 { return r.compacted }

func (r *memoryReader) Next(ctx context.Context) ([]Record, error) {
	m := r.m
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		select {
		case <-r.closed:
			return nil, errors.New("read the log: the reader is closed")
		default:
		}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case m.down || m.closed:
			return nil, fmt.Errorf("read the log: %w", ErrUnavailable)
		case len(r.view) == 0 && r.next < m.first:
			return nil, fmt.Errorf("read the log: %w: position %d was due, the log begins at %d", ErrGap, r.next, m.first)
		}
		from := r.view
		if len(from) == 0 {
			from = m.from(r.next)
		}
		var records []Record
		for _, x := range from[:min(len(from), maxTaken)] {
			record, err := x.record()
			if err != nil && len(records) == 0 {
				return nil, fmt.Errorf("read the log: %w", err)
			}
			if err != nil {
				break
			}
			records = append(records, *record)
		}
		if len(records) > 0 {
			if len(r.view) > 0 {
				r.view = r.view[len(records):]
			} else {
				r.next += uint64(len(records))
			}
			return records, nil
		}
		if err := m.await(ctx, r.closed); err != nil {
			return nil, err
		}
	}
}
