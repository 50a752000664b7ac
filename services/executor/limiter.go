package executor

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// Bounds of how many requests are in flight at once.
const (
	startLimit = 32
	minLimit   = 2
	maxLimit   = 256
)

// purpose of a request.
type purpose int

const (
	change purpose = iota
	// report is a status that nothing waits for. There may be as many as changes, at the same moment, and they share the API server.
	report
	purposes
)

const (
	// reportShare is the part of the places that reports get at most: one of so many.
	reportShare = 8
	// reportYields is for how long a report waits while changes queue. Then it goes first, so that who watches a long rollout sees it move.
	reportYields = 2 * time.Second
)

const (
	// calm is the latency below which the API server is not considered slow, whatever it was before.
	calm = 250 * time.Millisecond
	// rising is how many times the usual latency the recent one must be to count as rising.
	rising = 2
	// settle is the time that a lower limit gets to show its effect before it is lowered again.
	settle = time.Second
)

// limiter bounds the requests in flight by what the API server bears: it admits one more per round of successes while the
// bound is what holds requests back, halves on 429 and gives up a fifth when latency rises.
type limiter struct {
	mu       sync.Mutex
	limit    float64
	inFlight [purposes]int
	waiting  [purposes]list.List // of waiting; first come, first served
	// Moving averages of latency over about 8 and about 256 requests, in seconds.
	recent, usual float64
	lowered       time.Time
	observe       func(limit float64)
}

type waiting struct {
	since    time.Time
	admitted chan struct{} // closed when it is
}

func newLimiter(observe func(limit float64)) *limiter {
	observe(startLimit)
	return &limiter{limit: startLimit, observe: observe}
}

// acquire waits for a place from now on. It returns the error of ctx if that ended first; else the caller must call release.
func (l *limiter) acquire(ctx context.Context, p purpose, now time.Time) error {
	l.mu.Lock()
	if l.waiting[p].Len() == 0 && l.room(p) {
		l.inFlight[p]++
		l.mu.Unlock()
		return nil
	}
	admitted := make(chan struct{})
	place := l.waiting[p].PushBack(waiting{now, admitted})
	l.mu.Unlock()
	select {
	case <-admitted:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-admitted: // at the same moment
		l.inFlight[p]--
		l.admit(now)
	default:
		l.waiting[p].Remove(place)
	}
	return ctx.Err()
}

// release gives the place back and learns from what the request met.
func (l *limiter) release(p purpose, now time.Time, latency time.Duration, throttled bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	full := l.all() >= int(l.limit)
	l.inFlight[p]--
	l.learn(now, latency.Seconds(), throttled, full)
	l.admit(now)
}

func (l *limiter) learn(now time.Time, latency float64, throttled, full bool) {
	if l.usual == 0 {
		l.recent, l.usual = latency, latency
	}
	l.recent += (latency - l.recent) / 8
	l.usual += (latency - l.usual) / 256
	slow := l.recent > calm.Seconds() && l.recent > rising*l.usual
	switch {
	case throttled:
		l.lower(now, 0.5)
	case slow:
		l.lower(now, 0.8)
	case full:
		l.set(l.limit + 1/l.limit)
	}
}

func (l *limiter) lower(now time.Time, factor float64) {
	if now.Sub(l.lowered) < settle {
		return
	}
	l.lowered = now
	l.set(l.limit * factor)
}

func (l *limiter) set(limit float64) {
	l.limit = max(minLimit, min(maxLimit, limit))
	l.observe(l.limit)
}

// admit gives the places that are free to reports that have waited for long enough, to changes, and to other reports.
func (l *limiter) admit(now time.Time) {
	anybody := func(waiting) bool { return true }
	l.admitWhile(report, func(first waiting) bool { return now.Sub(first.since) >= reportYields })
	l.admitWhile(change, anybody)
	l.admitWhile(report, anybody)
}

// admitWhile gives them to the first in a queue, and the next, as long as they may have them.
func (l *limiter) admitWhile(p purpose, may func(waiting) bool) {
	for queue := &l.waiting[p]; queue.Len() > 0 && l.room(p); {
		first := queue.Front().Value.(waiting)
		if !may(first) {
			return
		}
		l.inFlight[p]++
		queue.Remove(queue.Front())
		close(first.admitted)
	}
}

// pressed says that changes wait for a place.
func (l *limiter) pressed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting[change].Len() > 0
}

// room says whether one more request may be in flight.
func (l *limiter) room(p purpose) bool {
	return l.all() < int(l.limit) && (p == change || l.inFlight[p] < max(1, int(l.limit/reportShare)))
}

func (l *limiter) all() int { return l.inFlight[change] + l.inFlight[report] }
