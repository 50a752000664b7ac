package nodeagent

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"shiplog.dev/integration/testbed"
)

// real is the cluster that the tests of this package share, with one node; it starts when the first test asks for it.
var real struct {
	sync.Once
	cluster *testbed.Cluster
	err     error
	dir     string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if real.cluster != nil {
		if err := real.cluster.Down(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.RemoveAll(real.dir)
	os.Exit(code)
}

// containerd is the runtime of a real node, where the kubelet runs what the API server is told.
type containerd struct{ cluster *testbed.Cluster }

// startContainerd skips the test on a machine that cannot run a node, but not where CI=true, so that a pipeline cannot pass
// by testing nothing.
func startContainerd(t *testing.T) *containerd {
	if _, err := testbed.Program("shiplog-cluster"); (err != nil || os.Geteuid() != 0 || testing.Short()) && os.Getenv("CI") != "true" {
		t.Skip("a real node needs root and shiplog-cluster (make build)")
	}
	real.Do(func() {
		if real.dir, real.err = os.MkdirTemp("", "shiplog-nodeagent-"); real.err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		real.cluster, real.err = testbed.StartCluster(ctx, filepath.Join(real.dir, "cluster"), 1, 0, os.Stderr)
	})
	if real.err != nil {
		t.Fatal(real.err)
	}
	return &containerd{real.cluster}
}

// status is what the cluster tells about itself.
func (c *containerd) status() (status struct {
	Nodes     []struct{ Socket string }
	Processes map[string]int
}, _ error) {
	program, err := testbed.Program("shiplog-cluster")
	if err != nil {
		return status, err
	}
	out, err := exec.Command(program, "status", "--dir", c.cluster.Dir, "-o", "json").Output()
	if err != nil {
		return status, err
	}
	return status, json.Unmarshal(out, &status)
}

func (c *containerd) endpoint() string {
	status, err := c.status()
	if err != nil {
		panic(err)
	}
	return "unix://" + status.Nodes[0].Socket
}

func (c *containerd) run(t *testing.T, pod string, command ...string) {
	own, err := json.Marshal(command)
	if err != nil {
		t.Fatal(err)
	}
	c.kubectl(t, fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: default}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: %s, image: %q, command: %s, env: [{name: COLOR, value: blue}]}]
`, pod, containerName, image, own), "apply", "-f", "-")
}

func (c *containerd) serve(t *testing.T, pod string) (uint32, func() string) {
	c.run(t, pod, "sh", "-c", `mkdir -p /www/cgi-bin && touch /www/index.html && cat > /www/cgi-bin/bye <<'END'
#!/bin/sh
echo "$HTTP_HOST $REQUEST_URI $HTTP_X_WHO" > /asked
printf 'Status: 302 Found\r\nLocation: http://elsewhere.invalid/\r\n\r\n'
END
chmod +x /www/cgi-bin/bye && exec httpd -f -p 8080 -h /www`)
	inside := func(command string) (string, error) {
		return c.cluster.Kubectl(t.Context(), "", "exec", pod, "--", "sh", "-c", command)
	}
	testbed.Eventually(t, time.Minute, func() error {
		_, err := inside("wget -q -O /dev/null http://127.0.0.1:8080/index.html")
		return err
	})
	return 8080, func() string {
		asked, err := inside("cat /asked")
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(asked)
	}
}

func (c *containerd) remove(t *testing.T, pod string) {
	c.kubectl(t, "", "delete", "pod", pod, "--now", "--wait=false")
}

func (c *containerd) kubectl(t *testing.T, input string, arguments ...string) {
	t.Helper()
	if _, err := c.cluster.Kubectl(t.Context(), input, arguments...); err != nil {
		t.Fatal(err)
	}
}

// restart kills the runtime; its keeper starts it again.
func (c *containerd) restart(t *testing.T) {
	before, err := c.status()
	if err != nil {
		t.Fatal(err)
	}
	const name = "node-1-containerd"
	pid := before.Processes[name]
	if pid <= 1 {
		t.Fatalf("process %d of %s", pid, name)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, time.Minute, func() error {
		if now, err := c.status(); err != nil || now.Processes[name] == pid {
			return fmt.Errorf("%s is not started again: %v", name, err)
		}
		return nil
	})
}
