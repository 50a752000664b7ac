package node

import (
	"fmt"
	"os"
	"path/filepath"

	"shiplog.dev/integration/cluster/process"
	"shiplog.dev/integration/cluster/sandbox"
)

// ProxyConfig says how to run kube-proxy. One serves all nodes of a sandbox, as they share its network.
type ProxyConfig struct {
	Self, Dir, LogDir, Kubeconfig string
	Node                          string // in whose name it acts
	Sandbox                       *sandbox.Sandbox
}

// StartProxy starts kube-proxy. It makes cluster IPs work from Pods and, through the sandbox's route, from the machine.
func StartProxy(c ProxyConfig) (*process.Process, error) {
	path := filepath.Join(c.Dir, "kube-proxy.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, proxySettings, c.Node, c.Kubeconfig, c.Sandbox.Pods()), 0o600); err != nil {
		return nil, fmt.Errorf("write the settings of kube-proxy: %w", err)
	}
	return process.Start(process.Spec{
		Name: "kube-proxy", Args: c.Sandbox.Inside(c.Self, "kube-proxy", "--config="+path), LogDir: c.LogDir,
	})
}

// Everything is masqueraded: a Pod must get answers through the sandbox also from a Pod on its own bridge, whether or
// not the kernel shows bridged packets to iptables. minSyncPeriod is for tests, which wait for it.
const proxySettings = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
hostnameOverride: %q
mode: iptables
clientConnection: {kubeconfig: %q, qps: 500, burst: 1000}
clusterCIDR: %q
iptables: {masqueradeAll: true, minSyncPeriod: 100ms}
conntrack: {maxPerCore: 0}
oomScoreAdj: 0
`
