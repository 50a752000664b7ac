package registry_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"shiplog.dev/integration/cluster/registry"
)

// serve runs a registry whose busybox is a stand-in: what it lists is all that the registry asks of it.
func serve(t *testing.T) string {
	t.Helper()
	busybox := filepath.Join(t.TempDir(), "busybox")
	if err := os.WriteFile(busybox, []byte("#!/bin/sh\necho sh\necho httpd\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	handler, err := registry.New(busybox, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestImagesAreWellFormedAndStable(t *testing.T) {
	var digests []string
	for range 2 {
		reference, err := name.ParseReference(serve(t) + "/library/nginx:1.20")
		if err != nil {
			t.Fatal(err)
		}
		image, err := remote.Image(reference)
		if err != nil {
			t.Fatal(err)
		}
		// Fast: the full check takes every layer for a compressed one.
		if err := validate.Image(image, validate.Fast); err != nil {
			t.Error(err)
		}
		digest, err := image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, digest.String())
		files := mutate.Extract(image)
		content, err := io.ReadAll(files)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(content), "nginx version: nginx/1.20") {
			t.Error("no file answers with the tag as version")
		}
	}
	if digests[0] != digests[1] {
		t.Errorf("two registries disagree about one image: %v", digests)
	}
}

func TestMissing(t *testing.T) {
	host := serve(t)
	for _, path := range []string{"/v2/app/manifests/missing", "/v2/app/manifests/sha256:00", "/v2/app/blobs/sha256:00", "/other"} {
		response, err := http.Get("http://" + host + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusNotFound {
			t.Errorf("GET %s: %s, want 404", path, response.Status)
		}
	}
}

// TestTrickle: the large layer comes bit by bit.
func TestTrickle(t *testing.T) {
	reference, err := name.ParseReference(serve(t) + "/any/" + registry.Trickle + ":1")
	if err != nil {
		t.Fatal(err)
	}
	image, err := remote.Image(reference)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	if size, err := layers[1].Size(); err != nil || size < registry.TrickleBytes {
		t.Fatalf("it has %d bytes, %v", size, err)
	}
	began := time.Now()
	content, err := layers[1].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	const part = 5
	if _, err := io.CopyN(io.Discard, content, registry.TrickleBytes/part); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < registry.TrickleTime/part*8/10 || took > registry.TrickleTime {
		t.Errorf("the first of %d parts took %s", part, took)
	}
}

func TestPrivateImagesNeedALogin(t *testing.T) {
	host := serve(t)
	for _, private := range []string{"/private/app:1", "/library/private/app:1"} {
		reference, err := name.ParseReference(host + private)
		if err != nil {
			t.Fatal(err)
		}
		for login, well := range map[authn.Basic]bool{
			{}: false, {Username: registry.User, Password: "wrong"}: false, {Username: registry.User, Password: registry.Password}: true,
		} {
			image, err := remote.Image(reference, remote.WithAuth(&login))
			if err == nil {
				err = validate.Image(image, validate.Fast)
			}
			if (err == nil) != well {
				t.Errorf("%s as %+v: %v", private, login, err)
			}
		}
	}
}
