package watcher

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	facts        *prometheus.CounterVec
	dropped      *prometheus.CounterVec
	queued       prometheus.Gauge
	failures     prometheus.Counter
	proofs       *prometheus.CounterVec
	proofSeconds prometheus.Histogram
	vouches      prometheus.Counter
	rewinds      prometheus.Counter
	losses       prometheus.Counter
}

// kindMetrics are those of one kind.
type kindMetrics struct{ observed, deleted, unchanged, dropped prometheus.Counter }

func newMetrics(registry prometheus.Registerer) *metrics {
	register := promauto.With(registry)
	return &metrics{
		facts: register.NewCounterVec(prometheus.CounterOpts{
			Name: "shiplog_watcher_changes_total",
			Help: "Changes that the watches showed, by resource and by what became of them: observed, deleted, unchanged (not published).",
		}, []string{"resource", "became"}),
		dropped: register.NewCounterVec(prometheus.CounterOpts{
			Name: "shiplog_watcher_watches_dropped_total",
			Help: "Watches that were given up because they could not be proven to be complete, by resource.",
		}, []string{"resource"}),
		queued: register.NewGauge(prometheus.GaugeOpts{
			Name: "shiplog_watcher_queued_facts",
			Help: "Facts that wait for the log.",
		}),
		failures: register.NewCounter(prometheus.CounterOpts{
			Name: "shiplog_watcher_append_failures_total",
			Help: "Appends of facts that the log did not take.",
		}),
		proofs: register.NewCounterVec(prometheus.CounterOpts{
			Name: "shiplog_watcher_proofs_total",
			Help: "Proofs that the facts are complete, by result.",
		}, []string{"result"}),
		proofSeconds: register.NewHistogram(prometheus.HistogramOpts{
			Name:    "shiplog_watcher_proof_seconds",
			Help:    "Time that a proof took, waiting for the watches included.",
			Buckets: prometheus.ExponentialBuckets(0.004, 2, 13),
		}),
		rewinds: register.NewCounter(prometheus.CounterOpts{
			Name: "shiplog_watcher_rewinds_total",
			Help: "How often the API server was found at an earlier state than one that it had shown, because etcd was restored.",
		}),
		losses: register.NewCounter(prometheus.CounterOpts{
			Name: "shiplog_watcher_log_losses_total",
			Help: "How often the log was found to lack entries at the start: deleted, or put back.",
		}),
		vouches: register.NewCounter(prometheus.CounterOpts{
			Name: "shiplog_watcher_vouches_total",
			Help: "Vouches appended.",
		}),
	}
}

func (m *metrics) of(resource string) kindMetrics {
	return kindMetrics{
		observed: m.facts.WithLabelValues(resource, "observed"), deleted: m.facts.WithLabelValues(resource, "deleted"),
		unchanged: m.facts.WithLabelValues(resource, "unchanged"), dropped: m.dropped.WithLabelValues(resource),
	}
}
