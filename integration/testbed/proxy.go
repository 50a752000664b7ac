package testbed

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
)

// Proxy stands between Shiplog and the API server, and can hold back what watches of Pods show while everything else,
// connections included, lives on.
type Proxy struct {
	// Kubeconfig leads to the API server through the proxy.
	Kubeconfig string

	mu   sync.Mutex
	open chan struct{} // closed while watches of Pods flow
}

// StartProxy starts a proxy before a cluster's API server, for as long as the test runs.
func StartProxy(t *testing.T, cluster *Cluster) *Proxy {
	t.Helper()
	config, err := cluster.Config()
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Kubeconfig: t.TempDir() + "/kubeconfig", open: make(chan struct{})}
	close(p.open)
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.Transport, forward.FlushInterval = transport, -1
	forward.ErrorLog = log.New(io.Discard, "", 0) // connections are cut when the test ends
	forward.ModifyResponse = func(r *http.Response) error {
		if r.Request.URL.Path == "/api/v1/pods" && r.Request.URL.Query().Get("watch") != "" {
			r.Body = &heldBody{ReadCloser: r.Body, proxy: p, ended: r.Request.Context().Done()}
		}
		return nil
	}
	server := httptest.NewServer(forward)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: proxy, cluster: {server: %q}}]
contexts: [{name: proxy, context: {cluster: proxy}}]
current-context: proxy
`, server.URL)
	if err := os.WriteFile(p.Kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// Hold keeps back what watches of Pods would show from now on.
func (p *Proxy) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = make(chan struct{})
}

// Release lets it through.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.open)
}

// heldBody is the body of a watch, which can be held back.
type heldBody struct {
	io.ReadCloser
	proxy *Proxy
	ended <-chan struct{}
}

func (b *heldBody) Read(data []byte) (int, error) {
	n, err := b.ReadCloser.Read(data)
	b.proxy.mu.Lock()
	open := b.proxy.open
	b.proxy.mu.Unlock()
	select {
	case <-open:
		return n, err
	case <-b.ended:
		return 0, io.EOF
	}
}
