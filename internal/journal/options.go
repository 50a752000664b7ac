package journal

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/rs/zerolog"
)

// Durability says what an acknowledged entry survives.
type Durability string

const (
	// Fast survives the end of any process, killed ones included. Power loss on a single server may take what came since its
	// last sync, up to two minutes.
	Fast Durability = "fast"
	// Strict survives power loss: an embedded server syncs every entry, and every batch of commands, before it acknowledges
	// it; external ones hold three replicas, which each of them syncs if it is configured so (sync_interval: always).
	Strict Durability = "strict"
)

// Server is a NATS server in this process.
type Server interface {
	nats.InProcessConnProvider
	// Share lets an account ask at a subject of the log's, which it knows as another; many says that a question has several
	// answers. It holds from the next Start on.
	Share(account, subject, as string, many bool)
	// Start starts it. Strict and asIs are Strict and Options.AsIs; refused is Options.Refused.
	Start(strict, asIs bool, log zerolog.Logger, refused func(what string)) error
	// Stop ends it; it may be started again.
	Stop()
	// Login is what everybody but the agents shows to be let in, Issuer signs what the server is told of agents.
	Login() (name, password string)
	Issuer() nkeys.KeyPair
	// Address is the URL at which other processes reach it; empty: they do not.
	Address() string
}

// Options say which log to open and how it is kept.
type Options struct {
	// URL of an external NATS server, or several, separated by commas. Either URL or Server is set.
	URL string
	// Server keeps the log in this process (package embedded). Open starts it, Close ends it.
	Server Server

	// Cluster is the token of the Kubernetes cluster in subjects; default "local".
	Cluster string
	// ClusterUID identifies the Kubernetes cluster for ever. The log remembers the first one it is opened with. Empty: not checked.
	ClusterUID string

	// Durability; default Fast.
	Durability Durability
	// AsIs opens a log that exists and changes nothing about how it is kept: for tools that read and for node agents. A
	// Server works on a copy, in which no limit applies: what the log has stays in it, however old it is.
	AsIs bool
	// Retention is for how long entries are kept; 0: for ever.
	Retention time.Duration
	// MaxBytes is how large the log becomes before the oldest entries go; 0: no limit.
	MaxBytes int64
	// Replicas of the log; default 1, or 3 for Strict with URL.
	Replicas int
	// Shards over which commands are spread; default 1.
	Shards uint32

	// CalloutSeed is the seed of the account key by which an external server's callout knows who may let agents in; empty: this
	// process lets none in. An embedded server has a key of its own.
	CalloutSeed []byte
	// Refused is told when a client is not let in ("connect"), or, where the server is embedded, tries what it may not ("publish",
	// "subscribe"); nil: nobody is.
	Refused func(what string)

	// Patience is how long one call tries before it gives up with ErrUnavailable; default 10 s.
	Patience time.Duration
	// Log takes what the log, and an embedded server, have to say; the zero value says nothing.
	Log zerolog.Logger
}

// complete fills in what was left out and refuses what cannot be.
func (o Options) complete() (Options, error) {
	if (o.URL == "") == (o.Server == nil) {
		return o, errors.New("open the log: either a URL or a server is needed")
	}
	if o.Cluster == "" {
		o.Cluster = "local"
	}
	switch o.Durability {
	case "":
		o.Durability = Fast
	case Fast, Strict:
	default:
		return o, fmt.Errorf("open the log: durability %q is neither %q nor %q", o.Durability, Fast, Strict)
	}
	if o.Replicas == 0 {
		o.Replicas = 1
		if o.Durability == Strict && o.URL != "" {
			o.Replicas = 3
		}
	}
	if o.Server != nil && o.Replicas != 1 {
		return o, fmt.Errorf("open the log: an embedded server keeps one replica, not %d", o.Replicas)
	}
	if o.Shards == 0 {
		o.Shards = 1
	}
	if o.Patience == 0 {
		o.Patience = 10 * time.Second
	}
	if o.Retention < 0 || o.MaxBytes < 0 || o.Replicas < 0 || o.Patience < 0 {
		return o, errors.New("open the log: a limit is negative")
	}
	return o, nil
}

// streamName of the log of a cluster.
func streamName(cluster string) string {
	if cluster == "local" {
		return "SHIPLOG"
	}
	return "SHIPLOG_" + nameOf(cluster)
}

// bucketName of the compacted views of a cluster.
func bucketName(cluster string) string {
	if cluster == "local" {
		return "SHIPLOG_COMPACTED"
	}
	return "SHIPLOG_COMPACTED_" + nameOf(cluster)
}

// nameOf encodes a cluster's token like a token of a subject, with "_" for the "%" that names do not take.
func nameOf(cluster string) string { return strings.ReplaceAll(encodeToken(cluster), "%", "_") }
