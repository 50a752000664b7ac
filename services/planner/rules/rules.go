// Package rules leads from a workload to the rules of its kind: for the planner, for tools that ask why nothing happens, and
// for a replay. It decides nothing itself. Pure.
package rules

import (
	"fmt"

	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
	"shiplog.dev/services/planner/decide/cloneset"
	"shiplog.dev/services/planner/decide/imagelistpulljob"
	"shiplog.dev/services/planner/decide/imagepulljob"
	"shiplog.dev/services/planner/decide/nodeimage"
	"shiplog.dev/services/planner/decide/restart"
)

// Know says whether there are rules for the kind of a workload.
func Know(ref world.Ref) bool {
	switch ref.Resource {
	case world.ResourceCloneSets, world.ResourceNodeImages, world.ResourceImagePullJobs, world.ResourceImageListPullJobs, world.ResourceRestartRequests:
		return ref.Group == world.GroupKruise
	}
	return false
}

// Decide lets the rules of a workload's kind answer to a world.
func Decide(w *world.World, ref world.Ref) decide.Decision {
	switch ref.Resource {
	case world.ResourceCloneSets:
		return cloneset.Decide(w, ref)
	case world.ResourceNodeImages:
		return nodeimage.Decide(w, ref)
	case world.ResourceImagePullJobs:
		return imagepulljob.Decide(w, ref)
	case world.ResourceImageListPullJobs:
		return imagelistpulljob.Decide(w, ref)
	case world.ResourceRestartRequests:
		return restart.Decide(w, ref)
	}
	panic(fmt.Sprintf("no rules for %s", ref))
}

// Explain is Decide and says besides what the rules hold back, and why.
func Explain(w *world.World, ref world.Ref) decide.Decision {
	if ref.Resource == world.ResourceCloneSets {
		return cloneset.Explain(w, ref)
	}
	return Decide(w, ref) // these say it always: it costs them nothing
}
