package sim

import (
	"flag"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	seeds = flag.Uint64("seeds", 2500, "how many seeds TestSeeds runs")
	from  = flag.Uint64("from", 1, "the first of them")
)

// TestSeeds runs the simulation from many seeds. One that fails is shrunk and told; `go run ./integration/sim/cmd/sim -from
// SEED -seeds 1` tells it again.
func TestSeeds(t *testing.T) {
	var next atomic.Uint64
	next.Store(*from)
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for seed := next.Add(1) - 1; seed < *from+*seeds && !t.Failed(); seed = next.Add(1) - 1 {
				plan := Draw(seed)
				if result := Run(plan, nil, false); result.Failure != nil {
					t.Errorf("%s", Report(plan, result))
				}
			}
		})
	}
	group.Wait()
}

// TestSameSeedSameRun proves that nothing but the seed decides what happens.
func TestSameSeedSameRun(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		first, second := Run(Draw(seed), nil, true), Run(Draw(seed), nil, true)
		if !reflect.DeepEqual(first, second) {
			for i := range min(len(first.Trace), len(second.Trace)) {
				if first.Trace[i] != second.Trace[i] {
					t.Fatalf("seed %d, line %d:\n%s\n%s", seed, i, first.Trace[i], second.Trace[i])
				}
			}
			t.Fatalf("seed %d: %d lines, then %d", seed, len(first.Trace), len(second.Trace))
		}
	}
}
