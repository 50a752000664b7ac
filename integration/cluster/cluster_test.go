package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"shiplog.dev/integration/cluster"
	"shiplog.dev/integration/cluster/hollow"
	"shiplog.dev/integration/cluster/process"
)

var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if os.Geteuid() != 0 {
			fmt.Fprintln(os.Stderr, "these tests start real nodes, which need root: run them as root")
			if os.Getenv("CI") == "true" {
				return 1
			}
			fmt.Fprintln(os.Stderr, "SKIPPED: all tests of this package")
			return 0
		}
		dir, err := os.MkdirTemp("", "shiplog-cluster-test-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "shiplog-cluster")
		fmt.Fprintln(os.Stderr, "building shiplog-cluster (minutes with a cold build cache)")
		if out, err := exec.Command("./build.sh", binary).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build shiplog-cluster: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

func TestRealAndHollowNodes(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	run(t, "up", "--dir", dir, "--nodes", "1", "--hollow", "2", "--pull-delay", "nginx:slow=2s", "--detach")
	c := connect(t, dir)

	t.Run("a real Pod is updated in place", func(t *testing.T) {
		c.create(t, pod("web", false, "nginx:1.20"))
		before := c.wait(t, "web", ready)
		if got := c.exec(t, "web", "nginx", "-v"); got != "nginx version: nginx/1.20" {
			t.Fatalf("nginx -v says %q", got)
		}
		c.patch(t, "web", `{"spec":{"containers":[{"name":"main","image":"nginx:latest"}]}}`)
		after := c.wait(t, "web", func(p *corev1.Pod) bool { return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
		if after.UID != before.UID || after.Status.PodIP != before.Status.PodIP {
			t.Errorf("the Pod is another one: UID %s, then %s; address %s, then %s",
				before.UID, after.UID, before.Status.PodIP, after.Status.PodIP)
		}
		if after.Status.ContainerStatuses[0].ImageID == before.Status.ContainerStatuses[0].ImageID {
			t.Errorf("the image ID is the same: %s", after.Status.ContainerStatuses[0].ImageID)
		}
		if got := c.exec(t, "web", "nginx", "-v"); got != "nginx version: nginx/latest" {
			t.Errorf("nginx -v says %q after the update", got)
		}
	})

	t.Run("a Pod reaches the API server by its cluster IP", func(t *testing.T) {
		p := pod("inside", false, "busybox:1")
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "bin", MountPath: "/mnt"}}
		p.Spec.Volumes = []corev1.Volume{{Name: "bin", VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: filepath.Dir(binary)},
		}}}
		c.create(t, p)
		c.wait(t, "inside", ready)
		if got := c.exec(t, "inside", "/mnt/shiplog-cluster", "kubectl", "get", "--raw", "/version"); !strings.Contains(got, "v1.36.3") {
			t.Errorf("the API server answers %q", got)
		}
	})

	t.Run("a hollow Pod waits for its readiness gate", func(t *testing.T) {
		p := pod("gated", true, "app:1")
		p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "InPlaceUpdateReady"}}
		c.create(t, p)
		before := c.wait(t, "gated", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning })
		if ready(before) {
			t.Error("the Pod is ready although its gate has no condition")
		}
		c.setCondition(t, "gated", "True")
		c.wait(t, "gated", ready)
		c.setCondition(t, "gated", "False")
		c.patch(t, "gated", `{"spec":{"containers":[{"name":"main","image":"app:2"}]}}`)
		after := c.wait(t, "gated", func(p *corev1.Pod) bool {
			return p.Status.ContainerStatuses[0].RestartCount == 1 && p.Status.ObservedGeneration == p.Generation
		})
		if ready(after) {
			t.Error("the Pod is ready although its gate is closed")
		}
		if a, b := before.Status.ContainerStatuses[0], after.Status.ContainerStatuses[0]; a.ImageID == b.ImageID || a.ContainerID == b.ContainerID {
			t.Errorf("the container is the same: image %s, id %s", b.ImageID, b.ContainerID)
		}
		c.setCondition(t, "gated", "True")
		c.wait(t, "gated", ready)
	})

	t.Run("images that cannot be pulled", func(t *testing.T) {
		for name, isHollow := range map[string]bool{"bad-real": false, "bad-hollow": true} {
			c.create(t, pod(name, isHollow, "app:missing"))
		}
		for _, name := range []string{"bad-real", "bad-hollow"} {
			c.wait(t, name, func(p *corev1.Pod) bool {
				s := p.Status.ContainerStatuses
				return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "ImagePullBackOff"
			})
		}
	})

	t.Run("an image that is slow to pull", func(t *testing.T) {
		began := time.Now()
		c.create(t, pod("slow", false, "nginx:slow"))
		c.wait(t, "slow", ready)
		if took := time.Since(began); took < 2*time.Second {
			t.Errorf("the Pod was ready after %s; pulling its image alone should take 2s", took)
		}
	})

	t.Run("a component that is killed comes back", func(t *testing.T) {
		for _, name := range []string{"kube-apiserver", "node-1-kubelet", "node-1-containerd"} {
			killed := c.state(t).Processes[name]
			if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
				t.Fatalf("kill %s: %v", name, err)
			}
			eventually(t, name+" is started again", func(context.Context) error {
				if c.state(t).Processes[name] == killed {
					return errors.New("cluster.json still names the killed process")
				}
				return nil
			})
		}
		eventually(t, "a new Pod runs on the real node", func(ctx context.Context) error {
			_, err := c.client.CoreV1().Pods("default").Create(ctx, pod("later", false, "nginx:1.20"), metav1.CreateOptions{})
			return err
		})
		c.wait(t, "later", ready)
		if p := c.wait(t, "web", ready); p.Status.ContainerStatuses[0].RestartCount != 1 {
			t.Errorf("the running container was restarted: restartCount is %d", p.Status.ContainerStatuses[0].RestartCount)
		}
	})

	t.Run("deleted Pods go", func(t *testing.T) {
		for _, name := range []string{"web", "gated"} {
			if err := c.client.CoreV1().Pods("default").Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "Pod "+name+" is gone", func(ctx context.Context) error {
				_, err := c.client.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{})
				if err == nil {
					return errors.New("it is still there")
				}
				return nil
			})
		}
	})

	state := c.state(t)
	run(t, "down", "--dir", dir)
	nothingLeft(t, state)
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is still there", dir)
	}
}

