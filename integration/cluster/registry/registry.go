// Package registry is a container registry that has every image: it makes an image for any name and tag when it is
// first asked for, so that manifests written for public images run on a machine without a network. It only reads
// (nothing can be pushed), only speaks HTTP, and needs one file of the machine: a static busybox.
//
// An image is busybox with /usr/sbin/nginx, a script that answers -v as nginx of that tag would, and that otherwise
// serves port 80 until SIGTERM. The same name and tag always give the same bytes, so image IDs are stable.
package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// Missing is the tag that no image has: a pull of it fails with 404.
	Missing = "missing"
	// Crash is the tag of images whose default command ends at once with exit code 1.
	Crash = "crash"
	// Done is the tag of images whose default command ends at once with exit code 0.
	Done = "done"
	// Trickle is the name of images of which the second layer has TrickleBytes and takes TrickleTime to deliver.
	Trickle      = "trickle"
	TrickleBytes = 4 << 20
	TrickleTime  = 5 * time.Second
	// Private is the first or the second part of the path of images that only User gets, with Password: private/app, docker.io/private/app.
	Private  = "private"
	User     = "puller"
	Password = "correct-horse-battery-staple"
)

// Registry is an http.Handler for the read-only half of the distribution API.
type Registry struct {
	base   v1.Layer
	delays map[string]time.Duration

	mu        sync.Mutex
	manifests map[string]manifest // by tag reference (name:tag) and by digest
	blobs     map[string]v1.Layer // by digest; a config is a layer here too
}

type manifest struct {
	digest, mediaType string
	body              []byte
}

// New makes a registry whose images hold the given busybox, a static binary. Pulls of an image named in delays,
// as "name" or "name:tag", take that much longer.
func New(busybox string, delays map[string]time.Duration) (*Registry, error) {
	base, err := baseLayer(busybox)
	if err != nil {
		return nil, fmt.Errorf("make the base layer of all images from %s: %w", busybox, err)
	}
	r := &Registry{base: base, delays: delays, manifests: map[string]manifest{}, blobs: map[string]v1.Layer{}}
	return r, r.keep(base)
}

func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		http.Error(w, "this registry makes its images itself: nothing can be pushed", http.StatusMethodNotAllowed)
		return
	}
	rest, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	if !ok {
		http.NotFound(w, req)
		return
	}
	dir, reference := path.Split(rest)
	if !mayRead(req, dir) {
		w.Header().Set("WWW-Authenticate", `Basic realm="private images"`)
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
		return
	}
	switch {
	case rest == "":
		w.WriteHeader(http.StatusOK)
	case strings.HasSuffix(dir, "/manifests/"):
		r.serveManifest(w, req, strings.TrimSuffix(dir, "/manifests/"), reference)
	case strings.HasSuffix(dir, "/blobs/"):
		r.serveBlob(w, req, reference)
	default:
		http.NotFound(w, req)
	}
}

// mayRead says whether who asks may read what is below a directory.
func mayRead(req *http.Request, dir string) bool {
	parts := strings.Split(dir, "/")
	if !slices.Contains(parts[:min(len(parts), 2)], Private) {
		return true
	}
	user, password, given := req.BasicAuth()
	return given && user == User && password == Password
}

func (r *Registry) serveManifest(w http.ResponseWriter, req *http.Request, name, reference string) {
	m, err := r.manifest(name, reference)
	if errors.Is(err, errUnknown) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":%q}]}`, err)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	// A pull first asks what the tag stands for (HEAD), and only then goes on by digest.
	if delay := r.delay(name, reference); delay > 0 && req.Method == http.MethodHead {
		select {
		case <-req.Context().Done():
			return
		case <-time.After(delay):
		}
	}
	w.Header().Set("Content-Type", m.mediaType)
	w.Header().Set("Docker-Content-Digest", m.digest)
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(m.body))
}

func (r *Registry) serveBlob(w http.ResponseWriter, req *http.Request, digest string) {
	r.mu.Lock()
	layer, ok := r.blobs[digest]
	r.mu.Unlock()
	if !ok {
		http.NotFound(w, req)
		return
	}
	content, err := layer.Compressed()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer content.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(content); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", digest)
	var out http.ResponseWriter = w
	if slices.Contains(strings.Split(path.Clean(req.URL.Path), "/"), Trickle) && body.Len() > TrickleBytes {
		out = &trickle{ResponseWriter: w, ctx: req.Context()}
	}
	http.ServeContent(out, req, "", time.Time{}, bytes.NewReader(body.Bytes()))
}

// trickle delivers a body in TrickleTime for TrickleBytes, until ctx ends.
type trickle struct {
	http.ResponseWriter
	ctx context.Context
}

func (t *trickle) Write(body []byte) (int, error) {
	const pieces = 100
	written := 0
	for piece := range slices.Chunk(body, TrickleBytes/pieces) {
		select {
		case <-t.ctx.Done():
			return written, t.ctx.Err()
		case <-time.After(TrickleTime / pieces * time.Duration(len(piece)) / (TrickleBytes / pieces)):
		}
		n, err := t.ResponseWriter.Write(piece)
		if written += n; err != nil {
			return written, err
		}
		if err := http.NewResponseController(t.ResponseWriter).Flush(); err != nil {
			return written, err
		}
	}
	return written, nil
}

