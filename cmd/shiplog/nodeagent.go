package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/nats-io/nkeys"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"shiplog.dev/internal/journal"
	"shiplog.dev/services/executor/identity"
	"shiplog.dev/services/nodeagent"
	"shiplog.dev/services/nodeagent/cri"
	"shiplog.dev/services/nodeagent/provider"
)

// node is a node on which an agent runs, and how to reach its container runtime.
type node struct {
	name, endpoint string
	// ip of Pods that share the node's network; empty: found out.
	ip string
	// pulls is how many images are pulled at a time.
	pulls int
	// providers give credentials of the node's own; nil: there are none.
	providers nodeagent.Providers
}

// check says what is wrong with a node that was named by a flag.
func (n node) check(flag string) error {
	if n.name == "" {
		return usageError{fmt.Errorf("%s: the node has no name", flag)}
	}
	if err := cri.Check(n.endpoint); err != nil {
		return usageError{fmt.Errorf("%s: reach the container runtime of node %s: %w", flag, n.name, err)}
	}
	return nil
}

// service returns the agent of the node, which has of the log what open returns. waited says whether readiness waits for it.
func (n node) service(open func(context.Context, surroundings) (journal.Node, error), waited bool) service {
	return service{name: "nodeagent/" + n.name, run: func(ctx context.Context, s surroundings) error {
		log, err := open(ctx, s)
		if err != nil {
			return err
		}
		defer log.Close()
		options := nodeagent.Options{
			Node: n.name, Endpoint: n.endpoint, Log: log, NodeIP: n.ip, Providers: n.providers, Pulls: n.pulls, Logger: s.logger.With().Str("node", n.name).Logger(),
			Registry: prometheus.WrapRegistererWith(prometheus.Labels{"node": n.name}, s.registry),
			Writer:   writer("nodeagent"), Version: version(),
		}
		if waited {
			options.Ready = s.health.ready("nodeagent")
		}
		return nodeagent.Run(ctx, options)
	}}
}

// join has the agent share the log of this process.
func (n node) join(ctx context.Context, s surroundings) (journal.Node, error) {
	return s.journal.Join(ctx, n.name)
}

// agents says how the agents of nodes are known when they connect.
type agents struct{ serviceAccount, keys string }

func (a *agents) bind(flags *pflag.FlagSet) {
	flags.StringVar(&a.serviceAccount, "nodeagent-service-account", identity.DefaultServiceAccount, "`NAMESPACE/NAME` of the service account by whose tokens node agents are known")
	flags.StringVar(&a.keys, "nodeagent-nkeys", "", "`FILE` with lines NODE PUBLICKEY: agents that are known by a key instead, as \"shiplog nodeagent --nkey\" makes it")
}

func (a *agents) options() (identity.Options, error) {
	options := identity.Options{ServiceAccount: a.serviceAccount}
	if a.keys == "" {
		return options, nil
	}
	file, err := os.Open(a.keys)
	if err != nil {
		return options, usageError{fmt.Errorf("--nodeagent-nkeys: %w", err)}
	}
	defer file.Close()
	if options.Keys, err = identity.ReadKeys(file); err != nil {
		return options, usageError{fmt.Errorf("--nodeagent-nkeys %s: %w", a.keys, err)}
	}
	return options, nil
}

// proof says with what a node's agent proves which node it is of.
type proof struct{ tokenFile, keyFile string }

// defaultPluginConfig is where OpenKruise's daemon looks.
const defaultPluginConfig = "/kruise/CredentialProviderPlugin.yaml"

// defaultTokenFile is where a projected token is found unless another place is given.
const defaultTokenFile = "/var/run/secrets/shiplog/token"

func (p *proof) bind(flags *pflag.FlagSet) {
	flags.StringVar(&p.tokenFile, "token-file", "", "`FILE` with the service account's token for the audience \""+identity.Audience+"\", bound to the Pod, which the kubelet keeps\n"+
		"fresh (default: "+defaultTokenFile+" if it is there)")
	flags.StringVar(&p.keyFile, "nkey", "", "`FILE` with the seed of a key to use instead of a token; it is made if it is not there")
}

// credential reads it. Public is the public half of a key.
func (p *proof) credential() (credential journal.Credential, public string, err error) {
	switch {
	case p.keyFile != "" && p.tokenFile != "":
		return credential, "", usageError{errors.New("give --token-file or --nkey, not both")}
	case p.keyFile != "":
		credential.Seed, public, err = keyIn(p.keyFile)
		return credential, public, err
	case p.tokenFile != "":
		if _, err := os.Stat(p.tokenFile); err != nil {
			return credential, "", usageError{fmt.Errorf("--token-file: %w", err)}
		}
		credential.TokenFile = p.tokenFile
	default:
		if _, err := os.Stat(defaultTokenFile); err == nil {
			credential.TokenFile = defaultTokenFile
		}
	}
	return credential, "", nil
}

// keyIn returns the seed that a file holds, and its public half. A file that is not there is made.
func keyIn(path string) (seed []byte, public string, err error) {
	fail := func(err error) ([]byte, string, error) {
		return nil, "", usageError{fmt.Errorf("--nkey %s: %w", path, err)}
	}
	var key nkeys.KeyPair
	seed, err = os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if key, err = nkeys.CreateUser(); err == nil {
			if seed, err = key.Seed(); err == nil {
				err = os.WriteFile(path, seed, 0o600)
			}
		}
	} else if err == nil {
		seed = bytes.TrimSpace(seed)
		key, err = nkeys.FromSeed(seed)
	}
	if err != nil {
		return fail(err)
	}
	if public, err = key.PublicKey(); err != nil {
		return fail(err)
	}
	return seed, public, nil
}

