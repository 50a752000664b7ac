package executor

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"k8s.io/utils/ptr"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/deploy/crd/apitest"
)

// A walk through all commands on a real API server: what it says decides, not what a test thinks that it says.
func TestRealAPIServer(t *testing.T) {
	config := apitest.Config(t)
	namespace := apitest.Namespace(t, config)
	b := open(t)
	b.start(config, func(e *executor) { e.patience = standard })
	run := func(c *shiplogv1.Command) result { t.Helper(); return b.await(b.command(c)) }
	applied := func(r result, facts int) {
		t.Helper()
		if r.outcome.GetResult() != shiplogv1.Outcome_RESULT_APPLIED || len(r.facts) != facts {
			t.Errorf("got %v and %d facts, want applied and %d", r.outcome, len(r.facts), facts)
		}
	}
	// The current state is always in the log already, so a refusal adds no fact.
	refused := func(r result, code string) {
		t.Helper()
		if r.outcome.GetResult() != shiplogv1.Outcome_RESULT_REFUSED || r.outcome.GetReason().GetCode() != code || len(r.facts) != 0 {
			t.Errorf("got %v and %d facts, want refused, %s and none", r.outcome, len(r.facts), code)
		}
	}

	// A CloneSet, and its status: a subresource of a custom resource.
	clone := &shiplogv1.ObjectRef{Group: "apps.kruise.io", Version: "v1beta1", Resource: "clonesets", Namespace: namespace, Name: "sample"}
	created := run(&shiplogv1.Command{Object: clone, Effect: create(fmt.Sprintf(`{"apiVersion":"apps.kruise.io/v1beta1","kind":"CloneSet",
		"metadata":{"name":"sample","namespace":%q},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},
		"spec":{"containers":[{"name":"main","image":"nginx:1"}]}}}}`, namespace))})
	applied(created, 1)
	clone.Uid = created.outcome.GetObject().GetUid()
	const counts = `"status":{"replicas":1,"readyReplicas":0,"availableReplicas":0,"updatedReplicas":0,"updatedReadyReplicas":0}`
	written := run(&shiplogv1.Command{Object: clone, ResourceVersion: created.outcome.GetResourceVersion(),
		Effect: patch(shiplogv1.PatchObject_TYPE_MERGE, "status", `{`+counts+`}`)})
	applied(written, 1)
	refused(run(&shiplogv1.Command{Object: clone, ResourceVersion: created.outcome.GetResourceVersion(),
		Effect: patch(shiplogv1.PatchObject_TYPE_MERGE, "status", `{"status":{"replicas":2}}`)}), "Conflict")
	same := run(&shiplogv1.Command{Object: clone, Effect: patch(shiplogv1.PatchObject_TYPE_MERGE, "status", `{`+counts+`}`)})
	if same.outcome.GetResult() != shiplogv1.Outcome_RESULT_APPLIED || same.outcome.GetResourceVersion() != written.outcome.GetResourceVersion() {
		t.Errorf("a patch that changes nothing gave %v", same.outcome)
	}
	scaled := run(&shiplogv1.Command{Object: clone, Effect: patch(shiplogv1.PatchObject_TYPE_MERGE, "scale", `{"spec":{"replicas":4}}`)})
	applied(scaled, 1)
	if len(scaled.facts) == 1 && kindOf(t, scaled.facts[0]) != "CloneSet" {
		t.Errorf("the fact of a scale is a %s", kindOf(t, scaled.facts[0]))
	}
	refused(run(&shiplogv1.Command{Object: clone, Effect: patch(shiplogv1.PatchObject_TYPE_MERGE, "", `{"spec":{"replicas":-4}}`)}), "Invalid")

	// A Pod, of a scheduler that does not exist, so that nobody else touches it.
	body := fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"sample-1","namespace":%q,"labels":{"a":"b"},"ownerReferences":[
		{"apiVersion":"apps.kruise.io/v1beta1","kind":"CloneSet","name":"sample","uid":%q,"controller":true}]},
		"spec":{"schedulerName":"absent","containers":[{"name":"main","image":"nginx:1"}]}}`, namespace, clone.Uid)
	pod := &shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: namespace, Name: "sample-1"}
	first := run(&shiplogv1.Command{Object: pod, Effect: create(body)})
	applied(first, 1)
	again := run(&shiplogv1.Command{Object: pod, Effect: create(body)})
	if again.outcome.GetResult() != shiplogv1.Outcome_RESULT_APPLIED || again.outcome.GetObject().GetUid() != first.outcome.GetObject().GetUid() {
		t.Errorf("creating it again gave %v", again.outcome)
	}
	pod = &shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: namespace, Name: "sample-1", Uid: first.outcome.GetObject().GetUid()}
	imaged := run(&shiplogv1.Command{Object: pod, ResourceVersion: first.outcome.GetResourceVersion(),
		Effect: patch(shiplogv1.PatchObject_TYPE_STRATEGIC_MERGE, "", `{"metadata":{"labels":{"c":"d"}},"spec":{"containers":[{"name":"main","image":"nginx:2"}]}}`)})
	applied(imaged, 1)
	refused(run(&shiplogv1.Command{Object: pod, ResourceVersion: first.outcome.GetResourceVersion(),
		Effect: patch(shiplogv1.PatchObject_TYPE_STRATEGIC_MERGE, "", `{"metadata":{"labels":{"c":"e"}}}`)}), "Conflict")
	refused(run(&shiplogv1.Command{Object: pod, ResourceVersion: first.outcome.GetResourceVersion(),
		Effect: patch(shiplogv1.PatchObject_TYPE_JSON, "", `[{"op":"replace","path":"/metadata/labels/c","value":"e"}]`)}), "Conflict")
	other := &shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: namespace, Name: "sample-1", Uid: "00000000-0000-0000-0000-000000000000"}
	for _, kind := range []shiplogv1.PatchObject_Type{shiplogv1.PatchObject_TYPE_MERGE, shiplogv1.PatchObject_TYPE_STRATEGIC_MERGE} {
		refused(run(&shiplogv1.Command{Object: other, Effect: patch(kind, "", `{"metadata":{"labels":{"c":"e"}}}`)}), "Conflict")
	}
	refused(run(&shiplogv1.Command{Object: other, Effect: patch(shiplogv1.PatchObject_TYPE_JSON, "", `[]`)}), "Conflict")
	applied(run(&shiplogv1.Command{Object: pod, Effect: patch(shiplogv1.PatchObject_TYPE_STRATEGIC_MERGE, "status",
		`{"status":{"conditions":[{"type":"KruisePodReady","status":"True"}]}}`)}), 1)

	// Deletion: of another object of that name, then of this one, which is on no node and so gone at once, then again.
	remove := &shiplogv1.Command_Delete{Delete: &shiplogv1.DeleteObject{GracePeriodSeconds: ptr.To[int64](0)}}
	applied(run(&shiplogv1.Command{Object: other, Effect: remove}), 0)
	refused(run(&shiplogv1.Command{Object: pod, ResourceVersion: first.outcome.GetResourceVersion(), Effect: remove}), "Conflict")
	applied(run(&shiplogv1.Command{Object: pod, Effect: remove}), 0)
	applied(run(&shiplogv1.Command{Object: pod, Effect: remove}), 0)
	refused(run(&shiplogv1.Command{Object: pod, Effect: patch(shiplogv1.PatchObject_TYPE_MERGE, "", `{}`)}), "NotFound")
	refused(run(&shiplogv1.Command{Object: &shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: "absent", Name: "a"},
		Effect: create(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"main","image":"nginx:1"}]}}`)}), "NotFound")
}

