// Package webhook makes admission reachable: it listens, keeps certificates that the API server trusts, and writes into the
// cluster how the webhooks are called. What they answer is not its business. It writes the two webhook configurations, the
// conversion of our CRDs, and the certificates' store.
package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"shiplog.dev/deploy/crd"
	"shiplog.dev/services/executor/admit"
)

const (
	// assertEvery is how often what is registered is compared with what should be.
	assertEvery = 30 * time.Second
	// firstRetry after a failure; each after it waits twice as long, up to lastRetry.
	firstRetry = 50 * time.Millisecond
	lastRetry  = 2 * time.Second
	// patience with an API server that has not taken note yet, before it is a matter for the log.
	patience = 10 * time.Second
	// maxLoads bounds how often certificates are loaded again because another replica changed them.
	maxLoads = 10
	// servicePort is that of the Service; it leads to the port that is listened on.
	servicePort = 443
)

// Port is listened on by default (install-and-config 2.2).
const Port = 9876

// Service in front of all replicas.
type Service struct{ Namespace, Name string }

// Options of Open. Config, Handler, Logger and Store are required.
type Options struct {
	Config  *rest.Config
	Handler http.Handler
	Logger  zerolog.Logger
	Store   Store
	// Listen is the address to listen on; "": Port, or a free one, of the address that this machine has towards the API server.
	Listen string
	// URL by which the API server calls us, without a path; "": that of Listen. Not with Service.
	URL string
	// Service by which the API server calls us; nil: by URL.
	Service *Service
	// Ready is called once the API server was seen to reach us, or could not for a while; nil: nobody waits.
	Ready func()
}

// Webhook listens and answers.
type Webhook struct {
	options Options
	names   []string // that the certificate is for
	server  *http.Server
	served  chan error
	// narrowed: somebody has limited which CloneSets the webhooks see.
	narrowed bool

	mu           sync.Mutex
	certificates Certificates
	pair         *tls.Certificate
}

// Open listens and answers from now on; Run tells the API server. Errors: an address or URL that cannot be used, or
// certificates that cannot be kept.
func Open(ctx context.Context, options Options) (*Webhook, error) {
	listener, err := listen(options)
	if err != nil {
		return nil, err
	}
	w := &Webhook{options: options, served: make(chan error, 1)}
	if err = w.address(listener.Addr()); err == nil {
		err = w.renew(ctx)
	}
	if err != nil {
		listener.Close()
		return nil, err
	}
	w.server = &http.Server{Handler: options.Handler, ErrorLog: log.New(errorLog{options.Logger}, "", 0), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: w.present}}
	go func() { w.served <- w.server.ServeTLS(listener, "", "") }()
	return w, nil
}

func listen(options Options) (net.Listener, error) {
	address := options.Listen
	if address == "" {
		host, err := towards(options.Config)
		if err != nil {
			return nil, fmt.Errorf("find the address that the API server can call: %w; give --webhook-listen and --webhook-url", err)
		}
		// The same address after a restart: each change of it makes the API server begin its watches of CloneSets anew.
		if listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(Port))); err == nil {
			return listener, nil
		}
		address = net.JoinHostPort(host, "0")
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for the API server's webhooks (--webhook-listen %s): %w", options.Listen, err)
	}
	return listener, nil
}

// towards is the address that this machine has in the direction of the API server: a loopback address for one on this machine.
func towards(config *rest.Config) (string, error) {
	server, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return "", err
	}
	port := server.Port()
	if port == "" {
		port = "443"
	}
	connection, err := net.Dial("udp", net.JoinHostPort(server.Hostname(), port)) // sends nothing
	if err != nil {
		return "", err
	}
	defer connection.Close()
	return connection.LocalAddr().(*net.UDPAddr).IP.String(), nil
}

// address settles under which URL and names the API server knows us.
func (w *Webhook) address(listening net.Addr) error {
	if service := w.options.Service; service != nil {
		w.names = []string{service.Name + "." + service.Namespace + ".svc", "localhost"}
		return nil
	}
	if w.options.URL == "" {
		at := listening.(*net.TCPAddr)
		host := at.IP.String()
		if at.IP.IsUnspecified() {
			var err error
			if host, err = towards(w.options.Config); err != nil {
				return fmt.Errorf("find the address that the API server can call: %w; give --webhook-url", err)
			}
		}
		w.options.URL = "https://" + net.JoinHostPort(host, strconv.Itoa(at.Port))
	}
	host, err := hostOf(w.options.URL)
	w.names = []string{host, "localhost"}
	return err
}

// CheckURL says what is wrong with a URL for Options.
func CheckURL(text string) error {
	_, err := hostOf(text)
	return err
}

