package planner

import "time"

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
