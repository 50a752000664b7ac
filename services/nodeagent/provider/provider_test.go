package provider_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shiplog.dev/services/nodeagent/provider"
)

// write makes a configuration with one plugin, a shell script that notes each run.
func write(t *testing.T, config, script string) (path, directory string) {
	directory = t.TempDir()
	path = filepath.Join(directory, "config.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	script = "#!/bin/sh\necho run >> " + directory + "/runs\n" + script
	if err := os.WriteFile(filepath.Join(directory, "login"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path, directory
}

const config = `apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: login
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages: ["*.reg.io", "reg.io/team"]
  defaultCacheDuration: 1h
  args: [--who, me]
  env: [{name: WHERE, value: here}]
`

// answer answers with what the plugin was given, for a kind of key.
const answer = `read asked
case "$asked" in *'"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1"'*'"image":'*) ;; *) exit 1;; esac
cat <<END
{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"KEY",
"auth":{"*.reg.io":{"username":"$1$2","password":"$WHERE"},"elsewhere.io":{"username":"no"}}}
END
`

func runs(t *testing.T, directory string) int {
	data, err := os.ReadFile(filepath.Join(directory, "runs"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Count(string(data), "run")
}

// image-pull R51: the plugins of the kubelet, by its protocol.
func TestPluginsAreAskedAsTheKubeletDoes(t *testing.T) {
	for kind, want := range map[string]int{"Image": 3, "Registry": 2, "Global": 1} {
		path, directory := write(t, config, strings.Replace(answer, "KEY", kind, 1))
		plugins, err := provider.Load(path, directory)
		if err != nil {
			t.Fatal(err)
		}
		for _, image := range []string{"a.reg.io/x", "a.reg.io/y", "b.reg.io/x", "a.reg.io/x"} {
			found, err := plugins.Lookup(t.Context(), image)
			if err != nil || len(found) != 1 || found[0].Username != "--whome" || found[0].Password != "here" {
				t.Errorf("%s: %d credentials, %v", image, len(found), err)
			}
		}
		if found, err := plugins.Lookup(t.Context(), "docker.io/library/nginx"); err != nil || len(found) != 0 {
			t.Errorf("an image that no pattern matches: %d credentials, %v", len(found), err)
		}
		if n := runs(t, directory); n != want {
			t.Errorf("cached by %s: %d runs, want %d", kind, n, want)
		}
	}
}

func TestAPluginFails(t *testing.T) {
	for what, script := range map[string]string{
		"exits": "echo my-password; exit 3", "writes no JSON": "echo my-password", "writes another kind": `echo '{"kind":"my-password"}'`,
		"writes too much": "yes my-password", "has no key": strings.Replace(answer, "KEY", "", 1),
	} {
		path, directory := write(t, config, script)
		plugins, err := provider.Load(path, directory)
		if err != nil {
			t.Fatal(err)
		}
		found, err := plugins.Lookup(t.Context(), "a.reg.io/x")
		if err == nil || len(found) != 0 || strings.Contains(err.Error(), "my-password") || !strings.Contains(err.Error(), "login") {
			t.Errorf("%s: %d, %v", what, len(found), err)
		}
	}
}

func TestLoadNamesTheField(t *testing.T) {
	for old, c := range map[string]struct{ now, field string }{
		"kind: CredentialProviderConfig": {"kind: Pod", "Pod"}, "- name: login": {"- name: ../login", "providers[0].name"},
		"  defaultCacheDuration: 1h\n": {"", "defaultCacheDuration"}, `["*.reg.io", "reg.io/team"]`: {"[]", "matchImages"},
		"apiVersion: credentialprovider.kubelet.k8s.io/v1": {"apiVersion: v1", "providers[0].apiVersion"}, "name: login": {"name: absent", "absent"},
	} {
		path, directory := write(t, strings.Replace(config, old, c.now, 1), answer)
		if _, err := provider.Load(path, directory); err == nil || !strings.Contains(fmt.Sprint(err), c.field) {
			t.Errorf("%s: %v", c.now, err)
		}
	}
}
