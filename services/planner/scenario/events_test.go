package scenario

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/rollout"
)

// showEvents is one line for each rollout event that nobody was shown.
func (c *cluster) showEvents() string {
	var out strings.Builder
	for _, event := range c.events {
		message := reflect.ValueOf(event.Data).FieldByName("Message").String()
		fmt.Fprintf(&out, "%s %s  %s\n", event.Workload.GetName(), event.Type, message)
	}
	c.events = nil
	if out.Len() == 0 {
		return "no events\n"
	}
	return c.alias(out.String())
}

// proveEvents checks that the log gives the same rollout events when folded again, and that the memory on which later ones
// depend follows from the live entries alone.
func (c *cluster) proveEvents(t *testing.T, live []uint64) {
	t.Helper()
	live = append(slices.Clone(live), c.tracker.Live()...)
	w, again := world.New(), rollout.New()
	compactedWorld, compacted := world.New(), rollout.New()
	for _, r := range c.entries {
		again.Fold(w, decode(t, r))
		if events := again.Fold(w, decode(t, r)); len(events) > 0 {
			t.Fatalf("entry %d, delivered again, causes %v", r.sequence, events)
		}
		if slices.Contains(live, r.sequence) {
			compacted.Fold(compactedWorld, decode(t, r))
		}
	}
	if got, want := again.Describe(), c.tracker.Describe(); got != want {
		t.Fatalf("folding again gives another memory of rollouts\n--- want\n%s\n--- got\n%s", want, got)
	}
	if got, want := compacted.Describe(), c.tracker.Describe(); c.tracker.Settled() && got != want {
		t.Fatalf("the live entries give another memory of rollouts\n--- want\n%s\n--- got\n%s", want, got)
	}
	if got, want := compactedWorld.Describe(), c.world.Describe(); got != want {
		t.Fatalf("the live entries of world and rollouts give another world\n--- want\n%s\n--- got\n%s", want, got)
	}
}
