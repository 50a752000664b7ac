// Package histories holds recorded incidents: bundles that integration/histories/record made on a real cluster, redacted. Every
// build replays and verifies them, so a change of what the rules decide shows here before it lands.
package histories

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/services/planner/replay"
)

// fewest is how many histories there are at the least, so that none is lost in passing.
const fewest = 10

var acknowledge = flag.Bool("acknowledge", false, "write what the rules decide over the histories now, to be committed with the change of the rules")

const intent = `
The rules decide otherwise over NAME than when this was last acknowledged. If that is meant, acknowledge it in the same commit, and say why in its message:
  go test ./integration/histories -acknowledge && git diff integration/histories
To look closer: bin/shiplog replay --log integration/histories/NAME.shiplog
                bin/shiplog what-if --binary OLD-SHIPLOG --log integration/histories/NAME.shiplog`

func howTo(name string) string { return strings.ReplaceAll(intent, "NAME", name) }

// TestHistories is the gate for changes of what the rules decide. decisions/NAME.jsonl holds what they decide over a history, at every position at which
// something changed (shiplog decide prints the same), and differs/NAME.txt the first place at which that is not what the planner of the recording
// decided: there is no such file while replay proves the history whole. Both are to change only by intent.
func TestHistories(t *testing.T) {
	paths, err := filepath.Glob("*.shiplog")
	if err != nil || len(paths) < fewest {
		t.Fatalf("%d histories, there should be %d at least: %v", len(paths), fewest, err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(path, ".shiplog")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log, err := history.Open(t.Context(), path, "local")
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			steps, err := decisions(t.Context(), log)
			if err != nil {
				t.Fatal(err)
			}
			differs := ""
			proven, err := prove(t.Context(), log)
			var difference *replay.Difference
			if errors.As(err, &difference) {
				differs = difference.Error() + "\n"
			} else if err != nil {
				t.Fatal(err)
			}
			if proven == 0 && differs == "" {
				t.Error("no command is proven: what is this history for?")
			}
			if *acknowledge {
				if err := write(name, steps, differs); err != nil {
					t.Fatal(err)
				}
				return
			}
			was, err := acknowledged(name)
			if err != nil {
				t.Fatalf("%v%s", err, howTo(name))
			}
			changed := changes(was, steps)
			if held, _ := os.ReadFile(differsFile(name)); string(held) != differs {
				changed += fmt.Sprintf("\nreplay finds: %s\nacknowledged is: %s\n", cmp.Or(differs, "nothing"), cmp.Or(string(held), "nothing"))
			}
			if changed != "" {
				t.Errorf("%s%s", changed, howTo(name))
			}
		})
	}
}

// A decision that is left out, comes elsewhere, or writes something else is a change, and is told with the Pod, the place, and what it
// does to availability.
func TestAChangeOfDecisionsIsTold(t *testing.T) {
	was, err := acknowledged("crash-loop")
	if err != nil {
		t.Fatal(err)
	}
	if told := changes(was, was); told != "" {
		t.Errorf("nothing has changed, and it is told:\n%s", told)
	}
	at := slices.IndexFunc(was, func(s replay.Step) bool {
		return slices.ContainsFunc(s.Actions, func(a replay.Action) bool { return a.TakesDown != "" })
	})
	if at < 0 {
		t.Fatal("nothing is taken down in crash-loop")
	}
	pod := ""
	for name, change := range map[string]func(*replay.Step){
		"left out":       func(s *replay.Step) { s.Actions = nil },
		"elsewhere":      func(s *replay.Step) { s.Position++ },
		"something else": func(s *replay.Step) { s.Actions[0].Content = "other" },
		"one more": func(s *replay.Step) {
			s.Actions = append(s.Actions, replay.Action{Verb: "delete", Object: "pods crash-loop/shop-xxxxx", Code: "ScaleDown", Effect: "delete pod/shop-xxxxx", TakesDown: "shop-xxxxx"})
		},
	} {
		now := slices.Clone(was)
		now[at].Actions = slices.Clone(now[at].Actions)
		pod = now[at].Actions[0].Object
		change(&now[at])
		told := changes(was, now)
		if !strings.Contains(told, pod) && !strings.Contains(told, "shop-xxxxx") {
			t.Errorf("%s: %q is told, which does not name the Pod", name, told)
		}
	}
}

