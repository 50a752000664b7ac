package watcher

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
)

// bench is one view on a queue that nobody empties.
type bench struct {
	*testing.T
	view *view
}

func newBench(t *testing.T) *bench {
	w := &watcher{options: Options{Logger: zerolog.Nop()}, metrics: newMetrics(nil), pace: standard}
	w.queue = newQueue(nil, zerolog.Nop(), w.metrics)
	return &bench{T: t, view: newView(watched("", "v1", "pods"), nil, w)}
}

func raw(name, uid string, version int, content string) []byte {
	return fmt.Appendf(nil, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":%q,"namespace":"ns","uid":%q,"resourceVersion":"%d"},"x":%q}`, name, uid, version, content)
}

func (b *bench) pod(name, uid string, version int, content string) *item {
	b.Helper()
	i, err := newItem(b.view.kind.resource, raw(name, uid, version, content))
	if err != nil {
		b.Fatal(err)
	}
	return i
}

// do runs one step, written as "verb name uid version content"; see the tests.
func (b *bench) do(step string) {
	b.Helper()
	var verb, name, uid, content string
	var version int
	_, _ = fmt.Sscan(step+" - - 0 -", &verb, &name, &uid, &version, &content)
	switch verb {
	case "watch":
		_ = b.view.Update(b.pod(name, uid, version, content))
	case "end":
		_ = b.view.Delete(b.pod(name, uid, version, content))
	case "holds":
		i := b.pod(name, uid, version, content)
		b.view.holds(place{"ns", name}, state{uid, uint64(version), i.normal.Hash})
	case "lacks":
		b.view.lacks(place{"ns", name}, uid, uint64(version))
	default:
		b.Fatalf("step %q", step)
	}
}

func (b *bench) list(version string, objects ...*item) {
	b.Helper()
	all := make([]any, len(objects))
	for i, o := range objects {
		all[i] = o
	}
	if err := b.view.Replace(all, version); err != nil {
		b.Fatal(err)
	}
}

// published takes what was published since the last call.
func (b *bench) published() string {
	var all []string
	for _, f := range b.view.w.queue.waiting {
		if o := f.entry.GetObjectObserved(); o != nil {
			all = append(all, fmt.Sprintf("%s %s@%s", o.GetObject().GetName(), o.GetObject().GetUid(), o.GetResourceVersion()))
		}
		if o := f.entry.GetObjectDeleted(); o != nil {
			all = append(all, fmt.Sprintf("-%s %s@%s", o.GetObject().GetName(), o.GetObject().GetUid(), o.GetResourceVersion()))
		}
	}
	b.view.w.queue.waiting = nil
	return strings.Join(all, ", ")
}

func TestDifference(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []string
		want  string
	}{
		{"each change once", []string{"watch a u1 5 x", "watch a u1 6 y", "end a u1 7 y"}, "a u1@5, a u1@6, -a u1@7"},
		{"a heartbeat is no change", []string{"watch a u1 5 x", "watch a u1 6 x", "watch a u1 7 y"}, "a u1@5, a u1@7"},
		{"what the log holds", []string{"holds a u1 5 x", "watch a u1 5 x"}, ""},
		{"what the log holds but for the version", []string{"holds a u1 5 x", "watch a u1 9 x"}, ""},
		{"a newer state than the log holds", []string{"holds a u1 5 x", "watch a u1 6 y"}, "a u1@6"},
		{"an older state than the executor's", []string{"watch a u1 4 w", "holds a u1 6 y", "watch a u1 5 x", "watch a u1 6 y"}, "a u1@4"},
		{"another object of that name", []string{"holds a u1 5 x", "watch a u2 9 x"}, "-a u1@9, a u2@9"},
		{"another object that the executor saw first", []string{"watch a u1 5 x", "holds a u2 9 x", "end a u1 8 x", "watch a u2 9 x"}, "a u1@5"},
		{"a deletion that another watcher published", []string{"watch a u1 5 x", "lacks a u1 6", "end a u1 6 x"}, "a u1@5"},
		{"an end of what was never there", []string{"end a u1 6 x"}, ""},
	} {
		b := newBench(t)
		for _, step := range c.steps {
			b.do(step)
		}
		if got := b.published(); got != c.want {
			t.Errorf("%s: published %q, want %q", c.name, got, c.want)
		}
	}
}

func TestReplacePublishesTheDifference(t *testing.T) {
	b := newBench(t)
	for _, step := range []string{"holds same u1 5 x", "holds beats u2 6 x", "holds changed u3 7 x", "holds gone u4 8 x", "holds young u5 90 x"} {
		b.do(step)
	}
	b.list("50", b.pod("same", "u1", 5, "x"), b.pod("beats", "u2", 20, "x"), b.pod("changed", "u3", 21, "y"), b.pod("new", "u6", 22, "x"))
	if got, want := b.published(), "changed u3@21, new u6@22, -gone u4@50"; got != want {
		t.Errorf("published %q, want %q", got, want)
	}
	// young was created after the list, and the executor's fact of it came first.
	if e := b.view.entries[place{"ns", "young"}]; e == nil || e.logged.uid != "u5" {
		t.Error("forgot an object that is newer than the list")
	}
	if _, ok := b.view.entries[place{"ns", "gone"}]; ok {
		t.Error("remembers an object that is gone")
	}
	b.list("60", b.pod("new", "u6", 22, "x"))
	if got := strings.Count(b.published(), "-"); got != 3 {
		t.Errorf("published %d deletions, want 3", got)
	}
}

