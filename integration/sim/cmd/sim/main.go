// Command sim simulates Shiplog from many seeds on all cores and prints what fails, with a trace that has been shrunk.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"shiplog.dev/integration/sim"
)

func main() {
	from := flag.Uint64("from", 1, "first seed")
	seeds := flag.Uint64("seeds", 1000, "how many seeds")
	workers := flag.Int("workers", runtime.GOMAXPROCS(0), "how many at once")
	most := flag.Int("failures", 1, "how many failures are shrunk and told; further ones get a line")
	trace := flag.Bool("trace", false, "print the trace of every seed, unshrunk")
	flag.Parse()

	var next, steps, entries, commands, done atomic.Uint64
	var mu sync.Mutex
	failures := 0
	next.Store(*from)
	began := time.Now()
	var group sync.WaitGroup
	for range *workers {
		group.Go(func() {
			for seed := next.Add(1) - 1; seed < *from+*seeds; seed = next.Add(1) - 1 {
				plan := sim.Draw(seed)
				result := sim.Run(plan, nil, *trace)
				steps.Add(uint64(result.Steps))
				entries.Add(uint64(result.Entries))
				commands.Add(uint64(result.Commands))
				done.Add(1)
				mu.Lock()
				if *trace {
					fmt.Println(strings.Join(result.Trace, "\n"))
				}
				failed := result.Failure != nil
				if failed {
					failures++
				}
				told := failed && failures <= *most
				mu.Unlock()
				switch {
				case told:
					fmt.Println(sim.Report(plan, result))
				case failed:
					fmt.Printf("seed %d fails: %s: %s\n", seed, result.Failure.Check, result.Failure.Message)
				}
			}
		})
	}
	group.Wait()
	took := time.Since(began)
	fmt.Printf("%d seeds, %d steps, %d entries, %d commands in %s: %.0f steps per second, %d failures\n",
		done.Load(), steps.Load(), entries.Load(), commands.Load(), took.Round(time.Millisecond), float64(steps.Load())/took.Seconds(), failures)
	if failures > 0 {
		os.Exit(1)
	}
}
