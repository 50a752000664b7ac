package main

import (
	"context"
	"fmt"
	"os"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"shiplog.dev/cmd/internal/process"
	"shiplog.dev/internal/gate"
	"shiplog.dev/services/executor/admit"
	"shiplog.dev/services/executor/record"
	"shiplog.dev/services/executor/webhook"
	"shiplog.dev/services/planner/decide/nodeimage"
)

// features says which feature gates are on, and the numbers that rules go by.
type features struct {
	text     string
	settings nodeimage.Settings
}

func (f *features) bind(flags *pflag.FlagSet) {
	flags.StringVar(&f.text, "feature-gates", "", "`GATES` of OpenKruise to switch on or off, for example CloneSetPartitionRollback=true,ResourcesDeletionProtection=true")
	f.settings = nodeimage.Defaults
	flags.DurationVar(&f.settings.CreationDelay, nodeimage.SettingCreationDelay, f.settings.CreationDelay, "how long a node must be ready before images are pulled there, and not ready before its pulls have failed")
	flags.DurationVar(&f.settings.ResponseTime, nodeimage.SettingResponseTime, f.settings.ResponseTime, "how long a node's agent may be silent before its pulls have failed")
	flags.DurationVar(&f.settings.Keep, nodeimage.SettingKeep, f.settings.Keep, "how long what an ImagePullJob pulled is kept in the NodeImage at least, beyond the job's own time")
}

func (f *features) parse(logger zerolog.Logger) (gate.Set, error) {
	gates, warnings, err := gate.Parse(f.text)
	if err != nil {
		return nil, process.Usage(fmt.Errorf("--feature-gates: %w", err))
	}
	for _, warning := range warnings {
		logger.Warn().Msg(warning)
	}
	return gates, nil
}

// Where webhooks are found in a cluster (install-and-config 2.3); OpenKruise's environment changes it.
const (
	defaultNamespace = "kruise-system"
	defaultService   = "kruise-webhook-service"
	defaultSecret    = "kruise-webhook-certs"
)

// admission says how the API server reaches the webhooks.
type admission struct{ listen, url string }

func (a *admission) bind(flags *pflag.FlagSet) {
	flags.StringVar(&a.listen, "webhook-listen", "", "`ADDRESS` at which the API server's webhooks are answered (default: port 9876, or a free\n"+
		"one, of the address that this machine has towards the API server); "+listenOff+": leave them to another executor")
	flags.StringVar(&a.url, "webhook-url", "", "`URL` by which the API server reaches that address, https://HOST:PORT (default: the address itself; inside a\n"+
		"cluster the Service "+defaultService+")")
}

// listenOff is the address of who does not listen.
const listenOff = "off"

// open begins to answer webhooks. Certificates are kept in the given store; nil: where replicas share them, if they do.
func (a *admission) open(ctx context.Context, s surroundings, store webhook.Store) (*admits, error) {
	if a.url != "" {
		if err := webhook.CheckURL(a.url); err != nil {
			return nil, process.Usage(fmt.Errorf("--webhook-url: %w", err))
		}
	}
	logger, registry := s.Logger.With().Str("service", "admission").Logger(), s.Health.Metrics("admission")
	recorder := record.New(record.Options{Journal: s.journal, Logger: logger, Registry: registry, Writer: process.Writer("executor"), Version: process.Version()})
	handler, err := admit.Handler(admit.Options{Config: s.config, Gates: s.gates, Logger: logger, Registry: registry, Admitted: recorder.Record})
	if err != nil {
		return nil, err
	}
	options := webhook.Options{
		Config: s.config, Handler: handler, Logger: s.Logger.With().Str("service", webhookName).Logger(), Store: store,
		Listen: a.listen, URL: a.url, Ready: s.Health.Ready(webhookName),
	}
	namespace := environment("POD_NAMESPACE", defaultNamespace)
	if _, err := rest.InClusterConfig(); err == nil && a.url == "" {
		options.Service = &webhook.Service{Namespace: namespace, Name: environment("SERVICE_NAME", defaultService)}
		if a.listen == "" {
			options.Listen = fmt.Sprint(":", webhook.Port)
		}
	}
	if store == nil && options.Service == nil && a.url == "" {
		options.Store = &webhook.Memory{} // nobody else answers at this address
	} else if store == nil {
		client, err := kubernetes.NewForConfig(s.config)
		if err != nil {
			return nil, fmt.Errorf("set up the store of the webhook's certificates: %w", err)
		}
		options.Store = &webhook.Secret{Client: client.CoreV1().Secrets(namespace), Name: environment("SECRET_NAME", defaultSecret)}
	}
	hook, err := webhook.Open(ctx, options)
	if err != nil {
		return nil, err
	}
	return &admits{hook, recorder}, nil
}

// admits is admission while it answers.
type admits struct {
	*webhook.Webhook
	recorder *record.Recorder
}

func environment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

const webhookName = "webhook"

// services keep the webhooks registered, and record who was admitted.
func (a *admits) services() []service {
	return []service{
		{name: webhookName, run: func(ctx context.Context, _ surroundings) error { return a.Run(ctx) }},
		{name: "recorder", run: func(ctx context.Context, _ surroundings) error { return a.recorder.Run(ctx) }},
	}
}