func TestPassed(t *testing.T) {
	listed := func(at uint64, objects map[string]state) *versions {
		l := &versions{at: at, objects: map[place]state{}}
		for name, s := range objects {
			l.objects[place{"ns", name}] = s
		}
		return l
	}
	for _, c := range []struct {
		name  string
		steps []string
		list  *versions
		want  bool
	}{
		{"nothing was listed yet", nil, listed(5, nil), false},
		{"everything is there", []string{"watch a u1 5 x", "watch b u2 6 x"}, listed(9, map[string]state{"a": {"u1", 5, 0}, "b": {"u2", 6, 0}}), true},
		{"an object is missing", []string{"watch a u1 5 x"}, listed(9, map[string]state{"a": {"u1", 5, 0}, "b": {"u2", 6, 0}}), false},
		{"a change is missing", []string{"watch a u1 5 x"}, listed(9, map[string]state{"a": {"u1", 6, 0}}), false},
		{"a deletion is missing", []string{"watch a u1 5 x"}, listed(9, nil), false},
		{"replaced and the new one is missing", []string{"watch a u1 5 x"}, listed(9, map[string]state{"a": {"u2", 8, 0}}), false},
		{"a change without a fact was seen", []string{"watch a u1 5 x", "watch a u1 6 x"}, listed(9, map[string]state{"a": {"u1", 6, 0}}), true},
		{"the watch is further", []string{"watch a u1 5 x", "end a u1 10 x"}, listed(9, map[string]state{"a": {"u1", 5, 0}}), true},
		{"the executor's word is not the watch's", []string{"watch a u1 5 x", "holds a u1 6 y"}, listed(9, map[string]state{"a": {"u1", 6, 0}}), false},
	} {
		b := newBench(t)
		for _, step := range c.steps {
			b.do(step)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := b.view.passed(ctx, c.list)
		if (err == nil) != c.want || err != nil && !errors.Is(err, errBehind) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

func TestPassedWaits(t *testing.T) {
	b := newBench(t)
	b.do("watch a u1 5 x")
	done := make(chan error)
	go func() {
		done <- b.view.passed(t.Context(), &versions{at: 9, objects: map[place]state{{"ns", "a"}: {"u1", 8, 0}}})
	}()
	select {
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	b.do("watch a u1 8 x")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestSettle(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []string
		stale bool
		want  string
	}{
		{"in step", []string{"watch a u1 5 x"}, false, "a u1@5"},
		{"a late fact about what is gone", []string{"watch a u1 5 x", "end a u1 7 x", "holds a u1 6 y"}, false, "a u1@5, -a u1@7, -a u1@9"},
		{"a fact about what is not seen yet", []string{"holds a u1 12 y"}, false, ""},
		// Seen at 5 as x and at 7 as x again, so 7 was not published; then the log got 6 as y.
		{"the log fell behind a state that was not published", []string{"watch a u1 5 x", "watch a u1 7 x", "holds a u1 6 y"}, true, "a u1@5"},
		{"a deletion in the log that never was", []string{"watch a u1 5 x", "lacks a u1 6"}, true, "a u1@5"},
		{"the executor is ahead", []string{"watch a u1 5 x", "holds a u1 6 y"}, false, "a u1@5"},
	} {
		b := newBench(t)
		for _, step := range c.steps {
			b.do(step)
		}
		err := b.view.settle(9)
		if errors.Is(err, errStale) != c.stale {
			t.Errorf("%s: got %v", c.name, err)
		}
		if got := b.published(); got != c.want {
			t.Errorf("%s: published %q, want %q", c.name, got, c.want)
		}
		if c.stale { // a new list mends it
			b.list("9", b.pod("a", "u1", 7, "x"))
			if err := b.view.settle(9); err != nil || b.published() != "a u1@7" {
				t.Errorf("%s: a new list did not mend it: %v", c.name, err)
			}
		}
	}
}

func TestSpacing(t *testing.T) {
	for _, c := range []struct {
		cost        time.Duration
		busy, woken bool
		want        time.Duration
	}{
		{10 * time.Millisecond, false, false, 5 * time.Second},
		{10 * time.Millisecond, true, false, 3 * time.Second},
		{10 * time.Millisecond, true, true, 500 * time.Millisecond},
		{200 * time.Millisecond, false, false, 10 * time.Second},
		{time.Second, true, true, 12 * time.Second},
	} {
		if got := standard.spacing(c.cost, c.busy, c.woken); got != c.want {
			t.Errorf("spacing(%v, %v, %v) = %v, want %v", c.cost, c.busy, c.woken, got, c.want)
		}
	}
}

// A full queue holds the watch back and lets go of it when the watcher ends.
func TestBackPressure(t *testing.T) {
	q := newQueue(nil, zerolog.Nop(), newMetrics(nil))
	for range maxQueued {
		q.push(fact{})
	}
	pushed := make(chan struct{})
	go func() { q.push(fact{}); close(pushed) }()
	select {
	case <-pushed:
		t.Fatal("pushed beyond the bound")
	case <-time.After(20 * time.Millisecond):
	}
	q.end()
	<-pushed
	if got := q.position(); got != maxQueued {
		t.Errorf("%d facts were pushed, want %d", got, maxQueued)
	}
}

// A fact that the log can never take is left out, and its kind is not vouched for until the object is another.
func TestTooLargeFact(t *testing.T) {
	b := newBench(t)
	q := b.view.w.queue
	q.journal, q.stamp = narrow{}, func(*shiplogv1.Entry) {}
	for _, step := range []string{"watch a u1 5 x", "watch huge u2 6 x", "watch c u3 7 x"} {
		b.do(step)
	}
	if err := q.append(t.Context(), q.take(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := q.flushed(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	if b.view.lossless() {
		t.Error("the lost fact does not count")
	}
	b.do("end huge u2 8 x")
	if !b.view.lossless() {
		t.Error("the lost fact counts though its object is gone")
	}
}

// narrow is a log that takes nothing about the object "huge".
type narrow struct{ journal.Journal }

func (narrow) Append(_ context.Context, entries ...*shiplogv1.Entry) (uint64, error) {
	for _, e := range entries {
		if e.GetObjectObserved().GetObject().GetName() == "huge" {
			return 0, journal.ErrTooLarge
		}
	}
	return 1, nil
}

// TestContradictions: what a consistent list must not say after what was seen before it was asked for. Objects are "name uid version".
func TestContradictions(t *testing.T) {
	for _, c := range []struct {
		name     string
		steps    []string
		at       uint64
		list     []string
		rewound  bool
		relisted bool
	}{
		{"as it was seen", []string{"watch a u1 5 x"}, 5, []string{"a u1 5"}, false, false},
		{"a change that the watch has yet to show", []string{"watch a u1 5 x"}, 7, []string{"a u1 7"}, false, false},
		{"a deletion that the watch has yet to show", []string{"watch a u1 5 x"}, 7, nil, false, false},
		{"an object that the watch has yet to show", []string{"watch a u1 5 x"}, 7, []string{"a u1 5", "b u2 6"}, false, false},
		{"another object of the name", []string{"watch a u1 5 x"}, 7, []string{"a u2 7"}, false, false},
		{"a list from before what was seen", []string{"watch a u1 9 x"}, 7, []string{"a u1 5"}, true, false},
		{"a list from before what the log holds", []string{"holds a u1 9 x"}, 7, []string{"a u1 5"}, true, false},
		{"an object as it was before", []string{"watch a u1 6 x"}, 9, []string{"a u1 5"}, true, false},
		{"an object as it was before what the log holds", []string{"holds a u1 6 x"}, 9, []string{"a u1 5"}, true, false},
		{"an object whose end was seen", []string{"watch a u1 5 x", "end a u1 7 x"}, 9, []string{"a u1 5"}, true, false},
		{"an object that the watch passed and never showed", []string{"watch a u1 8 x"}, 8, []string{"a u1 8", "b u2 6"}, false, true},
		{"a deletion that the watch passed and never showed", []string{"watch a u1 5 x", "watch b u2 8 x"}, 8, []string{"b u2 8"}, false, true},
		{"a change that the watch passed and never showed", []string{"watch a u1 5 x", "watch b u2 8 x"}, 8, []string{"a u1 7", "b u2 8"}, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			for _, step := range c.steps {
				b.do(step)
			}
			list := &versions{at: c.at, objects: map[place]state{}}
			for _, text := range c.list {
				var name, uid string
				var version uint64
				_, _ = fmt.Sscan(text, &name, &uid, &version)
				list.objects[place{"ns", name}] = state{uid: uid, version: version}
			}
			highest, progress := b.view.known()
			err := b.view.compare(list, highest, progress)
			var rewound *rewoundError
			if got := errors.As(err, &rewound); got != c.rewound {
				t.Errorf("rewound: %v", err)
			}
			if got := errors.Is(err, errStale); got != c.relisted {
				t.Errorf("listed again: %v", err)
			}
		})
	}
}

// TestRewound: everything that the log holds is published anew, at lower versions too, and what is not there is gone.
func TestRewound(t *testing.T) {
	b := newBench(t)
	for _, step := range []string{"watch a u1 5 x", "watch b u2 8 y", "watch c u3 9 z"} {
		b.do(step)
	}
	b.published()
	b.view.rewind()
	b.list("6", b.pod("a", "u1", 5, "x"), b.pod("b", "u2", 3, "w"))
	if got, want := b.published(), "a u1@5, b u2@3, -c u3@6"; got != want {
		t.Errorf("published %q, want %q", got, want)
	}
}
