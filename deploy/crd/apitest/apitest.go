// Package apitest connects tests to a real API server: the one that the environment names, or one that it starts for the
// tests of a package when shiplog-cluster can be found.
package apitest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"shiplog.dev/deploy/crd"
)

// Variable names the kubeconfig of the API server to test against. Tests create namespaces there and remove them.
const Variable = "SHIPLOG_TEST_KUBECONFIG"

// program starts clusters; it is looked up in PATH.
const program = "shiplog-cluster"

// Main runs the tests of a package, with a cluster of their own if the environment names none. Call it from TestMain.
func Main(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	path, err := exec.LookPath(program)
	if os.Getenv(Variable) != "" || err != nil {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "shiplog-api-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	defer func() { _ = exec.Command(path, "down", "--dir", dir).Run() }()
	if out, err := exec.Command(path, "up", "--dir", dir, "--nodes", "0", "--hollow", "0", "--detach").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "start a cluster: %v\n%s", err, out)
		return 1
	}
	if err := os.Setenv(Variable, filepath.Join(dir, "kubeconfig")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// Config returns how to reach the API server, with our CRDs installed. Nobody converts there, so only the stored version of
// a resource works: hooktest has more. Without an API server the test is skipped, or fails where
// CI=true, so that a pipeline cannot pass by testing nothing.
func Config(t testing.TB) *rest.Config {
	t.Helper()
	path := os.Getenv(Variable)
	if path == "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not set, and CI=true allows no skipping", Variable)
		}
		t.Skipf("%s is not set", Variable)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatalf("read %s: %v", path, err)
	}
	config.QPS = -1
	config.WarningHandler = rest.NoWarnings{}
	if err := crd.Install(t.Context(), config, nil); err != nil {
		t.Fatal(err)
	}
	return config
}

// Namespace creates a namespace that lives as long as the test and returns its name.
func Namespace(t testing.TB, config *rest.Config) string {
	t.Helper()
	client := kubernetes.NewForConfigOrDie(config).CoreV1().Namespaces()
	namespace, err := client.Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "shiplog-test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("create a namespace: %v", err)
	}
	t.Cleanup(func() {
		// The test's own context has ended by now. Without a namespace controller it stays in Terminating; harmless.
		_ = client.Delete(context.Background(), namespace.Name, metav1.DeleteOptions{})
	})
	return namespace.Name
}
