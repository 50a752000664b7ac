package executor

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	commands *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	limit    prometheus.Gauge
}

func newMetrics(registry prometheus.Registerer) *metrics {
	register := promauto.With(registry)
	return &metrics{
		commands: register.NewCounterVec(prometheus.CounterOpts{
			Name: "shiplog_executor_commands_total",
			Help: "Commands carried out, by verb and by what became of them.",
		}, []string{"verb", "result"}),
		seconds: register.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "shiplog_executor_command_seconds",
			Help:    "Time from receiving a command to the API server's last answer, by verb and by what became of it.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
		}, []string{"verb", "result"}),
		limit: register.NewGauge(prometheus.GaugeOpts{
			Name: "shiplog_executor_in_flight_limit",
			Help: "How many API requests may be in flight at once.",
		}),
	}
}
