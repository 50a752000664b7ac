package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Plan is what happens in a run: edits, troubles and faults at their times. It follows from the seed.
type Plan struct {
	Seed  uint64
	Items []Item
	// Gates are the feature gates of all planners.
	Gates map[string]bool
	// Until is when all faults end.
	Until time.Duration
}

// Item is one thing that happens. What it chooses when it happens it draws from its own source, so that leaving out another
// item changes little.
type Item struct {
	At   time.Duration
	What string
	do   func(*simulation, *rand.Rand)
}

func item(do func(*simulation, *rand.Rand), what string, args ...any) Item {
	return Item{What: fmt.Sprintf(what, args...), do: do}
}

func seconds(r *rand.Rand, least, most int) time.Duration {
	return time.Duration(least)*time.Second + time.Duration(r.Int64N(int64(most-least)*int64(time.Second))).Round(time.Millisecond)
}

// Draw makes the plan of a seed.
func Draw(seed uint64) Plan {
	r := rand.New(rand.NewPCG(seed, 0))
	plan := Plan{Seed: seed, Until: seconds(r, 30, 240), Gates: map[string]bool{
		"InPlaceUpdateEnvFromMetadata": true, "CloneSetShortHash": r.IntN(4) == 0,
		"CloneSetPartitionRollback": r.IntN(6) == 0, "PreparingUpdateAsUpdate": r.IntN(6) == 0,
	}}
	add := func(at time.Duration, item Item) {
		item.At = at
		plan.Items = append(plan.Items, item)
	}
	anyTime := func() time.Duration { return time.Duration(r.Int64N(int64(plan.Until))).Round(time.Millisecond) }
	sets := 1 + r.IntN(3)/2*r.IntN(3)
	for i := range sets {
		add(time.Duration(r.IntN(5000))*time.Millisecond, drawCloneSet(r, setName(i)))
	}
	for range 2 + r.IntN(10) {
		add(anyTime(), drawEdit(r, setName(r.IntN(sets))))
	}
	// Some runs are calm, some have one kind of disturbance, some everything.
	if r.IntN(3) > 0 {
		for range r.IntN(8) {
			add(anyTime(), drawTrouble(r))
		}
	}
	if r.IntN(3) > 0 {
		for range r.IntN(10) {
			add(anyTime(), drawFault(r))
		}
	}
	slices.SortStableFunc(plan.Items, func(a, b Item) int { return int(a.At - b.At) })
	return plan
}

func setName(i int) string { return [...]string{"web", "api", "job"}[i] }
