// Package cluster is a real Kubernetes cluster on one machine, for tests, for `shiplog up --local` and for people. It
// wires the parts together (control plane, nodes, hollow nodes, registry, volumes) and owns a cluster's life: one
// directory, one supervisor process, up and down. All that a cluster has lies below its directory or ends with its
// supervisor; of the machine it takes loopback ports, one 10.x.0.0/16 and, for real nodes, Debian packages.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"shiplog.dev/integration/cluster/cgroups"
	"shiplog.dev/integration/cluster/controlplane"
	"shiplog.dev/integration/cluster/hollow"
	"shiplog.dev/integration/cluster/node"
	"shiplog.dev/integration/cluster/process"
	"shiplog.dev/integration/cluster/registry"
	"shiplog.dev/integration/cluster/sandbox"
	"shiplog.dev/integration/cluster/volumes"
)

// Options say what cluster to run.
type Options struct {
	Dir        string
	Nodes      int                      // real nodes
	Hollow     int                      // hollow nodes
	StartDelay time.Duration            // of containers on hollow nodes
	PullDelays map[string]time.Duration // by image name or name:tag, on real nodes
	Self       string                   // the binary that has the components as sub-commands
	Say        func(format string, args ...any)
}

// Cluster is a running cluster. Its supervisor is the process that called Up.
type Cluster struct {
	options Options
	claim   *claim
	state   State
	stateMu sync.Mutex // of state.Processes and ready; the rest of state is settled before ready
	ready   bool

	plane   *controlplane.ControlPlane
	sandbox *sandbox.Sandbox
	client  kubernetes.Interface
	web     *http.Server
	cancel  context.CancelFunc // ends the loops that run in this process
	loops   sync.WaitGroup
	kept    []*process.Process // are started again if they end
	failed  chan error
}

// Up claims the directory, clears what an earlier cluster left in it, and starts a cluster. It returns once the API
// server is healthy, every node is Ready and Pods can be created. After an error nothing is left running.
func Up(ctx context.Context, o Options) (*Cluster, error) {
	began := time.Now()
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("find the directory %s: %w", o.Dir, err)
	}
	o.Dir = dir
	claim, err := take(dir)
	if err != nil {
		return nil, err
	}
	if err := clean(dir); err != nil {
		claim.release()
		return nil, err
	}
	c := &Cluster{options: o, claim: claim, failed: make(chan error, 16)}
	if err := c.up(ctx); err != nil {
		c.Down()
		return nil, err
	}
	o.Say("ready in %.1fs: export KUBECONFIG=%s", time.Since(began).Seconds(), c.state.Kubeconfig)
	return c, nil
}

