package nodeagent

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	facts       prometheus.Counter
	failures    prometheus.Counter
	looks       *prometheus.CounterVec
	lookSeconds prometheus.Histogram
	up          prometheus.Gauge
	lost        prometheus.Counter
	calls       *prometheus.CounterVec
	callSeconds *prometheus.HistogramVec
}

func newMetrics(registry prometheus.Registerer) *metrics {
	register := promauto.With(registry)
	return &metrics{
		facts: register.NewCounter(prometheus.CounterOpts{
			Name: "shiplog_nodeagent_facts_total",
			Help: "Facts appended: the runtime had something else than the fact before said.",
		}),
		failures: register.NewCounter(prometheus.CounterOpts{
			Name: "shiplog_nodeagent_append_failures_total",
			Help: "Facts that the log did not take.",
		}),
		looks: register.NewCounterVec(prometheus.CounterOpts{
			Name: "shiplog_nodeagent_looks_total",
			Help: "Looks at what the container runtime has, by result: ok or failed.",
		}, []string{"result"}),
		lookSeconds: register.NewHistogram(prometheus.HistogramOpts{
			Name:    "shiplog_nodeagent_look_seconds",
			Help:    "Time that a look took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		up: register.NewGauge(prometheus.GaugeOpts{
			Name: "shiplog_nodeagent_runtime_up",
			Help: "1 while the container runtime answers, else 0.",
		}),
		lost: register.NewCounter(prometheus.CounterOpts{
			Name: "shiplog_nodeagent_runtime_lost_total",
			Help: "How often the container runtime stopped to answer.",
		}),
		calls: register.NewCounterVec(prometheus.CounterOpts{
			Name: "shiplog_nodeagent_calls_total",
			Help: "Calls made for commands, by verb (pull, hook, stop, inspect, cancel) and result: applied, or the code of the refusal.",
		}, []string{"verb", "result"}),
		callSeconds: register.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "shiplog_nodeagent_call_seconds",
			Help:    "Time that a call took, by verb.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 16),
		}, []string{"verb"}),
	}
}
