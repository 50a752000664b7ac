// Package hooktest gives tests against a real API server what converts and admits there: the CRDs of both versions with
// their webhooks, answered by the test's own process.
package hooktest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/deploy/crd"
	"shiplog.dev/internal/gate"
	"shiplog.dev/services/executor/admit"
	"shiplog.dev/services/executor/webhook"
)

// readyWithin bounds how long the API server may take to take note of webhooks.
const readyWithin = 30 * time.Second

// Start installs the CRDs and answers their webhooks until the test ends, or until stop. It returns when the API server was
// seen to ask. The gates are in the syntax of a command line.
func Start(t testing.TB, config *rest.Config, gates string) (stop func()) {
	t.Helper()
	set, _, err := gate.Parse(gates)
	if err != nil {
		t.Fatal(err)
	}
	logger := zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)
	handler, err := admit.Handler(admit.Options{Config: config, Gates: set, Logger: logger, Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	hook, err := webhook.Open(t.Context(), webhook.Options{
		Config: config, Handler: handler, Logger: logger, Store: &webhook.Memory{}, Ready: func() { close(ready) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := crd.Install(t.Context(), config, hook.Conversion()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := hook.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(func() {
		stop()
		remove(t, config)
	})
	select {
	case <-ready:
	case <-time.After(readyWithin):
		t.Fatalf("the API server does not reach the webhooks within %s", readyWithin)
	}
	return stop
}

// remove takes the webhooks off the API server, so that tests without them can write CloneSets.
func remove(t testing.TB, config *rest.Config) {
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	kinds := schema.GroupVersion{Group: "admissionregistration.k8s.io", Version: "v1"}
	client := dynamic.NewForConfigOrDie(config)
	for _, resource := range []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations"} {
		if err := client.Resource(kinds.WithResource(resource)).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			t.Errorf("remove %s: %v", resource, err)
		}
	}
	// The API server takes a moment to take note.
	probe := &unstructured.Unstructured{Object: map[string]any{"apiVersion": v1beta1.GroupVersion.String(), "kind": "CloneSet",
		"metadata": map[string]any{"generateName": "probe-"}}}
	for ctx.Err() == nil {
		_, err := client.Resource(v1beta1.GroupVersion.WithResource("clonesets")).Namespace(metav1.NamespaceDefault).
			Create(ctx, probe, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("the API server still asks webhooks that were removed")
}
