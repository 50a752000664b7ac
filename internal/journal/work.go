package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// ackWait is after how long without a word from its holder a command goes to somebody else.
	ackWait = 3 * time.Second
	// keepAlive is how often a holder gives that word.
	keepAlive = ackWait / 3
	// tellWait is the ackWait of rollout events. Many are held for seconds, so that they are told together, and nothing waits for them.
	tellWait = 4 * ackWait
	// maxHeld is how many commands all takers of one name hold together.
	maxHeld = 1024
	// soon is within which a command is handed out as a rule. One that took longer may have been handed out before where servers form a
	// cluster: another one of them than the taker's may have been killed, and a new leader need not know what the old one did.
	soon = time.Second
	// maxFetched is how many of them one taker has fetched ahead.
	maxFetched = 64
)

func (j *logStream) Commands(ctx context.Context, name string) (Work, error) {
	return j.share(ctx, name, spaceCommand+".>", "commands", maxHeld, ackWait)
}

func (j *logStream) Events(ctx context.Context, name string) (Work, error) {
	return j.share(ctx, name, spaceEvent+".>", "rollout events", maxHeld, tellWait)
}

// share takes the entries whose subjects match under a name. So many are held at most, and go to somebody else after wait without a word.
func (j *logStream) share(ctx context.Context, name, subjects, what string, held int, wait time.Duration) (Work, error) {
	return j.take(ctx, "take "+what+" as "+name, wait/3, func(ctx context.Context) (jetstream.Consumer, error) {
		return j.stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
			Durable:       nameOf(name),
			Description:   "Shiplog: " + what + " that " + name + " acts on",
			FilterSubject: j.subject(subjects),
			DeliverPolicy: jetstream.DeliverAllPolicy,
			AckPolicy:     jetstream.AckExplicitPolicy,
			AckWait:       wait,
			MaxAckPending: held,
			MaxDeliver:    -1,
		})
	}, j.ends, j.pulse)
}

// ends says where the log ends.
func (j *logStream) ends(ctx context.Context) (uint64, error) {
	info, err := j.stream.Info(ctx)
	if err != nil {
		return 0, err
	}
	return info.State.LastSeq, nil
}

// take takes what a consumer hands out, of a log of which ends says where it ends, and has a sign of life from it every pulse. It gives a word of
// what it holds every so often itself.
func (l *link) take(ctx context.Context, doing string, word time.Duration, open func(context.Context) (jetstream.Consumer, error),
	ends func(context.Context) (uint64, error), pulse func() time.Duration) (Work, error) {
	w := &work{link: l, doing: doing, word: word, open: open, ends: ends, pulse: pulse, held: map[uint64]jetstream.Msg{}, fetched: make(chan fetched)}
	var end context.CancelFunc
	w.running, end = context.WithCancel(l.closing)
	w.close = sync.OnceFunc(func() {
		end()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.it.Stop()
	})
	if err := w.begin(ctx); err != nil {
		end()
		return nil, err
	}
	go w.fetch()
	return w, nil
}

// begin opens the consumer, the first time or because it went.
func (w *work) begin(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, w.patience)
	defer cancel()
	return w.patiently(bounded, w.doing, func(ctx context.Context) error {
		consumer, err := w.open(ctx)
		if err != nil {
			return err
		}
		w.consumer = consumer
		w.since, w.clustered = consumer.CachedInfo().Created, consumer.CachedInfo().Cluster != nil
		w.connection = w.nc.Stats().Reconnects
		if w.before, err = w.ends(ctx); err != nil {
			return err
		}
		it, err := consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(maxFetched, pullBytes),
			jetstream.PullExpiry(pullLife), jetstream.PullHeartbeat(w.pulse()))
		if err != nil {
			return err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.it = it
		if w.running.Err() != nil {
			it.Stop() // it was closed meanwhile
		}
		return nil
	})
}

func (j *logStream) Backlog(ctx context.Context) (map[string]uint64, error) {
	out := map[string]uint64{}
	consumers := j.stream.ListConsumers(ctx)
	for info := range consumers.Info() {
		if info.Config.Durable != "" {
			out[info.Config.Durable] = info.NumPending + uint64(info.NumAckPending)
		}
	}
	if err := consumers.Err(); err != nil {
		return nil, unavailable(ctx, "ask who takes entries from "+j.name, err)
	}
	return out, nil
}

// work is one taker. Every command that reached it is held, and kept from others, until it is done or the taker ends.
type work struct {
	*link
	// doing words what begin does; word, open, ends and pulse are those of take.
	doing    string
	word     time.Duration
	open     func(context.Context) (jetstream.Consumer, error)
	ends     func(context.Context) (uint64, error)
	pulse    func() time.Duration
	consumer jetstream.Consumer
	since    time.Time // when takers of this name first asked for commands
	// clustered: more servers than the one that the taker is connected to keep what was handed out.
	clustered bool
	running   context.Context
	close     func()

	fetched chan fetched

	// before is the end of the log when the taker came, or when its connection was the connection-th. A server that was killed may
	// have forgotten what it handed out, so that everything up to there may have been handed out before. Only fetch uses them.
	before     uint64
	connection uint64

	mu   sync.Mutex
	it   jetstream.MessagesContext
	held map[uint64]jetstream.Msg
	// keeping: keep is due within word.
	keeping bool
}

type fetched struct {
	task *Task
	err  error
}

func (w *work) Close() { w.close() }

