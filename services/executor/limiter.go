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

// reportShare is the part of the places that reports get: one of so many. These they get first, so that they come while changes queue.
const reportShare = 8

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
	waiting  [purposes]list.List // of chan struct{}, closed when admitted; first come, first served
	// Moving averages of latency over about 8 and about 256 requests, in seconds.
	recent, usual float64
	lowered       time.Time
	observe       func(limit float64)
}

func newLimiter(observe func(limit float64)) *limiter {
	observe(startLimit)
	return &limiter{limit: startLimit, observe: observe}
}

// acquire waits for a place. It returns the error of ctx if that ended first; else the caller must call release.
func (l *limiter) acquire(ctx context.Context, p purpose) error {
	l.mu.Lock()
	if l.waiting[p].Len() == 0 && l.room(p) {
		l.inFlight[p]++
		l.mu.Unlock()
		return nil
	}
	admitted := make(chan struct{})
	place := l.waiting[p].PushBack(admitted)
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
		l.admit()
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
	l.admit()
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

func (l *limiter) admit() {
	for _, p := range []purpose{report, change} {
		for waiting := &l.waiting[p]; waiting.Len() > 0 && l.room(p); {
			l.inFlight[p]++
			close(waiting.Remove(waiting.Front()).(chan struct{}))
		}
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
