package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal/embedded"
)

func readFromAnywhere(t *testing.T, f *fixture) {
	ctx := within(t)
	for i := range 10 {
		_, err := f.Append(ctx, fact("a", i))
		check(t, err)
	}
	all := take(t, reads(t, f, From{}), 10)
	middle := all[5].Time
	want := slices.IndexFunc(all, func(r Record) bool { return !r.Time.Before(middle) })
	for _, c := range []struct {
		from  From
		first uint64
	}{
		{From{}, 1}, {From{Sequence: 1}, 1}, {From{Sequence: 4}, 4}, {From{Sequence: 10}, 10},
		{From{After: all[3]}, 5}, {From{Time: middle}, uint64(want + 1)}, {From{Time: time.Now().Add(-time.Hour)}, 1}, {From{Compacted: true}, 1},
	} {
		if got := take(t, reads(t, f, c.from), int(11-c.first)); got[0].Sequence != c.first {
			t.Errorf("from %+v: begins at %d, want %d", c.from, got[0].Sequence, c.first)
		}
	}
	end := reads(t, f, From{Sequence: 11})
	future := reads(t, f, From{Time: time.Now().Add(time.Minute)})
	_, err := f.Append(ctx, fact("b", 1))
	check(t, err)
	if got := take(t, end, 1); got[0].Sequence != 11 {
		t.Errorf("the end is at %d", got[0].Sequence)
	}
	_ = future // what a reader from the future sees is not fixed, but it must not break
	if _, err := f.Read(ctx, From{Sequence: 13}); !errors.Is(err, ErrGap) {
		t.Errorf("a position beyond the end: %v", err)
	}
}

func readFollows(t *testing.T, f *fixture) {
	r := reads(t, f, From{})
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing to read: %v", err)
	}
	go func() {
		for i := range 200 {
			if _, err := f.Append(context.Background(), fact("a", i)); err != nil {
				t.Error(err)
			}
		}
	}()
	take(t, r, 200)
	r.Close()
	if _, err := r.Next(within(t)); err == nil {
		t.Error("a closed reader reads")
	}
}

// notesAreNoGap: what the log keeps for itself, and drops, is neither seen nor missed.
func notesAreNoGap(t *testing.T, f *fixture) {
	ctx := within(t)
	fence, err := f.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	for range 20 {
		_, err = f.AppendCommands(ctx, fence, wish("again and again", time.Now().Add(time.Hour)), write("a"))
		check(t, err)
	}
	_, err = f.AppendCommands(ctx, fence, wish("now", time.Now()))
	check(t, err)
	until(t, reads(t, f, From{Sequence: fence}), ticked("now"))
	for _, r := range take(t, reads(t, f, From{Sequence: fence}), 1+40+2) {
		if strings.HasPrefix(r.Subject, "shiplog.local.wake") {
			t.Errorf("a note was handed out at %d", r.Sequence)
		}
	}
}

func undecodable(t *testing.T, f *fixture) {
	ctx := within(t)
	_, err := f.Append(ctx, fact("a", 1))
	check(t, err)
	skippable, err := proto.Marshal(&shiplogv1.Entry{Writer: "from the future", Skippable: true})
	check(t, err)
	f.inject(t, "shiplog.local.fact.core.pods.default.a", skippable)
	unknown, err := proto.Marshal(&shiplogv1.Entry{Writer: "from the future", WriterVersion: "v99"})
	check(t, err)
	at := f.inject(t, "shiplog.local.fact.core.pods.default.a", unknown)
	r := reads(t, f, From{})
	records := take(t, r, 2)
	if e := records[1].Entry; e.Kind != nil || e.Writer != "from the future" {
		t.Errorf("a skippable entry reads %v", e)
	}
	for range 2 {
		_, err = r.Next(ctx)
		wantError(t, err, ErrUndecodable)
		for _, part := range []string{fmt.Sprintf("sequence %d", at), "from the future", "v99"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not say %q", err, part)
			}
		}
	}
	at = f.inject(t, "shiplog.local.cmd.0.core.pods.default.a", []byte("no protobuf"))
	_, err = works(t, f, "executor").Next(ctx)
	wantError(t, err, ErrUndecodable)
	if !strings.Contains(err.Error(), fmt.Sprintf("sequence %d", at)) {
		t.Errorf("%q does not name %d", err, at)
	}
}