func differsFile(name string) string { return filepath.Join("differs", name+".txt") }

func write(name string, steps []replay.Step, differs string) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	for _, step := range steps {
		if err := encoder.Encode(step); err != nil {
			return err
		}
	}
	if err := os.MkdirAll("decisions", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join("decisions", name+".jsonl"), text.Bytes(), 0o644); err != nil {
		return err
	}
	if differs == "" {
		if err := os.Remove(differsFile(name)); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.MkdirAll("differs", 0o755); err != nil {
		return err
	}
	return os.WriteFile(differsFile(name), []byte(differs), 0o644)
}

// acknowledged is what the rules decided over a history when somebody last said that this is as it should be.
func acknowledged(name string) ([]replay.Step, error) {
	data, err := os.ReadFile(filepath.Join("decisions", name+".jsonl"))
	if err != nil {
		return nil, fmt.Errorf("nobody has acknowledged what the rules decide: %w", err)
	}
	var out []replay.Step
	for decoder := json.NewDecoder(bytes.NewReader(data)); ; {
		var step replay.Step
		if err := decoder.Decode(&step); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		out = append(out, step)
	}
}

// changes tells in what decisions differ, for people; empty: in nothing.
func changes(was, now []replay.Step) string {
	compared := replay.Compare()
	for _, step := range was {
		compared.Recorded(step)
	}
	for _, step := range now {
		compared.Other(step)
	}
	compared.End()
	if len(compared.Deviations) == 0 {
		return ""
	}
	var out strings.Builder
	side := func(given *replay.Given) string {
		if given == nil {
			return "never"
		}
		return fmt.Sprintf("at %d (%s)", given.Position, given.Why)
	}
	for _, one := range compared.Deviations {
		fmt.Fprintf(&out, "%s, %s, %s\n  was  %s\n  now  %s\n", one.Object, one.Effect, one.Code, side(one.Recorded), side(one.Other))
	}
	for _, workload := range slices.Sorted(maps.Keys(compared.Lowest)) {
		fmt.Fprintf(&out, "Pods of %s left serving, at the least: %s\n", workload, compared.Lowest[workload])
	}
	return out.String()
}

// decisions are what the rules decide over a log.
func decisions(ctx context.Context, log *history.Log) (out []replay.Step, _ error) {
	causes := replay.Causes{}
	if err := log.Each(ctx, history.Span{}, func(record journal.Record) error { causes.Note(record); return nil }); err != nil {
		return nil, err
	}
	run := replay.NewDecisions(causes, log.First, log.ExactFrom, nil)
	err := log.Each(ctx, history.Span{Past: true}, func(record journal.Record) error {
		steps, err := run.Show(record)
		out = append(out, steps...)
		return err
	})
	return out, err
}

// prove replays and verifies a log, and returns how many commands the rules decided again.
func prove(ctx context.Context, log *history.Log) (int, error) {
	span := history.Span{Past: true}
	causes := replay.Causes{}
	if err := log.Each(ctx, span, func(record journal.Record) error { causes.Note(record); return nil }); err != nil {
		return 0, err
	}
	run := replay.New(causes, log.ExactFrom)
	verifier := replay.NewVerifier(replay.Facts{First: log.First, Last: log.Last, ExactFrom: log.ExactFrom, Cut: true, Changed: true}, causes)
	if err := log.Each(ctx, span, func(record journal.Record) error {
		if err := run.Show(record); err != nil {
			return err
		}
		return verifier.Show(record)
	}); err != nil {
		return run.Proven, err
	}
	if err := run.End(); err != nil {
		return run.Proven, err
	}
	verifier.End()
	for _, problem := range verifier.Problems {
		return run.Proven, errors.New(problem.Invariant + ": " + problem.Message)
	}
	return run.Proven, nil
}