// bindPulls says how many images an agent pulls at a time.
func bindPulls(flags *pflag.FlagSet, pulls *int) {
	flags.IntVar(pulls, "max-concurrent-pulls", 5, "`NUMBER` of images that a node's agent lets its runtime pull at a time, further ones wait; -1: no limit")
	flags.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		switch name {
		case "max-workers-for-pull-image", "max-concurrency": // what OpenKruise's daemon and its manual call it
			name = "max-concurrent-pulls"
		}
		return pflag.NormalizedName(name)
	})
}

// nodesOf reads the flag that names several, each NAME=unix:///path.
func nodesOf(flag string, values []string) ([]node, error) {
	var nodes []node
	for _, value := range values {
		name, endpoint, is := strings.Cut(value, "=")
		if !is {
			return nil, usageError{fmt.Errorf("%s %q is not of the form NAME=unix:///path", flag, value)}
		}
		if slices.ContainsFunc(nodes, func(n node) bool { return n.name == name }) {
			return nil, usageError{fmt.Errorf("%s names node %s twice", flag, name)}
		}
		one := node{name: name, endpoint: endpoint}
		if err := one.check(flag); err != nil {
			return nil, err
		}
		nodes = append(nodes, one)
	}
	return nodes, nil
}

// nodeagentCommand runs the agent of one node. It needs the log and the node's container runtime, and no Kubernetes.
func nodeagentCommand() *cobra.Command {
	var connect connection
	var own node
	var listen string
	var proof proof
	var socketFile, pluginConfig, pluginDirectory string
	command := &cobra.Command{
		Use: "nodeagent", Short: "Report what really runs on a node, pull images and stop containers there", Args: noArguments,
		Long: `The node agent looks at the container runtime of its node and says whenever its containers or images are others than the log
says. It carries out the commands for its node: pull an image, run a container's hook, stop it, look into it. It holds no Kubernetes
credentials: it gets the runtime's socket, and of the log the commands for its node and the ear of an executor, which writes down what it
says. With a token that is good for nothing else, or a key, it proves which node it is of.`,
		Example: `  # On a node, with the runtime where it usually listens:
  shiplog nodeagent --nats-url nats://nats-0:4222,nats://nats-1:4222

  # In a container, with the name of the node and the socket given:
  shiplog nodeagent --nats-url nats://nats:4222 --node "$NODE_NAME" --cri unix:///host/run/containerd/containerd.sock`,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx := command.Context()
			logger, err := connect.logger()
			if err != nil {
				return err
			}
			if connect.natsURL == "" {
				return usageError{errors.New("--nats-url is required: a service that runs alone shares the log with the others")}
			}
			if own.name == "" {
				host, err := os.Hostname()
				if err != nil {
					return usageError{fmt.Errorf("name the node with --node: %w", err)}
				}
				own.name = strings.ToLower(host) // as the kubelet does
			}
			switch {
			case own.endpoint != "" && socketFile != "":
				return usageError{errors.New("give --cri or --socket-file, not both")}
			case socketFile != "":
				own.endpoint = cri.InHostRun(socketFile)
			case own.endpoint == "":
				if own.endpoint = cri.Find(ctx, cri.WellKnown); own.endpoint == "" {
					return usageError{fmt.Errorf("no container runtime answers at %s: give its socket with --cri", strings.Join(cri.WellKnown, ", "))}
				}
			}
			if err := own.check("--cri"); err != nil {
				return err
			}
			credential, public, err := proof.credential()
			if err != nil {
				return err
			}
			if public != "" {
				logger.Info().Str("line", own.name+" "+public).Msg("known by this key; the executor finds the line in its --nodeagent-nkeys")
			}
			if _, err := os.Stat(pluginConfig); err == nil || pluginConfig != defaultPluginConfig {
				if own.providers, err = provider.Load(pluginConfig, pluginDirectory); err != nil {
					return usageError{fmt.Errorf("--plugin-config-file: %w", err)}
				}
			}
			open := func(ctx context.Context, s surroundings) (journal.Node, error) {
				return journal.OpenNode(ctx, journal.Options{
					URL: connect.natsURL, Cluster: connect.cluster, Log: s.logger.With().Str("service", "log").Logger(),
				}, own.name, credential)
			}
			go staySmall(ctx)
			health := newHealth()
			logger.Info().Str("node", own.name).Str("runtime", own.endpoint).Str("version", version()).Msg("at work")
			return serve(ctx, surroundings{logger: logger, health: health}, listen, own.service(open, true))
		},
	}
	flags := command.Flags()
	flags.StringVar(&own.name, "node", "", "`NAME` of the node (default: the host's name)")
	flags.StringVar(&own.ip, "node-ip", "", "`ADDRESS` of Pods that share the node's network (default: that of the interface with the default route)")
	flags.StringVar(&own.endpoint, "cri", "", "`SOCKET` of the container runtime, as unix:///path (default: the first that answers of those that\n"+
		"containerd, CRI-O and cri-dockerd have below /hostvarrun, /run and /var/run)")
	flags.StringVar(&socketFile, "socket-file", "", "`FILE` of that socket below /hostvarrun instead, as OpenKruise's daemon takes it")
	flags.StringVar(&pluginConfig, "plugin-config-file", defaultPluginConfig, "`FILE` with the kubelet's CredentialProviderConfig; none is needed")
	flags.StringVar(&pluginDirectory, "plugin-bin-dir", "/kruise/plugins", "`DIRECTORY` of the programs that it names")
	bindPulls(flags, &own.pulls)
	proof.bind(flags)
	connect.bindLogAddress(flags)
	connect.bindLogging(flags)
	flags.StringVar(&listen, "listen", "127.0.0.1:8080", "`ADDRESS` for /healthz, /readyz and /metrics; empty: none")
	return command
}
