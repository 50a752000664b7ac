package journal

import (
	"context"
	"errors"
	"fmt"
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
	// maxHeld is how many commands all takers of one name hold together.
	maxHeld = 1024
	// maxFetched is how many of them one taker has fetched ahead.
	maxFetched = 64
)

func (j *logStream) Commands(ctx context.Context, name string) (Work, error) {
	return j.work(ctx, name, spaceCommand, "commands")
}

func (j *logStream) Events(ctx context.Context, name string) (Work, error) {
	return j.work(ctx, name, spaceEvent, "rollout events")
}

// work takes the entries of a space under a name.
func (j *logStream) work(ctx context.Context, name, space, what string) (Work, error) {
	doing := "take " + what + " as " + name
	bounded, cancel := context.WithTimeout(ctx, j.options.Patience)
	defer cancel()
	w := &work{j: j, held: map[uint64]jetstream.Msg{}, fetched: make(chan fetched)}
	err := j.patiently(bounded, doing, func(ctx context.Context) error {
		consumer, err := j.stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
			Durable:       nameOf(name),
			Description:   "Shiplog: " + what + " that " + name + " acts on",
			FilterSubject: j.subject(space + ".>"),
			DeliverPolicy: jetstream.DeliverAllPolicy,
			AckPolicy:     jetstream.AckExplicitPolicy,
			AckWait:       ackWait,
			MaxAckPending: maxHeld,
			MaxDeliver:    -1,
		})
		if err != nil {
			return err
		}
		w.since = consumer.CachedInfo().Created
		w.it, err = consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(maxFetched, pullBytes),
			jetstream.PullExpiry(pullLife), jetstream.PullHeartbeat(pullPulse))
		return err
	})
	if err != nil {
		return nil, err
	}
	var end context.CancelFunc
	w.running, end = context.WithCancel(j.closing)
	w.close = sync.OnceFunc(func() {
		end()
		w.it.Stop()
	})
	go w.fetch()
	go w.keep()
	return w, nil
}

// work is one taker. Every command that reached it is held, and kept from others, until it is done or the taker ends.
type work struct {
	j       *logStream
	it      jetstream.MessagesContext
	since   time.Time // when takers of this name first asked for commands
	running context.Context
	close   func()

	fetched chan fetched

	mu   sync.Mutex
	held map[uint64]jetstream.Msg
}

type fetched struct {
	task *Task
	err  error
}

func (w *work) Close() { w.close() }

// fetch hands commands to Next. One that was fetched and not taken when the taker ends is given back at once. After an error
// of the server that stays, Next gets that error for ever.
func (w *work) fetch() {
	for {
		msg, err := w.it.Next(jetstream.NextMaxWait(pullLife))
		if errors.Is(err, nats.ErrTimeout) || errors.Is(err, jetstream.ErrNoHeartbeat) {
			continue
		}
		var f fetched
		if err == nil {
			f.task, err = w.hold(msg)
		} else {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if err == nil && f.task == nil {
			continue
		}
		f.err = err
		for {
			select {
			case w.fetched <- f:
			case <-w.running.Done():
				if msg != nil {
					_ = msg.Nak() // if it is lost, ackWait does the same
				}
				return
			}
			if err == nil || errors.Is(err, ErrUndecodable) {
				break
			}
		}
	}
}

// hold returns the task in msg and keeps it, or nil for an entry that is of no known kind and safe to skip.
func (w *work) hold(msg jetstream.Msg) (*Task, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, err
	}
	sequence := meta.Sequence.Stream
	entry, err := decode(sequence, msg.Subject(), msg.Data())
	if err != nil {
		return nil, err
	}
	if entry.Kind == nil {
		return nil, msg.Ack()
	}
	w.mu.Lock()
	w.held[sequence] = msg
	w.mu.Unlock()
	return &Task{
		Record: Record{Sequence: sequence, Time: meta.Timestamp, Subject: msg.Subject(), Size: len(msg.Data()), Entry: entry},
		Again:  meta.NumDelivered > 1 || meta.Timestamp.Before(w.since),
		Done:   func(ctx context.Context) error { return w.done(ctx, sequence, msg) },
	}, nil
}

func (w *work) done(ctx context.Context, sequence uint64, msg jetstream.Msg) error {
	w.mu.Lock()
	if w.held[sequence] == msg {
		delete(w.held, sequence)
	}
	w.mu.Unlock()
	bounded, cancel := context.WithTimeout(ctx, w.j.options.Patience)
	defer cancel()
	wait := retryWait
	doing := fmt.Sprintf("say that entry %d is done", sequence)
	for {
		asked, stop := context.WithTimeout(bounded, answerWait)
		err := msg.DoubleAck(asked)
		stop()
		if err == nil || errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
			return nil
		}
		if w.j.nc.IsClosed() || !w.j.pause(bounded, &wait) {
			return unavailable(ctx, doing, err)
		}
	}
}

// keep tells the server every keepAlive that the commands held are being worked on.
func (w *work) keep() {
	ticker := time.NewTicker(keepAlive)
	defer ticker.Stop()
	for {
		select {
		case <-w.running.Done():
			return
		case <-ticker.C:
		}
		w.mu.Lock()
		held := make([]jetstream.Msg, 0, len(w.held))
		for _, msg := range w.held {
			held = append(held, msg)
		}
		w.mu.Unlock()
		for _, msg := range held {
			_ = msg.InProgress() // if it is lost, the next one counts; if all are, somebody else may try
		}
	}
}

func (w *work) Next(ctx context.Context) (*Task, error) {
	patience := w.j.options.Patience
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
			if w.j.closing.Err() != nil {
				return nil, fmt.Errorf("take an entry: %w: the log is closed", ErrUnavailable)
			}
			return nil, errors.New("take an entry: the taker is closed")
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timer.C:
			if !w.j.nc.IsConnected() {
				return nil, fmt.Errorf("take an entry: %w: no connection", ErrUnavailable)
			}
			timer.Reset(patience)
		}
	}
}
