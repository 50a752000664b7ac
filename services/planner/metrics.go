package planner

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	folded, fenceChanges, eventsLost prometheus.Counter
	position, leading                prometheus.Gauge
	decide                           prometheus.Histogram
	commands, events                 *prometheus.CounterVec
}

func newMetrics(registry prometheus.Registerer) metrics {
	m := metrics{
		folded:       prometheus.NewCounter(prometheus.CounterOpts{Name: "shiplog_planner_entries_folded_total", Help: "Entries folded."}),
		fenceChanges: prometheus.NewCounter(prometheus.CounterOpts{Name: "shiplog_planner_fence_changes_total", Help: "How often another planner's fence ended our leading."}),
		position:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "shiplog_planner_position", Help: "Sequence of the newest entry folded."}),
		leading:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "shiplog_planner_leading", Help: "1 while this planner holds the fence."}),
		decide: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shiplog_planner_decide_seconds", Help: "Time to decide on one workload.", Buckets: prometheus.ExponentialBuckets(1e-5, 4, 9),
		}),
		commands:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shiplog_planner_commands_total", Help: "Commands decided on, by reason."}, []string{"reason"}),
		events:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shiplog_planner_rollout_events_total", Help: "Rollout events told, by type."}, []string{"type"}),
		eventsLost: prometheus.NewCounter(prometheus.CounterOpts{Name: "shiplog_planner_rollout_events_lost_total", Help: "Rollout events that waited too long for a leader and were never told."}),
	}
	if registry != nil {
		registry.MustRegister(m.folded, m.fenceChanges, m.position, m.leading, m.decide, m.commands, m.events, m.eventsLost)
	}
	return m
}
