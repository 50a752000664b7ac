package blackbox

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/integration/testbed"
)

// What the local cluster's registry wants for images below private/, and what it does not.
const (
	registryUser     = "puller"
	registryPassword = "correct-horse-battery-staple"
	wrongPassword    = "wrong-horse-battery-staple"
)

// TestSecretsStayOut: after pulls with right and wrong credentials, everything that a whole Shiplog with an agent stored, sent, said,
// measured or wrote to the cluster is searched for what the Secrets hold: passwords, auth fields and whole configurations, as they are and in base64.
// One image comes with a credential of the node's own.
//
// image-pull R49, R50, R51, D9, D10, D11.
func TestSecretsStayOut(t *testing.T) {
	namespace, stateDir := space(t), t.TempDir()
	node, _ := realNode(t)
	service := withAgent(t, stateDir, append(provider(t, registryUser, registryPassword), "--verbose", "--log-format", "json")...)
	sent := overhear(t, stateDir)

	auth := func(password string) string {
		return base64.StdEncoding.EncodeToString([]byte(registryUser + ":" + password))
	}
	docker := func(key string) string { return "https://index.docker.io/v1/\": {" + key + "}" }
	configs := map[string]string{
		"right":     `{"auths": {"` + docker(`"auth": "`+auth(registryPassword)+`"`) + `}}`,
		"named":     `{"auths": {"` + docker(`"username": "`+registryUser+`", "password": "`+registryPassword+`"`) + `}}`,
		"wrong":     `{"auths": {"` + docker(`"auth": "`+auth(wrongPassword)+`"`) + `}}`,
		"malformed": `{"auths": {"` + docker(`"auth": "<`+registryPassword+`>"`) + `}}`,
		"legacy":    `{"` + docker(`"auth": "`+auth(registryPassword)+`"`) + `}`,
	}
	sought := needles{}
	for name, config := range configs {
		kind, key := "kubernetes.io/dockerconfigjson", ".dockerconfigjson"
		if name == "legacy" {
			kind, key = "kubernetes.io/dockercfg", ".dockercfg"
		}
		// Applied: kubectl then keeps the data in an annotation too.
		kubectl(t, fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s}\ntype: %s\nstringData: {%s: %q}\n", name, kind, key, config), "apply", "-n", namespace, "-f", "-")
		sought.add("the configuration of "+name, config)
	}
	for _, password := range []string{registryPassword, wrongPassword} {
		sought.add("a password", password)
		sought.add("an auth field", auth(password))
	}

	type pull struct {
		image, secrets string
		succeeds       bool
	}
	pulls := map[string]pull{
		"good": {"good:1", "wrong, malformed, right", true}, "user": {"user:1", "named", true}, "old": {"old:1", "legacy", true},
		"denied": {"denied:1", "wrong", false}, "unread": {"unread:1", "malformed, absent", false}, "nobody": {"nobody:1", "", false}, "provided": {"provided:1", "", true},
		"gone": {"gone:missing", "right, wrong", false},
	}
	for name, p := range pulls {
		kubectl(t, fmt.Sprintf(`apiVersion: apps.kruise.io/v1beta1
kind: ImagePullJob
metadata: {name: %s}
spec: {image: "private/%s", selector: {names: [%s]}, pullSecrets: [%s], pullPolicy: {backoffLimit: 1, timeoutSeconds: 20}}
`, name, p.image, node, p.secrets), "apply", "-n", namespace, "-f", "-")
	}
	testbed.Eventually(t, 2*time.Minute, func() error {
		for name, p := range pulls {
			job := read[v1beta1.ImagePullJob](t, namespace, "imagepulljob", name)
			if job.Status.CompletionTime == nil {
				return fmt.Errorf("job %s has not ended: %+v", name, job.Status)
			}
			if succeeded := job.Status.Succeeded == 1; succeeded != p.succeeds {
				t.Errorf("job %s ended as %+v", name, job.Status)
			}
		}
		return nil
	})
	testbed.Eventually(t, time.Minute, func() error {
		if events := kubectl(t, "", "get", "events", "-A"); strings.Count(events, "PullImage") < len(pulls) {
			return fmt.Errorf("not all Events are there yet:\n%s", events)
		}
		return nil
	})

	sought.in(t, "what was sent", sent(), "private/good:1")
	sought.in(t, "the streams", stored(t, stateDir), "private/good:1")
	sought.in(t, "the cluster's objects", []byte(kubectl(t, "", "get", "-A", "-o", "json", "--show-managed-fields",
		"nodeimages,imagepulljobs,imagelistpulljobs,containerrecreaterequests,clonesets,pods,events,controllerrevisions")), "private/good:1")
	response, err := http.Get("http://" + service.Listen + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	metrics, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	sought.in(t, "the metrics", metrics, "shiplog_intake_credentials_total")
	if err := service.Stop(); err != nil {
		t.Error(err)
	}
	sought.in(t, "what was said", []byte(service.Output()), node)
	files := 0
	if err := filepath.WalkDir(stateDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		sought.in(t, path, append([]byte(path), data...), "")
		files++
		return err
	}); err != nil || files < 5 {
		t.Errorf("%d files were searched: %v", files, err)
	}
}

