// Package rules leads from a workload to the rules of its kind: for the planner, for tools that ask why nothing happens, and
// for a replay. It decides nothing itself. Pure.
package rules

import (
	"fmt"

	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
	"shiplog.dev/services/planner/decide/cloneset"
)

// Decide lets the rules of a workload's kind answer to a world.
func Decide(w *world.World, ref world.Ref) decide.Decision {
	switch ref.Resource {
	case world.ResourceCloneSets:
		return cloneset.Decide(w, ref)
	}
	panic(noRules(ref))
}

// Explain is Decide and says besides what the rules hold back, and why.
func Explain(w *world.World, ref world.Ref) decide.Decision {
	switch ref.Resource {
	case world.ResourceCloneSets:
		return cloneset.Explain(w, ref)
	}
	panic(noRules(ref))
}

func noRules(ref world.Ref) string { return fmt.Sprintf("no rules for %s", ref) }
