package history

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/world"
)

var start = time.Date(2026, 1, 15, 14, 0, 0, 0, time.UTC)

// recorded is a log whose entry n came n seconds after start: facts of the Pods given, "-a" for a deletion.
func recorded(t *testing.T, pods ...string) *Log {
	now := start
	memory := journal.NewMemory(func() time.Time { return now })
	for i, name := range pods {
		now = start.Add(time.Duration(i+1) * time.Second)
		name, gone := strings.CutPrefix(name, "-")
		ref := &shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: "shop", Name: name, Uid: "uid-" + name}
		entry := &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
			Object: ref, ResourceVersion: fmt.Sprint(100 + i), Json: fmt.Appendf(nil, `{"metadata":{"labels":{"app":%q}}}`, name),
		}}}
		if gone {
			entry = &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectDeleted{ObjectDeleted: &shiplogv1.ObjectDeleted{Object: ref, ResourceVersion: fmt.Sprint(100 + i)}}}
		}
		if _, err := memory.Append(t.Context(), entry); err != nil {
			t.Fatal(err)
		}
	}
	return &Log{source: memory, First: 1, Last: uint64(len(pods))}
}

func positions(t *testing.T, log *Log, span Span) string {
	var out []string
	if err := log.Each(t.Context(), span, func(r journal.Record) error {
		out = append(out, fmt.Sprint(r.Sequence))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func TestEachShowsASpan(t *testing.T) {
	log := recorded(t, "a", "b", "a", "c")
	at := func(seconds float64) Moment {
		return Moment{Time: start.Add(time.Duration(seconds * float64(time.Second)))}
	}
	for _, c := range []struct {
		name string
		span Span
		want string
	}{
		{"all", Span{}, "1 2 3 4"},
		{"from a position", Span{From: Moment{Sequence: 3}}, "3 4"},
		{"to a position, itself included", Span{To: Moment{Sequence: 2}}, "1 2"},
		{"from a time between entries", Span{From: at(2.5)}, "3 4"},
		{"to the time of an entry", Span{To: at(3)}, "1 2 3"},
		{"before the beginning", Span{From: at(-60), To: at(1.5)}, "1"},
		{"after the end, by time", Span{From: at(60)}, ""},
		{"after the end, by position", Span{From: Moment{Sequence: 9}}, ""},
		{"an empty span", Span{From: at(3.2), To: at(3.4)}, ""},
	} {
		if got := positions(t, log, c.span); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if got := positions(t, &Log{source: journal.NewMemory(time.Now), First: 1}, Span{}); got != "" {
		t.Errorf("an empty log shows %q", got)
	}
}

// What is appended while a log is read does not make the end run away.
func TestEachEndsWhereTheLogEndedWhenOpened(t *testing.T) {
	log := recorded(t, "a", "b", "c")
	log.Last = 2
	if got := positions(t, log, Span{}); got != "1 2" {
		t.Errorf("got %q", got)
	}
}

// Entries that retention took still count where the compacted view holds them, and only there.
func TestEachKnowsThePast(t *testing.T) {
	log := recorded(t, "a", "b", "b", "c", "d")
	memory := log.source.(*journal.Memory)
	if err := memory.Compact(t.Context(), 4, func(s uint64) bool { return s == 1 || s == 3 || s == 4 }); err != nil {
		t.Fatal(err)
	}
	memory.SetLimits(journal.MemoryLimits{Bytes: 1})
	ref := &shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: "shop", Name: "e", Uid: "uid-e"}
	if _, err := memory.Append(t.Context(), &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectDeleted{ObjectDeleted: &shiplogv1.ObjectDeleted{Object: ref, ResourceVersion: "200"}}}); err != nil {
		t.Fatal(err)
	}
	state, err := memory.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	log.First, log.Last = state.FirstSequence, state.LastSequence
	if got := positions(t, log, Span{}); got != "6" {
		t.Errorf("without the past: %q", got)
	}
	if got := positions(t, log, Span{Past: true}); got != "1 3 4 6" {
		t.Errorf("with the past: %q", got)
	}
}

func TestParseMoment(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	end := time.Date(2026, 1, 15, 14, 5, 0, 0, zone)
	for text, want := range map[string]string{
		"":                          "none",
		"1234":                      "#1234",
		"#7":                        "#7",
		"-2h":                       "2026-01-15T12:05:00+01:00",
		"90s":                       "2026-01-15T14:03:30+01:00",
		"14:03":                     "2026-01-15T14:03:00+01:00",
		"14:03:22.5":                "2026-01-15T14:03:22.5+01:00",
		"14:06":                     "2026-01-14T14:06:00+01:00", // not after the end: yesterday
		"2026-01-10":                "2026-01-10T00:00:00+01:00",
		"2026-01-10 09:30":          "2026-01-10T09:30:00+01:00",
		"2026-01-10T09:30:00Z":      "2026-01-10T09:30:00Z",
		"2026-01-10T09:30:00+02:00": "2026-01-10T09:30:00+02:00",
		"noon":                      "error",
		"0":                         "2026-01-15T14:05:00+01:00",
		"25:00":                     "error",
	} {
		got := "error"
		if moment, err := ParseMoment(text, end); err == nil {
			switch {
			case moment.Sequence > 0:
				got = fmt.Sprintf("#%d", moment.Sequence)
			case moment.Time.IsZero():
				got = "none"
			default:
				got = moment.Time.Format(time.RFC3339Nano)
			}
		}
		if got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]string{
		"pod/x": "pods shop/x", "pods/x": "pods shop/x", "po x": "pods shop/x", "cloneset/x": "clonesets.apps.kruise.io shop/x",
		"clone x": "clonesets.apps.kruise.io shop/x", "CloneSet/x": "clonesets.apps.kruise.io shop/x", "clonesets.apps.kruise.io/x": "clonesets.apps.kruise.io shop/x",
		"node/x": "nodes x", "widgets.example.com/x": "widgets.example.com shop/x", "widgets/x": "widgets.* shop/x",
		"x": "error", "pod/": "error", "/x": "error", "pod/x/y": "error", "pod x y": "error",
	} {
		got := "error"
		if target, err := ParseTarget(strings.Fields(text), "shop"); err == nil {
			got = world.Ref{Group: target.Group, Resource: target.Resource, Namespace: target.Namespace, Name: target.Name}.String()
		}
		if got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

func TestSelector(t *testing.T) {
	log := recorded(t, "a", "b", "-b", "c")
	app, err := labels.Parse("app in (a,b)")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		selector Selector
		want     []uint64
	}{
		{"everything", Selector{}, []uint64{1, 2, 3, 4}},
		{"by name", Selector{Name: "b"}, []uint64{2, 3}},
		{"by type", Selector{Types: []string{"deletion"}}, []uint64{3}},
		{"by kind", Selector{Kinds: []Kind{FindKind("po")}, Namespace: "shop"}, []uint64{1, 2, 3, 4}},
		{"of another namespace", Selector{Namespace: "other"}, nil},
		{"by labels, of a deletion those that it had", Selector{Labels: app}, []uint64{1, 2, 3}},
	} {
		var got []uint64
		if err := log.Each(t.Context(), Span{}, func(r journal.Record) error {
			if c.selector.Matches(r) {
				got = append(got, r.Sequence)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// A fact that arrives late neither brings back what is gone nor hides what is newer.
func TestObjectsTakeTheNewestVersion(t *testing.T) {
	record := func(sequence uint64, version string, gone bool) journal.Record {
		ref := &shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: "shop", Name: "a", Uid: "uid"}
		entry := &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{Object: ref, ResourceVersion: version}}}
		if gone {
			entry = &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectDeleted{ObjectDeleted: &shiplogv1.ObjectDeleted{Object: ref, ResourceVersion: version}}}
		}
		return journal.Record{Sequence: sequence, Entry: entry}
	}
	objects := NewObjects()
	ref := world.Ref{Resource: "pods", Namespace: "shop", Name: "a"}
	objects.Show(record(1, "10", false))
	if before, after := objects.Show(record(2, "9", false)); before != nil || after != nil {
		t.Error("an older version changes something")
	}
	if before, after := objects.Show(record(3, "11", true)); before == nil || after != nil || objects.Get(ref) != nil {
		t.Error("the deletion does not show")
	}
	if objects.Show(record(4, "10", false)); objects.Get(ref) != nil {
		t.Error("a late fact brings the object back")
	}
	if _, after := objects.Show(record(5, "12", false)); after == nil || objects.Get(ref) == nil {
		t.Error("a new object of the same name does not show")
	}
}
