package process

import (
	"errors"

	"github.com/spf13/pflag"
)

// LogAddress says where the log is.
type LogAddress struct {
	// URL of an external NATS server, or several, separated by commas.
	URL string
	// Cluster is the name of this cluster in the subjects of the log.
	Cluster string
}

// Bind adds the flags that say so.
func (l *LogAddress) Bind(flags *pflag.FlagSet) {
	flags.StringVar(&l.URL, "nats-url", "", "`URL` of an external NATS server (several: separated by commas)")
	flags.StringVar(&l.Cluster, "cluster", "local", "`NAME` of this cluster in the subjects of the log")
}

// Shared refuses an address at which no other process finds the log.
func (l *LogAddress) Shared() error {
	if l.URL == "" {
		return Usage(errors.New("--nats-url is required: a service that runs alone shares the log with the others"))
	}
	return nil
}
