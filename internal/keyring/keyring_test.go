package keyring_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"shiplog.dev/internal/keyring"
)

// TestMatch: the examples of Kubernetes' documentation, and what follows from its rules.
func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, image string
		want           bool
	}{
		{"123456789.dkr.ecr.us-east-1.amazonaws.com", "123456789.dkr.ecr.us-east-1.amazonaws.com/app", true},
		{"*.azurecr.io", "mine.azurecr.io/app", true},
		{"*.azurecr.io", "azurecr.io/app", false},
		{"*.azurecr.io", "a.b.azurecr.io/app", false},
		{"gcr.io", "gcr.io/project/app", true},
		{"gcr.io", "eu.gcr.io/project/app", false},
		{"*.*.registry.io", "a.b.registry.io/app", true},
		{"*.registry.io", "a.b.registry.io/app", false},
		{"*.k8s.io", "prefix.k8s.io/app", true},
		{"k8s.*", "k8s.io/app", true},
		{"app*.k8s.io", "app7.k8s.io/x", true},
		{"registry.io:8080/path", "registry.io:8080/path/app", true},
		{"registry.io:8080/path", "registry.io/path/app", false},
		{"registry.io/path", "registry.io:8080/path/app", false},
		{"registry.io:8080/path", "registry.io:8080/other/app", false},
		{"my-registry.io/images", "my-registry.io/images/mine", true},
		{"*my-registry.io/images", "my-registry.io/images/mine", true},
		{"my-registry.io/*", "my-registry.io/images", false}, // no wildcards in paths
		{"[", "registry.io/app", false},
	} {
		if got := keyring.Match(c.pattern, c.image); got != c.want {
			t.Errorf("%s, %s: %t", c.pattern, c.image, got)
		}
	}
}

func entry(user string) string {
	return fmt.Sprintf(`{"auth":%q}`, base64.StdEncoding.EncodeToString([]byte(user+":secret:of:"+user)))
}

func TestLookup(t *testing.T) {
	config := fmt.Sprintf(`{"auths":{"https://index.docker.io/v1/":%s,"registry.io":%s,"registry.io/team":%s,"https://registry.io:5000/v2/":%s,"*.registry.io":%s}}`,
		entry("hub"), entry("all"), entry("team"), entry("port"), entry("wild"))
	ring, err := keyring.ParseConfig([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	for image, want := range map[string]string{
		"docker.io/library/nginx": "hub", "docker.io/mine/app": "hub", "nginx": "hub", "mine/app": "hub", "index.docker.io/mine/app": "hub",
		"registry.io/app": "all", "registry.io/team/app": "team all", "registry.io:5000/app": "port", "eu.registry.io/app": "wild",
		"localhost:5000/app": "", "quay.io/app": "", "": "",
	} {
		var got []string
		for _, found := range ring.Lookup(image) {
			if found.Password != "secret:of:"+found.Username {
				t.Errorf("%s: the password of %s", image, found.Username)
			}
			got = append(got, found.Username)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", image, got, want)
		}
	}
}

// TestMalformed: what cannot be read does not block the rest, and no error quotes a secret.
func TestMalformed(t *testing.T) {
	ring, err := keyring.ParseConfig([]byte(`{"auths":{"a.io":{"auth":"c2VjcmV0"},"b.io":{"auth":"se cret"},"c.io":{"username":7},"d.io":` + entry("d") + `}}`))
	if err == nil || strings.Contains(err.Error(), "c2VjcmV0") || strings.Contains(err.Error(), "se cret") || !strings.Contains(err.Error(), "a.io") {
		t.Errorf("error %v", err)
	}
	if found := ring.Lookup("d.io/app"); len(found) != 1 || found[0].Username != "d" {
		t.Errorf("found %d", len(found))
	}
	for _, bad := range []string{"", "secret", `["secret"]`} {
		if _, err := keyring.ParseConfig([]byte(bad)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	legacy, err := keyring.ParseLegacy([]byte(`{"e.io":{"username":"u","password":"p","identitytoken":"i","registrytoken":"r","serveraddress":"https://e.io"}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := keyring.Credential{Username: "u", Password: "p", IdentityToken: "i", RegistryToken: "r", ServerAddress: "https://e.io"}
	if found := legacy.Lookup("e.io/app"); len(found) != 1 || found[0] != want {
		t.Error("the legacy form is read wrongly")
	}
	if said := fmt.Sprintf("%v %+v %#v %s", want, want, &want, want); strings.Contains(said, `"p"`) || strings.Contains(said, " p ") || strings.Contains(said, ":p") {
		t.Errorf("it says %s", said)
	}
}
