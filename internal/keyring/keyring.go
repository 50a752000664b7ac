// Package keyring finds the credentials of a registry for an image, by the rules of the kubelet. It reads what it is given and
// talks to nobody.
package keyring

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
)

// defaultRegistry is the key of credentials for images whose name holds no registry.
const defaultRegistry = "index.docker.io"

// Credential is what a registry wants to know: a name and password, or a token.
type Credential struct {
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	Auth          string `json:"auth,omitempty"`
	ServerAddress string `json:"serveraddress,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// String says nothing: credentials are in no log.
func (Credential) String() string { return "(credential)" }

// GoString is String.
func (c Credential) GoString() string { return c.String() }

// Keyring holds credentials by registry, or by a path in one.
type Keyring struct {
	credentials map[string][]Credential
	// patterns are the keys of credentials, longer paths before shorter.
	patterns []string
}

// ParseConfig reads the content of .dockerconfigjson. Entries that cannot be read are left out, and the error names them.
func ParseConfig(data []byte) (*Keyring, error) {
	var config struct {
		Auths map[string]json.RawMessage `json:"auths"`
	}
	if json.Unmarshal(data, &config) != nil {
		return &Keyring{}, errors.New("it is no Docker configuration in JSON") // what the decoder says may quote it
	}
	return parse(config.Auths)
}

// ParseLegacy reads the content of .dockercfg. See ParseConfig.
func ParseLegacy(data []byte) (*Keyring, error) {
	var auths map[string]json.RawMessage
	if json.Unmarshal(data, &auths) != nil {
		return &Keyring{}, errors.New("it is no Docker configuration in JSON")
	}
	return parse(auths)
}

func parse(auths map[string]json.RawMessage) (*Keyring, error) {
	ring := &Keyring{}
	var errs []error
	for location, data := range auths {
		var credential Credential
		err := json.Unmarshal(data, &credential)
		if err == nil {
			err = credential.decode()
		}
		if err == nil {
			err = ring.Add(location, credential)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("the entry for %q cannot be read", location))
		}
	}
	return ring, errors.Join(errs...)
}

// decode takes the name and password out of auth.
func (c *Credential) decode() error {
	if c.Auth == "" {
		return nil
	}
	encoding := base64.StdEncoding
	if !strings.HasSuffix(c.Auth, "=") {
		encoding = base64.RawStdEncoding
	}
	decoded, err := encoding.DecodeString(strings.TrimSpace(c.Auth))
	if err != nil {
		return errors.New("auth is not base64")
	}
	username, password, is := strings.Cut(string(decoded), ":")
	if !is {
		return errors.New("auth is not NAME:PASSWORD")
	}
	c.Username, c.Password = username, strings.TrimRight(password, "\x00")
	return nil
}

// Add adds a credential for a location: HOST, HOST:PORT or either with a path, with or without a scheme; labels of the host may hold
// wildcards. Error: the location is none.
func (k *Keyring) Add(location string, credential Credential) error {
	if !strings.HasPrefix(location, "https://") && !strings.HasPrefix(location, "http://") {
		location = "https://" + location
	}
	parsed, err := url.Parse(location)
	if err != nil || parsed.Host == "" {
		return errors.New("it is no place of a registry")
	}
	where := parsed.Path
	if strings.HasPrefix(where, "/v1/") || strings.HasPrefix(where, "/v2/") { // docker login writes so
		where = where[len("/v1"):]
	}
	pattern := parsed.Host
	if where != "/" {
		pattern += where
	}
	if k.credentials == nil {
		k.credentials = map[string][]Credential{}
	}
	if _, known := k.credentials[pattern]; !known {
		k.patterns = append(k.patterns, pattern)
		slices.SortFunc(k.patterns, func(a, b string) int { return strings.Compare(b, a) })
	}
	k.credentials[pattern] = append(k.credentials[pattern], credential)
	return nil
}

// Lookup returns the credentials for an image, given in full and without tag and digest (docker.io/library/nginx), the most specific first.
func (k *Keyring) Lookup(image string) []Credential {
	var found []Credential
	for _, pattern := range k.patterns {
		if Match(pattern, image) {
			found = append(found, k.credentials[pattern]...)
		}
	}
	if len(found) == 0 && isDefault(image) {
		found = append(found, k.credentials[defaultRegistry]...)
	}
	return found
}

// isDefault says whether an image is of the registry that a name without one means.
func isDefault(image string) bool {
	first, _, more := strings.Cut(image, "/")
	switch {
	case first == "":
		return false
	case !more, first == "docker.io", first == defaultRegistry:
		return true
	}
	return !strings.ContainsAny(first, ".:")
}

// Match says whether an image, without tag and digest, is of a place in a registry: the same port, as many labels in the host, each
// the same or matched by a wildcard, and a path that begins so.
func Match(pattern, image string) bool {
	glob, err := url.Parse("https://" + pattern)
	if err != nil {
		return false
	}
	target, err := url.Parse("https://" + image)
	if err != nil {
		return false
	}
	globs, labels := strings.Split(glob.Hostname(), "."), strings.Split(target.Hostname(), ".")
	if glob.Port() != target.Port() || len(globs) != len(labels) || !strings.HasPrefix(target.Path, glob.Path) {
		return false
	}
	for i, one := range globs {
		if matched, err := path.Match(one, labels[i]); err != nil || !matched {
			return false
		}
	}
	return true
}
