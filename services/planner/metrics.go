package planner

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	fenceChanges, eventsLost prometheus.Counter
	position, leading        prometheus.Gauge
	leader                   prometheus.Gauge // leading, by OpenKruise's name
	decide, lag              prometheus.Histogram
	folded, commands, events *prometheus.CounterVec
}

func newMetrics(registry prometheus.Registerer) metrics {
	m := metrics{
		folded:       prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shiplog_planner_entries_folded_total", Help: "Entries folded, by type."}, []string{"type"}),
		fenceChanges: prometheus.NewCounter(prometheus.CounterOpts{Name: "shiplog_planner_fence_changes_total", Help: "How often another planner's fence ended our leading."}),
		position:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "shiplog_planner_position", Help: "Sequence of the newest entry folded."}),
		leading:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "shiplog_planner_leading", Help: "1 while this planner holds the fence."}),
		decide: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shiplog_planner_decide_seconds", Help: "Time to decide on one workload.", Buckets: prometheus.ExponentialBuckets(1e-5, 4, 9),
		}),
		leader: prometheus.NewGauge(prometheus.GaugeOpts{Name: "kruise_manager_is_leader", Help: "1 while this planner holds the fence, as OpenKruise's manager says of itself."}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shiplog_planner_fold_lag_seconds", Help: "How long after the log took it an entry is folded, by the clocks of both.", Buckets: prometheus.ExponentialBuckets(1e-4, 4, 12),
		}),
		commands:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shiplog_planner_commands_total", Help: "Commands decided on, by reason."}, []string{"reason"}),
		events:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shiplog_planner_rollout_events_total", Help: "Rollout events told, by type."}, []string{"type"}),
		eventsLost: prometheus.NewCounter(prometheus.CounterOpts{Name: "shiplog_planner_rollout_events_lost_total", Help: "Rollout events that waited too long for a leader and were never told."}),
	}
	if registry != nil {
		registry.MustRegister(m.folded, m.fenceChanges, m.position, m.leading, m.decide, m.lag, m.leader, m.commands, m.events, m.eventsLost)
	}
	return m
}

func (m *metrics) lead(leads bool) {
	value := 0.0
	if leads {
		value = 1
	}
	m.leading.Set(value)
	m.leader.Set(value)
}
