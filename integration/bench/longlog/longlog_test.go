package longlog

import (
	"testing"
	"time"

	"shiplog.dev/internal/journal"
	"shiplog.dev/services/planner/replay"
)

// Every command of a long log is one that the rules decide again, and what it holds follows from its seed.
func TestLongLogsReplay(t *testing.T) {
	reasons := map[string]int{}
	digest := func(seed uint64) (commands int, end string) {
		now := time.Date(2026, 1, 15, 8, 0, 0, 0, time.UTC)
		log := journal.NewMemory(func() time.Time { now = now.Add(time.Millisecond); return now })
		if err := Write(t.Context(), log, Plan{Seed: seed, Entries: 6000, Workloads: 4, Pods: 6, Large: 20}, func(uint64) {}); err != nil {
			t.Fatal(err)
		}
		state, err := log.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		reader, err := log.Read(t.Context(), journal.From{})
		if err != nil {
			t.Fatal(err)
		}
		causes, last := replay.Causes{}, uint64(0)
		var records []journal.Record
		for last < state.LastSequence {
			more, err := reader.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, record := range more {
				causes.Note(record)
				reasons[record.Entry.GetCommand().GetReason().GetCode()]++
				records, last = append(records, record), record.Sequence
			}
		}
		run := replay.New(causes, 0)
		for _, record := range records {
			if err := run.Show(record); err != nil {
				t.Fatal(err)
			}
		}
		if err := run.End(); err != nil {
			t.Fatal(err)
		}
		return run.Proven, records[len(records)-1].Entry.String()
	}
	commands, end := digest(1)
	if commands < 1000 {
		t.Errorf("only %d commands", commands)
	}
	for _, reason := range []string{"ScaleUp", "ScaleDown", "UpdateInPlace", "UpdateReCreate", "SpecifiedDelete", "ReportStatus"} {
		if reasons[reason] < 3 {
			t.Errorf("%s is the reason of %d commands: the log is not like a real one: %v", reason, reasons[reason], reasons)
		}
	}
	if again, same := digest(1); again != commands || same != end {
		t.Errorf("the same seed gives %d commands and another end, it gave %d", again, commands)
	}
	if _, other := digest(2); other == end {
		t.Error("another seed gives the same log")
	}
}
