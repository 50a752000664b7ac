package planner

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"shiplog.dev/internal/world"
)

// alarm rings at the earliest of the times it is given.
type alarm struct{ due time.Time }

func (a *alarm) clear() { a.due = time.Time{} }

func (a *alarm) at(due time.Time) {
	if a.due.IsZero() || due.Before(a.due) {
		a.due = due
	}
}

// wait returns a channel that delivers at the alarm's time; nil, which never delivers, when none is set.
func (a *alarm) wait() <-chan time.Time {
	if a.due.IsZero() {
		return nil
	}
	return time.After(time.Until(a.due))
}

func sortedRefs(set map[world.Ref]bool) []world.Ref {
	return slices.SortedFunc(maps.Keys(set), func(a, b world.Ref) int {
		return cmp.Or(cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}
