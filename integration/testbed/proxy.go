package testbed

import (
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// Proxy stands between Shiplog and the API server, and makes trouble when it is asked to.
type Proxy struct {
	// Kubeconfig leads to the API server through the proxy.
	Kubeconfig string

	server *http.Server
	mu     sync.Mutex
	open   chan struct{} // closed while watches of Pods flow
	// trouble is what requests meet; nil: none.
	trouble *Trouble
	cut     chan struct{} // closed when watches under way are cut
}

// Trouble is what the requests that pass a proxy meet.
type Trouble struct {
	// Delay is the longest that a request is held back; each is held back for a random part of it.
	Delay time.Duration
	// Share of the requests that Answer or Lose is for, from 0 to 1.
	Share float64
	// Answer is the status that those requests get without reaching the API server; 0: none.
	Answer int
	// Lose has those requests done by the API server, and its answers lost on the way back.
	Lose bool
	// NoWatches refuses watches, and cuts those under way.
	NoWatches bool
}

// StartProxy starts a proxy before a cluster's API server, for as long as the test runs.
func StartProxy(t *testing.T, cluster *Cluster) *Proxy {
	t.Helper()
	p, err := NewProxy(cluster, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// NewProxy starts a proxy before a cluster's API server and leaves its kubeconfig in dir.
func NewProxy(cluster *Cluster, dir string) (*Proxy, error) {
	config, err := cluster.Config()
	if err != nil {
		return nil, err
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		return nil, err
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		return nil, err
	}
	p := &Proxy{Kubeconfig: filepath.Join(dir, "proxy.kubeconfig"), open: make(chan struct{}), cut: make(chan struct{})}
	close(p.open)
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.Transport, forward.FlushInterval = transport, -1
	forward.ErrorLog = log.New(io.Discard, "", 0) // connections are cut when the test ends
	forward.ModifyResponse = p.answer
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the proxy: %w", err)
	}
	p.server = &http.Server{Handler: p.before(forward), ErrorLog: forward.ErrorLog, ReadHeaderTimeout: time.Minute}
	go func() { _ = p.server.Serve(listener) }()
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: proxy, cluster: {server: "http://%s"}}]
contexts: [{name: proxy, context: {cluster: proxy}}]
current-context: proxy
`, listener.Addr())
	if err := os.WriteFile(p.Kubeconfig, []byte(text), 0o600); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close ends the proxy and cuts its connections.
func (p *Proxy) Close() { _ = p.server.Close() }

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

// Make has requests meet trouble from now on; nil: none.
func (p *Proxy) Make(trouble *Trouble) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trouble = trouble
	if trouble != nil && trouble.NoWatches {
		close(p.cut)
		p.cut = make(chan struct{})
	}
}

func (p *Proxy) now() (Trouble, chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.trouble == nil {
		return Trouble{}, p.cut
	}
	return *p.trouble, p.cut
}

func watches(r *http.Request) bool { return r.URL.Query().Get("watch") != "" }

// before makes the trouble that a request meets on its way to the API server.
func (p *Proxy) before(forward http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		trouble, _ := p.now()
		if trouble.Delay > 0 {
			select {
			case <-time.After(rand.N(trouble.Delay)):
			case <-r.Context().Done():
				return
			}
		}
		if trouble.NoWatches && watches(r) {
			http.Error(w, "the proxy cuts watches", http.StatusServiceUnavailable)
			return
		}
		if trouble.Answer != 0 && rand.Float64() < trouble.Share {
			if trouble.Answer == http.StatusTooManyRequests {
				w.Header().Set("Retry-After", "1")
			}
			http.Error(w, "the proxy makes trouble", trouble.Answer)
			return
		}
		forward.ServeHTTP(w, r)
	})
}

// answer makes the trouble that an answer meets on its way back.
func (p *Proxy) answer(r *http.Response) error {
	trouble, cut := p.now()
	if watches(r.Request) {
		r.Body = &watchBody{ReadCloser: r.Body, proxy: p, cut: cut, ended: r.Request.Context().Done(), holds: r.Request.URL.Path == "/api/v1/pods"}
		return nil
	}
	if trouble.Lose && rand.Float64() < trouble.Share {
		_ = r.Body.Close()
		return errors.New("the proxy loses the answer")
	}
	return nil
}

// watchBody is the body of a watch, which can be held back or cut.
type watchBody struct {
	io.ReadCloser
	proxy *Proxy
	cut   <-chan struct{}
	ended <-chan struct{}
	holds bool
}

func (b *watchBody) Read(data []byte) (int, error) {
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-b.cut:
			_ = b.ReadCloser.Close()
		case <-stop:
		}
	}()
	n, err := b.ReadCloser.Read(data)
	if !b.holds {
		return n, err
	}
	b.proxy.mu.Lock()
	open := b.proxy.open
	b.proxy.mu.Unlock()
	select {
	case <-open:
		return n, err
	case <-b.cut:
		return 0, io.ErrUnexpectedEOF
	case <-b.ended:
		return 0, io.EOF
	}
}
