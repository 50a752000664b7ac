package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"shiplog.dev/cmd/internal/process"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/journal/embedded"
)

// connection says how to reach the two things that services talk to: the API server and the log.
type connection struct {
	process.LogAddress
	process.Logging
	kubeconfig  string
	stateDir    string
	natsListen  string
	durability  string
	retention   time.Duration
	maxLogBytes string
	calloutKey  string
}

func (c *connection) bindKubernetes(flags *pflag.FlagSet) {
	flags.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig `FILE` of the cluster (default: $KUBECONFIG, then in-cluster, then ~/.kube/config)")
}

// bindJournal says where the log is and how it is kept.
func (c *connection) bindJournal(flags *pflag.FlagSet) {
	c.LogAddress.Bind(flags)
	flags.StringVar(&c.durability, "durability", "fast", "what an acknowledged entry survives: fast (the end of any process) or strict (power loss)")
	flags.DurationVar(&c.retention, "retention", 7*24*time.Hour, "for how long entries are kept; 0: for ever")
	flags.StringVar(&c.maxLogBytes, "max-log-bytes", "10Gi", "how large the log becomes before its oldest entries are dropped; 0: no limit")
}

// logger for this process. Lines of client-go go the same way.
func (c *connection) logger() (zerolog.Logger, error) {
	logger, err := c.Logging.Logger()
	klog.SetSlogLogger(slog.New(zerolog.NewSlogHandler(logger.With().Str("from", "client-go").Logger())))
	return logger, err
}

// rest returns how to reach the API server, after it has answered, and the identity of the cluster behind it.
func (c *connection) rest(ctx context.Context) (*rest.Config, string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("read the kubeconfig (--kubeconfig %q): %w", c.kubeconfig, err)
	}
	// The services pace themselves by what the API server can take.
	config.QPS = -1
	probe := rest.CopyConfig(config)
	probe.Timeout = 10 * time.Second
	client, err := kubernetes.NewForConfig(probe)
	if err != nil {
		return nil, "", fmt.Errorf("use the kubeconfig: %w", err)
	}
	// The UID of kube-system lives as long as the cluster.
	namespace, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return nil, "", fmt.Errorf("reach the API server at %s: %w", config.Host, err)
	}
	return config, string(namespace.UID), nil
}

// bindCallout says by which key an external server knows who may let node agents in.
func (c *connection) bindCallout(flags *pflag.FlagSet) {
	flags.StringVar(&c.calloutKey, "nats-callout-key", "", "`FILE` with the seed of the account key that an external NATS server's auth_callout names as its issuer: node\n"+
		"agents are let in by this process")
}

// open opens the log for a service.
func (c *connection) open(ctx context.Context, clusterUID string, logger zerolog.Logger, refused func(string)) (journal.Journal, error) {
	options := journal.Options{
		URL: c.URL, Cluster: c.Cluster, ClusterUID: clusterUID, Durability: journal.Durability(c.durability),
		Retention: c.retention, Log: logger.With().Str("service", "log").Logger(), Refused: refused,
	}
	if c.calloutKey != "" {
		seed, err := os.ReadFile(c.calloutKey)
		if err != nil {
			return nil, process.Usage(fmt.Errorf("--nats-callout-key: %w", err))
		}
		options.CalloutSeed = bytes.TrimSpace(seed)
	}
	limit, err := resource.ParseQuantity(c.maxLogBytes)
	if err != nil {
		return nil, process.Usage(fmt.Errorf("--max-log-bytes %q: %w", c.maxLogBytes, err))
	}
	options.MaxBytes = limit.Value()
	if c.durability != string(journal.Fast) && c.durability != string(journal.Strict) {
		return nil, process.Usage(fmt.Errorf("--durability %q is neither fast nor strict", c.durability))
	}
	if c.URL == "" {
		options.Server = &embedded.Server{Directory: filepath.Join(c.stateDir, "log"), Listen: c.natsListen}
	}
	return journal.Open(ctx, options)
}
