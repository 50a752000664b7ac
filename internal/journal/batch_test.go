package journal

import (
	"errors"
	"strconv"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// TestStreamEndsWhereRefused: of a stream of messages the log holds those before the first that it refuses, and says so.
func TestStreamEndsWhereRefused(t *testing.T) {
	for refused := 1; refused <= 4; refused++ {
		t.Run(strconv.Itoa(refused), func(t *testing.T) {
			f := startEmbedded(t, limits{})
			l, ctx := f.Journal.(*logStream), within(t)
			messages := fenceless(t, l, "a", "b", "c", "d")
			messages[refused-1].Header.Set(jetstream.ExpectedLastSeqHeader, "77")
			last, stored, err := l.publishStream(ctx, messages)
			var api *jetstream.APIError
			if !errors.As(err, &api) || api.ErrorCode != codeWrongLast || notStored(err) {
				t.Errorf("the error is %v", err)
			}
			if stored != refused-1 || last != uint64(refused-1) {
				t.Errorf("%d are stored, up to position %d", stored, last)
			}
			state, err := f.State(ctx)
			check(t, err)
			if state.LastSequence != uint64(refused-1) {
				t.Errorf("the log ends at %d", state.LastSequence)
			}
			// What comes later is another stream, and late answers are not taken for its own.
			if last, stored, err = l.publishStream(ctx, fenceless(t, l, "e", "f")); err != nil || stored != 2 || last != uint64(refused+1) {
				t.Errorf("afterwards %d are stored, up to position %d: %v", stored, last, err)
			}
		})
	}
}

// TestStreamWithoutListener: nobody there is a clear no.
func TestStreamWithoutListener(t *testing.T) {
	l := startEmbedded(t, limits{}).Journal.(*logStream)
	messages := fenceless(t, l, "a", "b")
	for _, m := range messages {
		m.Subject = "elsewhere"
	}
	if _, _, err := l.publishStream(within(t), messages); !errors.Is(err, nats.ErrNoResponders) || !notStored(err) {
		t.Errorf("the error is %v", err)
	}
}

func fenceless(t *testing.T, l *logStream, names ...string) []*nats.Msg {
	var entries []*shiplogv1.Entry
	for _, name := range names {
		entries = append(entries, write(name))
	}
	messages, _, err := composeCommands(l.options.Cluster, l.options.Shards, entries)
	check(t, err)
	var out []*nats.Msg
	for _, m := range messages {
		out = append(out, m.msg())
	}
	return out
}
