// Package record puts into the log who asked for a change, as admission saw it. Admission never waits for the log: what the log does not
// take in time is dropped and counted.
package record

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/rs/zerolog"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
)

const (
	// maxWaiting is how many admissions wait for the log at most.
	maxWaiting = 1024
	// together is how many of them are appended at once.
	together = 64
	// patience is how long the log may take for one append.
	patience = 5 * time.Second
	// endBound is how long the last append may take when the process ends.
	endBound = 2 * time.Second
)

// Options of New.
type Options struct {
	Journal journal.Journal
	Logger  zerolog.Logger
	// Registry takes the metrics; nil: none.
	Registry prometheus.Registerer
	// Writer names this instance in entries, Version its program.
	Writer, Version string
}

// Recorder appends admissions.
type Recorder struct {
	options Options
	waiting chan *shiplogv1.Admitted
	counted *prometheus.CounterVec
}

// New returns a recorder that takes admissions and appends them once it runs.
func New(options Options) *Recorder {
	r := &Recorder{
		options: options, waiting: make(chan *shiplogv1.Admitted, maxWaiting),
		counted: promauto.With(options.Registry).NewCounterVec(prometheus.CounterOpts{
			Name: "shiplog_admission_recorded_total", Help: "Who was admitted with a change, by what became of the record: appended, or dropped because the log was slow or did not take it.",
		}, []string{"result"}),
	}
	for _, result := range []string{"appended", "dropped"} {
		r.counted.WithLabelValues(result)
	}
	return r
}

// Record takes an admission. It returns at once.
func (r *Recorder) Record(admitted *shiplogv1.Admitted) {
	select {
	case r.waiting <- admitted:
	default:
		r.counted.WithLabelValues("dropped").Inc()
	}
}

// Run appends what is recorded until ctx ends, and then what still waits.
func (r *Recorder) Run(ctx context.Context) error {
	// What is being appended when ctx ends goes on for a while.
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(endBound, cancel) })()
	for {
		select {
		case <-ctx.Done():
			for len(r.waiting) > 0 && lasting.Err() == nil {
				r.append(lasting, <-r.waiting)
			}
			return nil
		case admitted := <-r.waiting:
			r.append(lasting, admitted)
		}
	}
}

// append stores one admission and those that wait behind it.
func (r *Recorder) append(ctx context.Context, first *shiplogv1.Admitted) {
	entries := []*shiplogv1.Entry{r.entry(first)}
	for len(entries) < together && len(r.waiting) > 0 {
		entries = append(entries, r.entry(<-r.waiting))
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	result := "appended"
	if _, err := r.options.Journal.Append(ctx, entries...); err != nil {
		result = "dropped"
		r.options.Logger.Warn().Err(err).Int("admissions", len(entries)).Msg("the log does not take who was admitted")
	}
	r.counted.WithLabelValues(result).Add(float64(len(entries)))
}

func (r *Recorder) entry(admitted *shiplogv1.Admitted) *shiplogv1.Entry {
	return &shiplogv1.Entry{
		Writer: r.options.Writer, WriterVersion: r.options.Version, Skippable: true, Kind: &shiplogv1.Entry_Admitted{Admitted: admitted},
	}
}
