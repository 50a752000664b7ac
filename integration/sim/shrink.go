package sim

import (
	"fmt"
	"strings"
)

// Shrink drops items of a plan that fails, halves first and then one by one, as long as the same check fails, and returns
// the smallest run that it found, told as a trace. It makes at most tries runs.
func Shrink(plan Plan, failed Result, tries int) Result {
	dropped := map[int]bool{}
	still := func(more []int) bool {
		tries--
		next := map[int]bool{}
		for i := range dropped {
			next[i] = true
		}
		for _, i := range more {
			next[i] = true
		}
		if result := Run(plan, next, false); result.Failure == nil || result.Failure.Check != failed.Failure.Check {
			return false
		}
		dropped = next
		return true
	}
	for size := max(len(plan.Items)/2, 1); tries > 0; {
		progress := false
		for at := 0; at < len(plan.Items) && tries > 0; at += size {
			var more []int
			for i := at; i < min(at+size, len(plan.Items)); i++ {
				if !dropped[i] {
					more = append(more, i)
				}
			}
			if len(more) > 0 && still(more) {
				progress = true
			}
		}
		if size == 1 && !progress {
			break
		}
		size = max(size/2, 1)
	}
	return Run(plan, dropped, true)
}

// Report shrinks a failure and tells it.
func Report(plan Plan, failed Result) string {
	const tries = 150
	small := Shrink(plan, failed, tries)
	if small.Failure == nil { // cannot be, for a run follows from its plan
		return fmt.Sprintf("seed %d failed and does not fail again: %s: %s", plan.Seed, failed.Failure.Check, failed.Failure.Message)
	}
	return fmt.Sprintf("%s\nseed %d fails: %s: %s", strings.Join(small.Trace, "\n"), plan.Seed, small.Failure.Check, small.Failure.Message)
}
