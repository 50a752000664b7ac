package blackbox

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"shiplog.dev/integration/testbed"
)

// witness watches Pods of a namespace through the API server, on its own connection, and remembers what it saw.
type witness struct {
	created map[string]string // UID by name
	deleted []string
	twice   []string
	most    int // Pods that were unavailable at once
	stop    func()
	done    chan struct{}
}

func watchPods(t *testing.T, namespace string) *witness {
	t.Helper()
	config, err := cluster.Config()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	events, err := client.CoreV1().Pods(namespace).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	w := &witness{created: map[string]string{}, stop: cancel, done: make(chan struct{})}
	down := map[string]bool{}
	go func() {
		defer close(w.done)
		for event := range events.ResultChan() {
			p, is := event.Object.(*corev1.Pod)
			if !is {
				continue
			}
			switch event.Type {
			case watch.Added:
				if _, before := w.created[p.Name]; before {
					w.twice = append(w.twice, p.Name)
				}
				w.created[p.Name] = string(p.UID)
			case watch.Deleted:
				w.deleted = append(w.deleted, p.Name)
			}
			// A Pod counts as down only once it has been up.
			if was, known := down[p.Name]; known || ready(*p) {
				down[p.Name] = !ready(*p) && event.Type != watch.Deleted
				_ = was
			}
			n := 0
			for _, is := range down {
				if is {
					n++
				}
			}
			w.most = max(w.most, n)
		}
	}()
	t.Cleanup(w.end)
	return w
}

// end stops watching; what was seen may be read afterwards.
func (w *witness) end() {
	w.stop()
	<-w.done
}

// TestKilledInMidRollout: kill -9 of the whole process, at several moments of a rollout, and a start on the same state
// directory: nothing is created twice, nothing is lost, no budget is broken, the rollout ends right.
func TestKilledInMidRollout(t *testing.T) {
	namespace := space(t)
	stateDir := t.TempDir()
	p := up(t, stateDir)
	strategy := inPlace + "    maxUnavailable: 2\n"
	w := watchPods(t, namespace)
	kubectl(t, cloneSet("web", 12, "nginx:1", "true", strategy), "apply", "-n", namespace, "-f", "-")
	for generation := 2; generation <= 6; generation++ {
		if generation > 2 {
			kubectl(t, cloneSet("web", 12, fmt.Sprintf("nginx:%d", generation), "true", strategy), "apply", "-n", namespace, "-f", "-")
		}
		// Each time a little later into the work.
		time.Sleep(time.Duration(generation*7) * time.Millisecond)
		p.Kill()
		p = up(t, stateDir)
		image := fmt.Sprintf("nginx:%d", generation)
		if generation == 2 {
			image = "nginx:1"
		}
		testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 12, image))
	}
	w.end()
	if len(w.created) != 12 || len(w.twice) > 0 || len(w.deleted) > 0 {
		t.Errorf("in-place rollouts of 12 Pods: %d were created, %v twice, %v deleted", len(w.created), w.twice, w.deleted)
	}
	if w.most > 2 {
		t.Errorf("%d Pods were unavailable at once, maxUnavailable is 2", w.most)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
}

// TestTwoPlanners: a second planner process on the same log waits; when the first is stopped cold it takes over and the
// first, woken, is fenced out and changes nothing.
func TestTwoPlanners(t *testing.T) {
	namespace := space(t)
	stateDir := t.TempDir()
	p := up(t, stateDir)
	address, err := os.ReadFile(filepath.Join(stateDir, "nats.url"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := testbed.StartShiplog("planner", "--kubeconfig", cluster.Kubeconfig, "--nats-url", strings.TrimSpace(string(address)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(second.Kill)
	if err := second.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := watchPods(t, namespace)
	kubectl(t, cloneSet("web", 8, "nginx:1", "true", inPlace), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 8, "nginx:1"))
	if leading, err := second.Metric("shiplog_planner_leading"); err != nil || leading != 0 {
		t.Fatalf("the second planner leads while the first one does: %v, %v", leading, err)
	}
	third, err := testbed.StartShiplog("planner", "--kubeconfig", cluster.Kubeconfig, "--nats-url", strings.TrimSpace(string(address)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(third.Kill)
	_ = p
	w.end()
	if len(w.created) != 8 || len(w.twice) > 0 {
		t.Errorf("8 Pods were asked for, %d were created, %v twice", len(w.created), w.twice)
	}
}
