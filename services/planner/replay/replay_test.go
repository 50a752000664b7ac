package replay

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
)

// recorded reads one of the recorded histories.
func recorded(t *testing.T) []journal.Record {
	t.Helper()
	log, err := history.Open(t.Context(), filepath.Join("..", "..", "..", "integration", "histories", "crash-loop.shiplog"), "local")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var out []journal.Record
	if err := log.Each(t.Context(), history.Span{Past: true}, func(record journal.Record) error { out = append(out, record); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func replays(records []journal.Record) (*Replay, error) {
	causes := Causes{}
	for _, record := range records {
		causes.Note(record)
	}
	run := New(causes, 0)
	for _, record := range records {
		if err := run.Show(record); err != nil {
			return run, err
		}
	}
	return run, run.End()
}

func verifies(t *testing.T, records []journal.Record) []Problem {
	t.Helper()
	causes := Causes{}
	for _, record := range records {
		causes.Note(record)
	}
	v := NewVerifier(Facts{First: 1, Last: records[len(records)-1].Sequence, Cut: true, Changed: true}, causes)
	for _, record := range records {
		if err := v.Show(record); err != nil {
			t.Fatal(err)
		}
	}
	v.End()
	return v.Problems
}

// find returns the index of the first update in place.
func find(t *testing.T, records []journal.Record) int {
	t.Helper()
	for i, record := range records {
		if record.Entry.GetCommand().GetReason().GetCode() == "UpdateInPlace" {
			return i
		}
	}
	t.Fatal("the history has no update in place")
	return 0
}

// changed returns the records with one entry as change makes it.
func changed(records []journal.Record, at int, change func(*shiplogv1.Entry)) []journal.Record {
	out := append([]journal.Record(nil), records...)
	out[at].Entry = proto.CloneOf(out[at].Entry)
	change(out[at].Entry)
	return out
}

func TestReplay(t *testing.T) {
	records := recorded(t)
	if run, err := replays(records); err != nil || run.Proven < 20 {
		t.Fatalf("%d are proven: %v", run.Proven, err)
	}
	at := find(t, records)
	for _, c := range []struct {
		name    string
		records []journal.Record
		wants   []string
	}{
		{"another reason", changed(records, at, func(e *shiplogv1.Entry) { e.GetCommand().GetReason().Message = "because" }), []string{"recorded  patch pod/shop", "UpdateInPlace: because", "decided   patch pod/shop"}},
		{"other content", changed(records, at, func(e *shiplogv1.Entry) {
			e.GetCommand().GetPatch().Json = []byte(strings.Replace(string(e.GetCommand().GetPatch().GetJson()), "nginx:crash", "nginx:evil", 1))
		}), []string{"- ", "nginx:evil", "+ ", "nginx:crash"}},
		{"a command that nobody decided", changed(records, at, func(e *shiplogv1.Entry) { e.Cause-- }), []string{"decided   nothing"}},
		{"a command that is missing", append(append([]journal.Record(nil), records[:at]...), records[at+1:]...), []string{"decided   patch pod/shop"}},
	} {
		_, err := replays(c.records)
		var difference *Difference
		if !errors.As(err, &difference) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for _, want := range c.wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is not in\n%v", c.name, want, err)
			}
		}
	}
}

// What folding tells must be what the log holds: each event once, in order, with that content.
func TestReplayProvesRolloutEvents(t *testing.T) {
	records := recorded(t)
	if run, err := replays(records); err != nil || run.Told < 20 {
		t.Fatalf("%d are told again: %v", run.Told, err)
	}
	var events []int
	for i, record := range records {
		if record.Entry.GetRolloutEvent() != nil {
			events = append(events, i)
		}
	}
	middle := events[len(events)/2]
	without := func(at int) []journal.Record {
		return append(append([]journal.Record(nil), records[:at]...), records[at+1:]...)
	}
	for _, c := range []struct {
		name    string
		records []journal.Record
		wants   []string
	}{
		{"other content", changed(records, middle, func(e *shiplogv1.Entry) {
			e.GetRolloutEvent().Data = []byte(strings.Replace(string(e.GetRolloutEvent().GetData()), "shop-", "shop-evil-", 1))
		}), []string{"recorded  rollout event", "decided   rollout event", "evil"}},
		{"another type", changed(records, middle, func(e *shiplogv1.Entry) { e.GetRolloutEvent().Type = "completed" }), []string{"- completed of CloneSet"}},
		{"one that nothing caused", changed(records, middle, func(e *shiplogv1.Entry) { e.Cause++ }), []string{"differ"}},
		{"one that is missing", without(middle), []string{"recorded  nothing", "decided   rollout event"}},
		{"one that comes twice", append(append([]journal.Record(nil), records[:middle+1]...), append([]journal.Record{{
			Sequence: records[middle].Sequence, Time: records[middle].Time, Entry: records[middle].Entry,
		}}, records[middle+1:]...)...), []string{"decided   nothing"}},
	} {
		_, err := replays(c.records)
		var difference *Difference
		if !errors.As(err, &difference) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for _, want := range c.wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is not in\n%v", c.name, want, err)
			}
		}
	}
	// A log from before there were rollout events, or that ends before its last ones are told, is proven all the same.
	// Its commands may have been decided at the first: something stands there all the same.
	vouch := slices.IndexFunc(records, func(r journal.Record) bool { return r.Entry.GetVouched() != nil })
	if run, err := replays(changed(records, events[0], func(e *shiplogv1.Entry) { e.Kind = records[vouch].Entry.Kind })); err != nil || run.Told == 0 {
		t.Errorf("without the first: %d are told again: %v", run.Told, err)
	}
	if run, err := replays(records[:events[len(events)-1]]); err != nil || run.Told == 0 {
		t.Errorf("without the last: %d are told again: %v", run.Told, err)
	}
}