// overflow appends until entries have left the front of the log up to at least position upTo.
func overflow(t *testing.T, f *fixture, upTo uint64) {
	t.Helper()
	ctx := within(t)
	for i := 0; ; i++ {
		_, err := f.Append(ctx, factOf("overflow", i, 8<<10))
		check(t, err)
		state, err := f.State(ctx)
		check(t, err)
		if state.FirstSequence > upTo {
			return
		}
	}
}

func gap(t *testing.T, f *fixture) {
	ctx := within(t)
	_, err := f.Append(ctx, fact("a", 1), fact("a", 2), fact("a", 3))
	check(t, err)
	overflow(t, f, 2)
	r := reads(t, f, From{Sequence: 2})
	_, err = r.Next(ctx)
	wantError(t, err, ErrGap)
	records, err := reads(t, f, From{}).Next(ctx)
	check(t, err)
	if records[0].Sequence < 3 {
		t.Errorf("what is left begins at %d", records[0].Sequence)
	}
	state, err := f.State(ctx)
	check(t, err)
	if state.MaxBytes != 128<<10 {
		t.Errorf("state %+v", state)
	}
}

// missingAfterCompaction: retention went past the compacted view; a start is still possible, and known to be incomplete.
func missingAfterCompaction(t *testing.T, f *fixture) {
	ctx := within(t)
	_, err := f.Append(ctx, fact("a", 1), fact("a", 2), fact("a", 3))
	check(t, err)
	check(t, f.Compact(ctx, 2, func(uint64) bool { return true }))
	overflow(t, f, 5)
	state, err := f.State(ctx)
	check(t, err)
	if state.Missing != state.FirstSequence-3 {
		t.Errorf("state %+v", state)
	}
	r := reads(t, f, From{Compacted: true})
	records := take(t, r, int(2+state.LastSequence-state.FirstSequence+1))
	if records[1].Sequence != 2 || records[2].Sequence != state.FirstSequence {
		t.Errorf("sequences %v, the log begins at %d", sequences(records), state.FirstSequence)
	}
	check(t, f.Compact(ctx, state.LastSequence, func(uint64) bool { return true }))
	if state, err = f.State(ctx); err != nil || state.Missing != 0 {
		t.Errorf("state %+v, %v", state, err)
	}
}

// TestPutBackAndOvertaken: the log is put back, and has grown beyond where a reader was when the reader finds it again. What follows does not
// belong to what the reader has.
func TestPutBackAndOvertaken(t *testing.T) {
	t.Parallel()
	s := startTestServer(t, 0)
	j := mustOpen(t, Options{URL: s.url, Patience: 45 * time.Second, Log: testLog(t)})
	grow := func(j Journal, name string, n int) {
		t.Helper()
		for i := range n {
			_, err := j.Append(within(t), fact(name, i+1))
			check(t, err)
		}
	}
	grow(j, "before", 5)
	s.Stop()
	saved := t.TempDir()
	check(t, os.CopyFS(saved, os.DirFS(s.Directory)))
	s.start(t)
	r := reads(t, j, From{Sequence: 1})
	grow(j, "lost", 5)
	taken := take(t, r, 10)
	s.Stop()
	elsewhere := mustOpen(t, Options{Server: &embedded.Server{Directory: saved}})
	grow(elsewhere, "instead", 8)
	check(t, elsewhere.Close())
	check(t, os.RemoveAll(s.Directory))
	check(t, os.CopyFS(s.Directory, os.DirFS(saved)))
	s.start(t)
	records, err := r.Next(within(t))
	if err == nil {
		t.Fatalf("read on: %v", sequences(records))
	}
	wantError(t, err, ErrGap)
	_, err = reads(t, j, From{After: taken[9]}).Next(within(t)) // so does whoever reads anew
	wantError(t, err, ErrGap)
	if next := take(t, reads(t, j, From{After: taken[3]}), 9)[0]; next.Sequence != 5 {
		t.Errorf("after an entry that is still there comes %d", next.Sequence)
	}
}
