package blackbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"shiplog.dev/integration/testbed"
)

// running names Pods by what a restart would change.
func running(of []corev1.Pod) (out []string) {
	for _, p := range of {
		restarts := int32(-1)
		if len(p.Status.ContainerStatuses) > 0 {
			restarts = p.Status.ContainerStatuses[0].RestartCount
		}
		out = append(out, fmt.Sprintf("%s=%s, %d restarts", p.Name, p.UID, restarts))
	}
	return out
}

// toldOfLoss wants the loss of entries to be one line, one count of a metric and one entry.
func toldOfLoss(t *testing.T, p *testbed.Process, stateDir string, before int) {
	t.Helper()
	testbed.Eventually(t, 30*time.Second, func() error {
		losses, err := p.Metric("shiplog_watcher_log_losses_total")
		if err != nil {
			return err
		}
		return errNot("losses by the metric", losses, 1)
	})
	if n := strings.Count(p.Output(), "the log has lost entries"); n != 1 {
		t.Errorf("%d lines tell of the loss:\n%s", n, p.Output())
	}
	testbed.Eventually(t, 10*time.Second, func() error {
		n, err := losses(stateDir)
		if err != nil {
			return err
		}
		return errNot("entries that tell of the loss", n-before, 1)
	})
}

// losses counts the entries that tell of a loss. A log that begins on a cluster where another one was has one: objects outlive the
// test that made them.
func losses(stateDir string) (int, error) {
	out, err := testbed.Output("tail", "--log", stateDir, "-A", "--type", "log-lost")
	return strings.Count(out, "\n"), err
}

// TestLogDeleted: everything is stopped, the log is deleted, everything is started. The world is rebuilt from the API server, no Pod
// is touched, and the loss is told.
func TestLogDeleted(t *testing.T) {
	namespace, stateDir := space(t), t.TempDir()
	p := up(t, stateDir)
	kubectl(t, cloneSet("web", 6, "nginx:1", "true", inPlace), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 6, "nginx:1"))
	before := running(pods(t, namespace, "web"))
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(stateDir); err != nil {
		t.Fatal(err)
	}
	p = up(t, stateDir)
	toldOfLoss(t, p, stateDir, 0)
	kubectl(t, cloneSet("web", 7, "nginx:1", "true", inPlace), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 7, "nginx:1"))
	unharmed(t, before, namespace)
	kubectl(t, cloneSet("web", 7, "nginx:2", "true", inPlace), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 7, "nginx:2"))
}

// unharmed wants Pods to run on as they did.
func unharmed(t *testing.T, before []string, namespace string) {
	t.Helper()
	after := strings.Join(running(pods(t, namespace, "web")), "\n")
	for _, pod := range before {
		if !strings.Contains(after, pod) {
			t.Errorf("%s: now there are\n%s", pod, after)
		}
	}
}

// TestLogRolledBack: everything is stopped, and started on a copy of the log as it was before a rollout.
func TestLogRolledBack(t *testing.T) {
	namespace, stateDir, saved := space(t), t.TempDir(), filepath.Join(t.TempDir(), "saved")
	p := up(t, stateDir)
	kubectl(t, cloneSet("web", 6, "nginx:1", "true", inPlace), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 6, "nginx:1"))
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	known, err := losses(stateDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(saved, os.DirFS(stateDir)); err != nil {
		t.Fatal(err)
	}
	p = up(t, stateDir)
	kubectl(t, cloneSet("web", 4, "nginx:2", "true", inPlace), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 4, "nginx:2"))
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	anHourLater(t, namespace)
	before := running(pods(t, namespace, "web"))
	if err := os.RemoveAll(stateDir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(saved, stateDir); err != nil {
		t.Fatal(err)
	}
	p = up(t, stateDir)
	toldOfLoss(t, p, stateDir, known)
	kubectl(t, cloneSet("web", 5, "nginx:2", "true", inPlace), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 5, "nginx:2"))
	unharmed(t, before, namespace)
}

// anHourLater makes Shiplog's last write to a Pod one of in an hour, which is as if the log were an hour older.
func anHourLater(t *testing.T, namespace string) {
	t.Helper()
	pod := pods(t, namespace, "web")[0].Name
	var seen struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	if err := json.Unmarshal([]byte(kubectl(t, "", "get", "pod", pod, "-n", namespace, "--show-managed-fields", "-o", "json")), &seen); err != nil {
		t.Fatal(err)
	}
	later := metav1.NewTime(time.Now().Add(time.Hour))
	for i := range seen.Metadata.ManagedFields {
		seen.Metadata.ManagedFields[i].Time = &later
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"managedFields": seen.Metadata.ManagedFields}})
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, "", "patch", "pod", pod, "-n", namespace, "--type=merge", "-p", string(patch))
}

