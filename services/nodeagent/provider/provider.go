// Package provider asks a node's credential-provider plugins for the credentials of an image: programs that the kubelet's
// CredentialProviderConfig names, run by the kubelet's protocol (image-pull R50, R51). It remembers what they say as long as they
// allow, in memory only.
package provider

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/yaml"

	"shiplog.dev/internal/keyring"
)

const (
	// runWithin bounds one run of a plugin, and maxAnswer what it may write, in bytes.
	runWithin = time.Minute
	maxAnswer = 1 << 20
	// maxConfig is the largest configuration in bytes, maxRemembered how many answers of one plugin are remembered.
	maxConfig     = 1 << 20
	maxRemembered = 256

	configGroup   = "kubelet.config.k8s.io/"
	protocolGroup = "credentialprovider.kubelet.k8s.io/"
)

// Plugins are the plugins of a node.
type Plugins struct{ plugins []*plugin }

// plugin is one program.
type plugin struct {
	settings
	path string

	mu sync.Mutex
	// remembered holds answers by what they hold for: an image, a registry, or "" for every image.
	remembered map[string]remembered
}

type remembered struct {
	credentials *keyring.Keyring
	until       time.Time
}

// typeMeta and duration are as Kubernetes has them. Its own would bring along the machinery of all of its types, of which the memory of
// an agent at rest would hold much.
type typeMeta struct {
	Kind       string `json:"kind"`
	APIVersion string `json:"apiVersion"`
}

type duration struct{ time.Duration }

func (d *duration) UnmarshalJSON(data []byte) error {
	var text string
	err := json.Unmarshal(data, &text)
	if err == nil {
		d.Duration, err = time.ParseDuration(text)
	}
	return err
}

// settings are those of a plugin in CredentialProviderConfig.
type settings struct {
	Name                 string                         `json:"name"`
	MatchImages          []string                       `json:"matchImages"`
	DefaultCacheDuration *duration                      `json:"defaultCacheDuration"`
	APIVersion           string                         `json:"apiVersion"`
	Args                 []string                       `json:"args"`
	Env                  []struct{ Name, Value string } `json:"env"`
	TokenAttributes      *json.RawMessage               `json:"tokenAttributes"`
}

// Load reads a CredentialProviderConfig whose programs are in a directory. Errors name the file and the field.
func Load(config, directory string) (*Plugins, error) {
	fail := func(format string, arguments ...any) (*Plugins, error) {
		return nil, fmt.Errorf("read the credential providers in %s: %w", config, fmt.Errorf(format, arguments...))
	}
	file, err := os.Open(config)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxConfig))
	if err != nil {
		return fail("%w", err)
	}
	var read struct {
		typeMeta
		Providers []settings `json:"providers"`
	}
	if err := yaml.Unmarshal(data, &read); err != nil {
		return fail("%w", err)
	}
	if read.Kind != "CredentialProviderConfig" || !strings.HasPrefix(read.APIVersion, configGroup) {
		return fail("it is a %s of %s, not a CredentialProviderConfig of %sv1", read.Kind, read.APIVersion, configGroup)
	}
	plugins := &Plugins{}
	for i, one := range read.Providers {
		path := filepath.Join(directory, one.Name)
		switch {
		case one.Name == "" || strings.ContainsAny(one.Name, "/\\ ") || one.Name == "." || one.Name == "..":
			return fail("providers[%d].name: %q is not the name of a program", i, one.Name)
		case len(one.MatchImages) == 0:
			return fail("providers[%d].matchImages: at least one is needed", i)
		case !strings.HasPrefix(one.APIVersion, protocolGroup):
			return fail("providers[%d].apiVersion: %q is not a version of %s", i, one.APIVersion, protocolGroup)
		case one.TokenAttributes != nil:
			return fail("providers[%d].tokenAttributes: an agent has no service accounts' tokens to give", i)
		case one.DefaultCacheDuration == nil || one.DefaultCacheDuration.Duration < 0:
			return fail("providers[%d].defaultCacheDuration: a duration is needed", i)
		}
		if info, err := os.Stat(path); err != nil || info.IsDir() {
			return fail("providers[%d].name: there is no program %s", i, path)
		}
		plugins.plugins = append(plugins.plugins, &plugin{settings: one, path: path, remembered: map[string]remembered{}})
	}
	return plugins, nil
}