func (r *Registry) delay(name, reference string) time.Duration {
	for _, name := range []string{name, path.Base(name)} {
		for _, key := range []string{name, name + ":" + reference} {
			if delay, ok := r.delays[key]; ok {
				return delay
			}
		}
	}
	return 0
}

var errUnknown = errors.New("no such image")

func (r *Registry) manifest(name, reference string) (manifest, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	byDigest := strings.Contains(reference, ":")
	key := name + ":" + reference
	if byDigest {
		key = reference
	}
	if m, ok := r.manifests[key]; ok {
		return m, nil
	}
	if byDigest || reference == Missing {
		return manifest{}, fmt.Errorf("%w: %s of %s", errUnknown, reference, name)
	}
	m, err := r.make(path.Base(name), reference)
	if err != nil {
		return manifest{}, fmt.Errorf("make image %s:%s: %w", name, reference, err)
	}
	r.manifests[key], r.manifests[m.digest] = m, m
	return m, nil
}

// make makes an image. The caller holds the lock.
func (r *Registry) make(name, tag string) (manifest, error) {
	files := []entry{
		file("usr/sbin/nginx", 0o755, fmt.Sprintf(nginx, tag)),
		file("www/index.html", 0o644, name+":"+tag+"\n"),
	}
	if name == Trickle {
		files = append(files, file("www/large", 0o644, strings.Repeat(".", TrickleBytes)))
	}
	layer, err := layerOf(files...)
	if err != nil {
		return manifest{}, err
	}
	blank := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.AppendLayers(blank, r.base, layer)
	if err != nil {
		return manifest{}, err
	}
	command := []string{"/usr/sbin/nginx", "-g", "daemon off;"}
	switch {
	case name == "pause":
		command = []string{"/bin/sleep", "2147483647"}
	case tag == Crash:
		command = []string{"/bin/sh", "-c", "echo this image is made to crash >&2; exit 1"}
	case tag == Done:
		command = []string{"/bin/true"}
	}
	image, err = mutate.ConfigFile(image, configOf(image, command))
	if err != nil {
		return manifest{}, err
	}
	config, err := image.RawConfigFile()
	if err != nil {
		return manifest{}, err
	}
	if err := errors.Join(r.keep(layer), r.keep(static.NewLayer(config, types.OCIConfigJSON))); err != nil {
		return manifest{}, err
	}
	body, err := image.RawManifest()
	if err != nil {
		return manifest{}, err
	}
	digest, err := image.Digest()
	return manifest{digest: digest.String(), mediaType: string(types.OCIManifestSchema1), body: body}, err
}

func (r *Registry) keep(layer v1.Layer) error {
	digest, err := layer.Digest()
	if err != nil {
		return err
	}
	r.blobs[digest.String()] = layer
	return nil
}

func configOf(image v1.Image, command []string) *v1.ConfigFile {
	config, err := image.ConfigFile()
	if err != nil {
		panic(err) // an image built in memory knows its config
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config.Cmd = command
	config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	config.Config.WorkingDir = "/"
	return config
}

// nginx is the program of every image. As a container's first process it gets no default signal actions: without
// the trap, ending it would take the whole grace period.
const nginx = `#!/bin/sh
case "$1" in -v|-V) echo "nginx version: nginx/%s" >&2; exit 0;; esac
trap 'exit 0' TERM INT QUIT
httpd -f -p 80 -h /www &
while :; do sleep 3600 & wait $!; done
`

func baseLayer(busybox string) (v1.Layer, error) {
	binary, err := os.ReadFile(busybox)
	if err != nil {
		return nil, err
	}
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("ask %s for its commands: %w", busybox, err)
	}
	entries := []entry{
		file("bin/busybox", 0o755, string(binary)),
		file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"),
		file("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n"),
		directory("root", 0o700), directory("tmp", 0o1777), directory("run", 0o755), directory("var/log", 0o755),
	}
	for _, name := range strings.Fields(string(list)) {
		if name != "busybox" {
			entries = append(entries, link("bin/"+name, "busybox"))
		}
	}
	entries = append(entries, link("usr/bin/env", "/bin/busybox"))
	slices.SortStableFunc(entries, func(a, b entry) int { return strings.Compare(a.header.Name, b.header.Name) })
	return layerOf(entries...)
}

type entry struct {
	header  tar.Header
	content string
}

func file(name string, mode int64, content string) entry {
	return entry{tar.Header{Name: name, Mode: mode, Size: int64(len(content)), Typeflag: tar.TypeReg}, content}
}

func directory(name string, mode int64) entry {
	return entry{header: tar.Header{Name: name, Mode: mode, Typeflag: tar.TypeDir}}
}

func link(name, target string) entry {
	return entry{header: tar.Header{Name: name, Linkname: target, Mode: 0o777, Typeflag: tar.TypeSymlink}}
}

// layerOf makes an uncompressed layer: it only travels over the loopback interface.
func layerOf(entries ...entry) (v1.Layer, error) {
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	for _, e := range entries {
		if err := archive.WriteHeader(&e.header); err != nil {
			return nil, err
		}
		if _, err := archive.Write([]byte(e.content)); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return static.NewLayer(buffer.Bytes(), types.OCIUncompressedLayer), nil
}