// An executor that is killed at any moment leaves nothing undone and nothing done twice.
func TestRealAPIServerRestarts(t *testing.T) {
	config := apitest.Config(t)
	namespace := apitest.Namespace(t, config)
	b := open(t)
	const pods = 100
	var last uint64
	for i := range pods {
		name := fmt.Sprintf("sample-%d", i)
		last = b.command(&shiplogv1.Command{
			Object: &shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: namespace, Name: name},
			Effect: create(fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"ownerReferences":[{"apiVersion":"v1","kind":"X","name":"x",
				"uid":"w1","controller":true}]},"spec":{"schedulerName":"absent","containers":[{"name":"main","image":"nginx:1"}]}}`, name)),
		})
	}
	seen := map[uint64]int{}
	for _, until := range []int{5, 40, pods} {
		stop := b.start(config, func(e *executor) { e.patience = standard })
		for len(seen) < until {
			records, err := b.reader.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, record := range records {
				if outcome := record.Entry.GetOutcome(); outcome != nil {
					seen[record.Entry.GetCause()]++
					if outcome.GetResult() != shiplogv1.Outcome_RESULT_APPLIED {
						t.Errorf("command %d: %v", record.Entry.GetCause(), outcome)
					}
				}
			}
		}
		stop()
	}
	if len(seen) != pods {
		t.Errorf("%d of %d commands have an outcome; the last command is %d", len(seen), pods, last)
	}
	for sequence, count := range seen {
		if count != 1 {
			t.Errorf("command %d has %d outcomes", sequence, count)
		}
	}
}

// BenchmarkRealAPIServer creates Pods as fast as the API server takes them.
func BenchmarkRealAPIServer(bench *testing.B) {
	config := apitest.Config(bench)
	namespace := apitest.Namespace(bench, config)
	limiter := newLimiter(func(float64) {})
	client, err := newClient(config, limiter)
	if err != nil {
		bench.Fatal(err)
	}
	body := fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"b-","namespace":%q},"spec":{"containers":[{"name":"main","image":"nginx:1"}]}}`, namespace)
	bench.SetParallelism(128)
	bench.RunParallel(func(p *testing.PB) {
		for p.Next() {
			got := client.do(bench.Context(), 10*time.Second, request{method: "POST", contentType: "application/json", body: []byte(body),
				path: collection(&shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: namespace})})
			if !got.ok() {
				bench.Errorf("%d %v", got.code, got.err)
			}
		}
	})
	bench.ReportMetric(limiter.limit, "limit")
}

func create(body string) *shiplogv1.Command_Create {
	return &shiplogv1.Command_Create{Create: &shiplogv1.CreateObject{Json: []byte(body)}}
}

func patch(kind shiplogv1.PatchObject_Type, subresource, body string) *shiplogv1.Command_Patch {
	return &shiplogv1.Command_Patch{Patch: &shiplogv1.PatchObject{Type: kind, Subresource: subresource, Json: []byte(body)}}
}

func kindOf(t *testing.T, fact *shiplogv1.ObjectObserved) string {
	t.Helper()
	var head struct{ Kind string }
	if err := json.Unmarshal(fact.GetJson(), &head); err != nil {
		t.Fatal(err)
	}
	return head.Kind
}
