package planner

import (
	"fmt"
	"testing"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/replay"
)

// sealer is a planner over a log, which its test drives by hand.
type sealer struct {
	*planner
	t   *testing.T
	log *journal.Memory
	at  uint64
}

func newSealer(t *testing.T, log *journal.Memory, name string) *sealer {
	p := newPlanner(Options{Journal: log, Writer: name})
	p.stopLeading = func() {}
	return &sealer{planner: p, t: t, log: log}
}

func (s *sealer) read() []journal.Record {
	s.t.Helper()
	state, err := s.log.State(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	reader, err := s.log.Read(s.t.Context(), journal.From{Sequence: 1})
	if err != nil {
		s.t.Fatal(err)
	}
	defer reader.Close()
	var out []journal.Record
	for uint64(len(out)) < state.LastSequence {
		records, err := reader.Next(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		out = append(out, records...)
	}
	return out
}

// turn folds what is new and seals what is due.
func (s *sealer) turn() {
	s.t.Helper()
	for _, record := range s.read() {
		if record.Sequence <= s.at {
			continue
		}
		change, err := world.Decode(record.Sequence, record.Time, record.Entry)
		if err != nil {
			s.t.Fatal(err)
		}
		s.fold([]world.Change{change})
		s.at = record.Sequence
	}
	s.sealDue = true
	if err := s.seal(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sealer) raise() {
	s.t.Helper()
	var err error
	if s.fence, err = s.log.RaiseFence(s.t.Context(), s.Writer, "", nil); err != nil {
		s.t.Fatal(err)
	}
	s.turn()
}

func verified(t *testing.T, records []journal.Record) replay.Account {
	t.Helper()
	v := replay.NewVerifier(replay.Facts{First: 1, Last: uint64(len(records))}, replay.Causes{})
	for _, record := range records {
		if err := v.Show(record); err != nil {
			t.Fatal(err)
		}
	}
	v.End()
	return v.Account
}

// The chain goes on over a change of leaders, an idle log gets no seal, and what was changed or is missing shows.
func TestSeal(t *testing.T) {
	log := journal.NewMemory(time.Now)
	add := func(entry *shiplogv1.Entry) {
		if _, err := log.Append(t.Context(), entry); err != nil {
			t.Fatal(err)
		}
	}
	version := 0
	happens := func() {
		version++
		add(&shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
			Object:          &shiplogv1.ObjectRef{Version: "v1", Resource: world.ResourceNamespaces, Name: "default", Uid: "uid"},
			ResourceVersion: fmt.Sprint(version), Json: []byte(`{"metadata":{"name":"default","uid":"uid"}}`),
		}}})
	}
	a, b := newSealer(t, log, "a"), newSealer(t, log, "b")
	happens()
	a.raise()
	a.turn()
	happens()
	a.turn()
	add(&shiplogv1.Entry{Kind: &shiplogv1.Entry_Vouched{Vouched: &shiplogv1.Vouched{}}}) // it follows what happened, and is not worth a seal
	b.turn()
	idle := len(a.read())
	for range 3 {
		a.turn()
	}
	if now := len(a.read()); now != idle {
		t.Errorf("%d entries were added to an idle log", now-idle)
	}
	b.raise()
	b.turn()
	happens()
	b.turn()
	a.turn() // it is deposed, and has nothing to say
	records := b.read()
	account := verified(t, records)
	if account.Seals != 4 || len(account.Problems) > 0 {
		t.Fatalf("%d seals, %v", account.Seals, account.Problems)
	}

	changed := append([]journal.Record(nil), records...)
	changed[0].Time = changed[0].Time.Add(1)
	if got := verified(t, changed).Problems; len(got) != 1 || got[0].Invariant != "seal" {
		t.Errorf("a changed time: %v", got)
	}
	missing := append(append([]journal.Record(nil), records[:3]...), records[4:]...)
	if got := verified(t, missing).Problems; len(got) == 0 || got[0].Invariant != "seal" {
		t.Errorf("a missing entry: %v", got)
	}
}
