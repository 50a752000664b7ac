// Package histories holds recorded incidents: bundles that integration/histories/record made on a real cluster, redacted. Every
// build replays and verifies them, so a change of what the rules decide shows here before it lands.
package histories

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/services/planner/replay"
)

// fewest is how many histories there are at the least, so that none is lost in passing.
const fewest = 10

const acknowledge = `
If this change of decisions is meant, record the history anew and commit it with the change, which acknowledges it:
  make build && go run ./integration/histories/record %s
To look closer: bin/shiplog replay --log integration/histories/%s.shiplog
                bin/shiplog what-if --binary OLD-SHIPLOG --log integration/histories/%s.shiplog`

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
			proven, err := prove(t.Context(), log)
			var difference *replay.Difference
			if errors.As(err, &difference) {
				t.Fatalf("%v\n%s", difference, strings.ReplaceAll(acknowledge, "%s", name))
			}
			if err != nil {
				t.Fatal(err)
			}
			if proven == 0 {
				t.Error("no command is proven: what is this history for?")
			}
		})
	}
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