func TestUpAndDownAfterACrash(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	run(t, "up", "--dir", dir, "--nodes", "1", "--detach")
	c := connect(t, dir)
	c.create(t, pod("web", false, "nginx:1.20"))
	c.wait(t, "web", ready)
	if err := execute(t, "up", "--dir", dir); err == nil {
		t.Error("a second cluster in the same directory was not refused")
	}

	state := c.state(t)
	crash(t, state)
	if err := execute(t, "status", "--dir", dir); err == nil {
		t.Error("status says that a cluster runs after its supervisor was killed")
	}
	run(t, "up", "--dir", dir, "--nodes", "1", "--detach")
	c = connect(t, dir)
	c.create(t, pod("web", false, "nginx:1.20"))
	c.wait(t, "web", ready)

	state = c.state(t)
	crash(t, state)
	run(t, "down", "--dir", dir)
	nothingLeft(t, state)
}

// crash kills the supervisor and waits until the kernel has ended its children.
func crash(t *testing.T, state cluster.State) {
	t.Helper()
	if err := syscall.Kill(state.Supervisor, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the supervisor's children are gone", func(context.Context) error { return processesOf(state.Dir) })
}

// nothingLeft fails the test for processes, mounts, interfaces and control groups of a cluster that is down.
func nothingLeft(t *testing.T, state cluster.State) {
	t.Helper()
	if err := processesOf(state.Dir); err != nil {
		t.Error(err)
	}
	mounts, err := filepath.Glob("/proc/*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range mounts {
		if data, _ := os.ReadFile(file); strings.Contains(string(data), state.Dir) {
			t.Errorf("%s tells of a mount below %s", file, state.Dir)
		}
	}
	network := netip.MustParsePrefix(state.Network)
	// The kernel takes a network namespace down some time after its last process.
	eventually(t, "no interface has an address of the cluster", func(context.Context) error {
		addresses, err := net.InterfaceAddrs()
		if err != nil {
			return err
		}
		for _, a := range addresses {
			if address, err := netip.ParsePrefix(a.String()); err == nil && network.Contains(address.Addr()) {
				return fmt.Errorf("an interface still has %s", address)
			}
		}
		return nil
	})
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + cluster.Cgroup(state.Dir))
	if _, err := os.Stat("/sys/fs/cgroup/" + cluster.Cgroup(state.Dir)); err == nil || len(groups) > 0 {
		t.Errorf("control groups are left: %v", groups)
	}
}