func hostOf(text string) (string, error) {
	parsed, err := url.Parse(text)
	if err != nil || parsed.Scheme != "https" || parsed.Hostname() == "" || parsed.Path != "" || parsed.RawQuery != "" {
		return "", fmt.Errorf("%q is not of the form https://HOST:PORT", text)
	}
	return parsed.Hostname(), nil
}

// Where says in words how the API server calls us.
func (w *Webhook) Where() string {
	if service := w.options.Service; service != nil {
		return "Service " + service.Namespace + "/" + service.Name
	}
	return w.options.URL
}

// Conversion is how the API server reaches the conversion of custom resources.
func (w *Webhook) Conversion() *apiextensionsv1.WebhookClientConfig {
	config := &apiextensionsv1.WebhookClientConfig{CABundle: w.held().Authorities}
	if service := w.options.Service; service != nil {
		config.Service = &apiextensionsv1.ServiceReference{Namespace: service.Namespace, Name: service.Name, Path: ptr.To(admit.ConvertPath), Port: ptr.To[int32](servicePort)}
	} else {
		config.URL = ptr.To(w.options.URL + admit.ConvertPath)
	}
	return config
}

// errorLog takes what the HTTP server says of connections, for example of an API server that still has an older certificate.
type errorLog struct{ logger zerolog.Logger }

func (e errorLog) Write(line []byte) (int, error) {
	e.logger.Debug().Msg(strings.TrimSpace(string(line)))
	return len(line), nil
}

func (w *Webhook) present(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pair, nil
}

func (w *Webhook) held() Certificates {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.certificates
}

// renew loads the certificates, and replaces them where they are missing, for other names, or near their end.
func (w *Webhook) renew(ctx context.Context) error {
	for range maxLoads {
		kept, err := w.options.Store.Load(ctx)
		if err != nil {
			return err
		}
		certificates, fresh, err := issue(kept, w.names, time.Now())
		if err != nil {
			return err
		}
		if fresh {
			switch err := w.options.Store.Save(ctx, certificates); {
			case errors.Is(err, ErrChanged):
				continue
			case err != nil:
				return err
			}
		}
		pair, err := tls.X509KeyPair(certificates.Certificate, certificates.Key)
		if err != nil {
			return fmt.Errorf("use the webhook's certificate: %w", err)
		}
		w.mu.Lock()
		w.certificates, w.pair = certificates, &pair
		w.mu.Unlock()
		return nil
	}
	return errors.New("keep the webhook's certificates: another replica changes them all the time")
}

// Run registers the webhooks with the API server and keeps them registered, until ctx ends; then it returns nil and nothing
// answers any more. What is registered stays: until somebody answers again, CloneSets can be read but not changed.
// Errors: the listener failed.
func (w *Webhook) Run(ctx context.Context) error {
	defer w.server.Close()
	logger := w.options.Logger
	tell := w.options.Ready
	reached, failures := false, 0
	var since, said time.Time // it failed first, and the log said so last
	for {
		wait := assertEvery
		changed, err := w.assert(ctx)
		if changed {
			reached = false
		}
		if err == nil && !reached {
			if err = w.reach(ctx); err == nil {
				reached = true
				logger.Info().Str("at", w.Where()).Msg("the API server reaches admission")
			}
		}
		switch now := time.Now(); {
		case err == nil:
			failures, since, said = 0, time.Time{}, time.Time{}
		case ctx.Err() == nil:
			if since.IsZero() {
				since = now
			}
			wait = min(firstRetry<<min(failures, 10), lastRetry)
			failures++
			if now.Sub(since) >= patience && now.Sub(said) >= assertEvery {
				said = now
				logger.Error().Err(err).Str("at", w.Where()).Msg("the API server does not reach admission: until it does, CloneSets cannot be created, " +
					"edited or read as v1alpha1; Pods are not concerned. Is this address right (--webhook-url), and open?")
			} else {
				logger.Debug().Err(err).Msg("the API server does not reach admission yet")
			}
		}
		// A Service leads only to those who are ready.
		if tell != nil && (reached || !said.IsZero() || w.options.Service != nil) {
			tell()
			tell = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-w.served:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("answer the API server's webhooks: %w", err)
		case <-time.After(wait):
		}
	}
}

// Close stops answering, for who never comes to Run.
func (w *Webhook) Close() error { return w.server.Close() }

// assert brings certificates and registration to what they should be, and says whether the API server has to take note.
func (w *Webhook) assert(ctx context.Context) (bool, error) {
	before := w.held()
	if err := w.renew(ctx); err != nil {
		return false, err
	}
	changed := !before.equal(w.held())
	directed, err := crd.Direct(ctx, w.options.Config, w.Conversion())
	if err != nil {
		return changed, err
	}
	registered, err := w.register(ctx)
	return changed || directed || registered, err
}