// TestMessageDamaged: a bit of one message falls over on the disk while everything is stopped. It is noticed and named, and nothing is
// done on what stands behind it. A new log helps.
func TestMessageDamaged(t *testing.T) {
	namespace, stateDir := space(t), t.TempDir()
	p := up(t, stateDir)
	kubectl(t, cloneSet("web", 6, "nginx:1", "true", inPlace), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 6, "nginx:1"))
	before := running(pods(t, namespace, "web"))
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	blocks, err := filepath.Glob(filepath.Join(stateDir, "log/jetstream/$G/streams/SHIPLOG/msgs/*.blk"))
	if err != nil || len(blocks) == 0 {
		t.Fatalf("no blocks of messages below %s: %v", stateDir, err)
	}
	data, err := os.ReadFile(blocks[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(data, []byte("RefreshPod"))
	if at < 0 {
		t.Fatal("no command to damage")
	}
	data[at] ^= 1
	if err := os.WriteFile(blocks[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "", "patch", "pod", pods(t, namespace, "web")[0].Name, "-n", namespace, "--type=merge", "-p", `{"metadata":{"labels":{"a":"b"}}}`)
	p, err = testbed.StartShiplog("up", "--kubeconfig", cluster.Kubeconfig, "--state-dir", stateDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	select {
	case <-p.Done():
	case <-time.After(30 * time.Second):
		t.Fatalf("it goes on with a damaged log:\n%s", p.Output())
	}
	if !regexp.MustCompile(`sequence \d+: the message is damaged`).MatchString(p.Output()) {
		t.Errorf("it does not name the message:\n%s", p.Output())
	}
	unharmed(t, before, namespace)

	if err := os.RemoveAll(stateDir); err != nil {
		t.Fatal(err)
	}
	up(t, stateDir)
	kubectl(t, cloneSet("web", 7, "nginx:1", "true", inPlace), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 7, "nginx:1"))
	unharmed(t, before, namespace)
}

// TestFullDisk: the disk under the log is full for a while. Nothing is decided meanwhile, and everything goes on when there is room.
func TestFullDisk(t *testing.T) {
	namespace, stateDir := space(t), t.TempDir()
	if err := syscall.Mount("tmpfs", stateDir, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatalf("mount a small filesystem (root is needed): %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(stateDir, syscall.MNT_DETACH) })
	p := up(t, stateDir)
	kubectl(t, cloneSet("web", 6, "nginx:1", "true", inPlace), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 6, "nginx:1"))
	filler := filepath.Join(stateDir, "filler")
	file, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 4096); err == nil; {
		_, err = file.Write(block)
	}
	file.Close()
	kubectl(t, cloneSet("web", 6, "nginx:2", "true", inPlace), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, 30*time.Second, func() error {
		if !strings.Contains(p.Output(), "it goes on when the disk has room") {
			return fmt.Errorf("nobody says that the disk is full:\n%s", p.Output())
		}
		return nil
	})
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 6, "nginx:2"))
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}

// TestNobodyThere: with every process of Shiplog dead, Pods that it has nothing to do with are created, changed, evicted and deleted
// without delay.
func TestNobodyThere(t *testing.T) {
	namespace := space(t)
	p := up(t, t.TempDir())
	kubectl(t, cloneSet("web", 2, "nginx:1", "true", inPlace), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 2, "nginx:1"))
	p.Kill()
	config, err := cluster.Config()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	all := client.CoreV1().Pods(namespace)
	stranger := func(name string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
			NodeSelector: map[string]string{"shiplog.dev/hollow": "true"}, Containers: []corev1.Container{{Name: "main", Image: "nginx:1"}}}}
	}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"create one", func(ctx context.Context) error {
			_, err := all.Create(ctx, stranger("a"), metav1.CreateOptions{})
			return err
		}},
		{"create another", func(ctx context.Context) error {
			_, err := all.Create(ctx, stranger("b"), metav1.CreateOptions{})
			return err
		}},
		{"change it", func(ctx context.Context) error {
			_, err := all.Patch(ctx, "a", "application/merge-patch+json", []byte(`{"metadata":{"labels":{"x":"y"}}}`), metav1.PatchOptions{})
			return err
		}},
		{"evict it", func(ctx context.Context) error {
			return all.EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: namespace}})
		}},
		{"delete the other", func(ctx context.Context) error { return all.Delete(ctx, "b", metav1.DeleteOptions{}) }},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if err := step.do(ctx); err != nil {
			t.Errorf("%s: %v", step.what, err)
		}
		cancel()
	}
}
