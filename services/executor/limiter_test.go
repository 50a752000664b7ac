package executor

import (
	"context"
	"runtime"
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLimiter(func(float64) {})
	round := func(n int, latency time.Duration, throttled bool) {
		t.Helper()
		n = min(n, int(l.limit))
		for range n {
			if err := l.acquire(t.Context(), change); err != nil {
				t.Fatal(err)
			}
		}
		for range n {
			l.learn(now, latency.Seconds(), throttled, l.all() == n && n >= int(l.limit))
		}
		l.inFlight[change] -= n
		now = now.Add(2 * settle)
	}
	if l.limit != startLimit {
		t.Errorf("starts at %v", l.limit)
	}
	round(4, 5*time.Millisecond, false)
	if l.limit != startLimit {
		t.Errorf("grew to %v though nobody waited", l.limit)
	}
	for range 400 {
		round(maxLimit, 5*time.Millisecond, false)
	}
	if l.limit != maxLimit {
		t.Errorf("grew to %v, want %d", l.limit, maxLimit)
	}
	round(maxLimit, 5*time.Millisecond, true)
	if l.limit != maxLimit/2 {
		t.Errorf("after one round of 429 it is %v, want %d", l.limit, maxLimit/2)
	}
	for range 5 {
		round(16, 2*time.Second, false)
	}
	if l.limit > maxLimit/3 {
		t.Errorf("latency rose and it is still %v", l.limit)
	}
	for range 30 {
		round(1, time.Millisecond, true)
	}
	if l.limit != minLimit {
		t.Errorf("fell to %v, want %d", l.limit, minLimit)
	}
}

func TestLimiterWaits(t *testing.T) {
	l := newLimiter(func(float64) {})
	l.limit = 1
	if err := l.acquire(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.acquire(gone, change); err == nil {
		t.Fatal("admitted beyond the limit")
	}
	admitted := make(chan error)
	go func() { admitted <- l.acquire(t.Context(), change) }()
	select {
	case <-admitted:
		t.Fatal("admitted beyond the limit")
	default:
	}
	l.release(change, time.Now(), time.Millisecond, false)
	if err := <-admitted; err != nil {
		t.Fatal(err)
	}
	if l.all() != 1 || l.waiting[change].Len() != 0 {
		t.Errorf("in flight %d, waiting %d", l.all(), l.waiting[change].Len())
	}
}

// TestLimiterReports: reports take a part of the places at most, and get that part while changes queue.
func TestLimiterReports(t *testing.T) {
	l := newLimiter(func(float64) {})
	l.limit = 16
	wait := func(p purpose) <-chan error {
		before := l.waiting[p].Len() + l.inFlight[p]
		admitted := make(chan error, 1)
		go func() { admitted <- l.acquire(t.Context(), p) }()
		for { // until it is either admitted or in the queue
			l.mu.Lock()
			now := l.waiting[p].Len() + l.inFlight[p]
			l.mu.Unlock()
			if now > before {
				return admitted
			}
			runtime.Gosched()
		}
	}
	for range 10 {
		wait(report)
	}
	if l.inFlight[report] != 2 || l.waiting[report].Len() != 8 {
		t.Fatalf("of ten reports %d are in flight, want 2 of 16 places", l.inFlight[report])
	}
	for range 20 {
		wait(change)
	}
	if l.inFlight[change] != 14 {
		t.Fatalf("%d changes are in flight, want all other places", l.inFlight[change])
	}
	l.release(report, time.Now(), time.Millisecond, false)
	if l.inFlight[report] != 2 || l.waiting[report].Len() != 7 {
		t.Errorf("changes queue, and the next report does not get the place: %d in flight", l.inFlight[report])
	}
	l.release(change, time.Now(), time.Millisecond, false)
	if l.inFlight[change] != 14 || l.inFlight[report] != 2 {
		t.Errorf("a change's place goes to a change: %d changes, %d reports", l.inFlight[change], l.inFlight[report])
	}
}