func (c *Cluster) up(ctx context.Context) error {
	o := &c.options
	if o.Nodes > 0 {
		if err := node.Prepare(ctx, o.Say); err != nil {
			o.Say("%v: using %d hollow nodes instead of real ones", err, o.Nodes)
			o.Hollow, o.Nodes = o.Hollow+o.Nodes, 0
		}
	}
	c.state = State{
		Dir: o.Dir, Supervisor: os.Getpid(),
		Kubeconfig: filepath.Join(o.Dir, "kubeconfig"), AuditLog: filepath.Join(o.Dir, "audit.log"),
		Processes: map[string]int{},
	}
	logs := filepath.Join(o.Dir, "logs")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return fmt.Errorf("make the directory for logs: %w", err)
	}
	plane := controlplane.Config{
		Self: o.Self, Dir: filepath.Join(o.Dir, "control-plane"), LogDir: logs, AuditLog: c.state.AuditLog,
		Services: netip.MustParsePrefix("10.96.0.0/16"), Say: o.Say,
	}
	for i := 1; i <= o.Nodes; i++ {
		plane.Nodes = append(plane.Nodes, fmt.Sprintf("node-%d", i))
		if err := node.CheckDir(c.nodeDir(plane.Nodes[i-1])); err != nil {
			return err
		}
	}
	if o.Nodes > 0 {
		var err error
		if c.sandbox, err = sandbox.Start(ctx, o.Self, logs); err != nil {
			return err
		}
		plane.Services, plane.Gateway = c.sandbox.Services(), c.sandbox.Gateway
		c.state.Network = c.sandbox.Net.String()
	}
	var err error
	if c.plane, err = controlplane.Start(ctx, plane); err != nil {
		return err
	}
	c.state.Server = c.plane.URL
	c.keep(c.plane.Processes()...)
	if err := c.plane.WriteKubeconfig(c.state.Kubeconfig, controlplane.Admin, false); err != nil {
		return err
	}
	if c.client, err = kubernetes.NewForConfig(c.plane.Config(controlplane.Admin, "shiplog-cluster")); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}

	loops, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.loop("volumes", func() error {
		client, err := kubernetes.NewForConfig(c.plane.Config(controlplane.Admin, "volume-provisioner"))
		if err != nil {
			return err
		}
		return volumes.Run(loops, client, filepath.Join(o.Dir, "volumes"), o.Say)
	})
	if o.Hollow > 0 {
		hollowReady := make(chan struct{})
		options := hollow.Options{Prefix: "hollow", Nodes: o.Hollow, StartDelay: o.StartDelay, Log: o.Say}
		c.loop("hollow nodes", func() error {
			return hollow.Run(loops, c.plane.Config(controlplane.Admin, ""), options, func() { close(hollowReady) })
		})
		for _, name := range options.Names() {
			c.state.Nodes = append(c.state.Nodes, Node{Name: name, Hollow: true})
		}
		o.Say("starting %d hollow nodes", o.Hollow)
		select {
		case <-hollowReady:
		case err := <-c.failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := c.startNodes(ctx, plane.Nodes, logs); err != nil {
		return err
	}
	if err := c.waitNodes(ctx); err != nil {
		return err
	}
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	c.ready = true
	return c.saveState()
}

// startNodes starts the real nodes, all at once, and what they need.
func (c *Cluster) startNodes(ctx context.Context, names []string, logs string) error {
	if len(names) == 0 {
		return nil
	}
	o := &c.options
	images, err := registry.New(node.Busybox, o.PullDelays)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(c.sandbox.Gateway.String(), "0"))
	if err != nil {
		return fmt.Errorf("listen for the registry: %w", err)
	}
	c.web = &http.Server{Handler: images, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = c.web.Serve(listener) }()
	c.state.Registry = "http://" + listener.Addr().String()

	if err := cgroups.Make(Cgroup(o.Dir)); err != nil {
		return err
	}
	o.Say("starting containerd and kubelet of %s", strings.Join(names, ", "))
	nodes, errs := make([]*node.Node, len(names)), make([]error, len(names)+1)
	var kubeProxy *process.Process
	var group sync.WaitGroup
	for i, name := range names {
		group.Go(func() {
			dir := c.nodeDir(name)
			kubeconfig := filepath.Join(dir, "kubeconfig")
			if errs[i] = os.MkdirAll(dir, 0o755); errs[i] != nil {
				return
			}
			if errs[i] = c.plane.WriteKubeconfig(kubeconfig, controlplane.NodeUser(name), true); errs[i] != nil {
				return
			}
			nodes[i], errs[i] = node.Start(ctx, node.Config{
				Self: o.Self, Name: name, Number: i + 1, Dir: dir, LogDir: logs, Sandbox: c.sandbox,
				Registry: c.state.Registry, Kubeconfig: kubeconfig, Cgroup: Cgroup(o.Dir),
			})
		})
	}
	group.Go(func() {
		dir := filepath.Join(o.Dir, "control-plane")
		kubeconfig := filepath.Join(dir, "kube-proxy.kubeconfig")
		if errs[len(names)] = c.plane.WriteKubeconfig(kubeconfig, controlplane.Proxy, true); errs[len(names)] != nil {
			return
		}
		kubeProxy, errs[len(names)] = node.StartProxy(node.ProxyConfig{
			Self: o.Self, Dir: dir, LogDir: logs, Kubeconfig: kubeconfig, Node: names[0], Sandbox: c.sandbox,
		})
	})
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	c.keep(kubeProxy)
	for _, n := range nodes {
		c.keep(n.Processes...)
		c.state.Nodes = append(c.state.Nodes, Node{Name: n.Name, Address: n.Address.String(), Socket: n.Socket})
	}
	return nil
}

