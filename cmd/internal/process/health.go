package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"shiplog.dev/internal/journal"
)

// Health serves whether the process lives, whether it is ready, and its metrics.
type Health struct {
	// registries hold the metrics, by service; "" is the process.
	registries map[string]*prometheus.Registry
	// Profiling serves Go's profiles too.
	Profiling bool
	// Journal is the log that readiness waits for, and whose state is among the metrics; nil: the process does not see it.
	Journal journal.Journal
	mu      sync.Mutex
	awaited []string // services that are not ready yet
}

// NewHealth returns one that waits for nothing yet.
func NewHealth() *Health {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return &Health{registries: map[string]*prometheus.Registry{"": registry}}
}

// Metrics returns a place for the metrics of a service that starts, or starts again: then they begin anew.
func (h *Health) Metrics(service string) prometheus.Registerer {
	registry := prometheus.NewRegistry()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.registries[service] = registry
	return registry
}

// Refusals counts what the log's server refuses its clients.
func (h *Health) Refusals() func(what string) {
	count := promauto.With(h.registries[""]).NewCounterVec(prometheus.CounterOpts{
		Name: "shiplog_log_refused_total",
		Help: "What clients of the log were refused: connect (nobody knows who it is); of an embedded server also publish and subscribe (it tried what it may not).",
	}, []string{"what"})
	return func(what string) { count.WithLabelValues(what).Inc() }
}

// Gather collects the metrics of all services.
func (h *Health) Gather() ([]*dto.MetricFamily, error) {
	h.mu.Lock()
	var all prometheus.Gatherers
	for _, registry := range h.registries {
		all = append(all, registry)
	}
	h.mu.Unlock()
	return all.Gather()
}

// logMetrics shows how the log is, asked for at each scrape. What cannot be asked is left out.
type logMetrics struct{ journal journal.Journal }

var (
	logFirst     = prometheus.NewDesc("shiplog_log_first_sequence", "Sequence of the oldest entry; older ones were dropped by retention or size.", nil, nil)
	logLast      = prometheus.NewDesc("shiplog_log_last_sequence", "Sequence of the newest entry.", nil, nil)
	logCompacted = prometheus.NewDesc("shiplog_log_compacted_sequence", "Position of the newest compacted view.", nil, nil)
	logBytes     = prometheus.NewDesc("shiplog_log_bytes", "Size of the log in bytes.", nil, nil)
	logBacklog   = prometheus.NewDesc("shiplog_log_backlog", "Commands or rollout events that wait for those who act on them, or are being acted on, by the name of these.", []string{"consumer"}, nil)
	logMaxBytes  = prometheus.NewDesc("shiplog_log_max_bytes", "Size at which the oldest entries are dropped; 0: none.", nil, nil)
)

func (m logMetrics) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, out) }

func (m logMetrics) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	state, err := m.journal.State(ctx)
	if err != nil {
		return
	}
	for description, value := range map[*prometheus.Desc]uint64{
		logFirst: state.FirstSequence, logLast: state.LastSequence, logCompacted: state.Compacted, logBytes: state.Bytes, logMaxBytes: state.MaxBytes,
	} {
		out <- prometheus.MustNewConstMetric(description, prometheus.GaugeValue, float64(value))
	}
	backlog, err := m.journal.Backlog(ctx)
	if err != nil {
		return
	}
	for name, waiting := range backlog {
		out <- prometheus.MustNewConstMetric(logBacklog, prometheus.GaugeValue, float64(waiting), name)
	}
}

// Ready makes readiness wait for a service, and returns what the service calls once it is ready.
func (h *Health) Ready(service string) func() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Contains(h.awaited, service) {
		h.awaited = append(h.awaited, service)
	}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.awaited = slices.DeleteFunc(h.awaited, func(s string) bool { return s == service })
	}
}

// listen starts the endpoint. An address that cannot be used is an error.
func (h *Health) listen(ctx context.Context, group *errgroup.Group, logger zerolog.Logger, address string) error {
	if address == "" {
		return nil
	}
	if h.Journal != nil {
		if err := h.registries[""].Register(logMetrics{h.Journal}); err != nil {
			return err
		}
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("serve health and metrics (--listen %s): %w", address, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(h, promhttp.HandlerOpts{}))
	if h.Profiling {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		awaited := slices.Clone(h.awaited)
		h.mu.Unlock()
		if h.Journal != nil {
			if _, err := h.Journal.State(r.Context()); err != nil {
				awaited = append(awaited, "log: "+err.Error())
			}
		}
		if len(awaited) > 0 {
			http.Error(w, "not ready: "+strings.Join(awaited, ", "), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve health and metrics: %w", err)
		}
		return nil
	})
	context.AfterFunc(ctx, func() { server.Close() })
	logger.Info().Str("address", listener.Addr().String()).Msg("serving /healthz, /readyz and /metrics")
	return nil
}
