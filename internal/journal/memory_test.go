package journal

import (
	"testing"
	"time"
)

// TestVirtualTime: nothing happens in a Memory but by its clock.
func TestVirtualTime(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0).UTC()
	m := NewMemory(func() time.Time { return now })
	ctx := within(t)
	fence, err := m.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	_, err = m.AppendCommands(ctx, fence, wish("later", now.Add(2*time.Hour)), wish("soon", now.Add(time.Hour)))
	check(t, err)
	if n := m.FireTicks(); n != 0 {
		t.Errorf("%d ticks came early", n)
	}
	if due, ok := m.NextDue(); !ok || !due.Equal(now.Add(time.Hour)) {
		t.Errorf("next tick is due at %s, %v", due, ok)
	}
	now = now.Add(3 * time.Hour)
	if n := m.FireTicks(); n != 2 {
		t.Errorf("%d ticks came", n)
	}
	records := take(t, reads(t, m, From{}), 5)
	if records[3].Entry.GetTicked().GetId() != "soon" || records[4].Entry.GetTicked().GetId() != "later" || !records[4].Time.Equal(now) {
		t.Errorf("ticks %v", records[3:])
	}
	if _, ok := m.NextDue(); ok {
		t.Error("a tick is left")
	}
	first, err := m.Append(ctx, fact("a", 1))
	check(t, err)
	now = now.Add(duplicates)
	again, err := m.Append(ctx, fact("a", 1))
	check(t, err)
	if again == first {
		t.Error("a fact is recognised after the window that the real log has")
	}
}
