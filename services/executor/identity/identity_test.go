package identity_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/journal/embedded"
	"shiplog.dev/services/executor/identity"
)

// TestTokens has a real API server make and review tokens.
func TestTokens(t *testing.T) {
	if _, err := testbed.Program("shiplog-cluster"); (err != nil || os.Geteuid() != 0 || testing.Short()) && os.Getenv("CI") != "true" {
		t.Skip("a real node needs root and shiplog-cluster (make build)")
	}
	cluster, err := testbed.StartCluster(t.Context(), filepath.Join(t.TempDir(), "cluster"), 0, 1, os.Stderr)
	check(t, err)
	t.Cleanup(func() {
		if err := cluster.Down(); err != nil {
			t.Error(err)
		}
	})
	config, err := cluster.Config()
	check(t, err)
	client, err := kubernetes.NewForConfig(config)
	check(t, err)
	checker, err := identity.New(identity.Options{Config: config, ServiceAccount: "agents/agent"})
	check(t, err)
	ctx := t.Context()
	for _, namespace := range []string{"agents", "others"} {
		_, err = client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
		check(t, err)
	}
	for _, one := range []string{"agents/agent", "agents/other", "others/agent"} {
		namespace, name, _ := strings.Cut(one, "/")
		_, err = client.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		check(t, err)
	}
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	check(t, err)
	node := nodes.Items[0]
	podOf := func(namespace, account string) *corev1.Pod {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: account, Namespace: namespace},
			Spec:       corev1.PodSpec{ServiceAccountName: account, NodeName: node.Name, Containers: []corev1.Container{{Name: "main", Image: "nginx:1.27"}}},
		}
		made, err := client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
		check(t, err)
		return made
	}
	token := func(namespace, account, audience string, to *authenticationv1.BoundObjectReference) string {
		t.Helper()
		request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}, BoundObjectRef: to}}
		made, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
		check(t, err)
		return made.Status.Token
	}
	bound := func(pod *corev1.Pod) *authenticationv1.BoundObjectReference {
		return &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}
	}
	own, other, elsewhere := podOf("agents", "agent"), podOf("agents", "other"), podOf("others", "agent")

	good := token("agents", "agent", journal.Audience, bound(own))
	found, err := checker.Identify(ctx, journal.Proof{Token: good})
	check(t, err)
	if found.Node != node.Name || found.UID != string(node.UID) || time.Until(found.Until) < time.Minute || time.Until(found.Until) > 2*time.Hour {
		t.Errorf("identified as %+v", found)
	}
	for what, bad := range map[string]string{
		"of another service account": token("agents", "other", journal.Audience, bound(other)),
		"of another namespace":       token("others", "agent", journal.Audience, bound(elsewhere)),
		"for the API server":         token("agents", "agent", "https://kubernetes.default.svc.cluster.local", bound(own)),
		"bound to nothing":           token("agents", "agent", journal.Audience, nil),
		"forged":                     good[:len(good)-8] + "AAAAAAAA",
		"none":                       "x",
		"too long":                   strings.Repeat("x", 1<<20),
	} {
		found, err := checker.Identify(ctx, journal.Proof{Token: bad})
		if !errors.Is(err, journal.ErrRefused) {
			t.Errorf("a token %s: %+v, %v", what, found, err)
		} else if strings.Contains(err.Error(), bad) && len(bad) > 1 {
			t.Errorf("a token %s is quoted: %v", what, err)
		}
	}
	// A token ends with its Pod.
	now := int64(0)
	check(t, client.CoreV1().Pods("agents").Delete(ctx, own.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
	testbed.Eventually(t, time.Minute, func() error {
		if found, err := checker.Identify(ctx, journal.Proof{Token: good}); !errors.Is(err, journal.ErrRefused) {
			return fmt.Errorf("%+v, %v", found, err)
		}
		return nil
	})

	// The whole way: a file, a connection, the node's own subjects.
	log, err := journal.Open(ctx, journal.Options{Server: &embedded.Server{Directory: t.TempDir(), Listen: "127.0.0.1:0"}})
	check(t, err)
	defer log.Close()
	identifying, cancel := context.WithCancel(ctx)
	defer cancel()
	go log.Identify(identifying, checker.Identify)
	go log.Hear(identifying, journal.Intake{
		Heard: func(string) {},
		Alive: func(_ context.Context, name string) (uint64, error) {
			if name != node.Name {
				t.Errorf("node %s lives", name)
			}
			return 7, nil
		},
	})
	state, err := log.State(ctx)
	check(t, err)
	_, address, _ := strings.Cut(state.URL, "@")
	again := podOf("agents", "agent")
	path := filepath.Join(t.TempDir(), "token")
	check(t, os.WriteFile(path, []byte("not yet a token"), 0o600))
	agent, err := journal.OpenNode(ctx, journal.Options{URL: "nats://" + address}, node.Name, journal.Credential{TokenFile: path})
	check(t, err)
	defer agent.Close()
	if _, err := agent.Alive(ctx); err == nil {
		t.Error("let in with no token")
	}
	check(t, os.WriteFile(path, []byte(token("agents", "agent", journal.Audience, bound(again))), 0o600))
	testbed.Eventually(t, time.Minute, func() error {
		if newest, err := agent.Alive(ctx); err != nil || newest != 7 {
			return fmt.Errorf("%d, %v", newest, err)
		}
		return nil
	})
}

func TestReadKeys(t *testing.T) {
	const one, two = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4", "UAB"
	keys, err := identity.ReadKeys(strings.NewReader("# of this cluster\n\nnode-1 " + one + "\n"))
	if err != nil || len(keys) != 1 || keys[one] != "node-1" {
		t.Errorf("%v, %v", keys, err)
	}
	for _, bad := range []string{"node-1", "node-1 " + two, "a " + one + "\nb " + one, one + " node-1"} {
		if keys, err := identity.ReadKeys(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: %v", bad, keys)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
