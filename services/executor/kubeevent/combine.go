package kubeevent

import (
	"context"
	"maps"
	"slices"
	"time"

	"shiplog.dev/internal/journal"
)

// pace is how many Events are written and when.
type pace struct {
	// singles Events about one workload for one reason are written one by one in a window of time, as long as the rate of writes has room and
	// no other write waits; what follows is combined, and so is what many workloads have to tell at once.
	singles int
	window  time.Duration
	// combineFor is how long notices wait to be combined. While other writes wait, rollout events are left in the log for yieldFor, and what was
	// taken waits as long. There are at most combineMax in one Event, and twice as many held.
	combineFor, yieldFor time.Duration
	combineMax           int
}

var standard = pace{singles: 10, window: time.Minute, combineFor: 2 * time.Second, yieldFor: 10 * time.Second, combineMax: 400}

// key is what Events are combined by.
type key struct{ uid, reason string }

// group is what there is to tell about one workload for one reason.
type group struct {
	began   time.Time // of the window
	singles int
	// held notices wait to be combined, since the first came.
	held  []*notice
	since time.Time
	// told are the entries that Events of before our time stand for; nil: not asked for yet.
	told map[uint64]bool
}

// yields looks whether other writes wait, and says whether rollout events stay in the log for now: to take them is work too.
func (w *writer) yields() bool {
	switch {
	case !w.options.Pressed():
		w.pressedSince = time.Time{}
		return false
	case w.pressedSince.IsZero():
		w.pressedSince = time.Now()
	}
	return time.Since(w.pressedSince) < w.yieldFor
}

// take deals with one rollout event: it writes the Event, or holds it to be combined.
func (w *writer) take(ctx context.Context, task *journal.Task) {
	n := noticeOf(task)
	switch {
	case n == nil:
		w.done(ctx, task)
		return
	case time.Since(n.at) > maxAge:
		w.finish(ctx, "dropped", n)
		return
	}
	k := key{n.workload.GetUid(), n.reason}
	g := w.groups[k]
	if g == nil {
		w.forget()
		g = &group{began: time.Now()}
		w.groups[k] = g
	}
	if task.Again {
		// Who had it before may have written it and not said so.
		if g.told == nil {
			g.told = w.toldBy(ctx, n)
		}
		if g.told[task.Sequence] {
			w.finish(ctx, "written", n)
			return
		}
	}
	if len(g.held) == 0 && time.Since(g.began) >= w.window {
		g.began, g.singles = time.Now(), 0
	}
	if len(g.held) == 0 && g.singles < w.singles && !w.options.Pressed() && w.rate.TryAccept() {
		g.singles++
		w.write(ctx, n)
		return
	}
	if len(g.held) == 0 {
		g.since = time.Now()
	}
	g.held = append(g.held, n)
	w.held++
}

// flush writes what has waited long enough, and of what is too much to hold the most.
func (w *writer) flush(ctx context.Context) {
	for _, g := range w.groups {
		if len(g.held) > 0 && w.due(g) {
			w.combine(ctx, g)
		}
	}
	for w.held >= 2*w.combineMax && ctx.Err() == nil {
		var fullest *group
		for _, g := range w.groups {
			if fullest == nil || len(g.held) > len(fullest.held) {
				fullest = g
			}
		}
		w.combine(ctx, fullest)
	}
}

// due says whether what a group holds has waited long enough, or is all that one Event takes.
func (w *writer) due(g *group) bool {
	waited := time.Since(g.since)
	return len(g.held) >= w.combineMax || waited >= w.yieldFor || waited >= w.combineFor && !w.options.Pressed()
}

// combine writes what a group holds as one Event.
func (w *writer) combine(ctx context.Context, g *group) {
	if w.rate.Wait(ctx) != nil {
		return
	}
	held := g.held
	g.held = nil
	w.held -= len(held)
	w.write(ctx, held...)
}

// forget drops groups of which nothing was heard for two windows.
func (w *writer) forget() {
	maps.DeleteFunc(w.groups, func(_ key, g *group) bool { return len(g.held) == 0 && time.Since(g.began) > 2*w.window })
}

// sequences of the entries that notices tell of, in order.
func sequences(notices []*notice) []uint64 {
	out := make([]uint64, len(notices))
	for i, n := range notices {
		out[i] = n.task.Sequence
	}
	slices.Sort(out)
	return out
}