func processesOf(dir string) error {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, file := range files {
		// Processes that ended while we look, and zombies, have no command line.
		if data, _ := os.ReadFile(file); strings.Contains(string(data), dir) {
			return fmt.Errorf("%s is still alive: %s", filepath.Dir(file), strings.ReplaceAll(string(data), "\x00", " "))
		}
	}
	return nil
}

type connection struct {
	dir    string
	client kubernetes.Interface
}

func connect(t *testing.T, dir string) connection {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return connection{dir: dir, client: client}
}

func (c connection) state(t *testing.T) cluster.State {
	t.Helper()
	state, err := cluster.Load(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func (c connection) create(t *testing.T, p *corev1.Pod) {
	t.Helper()
	if _, err := c.client.CoreV1().Pods("default").Create(context.Background(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (c connection) patch(t *testing.T, name, patch string, subresources ...string) {
	t.Helper()
	_, err := c.client.CoreV1().Pods("default").Patch(context.Background(), name,
		types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, subresources...)
	if err != nil {
		t.Fatal(err)
	}
}

func (c connection) setCondition(t *testing.T, name, value string) {
	t.Helper()
	c.patch(t, name, fmt.Sprintf(`{"status":{"conditions":[{"type":"InPlaceUpdateReady","status":%q}]}}`, value), "status")
}

func (c connection) wait(t *testing.T, name string, condition func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	eventually(t, "Pod "+name+" is as it should be", func(ctx context.Context) error {
		var err error
		if pod, err = c.client.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		if !condition(pod) {
			return fmt.Errorf("its status is %+v", pod.Status)
		}
		return nil
	})
	return pod
}

func (c connection) exec(t *testing.T, name string, command ...string) string {
	t.Helper()
	args := append([]string{"kubectl", "--kubeconfig", filepath.Join(c.dir, "kubeconfig"), "exec", name, "--"}, command...)
	out, err := exec.Command(binary, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl exec: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func pod(name string, isHollow bool, image string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{hollow.Label: fmt.Sprint(isHollow)},
			Containers:   []corev1.Container{{Name: "main", Image: image}},
		},
	}
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && p.Status.ObservedGeneration == p.Generation
		}
	}
	return false
}

// newDir is a directory for a cluster, with a short path as sockets need it, and taken down after the test.
func newDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cluster-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := exec.Command("sh", "-c", "tail -n 15 "+dir+"/supervisor.log "+dir+"/logs/*").CombinedOutput()
			t.Logf("the last lines of the cluster's logs:\n%s", logs)
		}
		if err := cluster.Down(context.Background(), dir, false, t.Logf); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func run(t *testing.T, args ...string) {
	t.Helper()
	if err := execute(t, args...); err != nil {
		t.Fatal(err)
	}
}

func execute(t *testing.T, args ...string) error {
	t.Helper()
	began := time.Now()
	out, err := exec.Command(binary, args...).CombinedOutput()
	t.Logf("shiplog-cluster %s (%.1fs)\n%s", strings.Join(args, " "), time.Since(began).Seconds(), out)
	if err != nil {
		return fmt.Errorf("shiplog-cluster %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	if err := process.Until(context.Background(), 60*time.Second, check); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
