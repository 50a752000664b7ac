// Package node runs real nodes: containerd and a kubelet each, inside a sandbox (package sandbox) that keeps them off
// the machine's own containers, interfaces and iptables rules. A node's files are below one directory, its containers'
// control groups below one name; everything else ends with the sandbox.
package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"shiplog.dev/integration/cluster/hollow"
	"shiplog.dev/integration/cluster/process"
	"shiplog.dev/integration/cluster/sandbox"
)

// Config says what node to run.
type Config struct {
	Self       string // the binary that has the kubelet as a sub-command
	Name       string // also the name of its bridge
	Number     int    // from 1; gives it its subnet
	Dir        string // for its files
	LogDir     string
	Sandbox    *sandbox.Sandbox
	Registry   string // the URL of the registry that stands in for every other
	Kubeconfig string
	Cgroup     string // the control group above all containers
}

// Node is a running node.
type Node struct {
	Name      string
	Address   netip.Addr
	Socket    string // containerd's, for the CRI
	Processes []*process.Process
}

// CheckDir tells whether the names of sockets below a node's directory fit into the 107 bytes that the kernel takes.
func CheckDir(dir string) error {
	if excess := len(dir+"/kubelet/device-plugins/kubelet.sock") - 107; excess > 0 {
		return fmt.Errorf("the path %s is too long for the sockets below it: use a --dir that is at least %d bytes shorter", dir, excess)
	}
	return nil
}

// Start starts a node and waits until its kubelet answers; the API server shows it as Ready some moments later.
func Start(ctx context.Context, c Config) (*Node, error) {
	address, subnet := c.Sandbox.Node(c.Number)
	n := &Node{Name: c.Name, Address: address, Socket: filepath.Join(c.Dir, "containerd.sock")}
	if err := c.write(address, subnet); err != nil {
		return nil, fmt.Errorf("write the settings of %s: %w", c.Name, err)
	}
	// The kubelet needs its address before the first Pod makes the CNI plugin create the bridge.
	for _, command := range [][]string{
		{"ip", "link", "add", "name", c.Name, "type", "bridge"},
		{"ip", "address", "add", netip.PrefixFrom(address, subnet.Bits()).String(), "dev", c.Name},
		{"ip", "link", "set", c.Name, "up"},
	} {
		if err := c.Sandbox.Run(ctx, command...); err != nil {
			return nil, fmt.Errorf("make the bridge of %s: %w", c.Name, err)
		}
	}

	containerd, err := n.run(c, c.Name+"-containerd", "containerd", "--config", c.path("containerd.toml"))
	if err != nil {
		return nil, err
	}
	listening := func(context.Context) error { _, err := os.Stat(n.Socket); return err }
	if err := containerd.WaitHealthy(ctx, 30*time.Second, listening); err != nil {
		return nil, err
	}
	kubelet, err := n.run(c, c.Name+"-kubelet", c.Self, "kubelet",
		"--config="+c.path("kubelet.yaml"), "--kubeconfig="+c.Kubeconfig,
		"--root-dir="+c.path("kubelet"), "--cert-dir="+c.path("pki"),
		"--hostname-override="+c.Name, "--node-ip="+address.String(),
		"--node-labels="+hollow.Label+"=false,topology.kubernetes.io/zone="+hollow.Zone(c.Number-1))
	if err != nil {
		return nil, err
	}
	if err := kubelet.WaitHealthy(ctx, 60*time.Second, healthy("http://"+address.String()+":10248/healthz")); err != nil {
		return nil, err
	}
	return n, nil
}

// run starts a program of the node. Nothing stops it: it ends with the sandbox.
func (n *Node) run(c Config, name string, args ...string) (*process.Process, error) {
	p, err := process.Start(process.Spec{Name: name, Args: c.Sandbox.Inside(args...), LogDir: c.LogDir})
	if err != nil {
		return nil, err
	}
	n.Processes = append(n.Processes, p)
	return p, nil
}

func (c Config) path(name string) string { return filepath.Join(c.Dir, name) }

func (c Config) write(address netip.Addr, subnet netip.Prefix) error {
	files := map[string]string{
		"containerd.toml": fmt.Sprintf(containerdConfig,
			c.path("containerd"), c.path("run"), c.path("containerd.sock"), c.path("containerd.sock.ttrpc"), c.path("cni"), c.path("registries")),
		"registries/_default/hosts.toml": fmt.Sprintf(hostsConfig, c.Registry),
		"cni/10-bridge.conflist":         fmt.Sprintf(cniConfig, c.Name, c.Name, c.path("addresses"), subnet),
		"kubelet.yaml": fmt.Sprintf(kubeletConfig,
			address, address, c.path("containerd.sock"), c.path("pods"), c.path("volume-plugins"), "/"+c.Cgroup, c.Sandbox.Gateway),
	}
	var problems []error
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(c.path(name)), 0o755); err != nil {
			return err
		}
		problems = append(problems, os.WriteFile(c.path(name), []byte(content), 0o600))
	}
	return errors.Join(problems...)
}

// Without restrict_oom_score_adj no container starts where lowering the score is not allowed, as in most containers.
const containerdConfig = `version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = %q
[ttrpc]
  address = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "shiplog.local/pause:1"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "` + cniPlugins + `"
    conf_dir = %q
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = %q
`

// Named twice: as a host to try first and as the server to turn to after that. Otherwise a missing image would be looked
// for in the registry that its name tells, somewhere on a network that may not be there.
const hostsConfig = `server = %[1]q
[host.%[1]q]
  capabilities = ["pull", "resolve"]
`

const cniConfig = `{
  "cniVersion": "0.4.0", "name": %q,
  "plugins": [
    {"type": "bridge", "bridge": %q, "isGateway": true, "hairpinMode": true,
     "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`

// The kubelet's own port takes anybody: it listens on an address that only this machine routes to. There is no DNS
// server at clusterDNS, but without the setting every Pod would cost a warning Event; look-ups fail at once.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %q
healthzBindAddress: %q
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: "unix://%s"
podLogsDir: %q
volumePluginDir: %q
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
cgroupRoot: %q
enforceNodeAllocatable: []
oomScoreAdj: 0
evictionHard: {memory.available: "0%%", nodefs.available: "0%%", nodefs.inodesFree: "0%%", imagefs.available: "0%%", imagefs.inodesFree: "0%%"}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
serializeImagePulls: false
registryPullQPS: 0
eventRecordQPS: 0
kubeAPIQPS: 500
kubeAPIBurst: 1000
maxPods: 250
clusterDomain: cluster.local
clusterDNS: [%q]
`

func healthy(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(url + " answers " + strconv.Itoa(response.StatusCode))
		}
		return nil
	}
}
