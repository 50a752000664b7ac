package agent

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"shiplog.dev/cmd/internal/process"
	"shiplog.dev/internal/journal"
	"shiplog.dev/services/nodeagent"
	"shiplog.dev/services/nodeagent/cri"
	"shiplog.dev/services/nodeagent/provider"
)

// Node is a node on which an agent runs.
type Node struct {
	Name string
	// Endpoint of its container runtime, unix:///path.
	Endpoint string
}

// check says what is wrong with a node that was named by a flag.
func (n Node) check(flag string) error {
	if n.Name == "" {
		return process.Usage(fmt.Errorf("%s: the node has no name", flag))
	}
	if err := cri.Check(n.Endpoint); err != nil {
		return process.Usage(fmt.Errorf("%s: reach the container runtime of node %s: %w", flag, n.Name, err))
	}
	return nil
}

// Parse reads the values of a flag that names nodes, each NAME=unix:///path.
func Parse(flag string, values []string) ([]Node, error) {
	var nodes []Node
	for _, value := range values {
		name, endpoint, is := strings.Cut(value, "=")
		if !is {
			return nil, process.Usage(fmt.Errorf("%s %q is not of the form NAME=unix:///path", flag, value))
		}
		if slices.ContainsFunc(nodes, func(n Node) bool { return n.Name == name }) {
			return nil, process.Usage(fmt.Errorf("%s names node %s twice", flag, name))
		}
		one := Node{name, endpoint}
		if err := one.check(flag); err != nil {
			return nil, err
		}
		nodes = append(nodes, one)
	}
	return nodes, nil
}

// defaultPluginConfig is where OpenKruise's daemon looks.
const defaultPluginConfig = "/kruise/CredentialProviderPlugin.yaml"

// Settings hold for all agents of a process.
type Settings struct {
	ip                            string
	pulls                         int
	pluginConfig, pluginDirectory string
	// providers give credentials of the node's own; nil: there are none.
	providers nodeagent.Providers
}

// Bind adds the flags that say so.
func (s *Settings) Bind(flags *pflag.FlagSet) {
	flags.StringVar(&s.ip, "node-ip", "", "`ADDRESS` of Pods that share their node's network (default: that of the interface with the default route)")
	flags.IntVar(&s.pulls, "max-concurrent-pulls", 5, "`NUMBER` of images that a node's agent lets its runtime pull at a time, further ones wait; -1: no limit")
	flags.StringVar(&s.pluginConfig, "plugin-config-file", defaultPluginConfig, "`FILE` with the kubelet's CredentialProviderConfig, by which a node's agent finds registry credentials\n"+
		"of the node's own; none is needed")
	flags.StringVar(&s.pluginDirectory, "plugin-bin-dir", "/kruise/plugins", "`DIRECTORY` of the programs that it names")
	flags.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		switch name {
		case "max-workers-for-pull-image", "max-concurrency": // what OpenKruise's daemon and its manual call it
			name = "max-concurrent-pulls"
		}
		return pflag.NormalizedName(name)
	})
}

// Load checks them, and reads the files that they name.
func (s *Settings) Load() (err error) {
	if s.ip != "" && net.ParseIP(s.ip) == nil {
		return process.Usage(fmt.Errorf("--node-ip %q is no IP address", s.ip))
	}
	if _, err := os.Stat(s.pluginConfig); err == nil || s.pluginConfig != defaultPluginConfig {
		if s.providers, err = provider.Load(s.pluginConfig, s.pluginDirectory); err != nil {
			return process.Usage(fmt.Errorf("--plugin-config-file: %w", err))
		}
	}
	return nil
}

// Service returns the agent of a node, which has of the log what open returns. Ready is called once the log says what the node's runtime has; nil: it
// need not be.
func (s *Settings) Service(node Node, open func(context.Context, process.Surroundings) (journal.Node, error), ready func()) process.Service {
	return process.Service{Name: "nodeagent/" + node.Name, Run: func(ctx context.Context, around process.Surroundings) error {
		log, err := open(ctx, around)
		if err != nil {
			return err
		}
		defer log.Close()
		return nodeagent.Run(ctx, nodeagent.Options{
			Node: node.Name, Endpoint: node.Endpoint, Log: log, NodeIP: s.ip, Providers: s.providers, Pulls: s.pulls,
			Logger:   around.Logger.With().Str("node", node.Name).Logger(),
			Registry: prometheus.WrapRegistererWith(prometheus.Labels{"node": node.Name}, around.Registry),
			Writer:   process.Writer("nodeagent"), Version: process.Version(), Ready: ready,
		})
	}}
}
