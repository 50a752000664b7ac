package journal

import (
	"testing"

	"google.golang.org/protobuf/proto"
)

func compactionKeepsTheLiving(t *testing.T, f *fixture) {
	ctx := within(t)
	var original []Record
	fill := func(n int) {
		for i := range n {
			_, err := f.Append(ctx, fact("a", len(original)+i), fact("b", len(original)+i))
			check(t, err)
		}
		original = take(t, reads(t, f, From{}), len(original)+2*n)
	}
	compact := func(at uint64, live func(uint64) bool) {
		before := uint64(0)
		check(t, f.Compact(ctx, at, func(s uint64) bool {
			if s <= before || s > at {
				t.Errorf("asked for %d after %d, compacting at %d", s, before, at)
			}
			before = s
			return live(s)
		}))
		state, err := f.State(ctx)
		check(t, err)
		if state.Compacted != at || state.Missing != 0 {
			t.Errorf("state %+v, compacted at %d", state, at)
		}
	}
	want := func(sequences ...uint64) {
		t.Helper()
		state, err := f.State(ctx)
		check(t, err)
		reader := reads(t, f, From{Compacted: true})
		if reader.Compacted() != state.Compacted {
			t.Errorf("the reader begins with a view at %d, the newest is at %d", reader.Compacted(), state.Compacted)
		}
		for i, r := range take(t, reader, len(sequences)) {
			o := original[sequences[i]-1]
			if r.Sequence != o.Sequence || !r.Time.Equal(o.Time) || r.Subject != o.Subject || r.Size != o.Size || !proto.Equal(r.Entry, o.Entry) {
				t.Fatalf("record %d of the compacted view is %+v, want %+v", i, r, o)
			}
		}
	}
	fill(5)
	compact(8, func(s uint64) bool { return s == 2 || s == 5 })
	want(2, 5, 8, 9, 10)
	fill(5)
	compact(16, func(s uint64) bool { return s == 5 || s == 9 || s == 12 })
	want(5, 9, 12, 16, 17, 18, 19, 20)
	compact(16, func(s uint64) bool { return s == 9 }) // the same position again
	want(9, 16, 17, 18, 19, 20)
	f.reopen(t)
	compact(20, func(uint64) bool { return false })
	want(20)
	r := reads(t, f, From{Compacted: true})
	take(t, r, 1)
	_, err := f.Append(ctx, fact("c", 1))
	check(t, err)
	if got := take(t, r, 1); got[0].Sequence != 21 {
		t.Errorf("after the view comes %d", got[0].Sequence)
	}
}

func compactionRefusesThePast(t *testing.T, f *fixture) {
	ctx := within(t)
	_, err := f.Append(ctx, fact("a", 1), fact("a", 2), fact("a", 3))
	check(t, err)
	all := func(uint64) bool { return true }
	check(t, f.Compact(ctx, 2, all))
	for _, at := range []uint64{0, 1, 4} {
		if err := f.Compact(ctx, at, all); err == nil {
			t.Errorf("compacted at %d", at)
		}
	}
	take(t, reads(t, f, From{Compacted: true}), 3)
}

func compactionOfNothing(t *testing.T, f *fixture) {
	if err := f.Compact(within(t), 1, func(uint64) bool { return true }); err == nil {
		t.Error("an empty log was compacted")
	}
	r := reads(t, f, From{Compacted: true})
	_, err := f.Append(within(t), fact("a", 1))
	check(t, err)
	take(t, r, 1)
}
