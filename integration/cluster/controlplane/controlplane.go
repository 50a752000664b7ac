// Package controlplane runs the programs that make a Kubernetes cluster without nodes: etcd, the API server, the
// controller-manager and the scheduler, all on loopback addresses, tuned to be quick rather than to survive a power
// cut. It writes their credentials and settings below one directory and reads nothing else of the machine.
package controlplane

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"

	"shiplog.dev/integration/cluster/process"
)

// Config says what control plane to run.
type Config struct {
	Self     string // the binary that has the components as sub-commands
	Dir      string // for data, credentials and settings
	LogDir   string
	AuditLog string
	// Services is the range for cluster IPs. Gateway, if any, is another address of this machine at which nodes
	// reach the API server (see Serve).
	Services netip.Prefix
	Gateway  netip.Addr
	Nodes    []string // nodes that get an identity of their own
	Say      func(format string, args ...any)
}

// ControlPlane is a running control plane.
type ControlPlane struct {
	URL string

	config    Config
	ca        []byte
	tokens    map[string]string // by user name
	processes []*process.Process
	listener  net.Listener
}

// Users of the cluster besides the nodes.
const (
	Admin             = "admin"
	Proxy             = "system:kube-proxy"
	controllerManager = "system:kube-controller-manager"
	scheduler         = "system:kube-scheduler"
)

// NodeUser is the user name of a node's kubelet.
func NodeUser(node string) string { return "system:node:" + node }

// Start starts a control plane on an empty directory and waits until it works. After an error nothing is left
// running.
func Start(ctx context.Context, config Config) (*ControlPlane, error) {
	c := &ControlPlane{config: config, tokens: map[string]string{}}
	if err := c.start(ctx); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

func (c *ControlPlane) start(ctx context.Context) error {
	ports, err := freePorts(5)
	if err != nil {
		return err
	}
	etcd, etcdPeer, api, controllers, sched := ports[0], ports[1], ports[2], ports[3], ports[4]
	etcdURL := fmt.Sprintf("http://127.0.0.1:%d", etcd)
	c.URL = fmt.Sprintf("https://127.0.0.1:%d", api)
	if err := c.writeCredentials(); err != nil {
		return fmt.Errorf("write credentials below %s: %w", c.config.Dir, err)
	}

	c.config.Say("starting etcd")
	etcdProcess, err := c.run("etcd",
		"--data-dir="+c.path("etcd"), "--name=etcd", "--unsafe-no-fsync", "--log-level=warn",
		"--quota-backend-bytes=8589934592", "--max-request-bytes=8388608",
		"--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL,
		fmt.Sprintf("--listen-peer-urls=http://127.0.0.1:%d", etcdPeer),
		fmt.Sprintf("--initial-advertise-peer-urls=http://127.0.0.1:%d", etcdPeer),
		fmt.Sprintf("--initial-cluster=etcd=http://127.0.0.1:%d", etcdPeer))
	if err != nil {
		return err
	}
	if err := etcdProcess.WaitHealthy(ctx, 30*time.Second, get(http.DefaultClient, etcdURL+"/health")); err != nil {
		return err
	}

	c.config.Say("starting kube-apiserver at %s", c.URL)
	apiserver, err := c.run("kube-apiserver",
		"--etcd-servers="+etcdURL,
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", api),
		"--tls-cert-file="+c.path("apiserver.crt"), "--tls-private-key-file="+c.path("apiserver.key"),
		"--token-auth-file="+c.path("tokens.csv"), "--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--service-cluster-ip-range="+c.config.Services.String(),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+c.path("service-accounts.key"),
		"--service-account-signing-key-file="+c.path("service-accounts.key"),
		"--kubelet-preferred-address-types=InternalIP",
		// Nobody but the supervisor knows at which address nodes reach this server: see Serve.
		"--endpoint-reconciler-type=none",
		"--allow-privileged=true",
		"--max-requests-inflight=3000", "--max-mutating-requests-inflight=3000",
		"--audit-policy-file="+c.path("audit.yaml"), "--audit-log-path="+c.config.AuditLog,
		"--audit-log-maxsize=102400", // never rotated: readers follow one file
		"--profiling=true")           // for benchmarks
	if err != nil {
		return err
	}
	client, err := c.client("shiplog-cluster")
	if err != nil {
		return err
	}
	healthy := func(ctx context.Context) error {
		return client.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	}
	if err := apiserver.WaitHealthy(ctx, 90*time.Second, healthy); err != nil {
		return err
	}

	c.config.Say("starting kube-controller-manager and kube-scheduler")
	qps := []string{"--kube-api-qps=2000", "--kube-api-burst=4000"}
	if _, err := c.run("kube-controller-manager", append(qps,
		"--kubeconfig="+c.path("controller-manager.kubeconfig"),
		"--controllers=*,-node-ipam-controller", "--leader-elect=false",
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", controllers), "--cert-dir="+c.path("controller-manager"),
		"--root-ca-file="+c.path("apiserver.crt"),
		"--service-account-private-key-file="+c.path("service-accounts.key"),
		"--concurrent-gc-syncs=50", "--concurrent-deployment-syncs=10", "--concurrent-replicaset-syncs=20",
		"--concurrent-service-endpoint-syncs=10", "--concurrent-statefulset-syncs=10")...); err != nil {
		return err
	}
	if err := os.WriteFile(c.path("scheduler.yaml"), []byte(schedulerConfig(c.path("scheduler.kubeconfig"))), 0o600); err != nil {
		return fmt.Errorf("write the scheduler's settings: %w", err)
	}
	if _, err := c.run("kube-scheduler", "--config="+c.path("scheduler.yaml"),
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", sched), "--cert-dir="+c.path("scheduler")); err != nil {
		return err
	}
	if c.config.Gateway.IsValid() {
		if err := c.serve(ctx, client); err != nil {
			return fmt.Errorf("let nodes reach the API server: %w", err)
		}
	}
	// Pods cannot be created before the default service account exists; the controller-manager makes it.
	return process.Until(ctx, 60*time.Second, func(ctx context.Context) error {
		for _, p := range c.processes {
			select {
			case <-p.Done():
				return process.Final(p.Ended())
			default:
			}
		}
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return fmt.Errorf("the default service account does not exist: see %s/kube-controller-manager.log", c.config.LogDir)
		}
		return err
	})
}

