package planner

import (
	"path/filepath"
	"testing"

	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
)

// A planner that is told to stop leaves a log behind that is sealed.
func TestSealAtEnd(t *testing.T) {
	directory := t.TempDir()
	log, err := journal.Open(t.Context(), journal.Options{Directory: filepath.Join(directory, "log")})
	if err != nil {
		t.Fatal(err)
	}
	stop := start(t, log, "a", Options{})
	awaitFence(t, log, 1)
	appendTo(t, log, vouch())
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
