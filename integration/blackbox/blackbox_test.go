// Package blackbox tests the program as a user sees it: the shiplog binary against a real cluster, with containers that
// really run on one node and only pretend to on others. It knows commands, manifests and the API server, and the log
// through the journal; it knows nothing of how the services work inside.
package blackbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"shiplog.dev/integration/testbed"
)

var cluster *testbed.Cluster

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "shiplog-blackbox-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		if cluster, err = testbed.StartCluster(ctx, filepath.Join(dir, "cluster"), 1, 3, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() {
			if err := cluster.Down(); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}()
		return m.Run()
	}())
}

// up starts shiplog with a state directory and waits until it is ready.
func up(t *testing.T, stateDir string, arguments ...string) *testbed.Process {
	t.Helper()
	p, err := testbed.StartShiplog(append([]string{"up", "--kubeconfig", cluster.Kubeconfig, "--state-dir", stateDir}, arguments...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("shiplog said:\n%s", p.Output())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

// space makes a namespace for one test and removes it, with all that is in it, at the end. Without this removal the
// CloneSets of one test would be found, and rightly acted on, by the Shiplog of the next.
func space(t *testing.T) string {
	t.Helper()
	name := strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	kubectl(t, "", "create", "namespace", name)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := cluster.Kubectl(ctx, "", "delete", "namespace", name, "--wait=true"); err != nil {
			t.Error(err)
		}
	})
	return name
}

func kubectl(t *testing.T, input string, arguments ...string) string {
	t.Helper()
	out, err := cluster.Kubectl(t.Context(), input, arguments...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// cloneSet is a manifest as a user of OpenKruise would write it; more is added to the spec.
func cloneSet(name string, replicas int, image, hollow, more string) string {
	return fmt.Sprintf(`apiVersion: apps.kruise.io/v1alpha1
kind: CloneSet
metadata:
  name: %[1]s
spec:
  replicas: %[2]d
  selector:
    matchLabels:
      app: %[1]s
  template:
    metadata:
      labels:
        app: %[1]s
    spec:
      nodeSelector:
        shiplog.dev/hollow: "%[4]s"
      containers:
      - name: main
        image: %[3]s
%[5]s`, name, replicas, image, hollow, more)
}

const inPlace = "  updateStrategy:\n    type: InPlaceIfPossible\n"

// pods returns the Pods of a workload, by name.
func pods(t *testing.T, namespace, app string) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	if err := json.Unmarshal([]byte(kubectl(t, "", "get", "pods", "-n", namespace, "-l", "app="+app, "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(list.Items, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return list.Items
}

func ready(p corev1.Pod) bool {
	return p.DeletionTimestamp == nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// settled wants n Pods, all ready and running image.
func settled(t *testing.T, namespace, app string, n int, image string) func() error {
	return func() error {
		all := pods(t, namespace, app)
		if len(all) != n {
			return fmt.Errorf("%d Pods, want %d", len(all), n)
		}
		for _, p := range all {
			runs := ""
			if len(p.Status.ContainerStatuses) > 0 {
				runs = p.Status.ContainerStatuses[0].Image
			}
			if !ready(p) || p.Spec.Containers[0].Image != image || !strings.HasSuffix(runs, "/"+image) {
				return fmt.Errorf("Pod %s: image %s, runs %s, phase %s, ready %v", p.Name, p.Spec.Containers[0].Image, runs, p.Status.Phase, ready(p))
			}
		}
		return nil
	}
}

// field returns a field of a CloneSet by JSON path; of several fields that belong together (".status['a','b']") all from one read.
func field(t *testing.T, namespace, name, path string) string {
	t.Helper()
	return kubectl(t, "", "get", "clonesets", name, "-n", namespace, "-o", "jsonpath={"+path+"}")
}

func uids(of []corev1.Pod) []string {
	var out []string
	for _, p := range of {
		out = append(out, p.Name+"="+string(p.UID))
	}
	return out
}

func errNot(what string, got, want any) error {
	if fmt.Sprint(got) == fmt.Sprint(want) {
		return nil
	}
	return errors.New(what + ": got " + fmt.Sprint(got) + ", want " + fmt.Sprint(want))
}