// fetch hands commands to Next, and errors of the server, after which the consumer is opened anew. A command that was fetched and not taken
// when the taker ends is given back at once.
func (w *work) fetch() {
	for {
		msg, err := w.it.Next(jetstream.NextMaxWait(pullLife))
		if errors.Is(err, jetstream.ErrNoHeartbeat) {
			w.unanswered()
			if err = w.lost(); err == nil {
				continue
			}
		}
		if err == nil || errors.Is(err, nats.ErrTimeout) {
			w.answered()
		}
		if errors.Is(err, nats.ErrTimeout) {
			continue
		}
		var f fetched
		if err == nil {
			f.task, f.err = w.hold(msg)
		} else {
			f.err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if f.err == nil && f.task == nil {
			continue
		}
		if !w.hand(f) {
			if msg != nil {
				_ = msg.Nak() // if it is lost, ackWait does the same
			}
			return
		}
		if err == nil {
			continue
		}
		w.it.Stop()
		for err := w.begin(w.running); err != nil; err = w.begin(w.running) {
			if !w.hand(fetched{err: err}) {
				return
			}
		}
	}
}

// hand gives what was fetched to Next. It returns false if the taker ended first.
func (w *work) hand(f fetched) bool {
	select {
	case w.fetched <- f:
		return true
	case <-w.running.Done():
		return false
	}
}

// lost returns an error if the server does not know any more what it hands out: it only says so to whoever asks.
func (w *work) lost() error {
	asked, cancel := context.WithTimeout(w.running, answerWait)
	defer cancel()
	if _, err := w.consumer.Info(asked); errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	return nil
}

// hold returns the task in msg and keeps it, or nil for an entry that is of no known kind and safe to skip.
func (w *work) hold(msg jetstream.Msg) (*Task, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, err
	}
	sequence := meta.Sequence.Stream
	if err := whole(sequence, msg.Subject(), msg.Data(), msg.Headers()); err != nil {
		return nil, err
	}
	entry, err := decode(sequence, msg.Subject(), msg.Data())
	if err != nil {
		return nil, err
	}
	if entry.Kind == nil {
		return nil, msg.Ack()
	}
	w.mu.Lock()
	w.held[sequence] = msg
	w.keepOn()
	w.mu.Unlock()
	return &Task{
		Record: Record{Sequence: sequence, Time: meta.Timestamp, Subject: msg.Subject(), Size: len(msg.Data()), Entry: entry},
		Again: meta.NumDelivered > 1 || meta.Timestamp.Before(w.since) || w.forgotten(sequence) ||
			w.clustered && time.Since(meta.Timestamp) > soon,
		Done:  func(ctx context.Context) error { return w.done(ctx, sequence, msg) },
		Later: func(wait time.Duration) { w.later(sequence, msg, wait) },
	}, nil
}

// forgotten says whether an entry may have been handed out by a server that does not remember it.
func (w *work) forgotten(sequence uint64) bool {
	if now := w.nc.Stats().Reconnects; now != w.connection {
		asked, cancel := context.WithTimeout(w.running, w.patience)
		defer cancel()
		before, err := w.ends(asked)
		if err != nil {
			return true
		}
		w.connection, w.before = now, before
	}
	return sequence <= w.before
}

// drop lets go of a task: it is kept from others no longer.
func (w *work) drop(sequence uint64, msg jetstream.Msg) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held[sequence] == msg {
		delete(w.held, sequence)
	}
}

func (w *work) later(sequence uint64, msg jetstream.Msg, wait time.Duration) {
	w.drop(sequence, msg)
	_ = msg.NakWithDelay(wait) // if it is lost, ackWait brings the task earlier
}

// done does not wait for the server's word that it has heard: an entry whose end it did not hear of comes again, and says so.
func (w *work) done(ctx context.Context, sequence uint64, msg jetstream.Msg) error {
	w.drop(sequence, msg)
	bounded, cancel := context.WithTimeout(ctx, w.patience)
	defer cancel()
	wait := retryWait
	for {
		err := msg.Ack()
		if err == nil || errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
			return nil
		}
		if w.nc.IsClosed() || !w.pause(bounded, &wait) {
			return unavailable(ctx, fmt.Sprintf("say that entry %d is done", sequence), err)
		}
	}
}

// keepOn has keep called, unless it will be or nothing is held: who waits for work does not wake up for nothing. mu is held.
func (w *work) keepOn() {
	if w.keeping || len(w.held) == 0 {
		return
	}
	w.keeping = true
	time.AfterFunc(w.word, w.keep)
}

// keep tells the server that what is held is being worked on, and again after word.
func (w *work) keep() {
	w.mu.Lock()
	w.keeping = false
	if w.running.Err() != nil {
		w.mu.Unlock()
		return
	}
	w.keepOn()
	held := slices.Collect(maps.Values(w.held))
	w.mu.Unlock()
	for _, msg := range held {
		_ = msg.InProgress() // if it is lost, the next one counts; if all are, somebody else may try
	}
}

func (w *work) Next(ctx context.Context) (*Task, error) {
	patience := w.patience
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case f := <-w.fetched:
			if f.err != nil {
				return nil, fmt.Errorf("take an entry: %w", f.err)
			}
			return f.task, nil
		case <-w.running.Done():
			if w.closing.Err() != nil {
				return nil, fmt.Errorf("take an entry: %w: the log is closed", ErrUnavailable)
			}
			return nil, errors.New("take an entry: the taker is closed")
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timer.C:
			if !w.nc.IsConnected() {
				return nil, fmt.Errorf("take an entry: %w: no connection", ErrUnavailable)
			}
			timer.Reset(patience)
		}
	}
}