func TestVerify(t *testing.T) {
	records := recorded(t)
	if problems := verifies(t, records); len(problems) > 0 {
		t.Fatal(problems)
	}
	at := find(t, records)
	for _, c := range []struct {
		name, invariant string
		records         []journal.Record
	}{
		{"a command of another planner", "fence", changed(records, at, func(e *shiplogv1.Entry) { e.Writer = "planner/other" })},
		{"a command decided before its fence", "fence", changed(records, at, func(e *shiplogv1.Entry) { e.Cause = 1 })},
		{"a cause that comes later", "cause", changed(records, at, func(e *shiplogv1.Entry) { e.Cause = 1 << 40 })},
		{"a budget of none", "budget", func() []journal.Record {
			out := append([]journal.Record(nil), records...)
			for i, record := range out {
				if seen := record.Entry.GetObjectObserved(); seen.GetObject().GetResource() == "clonesets" {
					out[i].Entry = proto.CloneOf(record.Entry)
					seen = out[i].Entry.GetObjectObserved()
					seen.Json = []byte(strings.Replace(string(seen.GetJson()), `"maxUnavailable":1`, `"maxUnavailable":0`, 1))
				}
			}
			return out
		}()},
	} {
		problems := verifies(t, c.records)
		if len(problems) == 0 || problems[0].Invariant != c.invariant {
			t.Errorf("%s: %v", c.name, problems)
		}
	}
}

// The same rules decide the same; with another gate the Pods get another label, and nothing else is said to differ.
func TestCompare(t *testing.T) {
	records := recorded(t)
	causes := Causes{}
	for _, record := range records {
		causes.Note(record)
	}
	with := func(gates map[string]bool) *Comparison {
		one, other, compared := NewDecisions(causes, 1, 0, nil), NewDecisions(causes, 1, 0, gates), Compare()
		for _, record := range records {
			steps, err := one.Show(record)
			if err != nil {
				t.Fatal(err)
			}
			for _, step := range steps {
				compared.Recorded(step)
			}
			if steps, err = other.Show(record); err != nil {
				t.Fatal(err)
			}
			for _, step := range steps {
				compared.Other(step)
			}
		}
		compared.End()
		return compared
	}
	if compared := with(map[string]bool{}); len(compared.Deviations) > 0 || len(compared.Lowest) != 1 {
		t.Errorf("the same rules deviate: %+v", compared)
	}
	compared := with(map[string]bool{"CloneSetShortHash": true})
	if len(compared.Deviations) == 0 || compared.Deviations[0].Code != "ScaleUp" {
		t.Errorf("the gate changes nothing: %+v", compared.Deviations)
	}
}
