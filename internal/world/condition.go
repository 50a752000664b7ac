package world

import (
	"time"
	"unique"

	"github.com/go-json-experiment/json/v1"
)

// Condition is a Pod's or a Node's condition.
type Condition struct {
	Saying
	LastTransitionTime time.Time `json:"lastTransitionTime"`
}

// Saying is a condition but for the time since when it holds.
type Saying struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Present says whether there is such a condition.
func (c Condition) Present() bool { return c.Type != "" }

// Conditions are all of a Pod. Most Pods say the same, so there is one copy of each saying, and a condition takes 16 bytes.
type Conditions []keptCondition

type keptCondition struct {
	saying unique.Handle[Saying]
	since  int64 // nanoseconds since 1970; 0: it does not say
}

func keepConditions(conditions []Condition) Conditions {
	kept := make(Conditions, len(conditions))
	for i := range conditions {
		kept[i] = conditions[i].keep()
	}
	return kept
}

func (c Condition) keep() keptCondition {
	kept := keptCondition{saying: unique.Make(c.Saying)}
	if !c.LastTransitionTime.IsZero() {
		kept.since = c.LastTransitionTime.UnixNano()
	}
	return kept
}

func (k keptCondition) condition() Condition {
	out := Condition{Saying: k.saying.Value()}
	if k.since != 0 {
		out.LastTransitionTime = time.Unix(0, k.since).UTC()
	}
	return out
}

// Of returns the condition of a type; one that is not present: there is none.
func (c Conditions) Of(conditionType string) Condition {
	if i := c.index(conditionType); i >= 0 {
		return c[i].condition()
	}
	return Condition{}
}

func (c Conditions) index(conditionType string) int {
	for i := range c {
		if c[i].saying.Value().Type == conditionType {
			return i
		}
	}
	return -1
}

// changed returns the conditions with some replaced or added.
func (c Conditions) changed(by []Condition) Conditions {
	out := append(make(Conditions, 0, len(c)+len(by)), c...)
	for _, change := range by {
		if i := out.index(change.Type); i >= 0 {
			out[i] = change.keep()
		} else {
			out = append(out, change.keep())
		}
	}
	return out
}

// MarshalJSON writes them as the API server does.
func (k keptCondition) MarshalJSON() ([]byte, error) { return json.Marshal(k.condition()) }
