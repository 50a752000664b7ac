package executor

import (
	"context"
	"errors"
	"testing"
	"time"

	"shiplog.dev/integration/testbed"
)

func TestLimiter(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLimiter(func(float64) {})
	round := func(n int, latency time.Duration, throttled bool) {
		t.Helper()
		n = min(n, int(l.limit))
		for range n {
			if err := l.acquire(t.Context(), change, now); err != nil {
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
	now := time.Unix(1000, 0)
	l := newLimiter(func(float64) {})
	l.limit = 1
	if err := l.acquire(t.Context(), change, now); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.acquire(gone, change, now); err == nil {
		t.Fatal("admitted beyond the limit")
	}
	admitted := make(chan error)
	go func() { admitted <- l.acquire(t.Context(), change, now) }()
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

// TestLimiterReports: reports take a part of the places at most, and none that a change waits for, unless they have waited for a while.
func TestLimiterReports(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLimiter(func(float64) {})
	l.limit = 16
	wait := func(p purpose, n int) {
		t.Helper()
		for range n {
			before := l.waiting[p].Len() + l.inFlight[p]
			go func() { _ = l.acquire(t.Context(), p, now) }()
			testbed.Eventually(t, 10*time.Second, func() error { // it is either admitted or in the queue
				l.mu.Lock()
				defer l.mu.Unlock()
				if l.waiting[p].Len()+l.inFlight[p] == before {
					return errors.New("nothing waits that did not before")
				}
				return nil
			})
		}
	}
	want := func(what string, changes, reports int) {
		t.Helper()
		if l.inFlight[change] != changes || l.inFlight[report] != reports {
			t.Errorf("%s: %d changes and %d reports are in flight, want %d and %d", what, l.inFlight[change], l.inFlight[report], changes, reports)
		}
	}
	release := func(p purpose) { l.release(p, now, time.Millisecond, false) }

	wait(report, 10)
	want("nothing else waits", 0, 2)
	wait(change, 20)
	want("both wait", 14, 2)
	release(change)
	want("a change's place goes to a change", 14, 2)
	release(report)
	want("so does a report's", 15, 1)
	now = now.Add(reportYields)
	release(change)
	want("a report has waited for long", 14, 2)
	for range 18 {
		release(change)
	}
	want("no change waits", 0, 2)
	for range 8 {
		release(report)
	}
	want("no report waits", 0, 1)
}