// run starts a component.
func (c *ControlPlane) run(name string, args ...string) (*process.Process, error) {
	p, err := process.Start(process.Spec{Name: name, Args: append([]string{c.config.Self, name}, args...), LogDir: c.config.LogDir})
	if err != nil {
		return nil, err
	}
	c.processes = append(c.processes, p)
	return p, nil
}

// Processes are the running components.
func (c *ControlPlane) Processes() []*process.Process { return c.processes }

// Stop ends the components, the last started first.
func (c *ControlPlane) Stop() {
	if c.listener != nil {
		c.listener.Close()
	}
	for i := len(c.processes) - 1; i >= 0; i-- {
		// Their data is thrown away: nothing is lost by not waiting for an orderly end.
		c.processes[i].Kill()
	}
}

// Config is a client's configuration for a user, without a limit on its rate.
func (c *ControlPlane) Config(user, userAgent string) *rest.Config {
	config := &rest.Config{
		Host:            c.URL,
		BearerToken:     c.tokens[user],
		TLSClientConfig: rest.TLSClientConfig{CAData: c.ca},
		UserAgent:       userAgent,
		QPS:             -1,
	}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	return config
}

func (c *ControlPlane) client(userAgent string) (*kubernetes.Clientset, error) {
	return kubernetes.NewForConfig(c.Config(Admin, userAgent))
}

// WriteKubeconfig writes a kubeconfig for a user. Inside says that it is for use by nodes.
func (c *ControlPlane) WriteKubeconfig(path, user string, inside bool) error {
	url := c.URL
	if inside {
		_, port, _ := strings.Cut(strings.TrimPrefix(c.URL, "https://"), ":")
		url = fmt.Sprintf("https://%s:%s", c.config.Gateway, port)
	}
	config := clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"shiplog": {Server: url, CertificateAuthorityData: c.ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{user: {Token: c.tokens[user]}},
		Contexts:       map[string]*clientcmdapi.Context{"shiplog": {Cluster: "shiplog", AuthInfo: user}},
		CurrentContext: "shiplog",
	}
	if err := clientcmd.WriteToFile(config, path); err != nil {
		return fmt.Errorf("write kubeconfig %s: %w", path, err)
	}
	return nil
}

func (c *ControlPlane) path(name string) string { return filepath.Join(c.config.Dir, name) }

func (c *ControlPlane) writeCredentials() error {
	if err := os.MkdirAll(c.config.Dir, 0o700); err != nil {
		return err
	}
	addresses := []net.IP{net.IPv4(127, 0, 0, 1), c.config.Services.Addr().Next().AsSlice()}
	if c.config.Gateway.IsValid() {
		addresses = append(addresses, c.config.Gateway.AsSlice())
	}
	certificate, key, err := cert.GenerateSelfSignedCertKey("localhost", addresses,
		[]string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"})
	if err != nil {
		return fmt.Errorf("make the API server's certificate: %w", err)
	}
	c.ca = certificate
	signing, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("make the key for service accounts: %w", err)
	}

	var tokens strings.Builder
	identity := func(user, group string) {
		var secret [16]byte
		_, _ = rand.Read(secret[:]) // never fails: see crypto/rand
		c.tokens[user] = hex.EncodeToString(secret[:])
		fmt.Fprintf(&tokens, "%s,%s,%s,%q\n", c.tokens[user], user, user, group)
	}
	identity(Admin, "system:masters")
	identity(Proxy, "")
	// All its controllers share one identity, so it needs every right that one of them needs.
	identity(controllerManager, "system:masters")
	identity(scheduler, "")
	for _, node := range c.config.Nodes {
		identity(NodeUser(node), "system:nodes")
	}

	return errors.Join(
		os.WriteFile(c.path("apiserver.crt"), certificate, 0o600),
		os.WriteFile(c.path("apiserver.key"), key, 0o600),
		os.WriteFile(c.path("service-accounts.key"),
			pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(signing)}), 0o600),
		os.WriteFile(c.path("tokens.csv"), []byte(tokens.String()), 0o600),
		os.WriteFile(c.path("audit.yaml"), []byte(auditPolicy), 0o600),
		c.WriteKubeconfig(c.path("controller-manager.kubeconfig"), controllerManager, false),
		c.WriteKubeconfig(c.path("scheduler.kubeconfig"), scheduler, false),
	)
}

// auditPolicy has one line per finished request: enough to count who wrote what.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted, Panic]
rules:
- level: None
  nonResourceURLs: ["/readyz*", "/livez*", "/healthz*"]
- level: Metadata
`

func schedulerConfig(kubeconfig string) string {
	return fmt.Sprintf(`apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: false}
clientConnection: {kubeconfig: %q, qps: 2000, burst: 4000}
podInitialBackoffSeconds: 1
podMaxBackoffSeconds: 2
`, kubeconfig)
}

func get(client *http.Client, url string) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("GET %s: %s", url, response.Status)
		}
		return nil
	}
}

// freePorts finds ports that are free now. All are held until the last is found, so they differ.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("look for a free port: %w", err)
		}
		defer listener.Close()
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
