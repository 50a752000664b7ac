package intake

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	words       *prometheus.CounterVec
	givenUp     *prometheus.CounterVec
	credentials *prometheus.CounterVec
}

func newMetrics(registry prometheus.Registerer) *metrics {
	register := promauto.With(registry)
	return &metrics{
		words: register.NewCounterVec(prometheus.CounterOpts{
			Name: "shiplog_intake_words_total",
			Help: "Words of node agents, by result: stored, late (the call has an outcome), refused (not an agent's to say), busy (too many), failed (the log did not answer).",
		}, []string{"result"}),
		credentials: register.NewCounterVec(prometheus.CounterOpts{
			Name: "shiplog_intake_credentials_total",
			Help: "Questions of node agents for the credentials of a pull, by result: given, refused (not that node's to ask), failed (the API server or the log did not answer).",
		}, []string{"result"}),
		givenUp: register.NewCounterVec(prometheus.CounterOpts{
			Name: "shiplog_intake_given_up_total",
			Help: "Calls that ended because no agent spoke in time, by reason: NoAgent or AgentSilent.",
		}, []string{"reason"}),
	}
}
