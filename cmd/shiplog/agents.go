package main

import (
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"shiplog.dev/cmd/internal/process"
	"shiplog.dev/services/executor/identity"
)

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
		return options, process.Usage(fmt.Errorf("--nodeagent-nkeys: %w", err))
	}
	defer file.Close()
	if options.Keys, err = identity.ReadKeys(file); err != nil {
		return options, process.Usage(fmt.Errorf("--nodeagent-nkeys %s: %w", a.keys, err))
	}
	return options, nil
}
