package linger

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const apart = 10 * time.Millisecond

// The first goes at once, those that come within a moment go together, and after a rest the next goes at once again.
func TestGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, began := New(apart), time.Now()
		var mu sync.Mutex
		var went []time.Duration
		for _, comes := range []time.Duration{0, 1, 2, 9, 12, 19, 60, 61} {
			go func() {
				time.Sleep(comes * time.Millisecond)
				if err := l.Await(t.Context()); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				went = append(went, time.Since(began)/time.Millisecond)
			}()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if want := []time.Duration{0, 10, 10, 10, 20, 20, 60, 70}; !slices.Equal(went, want) {
			t.Errorf("they went at %d ms, want %d", went, want)
		}
	})
}

// Whoever stops waiting keeps nobody else.
func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, began := New(apart), time.Now()
		_ = l.Await(t.Context())
		ctx, cancel := context.WithTimeout(t.Context(), apart/2)
		defer cancel()
		if err := l.Await(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != apart/2 {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		if err := l.Await(t.Context()); err != nil || time.Since(began) != apart {
			t.Errorf("the next one goes after %s: %v", time.Since(began), err)
		}
		if err := l.Await(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a context that has ended: %v", err)
		}
	})
}
