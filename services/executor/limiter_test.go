package executor

import (
	"context"
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
			if err := l.acquire(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for range n {
			l.learn(now, latency.Seconds(), throttled, l.inFlight == n && n >= int(l.limit))
		}
		l.inFlight -= n
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
	if err := l.acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.acquire(gone); err == nil {
		t.Fatal("admitted beyond the limit")
	}
	admitted := make(chan error)
	go func() { admitted <- l.acquire(t.Context()) }()
	select {
	case <-admitted:
		t.Fatal("admitted beyond the limit")
	default:
	}
	l.release(time.Now(), time.Millisecond, false)
	if err := <-admitted; err != nil {
		t.Fatal(err)
	}
	if l.inFlight != 1 || l.waiting.Len() != 0 {
		t.Errorf("in flight %d, waiting %d", l.inFlight, l.waiting.Len())
	}
}