// Lookup returns what the plugins that match an image, given in full and without tag and digest, have for it. The error says why
// others of them have nothing; it quotes nothing that they wrote.
func (p *Plugins) Lookup(ctx context.Context, image string) ([]keyring.Credential, error) {
	var found []keyring.Credential
	var errs []error
	for _, one := range p.plugins {
		if !slices.ContainsFunc(one.MatchImages, func(pattern string) bool { return keyring.Match(pattern, image) }) {
			continue
		}
		held, err := one.ask(ctx, image)
		if err != nil {
			errs = append(errs, fmt.Errorf("credential provider %s: %w", one.Name, err))
			continue
		}
		found = append(found, held.Lookup(image)...)
	}
	return found, errors.Join(errs...)
}

// ask returns what a plugin says of an image, from memory if it allows. It runs once at a time.
func (p *plugin) ask(ctx context.Context, image string) (*keyring.Keyring, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	registry, _, _ := strings.Cut(image, "/")
	for _, key := range []string{image, registry, ""} {
		if held, known := p.remembered[key]; known && time.Now().Before(held.until) {
			return held.credentials, nil
		}
	}
	answer, err := p.run(ctx, image)
	if err != nil {
		return nil, err
	}
	ring := &keyring.Keyring{}
	for pattern, login := range answer.Auth {
		if err := ring.Add(pattern, keyring.Credential{Username: login.Username, Password: login.Password}); err != nil {
			return nil, errors.New("its answer names a place that is none")
		}
	}
	key := image
	switch answer.CacheKeyType {
	case "Image":
	case "Registry":
		key = registry
	case "Global":
		key = ""
	default:
		return nil, errors.New("its answer has no cacheKeyType: Image, Registry or Global")
	}
	lasts := *p.DefaultCacheDuration
	if answer.CacheDuration != nil {
		lasts = *answer.CacheDuration
	}
	now := time.Now()
	for key, held := range p.remembered {
		if !now.Before(held.until) {
			delete(p.remembered, key)
		}
	}
	if lasts.Duration > 0 && len(p.remembered) < maxRemembered {
		p.remembered[key] = remembered{ring, now.Add(lasts.Duration)}
	}
	return ring, nil
}

// question and response are the kubelet's.
type question struct {
	typeMeta
	Image string `json:"image"`
}

type response struct {
	typeMeta
	CacheKeyType  string    `json:"cacheKeyType"`
	CacheDuration *duration `json:"cacheDuration"`
	Auth          map[string]struct{ Username, Password string }
}

func (p *plugin) run(ctx context.Context, image string) (*response, error) {
	ctx, cancel := context.WithTimeout(ctx, runWithin)
	defer cancel()
	asked, err := json.Marshal(question{typeMeta{APIVersion: p.APIVersion, Kind: "CredentialProviderRequest"}, image})
	if err != nil {
		return nil, err
	}
	written := &limited{}
	command := exec.CommandContext(ctx, p.path, p.Args...)
	command.Stdin, command.Stdout = bytes.NewReader(asked), written
	command.WaitDelay = time.Second
	command.Env = os.Environ()
	for _, variable := range p.Env {
		command.Env = append(command.Env, variable.Name+"="+variable.Value)
	}
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("run %s: %w", p.path, cmp.Or(ctx.Err(), err))
	}
	defer clear(written.data)
	var answer response
	if json.Unmarshal(written.data, &answer) != nil || answer.Kind != "CredentialProviderResponse" || answer.APIVersion != p.APIVersion {
		return nil, fmt.Errorf("its answer is no CredentialProviderResponse of %s", p.APIVersion)
	}
	return &answer, nil
}

// limited takes so much and no more.
type limited struct{ data []byte }

func (l *limited) Write(data []byte) (int, error) {
	if len(l.data)+len(data) > maxAnswer {
		return 0, errors.New("the answer is too long")
	}
	l.data = append(l.data, data...)
	return len(data), nil
}
