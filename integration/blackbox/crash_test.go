package blackbox

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"shiplog.dev/deploy/crd"
	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/journal/embedded"
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
			if _, been := down[p.Name]; been || ready(*p) {
				down[p.Name] = !ready(*p) && event.Type != watch.Deleted
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
		// Each time a little later into the work: the end is to come at any moment of it, so there is none to wait for.
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

// TestServicesAlone runs each service as a process of its own on one NATS server, with two planners. The leader is stopped
// cold in the middle of its life; the other takes over; the first, woken, is fenced out and changes nothing.
func TestServicesAlone(t *testing.T) {
	namespace := space(t)
	config, err := cluster.Config()
	if err != nil {
		t.Fatal(err)
	}
	if err := crd.Install(t.Context(), config, nil); err != nil {
		t.Fatal(err)
	}
	log, err := journal.Open(t.Context(), journal.Options{Server: &embedded.Server{Directory: t.TempDir(), Listen: "127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	state, err := log.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	alone := func(service string) *testbed.Process {
		p, err := testbed.StartShiplog(service, "--kubeconfig", cluster.Kubeconfig, "--nats-url", state.URL)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			p.Kill()
			if t.Failed() {
				t.Logf("%s said:\n%s", service, p.Output())
			}
		})
		return p
	}
	alone("watcher")
	alone("executor")
	first := alone("planner")
	leads := func(p *testbed.Process, want float64) func() error {
		return func() error {
			leading, err := p.Metric("shiplog_planner_leading")
			if err != nil {
				return err
			}
			return errNot("leading", leading, want)
		}
	}
	testbed.Eventually(t, time.Minute, leads(first, 1))
	second := alone("planner")
	w := watchPods(t, namespace)
	strategy := inPlace + "    maxUnavailable: 1\n"
	kubectl(t, cloneSet("web", 6, "nginx:1", "true", strategy), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 6, "nginx:1"))
	if err := leads(second, 0)(); err != nil {
		t.Fatalf("the second planner while the first one leads: %v", err)
	}

	if err := syscall.Kill(first.Pid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	kubectl(t, cloneSet("web", 6, "nginx:2", "true", strategy), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, leads(second, 1))
	if err := syscall.Kill(first.Pid(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, time.Minute, leads(first, 0))
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 6, "nginx:2"))
	w.end()
	if len(w.created) != 6 || len(w.twice) > 0 || len(w.deleted) > 0 {
		t.Errorf("6 Pods, updated in place: %d were created, %v twice, %v deleted", len(w.created), w.twice, w.deleted)
	}
	if w.most > 1 {
		t.Errorf("%d Pods were unavailable at once, maxUnavailable is 1", w.most)
	}
	w = watchPods(t, namespace)
	kubectl(t, cloneSet("web", 4, "nginx:2", "true", strategy), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 4, "nginx:2"))
	w.end()
	if len(w.deleted) != 2 {
		t.Errorf("from 6 to 4 Pods: %v were deleted", w.deleted)
	}
}

// TestHeldBackWatch: while the watch of Pods shows nothing, although its connection lives, a rollout takes no Pod down; it
// goes on when the watch does.
func TestHeldBackWatch(t *testing.T) {
	namespace := space(t)
	proxy := testbed.StartProxy(t, cluster)
	p, err := testbed.StartShiplog("up", "--kubeconfig", proxy.Kubeconfig, "--state-dir", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	if err := p.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	strategy := inPlace + "    maxUnavailable: 1\n  minReadySeconds: 4\n"
	kubectl(t, cloneSet("web", 4, "nginx:1", "true", strategy), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 4, "nginx:1"))
	kubectl(t, cloneSet("web", 4, "nginx:2", "true", strategy), "apply", "-n", namespace, "-f", "-")
	updated := func() (n int) {
		for _, p := range pods(t, namespace, "web") {
			if p.Spec.Containers[0].Image == "nginx:2" {
				n++
			}
		}
		return n
	}
	testbed.Eventually(t, time.Minute, func() error { return errNot("Pods updated", updated(), 1) })
	proxy.Hold()
	// The executor still shows the planner what its own writes return, so one more Pod may follow on facts vouched for
	// before the hold. Once those are older than 15 s none may, although minReadySeconds has long passed.
	time.Sleep(20 * time.Second)
	before := updated()
	if before == 4 {
		t.Fatal("the rollout was over before anything could be held back")
	}
	time.Sleep(8 * time.Second) // that nothing happens shows only in time that passes
	if after := updated(); after != before {
		t.Errorf("%d Pods were taken down on facts that nobody had vouched for", after-before)
	}
	proxy.Release()
	testbed.Eventually(t, 2*time.Minute, settled(t, namespace, "web", 4, "nginx:2"))
}

// TestSmallLog: a log that reaches its limit drops its oldest entries, never a rollout.
func TestSmallLog(t *testing.T) {
	namespace := space(t)
	stateDir := t.TempDir()
	p := up(t, stateDir, "--max-log-bytes", "300Ki")
	kubectl(t, cloneSet("web", 10, "nginx:1", "true", inPlace), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 10, "nginx:1"))
	for i := 2; i <= 12; i++ {
		image := fmt.Sprintf("nginx:%d", i)
		kubectl(t, cloneSet("web", 10, image, "true", inPlace), "apply", "-n", namespace, "-f", "-")
		testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 10, image))
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	p = up(t, stateDir, "--max-log-bytes", "300Ki")
	kubectl(t, cloneSet("web", 10, "nginx:last", "true", inPlace), "apply", "-n", namespace, "-f", "-")
	testbed.Eventually(t, time.Minute, settled(t, namespace, "web", 10, "nginx:last"))
	if first, err := p.Metric("shiplog_log_first_sequence"); err != nil || first <= 1 {
		t.Errorf("nothing was dropped: the log starts at %v, %v", first, err)
	}
}