// provider makes a credential provider of the node for the image private/provided, and returns the flags by which agents find it.
func provider(t *testing.T, user, password string) []string {
	t.Helper()
	directory := t.TempDir()
	config := filepath.Join(directory, "config.yaml")
	for path, text := range map[string]string{
		config: `kind: CredentialProviderConfig
apiVersion: kubelet.config.k8s.io/v1
providers:
- {name: provider, apiVersion: credentialprovider.kubelet.k8s.io/v1, matchImages: [docker.io/private/provided], defaultCacheDuration: 1h}
`,
		filepath.Join(directory, "provider"): fmt.Sprintf(`#!/bin/sh
echo '{"kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "cacheKeyType": "Image",
"auth": {"docker.io": {"username": %q, "password": %q}}}'
`, user, password),
	} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return []string{"--plugin-config-file", config, "--plugin-bin-dir", directory}
}

// TestNeedles: a secret is found in base64 wherever it stood in what was encoded.
func TestNeedles(t *testing.T) {
	for before := range 6 {
		for after := range 6 {
			sought := needles{}
			sought.add("it", wrongPassword)
			text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("<", before) + wrongPassword + strings.Repeat(">", after)))
			found := false
			for secret := range sought {
				found = found || strings.Contains(text, secret)
			}
			if !found {
				t.Errorf("it is not found in %s, with %d before and %d behind it", text, before, after)
			}
		}
	}
}

// needles are what is searched for, each with what it is.
type needles map[string]string

// add has a secret searched for as it is, and in base64 wherever in what was encoded it stood.
func (n needles) add(what, secret string) {
	n[secret] = what
	for before := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", before) + secret))
		// The characters at either end hold bits of the neighbours too.
		n[encoded[(before*8+5)/6:len(encoded)-1]] = what + " in base64"
	}
}

// in fails the test for each secret that data holds. has is something harmless that data must hold, so that the right thing is searched.
func (n needles) in(t *testing.T, where string, data []byte, has string) {
	t.Helper()
	for secret, what := range n {
		if bytes.Contains(data, []byte(secret)) {
			t.Errorf("%s: %s", where, what)
		}
	}
	if !bytes.Contains(data, []byte(has)) {
		t.Errorf("%s (%d bytes) does not hold %q: something else was searched", where, len(data), has)
	}
}

// dialLog connects to the server of a running Shiplog as whoever may do everything.
func dialLog(t *testing.T, stateDir string) *nats.Conn {
	t.Helper()
	conn, err := nats.Connect(logURL(t, stateDir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

// overhear listens to everything that is sent through the log's server, answers included, and returns what it heard so far.
func overhear(t *testing.T, stateDir string) func() []byte {
	t.Helper()
	var mu sync.Mutex
	var heard bytes.Buffer
	conn := dialLog(t, stateDir)
	subscription, err := conn.Subscribe(">", func(msg *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(&heard, "%s %v %s\n", msg.Subject, msg.Header, msg.Data)
	})
	if err == nil {
		err = subscription.SetPendingLimits(-1, -1)
	}
	if err == nil {
		err = conn.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() []byte {
		if dropped, err := subscription.Dropped(); err != nil || dropped > 0 {
			t.Errorf("%d messages were not heard: %v", dropped, err)
		}
		mu.Lock()
		defer mu.Unlock()
		return bytes.Clone(heard.Bytes())
	}
}

// stored returns every message of every stream of the log's server, as the server gives it out: what it keeps is compressed.
func stored(t *testing.T, stateDir string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	js, err := jetstream.New(dialLog(t, stateDir))
	if err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	streams := js.ListStreams(ctx)
	for info := range streams.Info() {
		stream, err := js.Stream(ctx, info.Config.Name)
		if err != nil {
			t.Fatal(err)
		}
		for sequence := info.State.FirstSeq; sequence <= info.State.LastSeq && sequence > 0; sequence++ {
			msg, err := stream.GetMsg(ctx, sequence)
			if err != nil {
				continue // it is gone: a note, a view that was replaced
			}
			fmt.Fprintf(&all, "%s %v %s\n", msg.Subject, msg.Header, msg.Data)
		}
	}
	if err := streams.Err(); err != nil {
		t.Fatal(err)
	}
	return all.Bytes()
}
