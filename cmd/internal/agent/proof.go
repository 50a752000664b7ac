package agent

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/nats-io/nkeys"
	"github.com/spf13/pflag"

	"shiplog.dev/cmd/internal/process"
	"shiplog.dev/internal/journal"
)

// proof says with what a node's agent proves which node it is of.
type proof struct{ tokenFile, keyFile string }

// defaultTokenFile is where a projected token is found unless another place is given.
const defaultTokenFile = "/var/run/secrets/shiplog/token"

func (p *proof) bind(flags *pflag.FlagSet) {
	flags.StringVar(&p.tokenFile, "token-file", "", "`FILE` with the service account's token for the audience \""+journal.Audience+"\", bound to the Pod, which the kubelet keeps\n"+
		"fresh (default: "+defaultTokenFile+" if it is there)")
	flags.StringVar(&p.keyFile, "nkey", "", "`FILE` with the seed of a key to use instead of a token; it is made if it is not there")
}

// credential reads it. Public is the public half of a key.
func (p *proof) credential() (credential journal.Credential, public string, err error) {
	switch {
	case p.keyFile != "" && p.tokenFile != "":
		return credential, "", process.Usage(errors.New("give --token-file or --nkey, not both"))
	case p.keyFile != "":
		credential.Seed, public, err = keyIn(p.keyFile)
		return credential, public, err
	case p.tokenFile != "":
		if _, err := os.Stat(p.tokenFile); err != nil {
			return credential, "", process.Usage(fmt.Errorf("--token-file: %w", err))
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
		return nil, "", process.Usage(fmt.Errorf("--nkey %s: %w", path, err))
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
