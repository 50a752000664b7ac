package narrate

import (
	"strings"
	"testing"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

func at(seconds float64) time.Time {
	return time.Date(2026, 1, 15, 8, 0, 0, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
}

func TestDifferences(t *testing.T) {
	for _, c := range []struct{ name, before, after, want string }{
		{"nothing", `{"spec":{"a":1}}`, `{"spec":{"a":1}}`, ""},
		{"bookkeeping says nothing", `{"metadata":{"resourceVersion":"1","generation":1}}`, `{"metadata":{"resourceVersion":"2","generation":2}}`, ""},
		{"status is left out", `{"status":{"a":1}}`, `{"status":{"a":2}}`, ""},
		{"a number", `{"spec":{"replicas":4}}`, `{"spec":{"replicas":6}}`, "spec.replicas: 4 → 6"},
		{"containers by name, whatever their order", `{"spec":{"c":[{"name":"a","image":"v1"},{"name":"b","image":"w1"}]}}`, `{"spec":{"c":[{"name":"b","image":"w1"},{"name":"a","image":"v2"}]}}`,
			"spec.c[a].image: v1 → v2"},
		{"a container more", `{"spec":{"c":[{"name":"a"}]}}`, `{"spec":{"c":[{"name":"a"},{"name":"b"}]}}`, `spec.c[b] is set to {"name":"b"}`},
		{"a list without names", `{"spec":{"args":["a","b"]}}`, `{"spec":{"args":["a","c"]}}`, `spec.args: ["a","b"] → ["a","c"]`},
		{"a key with dots", `{"metadata":{"labels":{"a.b/c":"1"}}}`, `{"metadata":{"labels":{}}}`, "metadata.labels[a.b/c] is removed, was 1"},
		{"a new object", ``, `{"spec":{"a":1}}`, `spec is set to {"a":1}`},
	} {
		differences, err := Differences([]byte(c.before), []byte(c.after), false)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var lines []string
		for _, difference := range differences {
			lines = append(lines, difference.String())
		}
		if got := strings.Join(lines, "\n"); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

func TestAxisIsBrokenWhereNothingHappens(t *testing.T) {
	view := View{From: at(0), To: at(4000)}
	for _, second := range []float64{0, 1, 2, 3, 3998, 3999, 4000} {
		view.Steps = append(view.Steps, &Step{Time: at(second)})
	}
	axis := view.Axis()
	if len(axis) != 3 || axis[0].Broken || !axis[1].Broken || axis[2].Broken {
		t.Fatalf("pieces %+v", axis)
	}
	if busy := axis[0].Width + axis[2].Width; busy < 0.7 {
		t.Errorf("what happened gets %.2f of the room", busy)
	}
	for _, second := range []float64{0, 1.5, 2000, 3999} {
		if back := axis.Time(axis.Place(at(second))); back.Sub(at(second)).Abs() > 1e6 {
			t.Errorf("second %v comes back as %v", second, back)
		}
	}
	last := -1.0
	for second := 0.0; second <= 4000; second += 0.5 {
		place := axis.Place(at(second))
		if place < last || place < 0 || place > 1 {
			t.Fatalf("second %v is at %v, after %v", second, place, last)
		}
		last = place
	}
}

// Whoever scaled is named for that, and only for that.
func TestWhoScaled(t *testing.T) {
	change := &shiplogv1.LastChange{Manager: "argocd", ScaledBy: "kubectl"}
	replicas, image := Difference{Path: "spec.replicas"}, Difference{Path: "spec.template.spec.containers[a].image"}
	for _, c := range []struct {
		differences []Difference
		want        string
	}{{[]Difference{replicas}, "kubectl (scale)"}, {[]Difference{image}, "argocd"}, {[]Difference{replicas, image}, "argocd"}} {
		if got := whoEdited(change, c.differences); got != c.want {
			t.Errorf("%v was edited by %q, want %q", c.differences, got, c.want)
		}
	}
}
