package planner

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/journal/embedded"
)

// awaitFolded waits until a planner has folded the entry at a position.
func awaitFolded(t *testing.T, registry *prometheus.Registry, position float64) {
	t.Helper()
	testbed.Eventually(t, within, func() error {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() == "shiplog_planner_position" && family.GetMetric()[0].GetGauge().GetValue() >= position {
				return nil
			}
		}
		return fmt.Errorf("position %v is not folded", position)
	})
}

// A planner that is told to stop leaves a log behind that is sealed.
func TestSealAtEnd(t *testing.T) {
	directory := t.TempDir()
	log, err := journal.Open(t.Context(), journal.Options{Server: &embedded.Server{Directory: filepath.Join(directory, "log")}})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	stop := start(t, log, "a", Options{Registry: registry})
	awaitFence(t, log, 1)
	appendTo(t, log, vouch())
	awaitFolded(t, registry, 2)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	read, err := history.Open(t.Context(), directory, "local")
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	var records []journal.Record
	if err := read.Each(t.Context(), history.Span{Past: true}, func(record journal.Record) error { records = append(records, record); return nil }); err != nil {
		t.Fatal(err)
	}
	if account := verified(t, records); account.Seals != 1 || len(account.Problems) > 0 {
		t.Errorf("%d seals, %v", account.Seals, account.Problems)
	}
}