func (c *Cluster) nodeDir(name string) string { return filepath.Join(c.options.Dir, "nodes", name) }

// waitNodes waits until Pods can be scheduled to every node.
func (c *Cluster) waitNodes(ctx context.Context) error {
	if len(c.state.Nodes) == 0 {
		return nil
	}
	began := time.Now()
	waiting := map[string]bool{} // real nodes not seen ready yet, to tell of each once
	for _, n := range c.state.Nodes {
		waiting[n.Name] = true
	}
	hollowReady := 0
	err := process.Until(ctx, 2*time.Minute, func(ctx context.Context) error {
		nodes, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return err
		}
		for i := range nodes.Items {
			n := &nodes.Items[i]
			if !waiting[n.Name] || !schedulable(n) {
				continue
			}
			delete(waiting, n.Name)
			if n.Labels[hollow.Label] == "true" {
				hollowReady++
				if hollowReady == c.options.Hollow {
					c.options.Say("%d hollow nodes ready (%.1fs)", hollowReady, time.Since(began).Seconds())
				}
				continue
			}
			c.options.Say("node %s ready (%.1fs)", n.Name, time.Since(began).Seconds())
		}
		for name := range waiting {
			return fmt.Errorf("node %s is not Ready: see %s/logs/%s-kubelet.log", name, c.options.Dir, name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("wait for nodes: %w", err)
	}
	return nil
}

func schedulable(n *corev1.Node) bool {
	for _, taint := range n.Spec.Taints {
		if taint.Key == corev1.TaintNodeNotReady || taint.Key == corev1.TaintNodeUnreachable {
			return false
		}
	}
	for _, condition := range n.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// restarts is how often a component that ends by itself is started again. Tests kill components on purpose; one that
// ends more often than this is broken.
const restarts = 20

// keep keeps components running and the state file right about their process ids.
func (c *Cluster) keep(processes ...*process.Process) {
	c.kept = append(c.kept, processes...)
	for _, p := range processes {
		record := func() error {
			c.stateMu.Lock()
			defer c.stateMu.Unlock()
			c.state.Processes[p.Name] = p.PID()
			if !c.ready {
				return nil // whoever finds the file takes the cluster for ready
			}
			return c.saveState()
		}
		_ = record()
		p.KeepRunning(restarts, func(err error, again bool) {
			switch {
			case err == nil:
				if err := record(); err != nil {
					c.options.Say("%v", err)
				}
			case again:
				c.options.Say("starting %s again: %v", p.Name, err)
			default:
				c.failed <- fmt.Errorf("%w\n(it has been started again %d times: giving up)", err, restarts)
			}
		})
	}
}

func (c *Cluster) loop(name string, run func() error) {
	c.loops.Go(func() {
		if err := run(); err != nil {
			c.failed <- fmt.Errorf("run %s: %w", name, err)
		}
	})
}

// Wait returns when the context ends, or with an error when a part of the cluster cannot go on.
func (c *Cluster) Wait(ctx context.Context) error {
	var sandboxDone <-chan struct{}
	if c.sandbox != nil {
		sandboxDone = c.sandbox.Done()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-c.failed:
		return err
	case <-sandboxDone:
		return c.sandbox.Ended()
	}
}

// Down ends the cluster and takes back what it has of the machine. The directory stays, for its logs.
func (c *Cluster) Down() {
	if c.cancel != nil {
		c.cancel()
		c.loops.Wait()
	}
	for _, p := range c.kept {
		p.LetGo()
	}
	if c.sandbox != nil {
		c.sandbox.Stop()
	}
	if c.web != nil {
		c.web.Close()
	}
	if c.plane != nil {
		c.plane.Stop()
	}
	if err := cgroups.Remove(Cgroup(c.options.Dir)); err != nil {
		c.options.Say("%v", err)
	}
	_ = os.Remove(statePath(c.options.Dir))
	c.claim.release()
}
