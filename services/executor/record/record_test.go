package record

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
)

func admitted(n int) *shiplogv1.Admitted {
	return &shiplogv1.Admitted{
		Object: &shiplogv1.ObjectRef{Group: "apps.kruise.io", Version: "v1beta1", Resource: "clonesets", Namespace: "shop", Name: "web", Uid: "uid"}, Operation: "UPDATE",
		User: fmt.Sprint("user-", n), Generation: int64(n),
	}
}

// counted is what became of the records.
func counted(t *testing.T, registry *prometheus.Registry) (appended, dropped float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%d metrics: %v", len(families), err)
	}
	of := func(m *dto.Metric) string { return m.GetLabel()[0].GetValue() }
	for _, metric := range families[0].GetMetric() {
		switch of(metric) {
		case "appended":
			appended = metric.GetCounter().GetValue()
		case "dropped":
			dropped = metric.GetCounter().GetValue()
		}
	}
	return appended, dropped
}

// What is recorded is in the log, in order, also what still waited when the process was asked to end.
func TestRecordsAreAppended(t *testing.T) {
	log, registry := journal.NewMemory(time.Now), prometheus.NewRegistry()
	r := New(Options{Journal: log, Registry: registry, Writer: "executor/a"})
	for n := range 100 {
		r.Record(admitted(n))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Run(ctx); err != nil {
		t.Fatal(err)
	}
	reader, err := log.Read(t.Context(), journal.From{})
	if err != nil {
		t.Fatal(err)
	}
	records, err := reader.Next(t.Context())
	if err != nil || len(records) != 100 {
		t.Fatalf("%d entries: %v", len(records), err)
	}
	for n, record := range records {
		if got := record.Entry.GetAdmitted(); got.GetUser() != fmt.Sprint("user-", n) || !record.Entry.GetSkippable() || record.Subject != "shiplog.local.admit.apps%2Ekruise%2Eio.clonesets.shop.web" {
			t.Errorf("entry %d is %v at %s", n, record.Entry, record.Subject)
		}
	}
	if appended, dropped := counted(t, registry); appended != 100 || dropped != 0 {
		t.Errorf("%g appended, %g dropped", appended, dropped)
	}
}

// stuck is a log that answers nothing.
type stuck struct{ journal.Journal }

func (stuck) Append(ctx context.Context, _ ...*shiplogv1.Entry) (uint64, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

// Recording never waits, however slow the log is: what is too much is dropped and counted.
func TestRecordingNeverWaits(t *testing.T) {
	registry := prometheus.NewRegistry()
	r := New(Options{Journal: stuck{}, Registry: registry})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	for n := range 10 * maxWaiting {
		r.Record(admitted(n)) // hangs here if it waits
	}
	if _, dropped := counted(t, registry); dropped < 8*maxWaiting {
		t.Errorf("%g are dropped", dropped)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if appended, dropped := counted(t, registry); appended != 0 || dropped < 8*maxWaiting {
		t.Errorf("%g appended, %g dropped", appended, dropped)
	}
}
