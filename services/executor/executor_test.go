package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"k8s.io/client-go/rest"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/journal/embedded"
)

// step is one request that the API server shall get, and its answer.
type step struct {
	method string
	// want is a part of the request's URI or body.
	want   string
	code   int
	body   string
	header http.Header
	// hang gives no answer before the caller gives up.
	hang bool
}

// server answers with the steps, in order, and complains about every other request.
func server(t *testing.T, steps ...step) *rest.Config {
	t.Helper()
	var mu sync.Mutex
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		if len(steps) == 0 {
			mu.Unlock()
			t.Errorf("unexpected %s %s %s", r.Method, r.RequestURI, body)
			w.WriteHeader(http.StatusTeapot)
			return
		}
		next := steps[0]
		steps = steps[1:]
		mu.Unlock()
		if r.Method != next.method || !strings.Contains(r.RequestURI+" "+string(body), next.want) {
			t.Errorf("got %s %s %s, want %s with %q", r.Method, r.RequestURI, body, next.method, next.want)
		}
		if !strings.HasPrefix(r.Header.Get("Audit-ID"), "shiplog-") {
			t.Errorf("%s %s does not name its command to the audit log", r.Method, r.RequestURI)
		}
		if next.hang {
			<-r.Context().Done()
			return
		}
		for name, values := range next.header {
			w.Header()[name] = values
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(next.code)
		_, _ = io.WriteString(w, next.body)
	}))
	t.Cleanup(api.Close)
	t.Cleanup(func() {
		if len(steps) > 0 {
			t.Errorf("%d requests never came, first %s %q", len(steps), steps[0].method, steps[0].want)
		}
	})
	return &rest.Config{Host: api.URL}
}

// bench is an executor at work on a log of its own.
type bench struct {
	*testing.T
	log    journal.Journal
	fence  uint64
	reader journal.Reader
}

func open(t *testing.T) *bench {
	t.Helper()
	log, err := journal.Open(t.Context(), journal.Options{Server: &embedded.Server{Directory: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	fence, err := log.RaiseFence(t.Context(), "planner/test", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := log.Read(t.Context(), journal.From{Sequence: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reader.Close)
	return &bench{T: t, log: log, fence: fence, reader: reader}
}

// start runs an executor with little patience against the API server until the test or the returned function ends it.
func (b *bench) start(config *rest.Config, options ...func(*executor)) (stop func()) {
	b.Helper()
	taking := make(chan struct{})
	e, err := newExecutor(Options{
		Config: config, Journal: announcing{b.log, taking}, Logger: zerolog.New(zerolog.NewTestWriter(b.T)), Writer: "executor/test", Version: "v0",
	})
	if err != nil {
		b.Fatal(err)
	}
	e.patience = patience{request: 200 * time.Millisecond, command: 2 * time.Second, first: time.Millisecond, longest: 10 * time.Millisecond}
	for _, option := range options {
		option(e)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := e.run(ctx); err != nil {
			b.Errorf("the executor ended: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-ended })
	b.Cleanup(stop)
	<-taking // commands older than that may have been handed out to somebody before
	return stop
}

// command appends a command and returns its sequence.
func (b *bench) command(c *shiplogv1.Command) uint64 {
	b.Helper()
	sequence, err := b.log.AppendCommands(b.Context(), b.fence, &shiplogv1.Entry{
		Writer: "planner/test", Cause: 1, Rollout: "workload/1", Kind: &shiplogv1.Entry_Command{Command: c},
	})
	if err != nil {
		b.Fatal(err)
	}
	return sequence
}

// result is what the log says of a command: the facts that it caused, and its outcome.
type result struct {
	facts   []*shiplogv1.ObjectObserved
	outcome *shiplogv1.Outcome
}

// await reads the log up to the outcome of the command.
func (b *bench) await(sequence uint64) result {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 20*time.Second)
	defer cancel()
	var r result
	for {
		records, err := b.reader.Next(ctx)
		if err != nil {
			b.Fatalf("wait for the outcome of %d: %v", sequence, err)
		}
		for _, record := range records {
			if record.Entry.GetCause() != sequence {
				continue
			}
			if record.Entry.GetRollout() != "workload/1" || record.Entry.GetWriter() != "executor/test" || record.Entry.GetWriterVersion() != "v0" {
				b.Errorf("entry %d names rollout %q and writer %q", record.Sequence, record.Entry.GetRollout(), record.Entry.GetWriter())
			}
			if fact := record.Entry.GetObjectObserved(); fact != nil {
				r.facts = append(r.facts, fact)
			}
			if outcome := record.Entry.GetOutcome(); outcome != nil {
				r.outcome = outcome
				return r
			}
		}
	}
}

// want compares in short: result, code of the reason, requests sent, the resource versions of the facts, and whether it is unsure.
func (r result) want(t *testing.T, want string) {
	t.Helper()
	var versions []string
	for _, fact := range r.facts {
		versions = append(versions, fact.GetResourceVersion())
	}
	got := fmt.Sprintf("%s %s requests=%d facts=%v", strings.TrimPrefix(r.outcome.GetResult().String(), "RESULT_"),
		r.outcome.GetReason().GetCode(), r.outcome.GetRequests(), versions)
	if r.outcome.GetUnsure() {
		got += " unsure"
	}
	if got != want {
		t.Errorf("got  %s (%s)\nwant %s", got, r.outcome.GetReason().GetMessage(), want)
	}
}

var podRef = &shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: "ns", Name: "a", Uid: "u1"}

func pod(uid, version, more string) string {
	return fmt.Sprintf(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","namespace":"ns","uid":%q,"resourceVersion":%q%s}}`, uid, version, more)
}

func status(code int, reason string) string {
	raw, _ := json.Marshal(map[string]any{"kind": "Status", "code": code, "reason": reason, "message": "because"})
	return string(raw)
}

const owned = `,"ownerReferences":[{"controller":true,"uid":"w1"}]`

func createPod() *shiplogv1.Command {
	return &shiplogv1.Command{
		Object: &shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: "ns", Name: "a"},
		Effect: &shiplogv1.Command_Create{Create: &shiplogv1.CreateObject{Json: []byte(pod("", "", owned))}},
	}
}

func createNodeImage() *shiplogv1.Command {
	return &shiplogv1.Command{
		Object: &shiplogv1.ObjectRef{Group: "apps.kruise.io", Version: "v1beta1", Resource: "nodeimages", Name: "n"},
		Effect: &shiplogv1.Command_Create{Create: &shiplogv1.CreateObject{Json: []byte(`{"metadata":{"name":"n"}}`)}},
	}
}

// nodeImage was written last by a manager.
func nodeImage(version, manager string) string {
	return fmt.Sprintf(`{"kind":"NodeImage","apiVersion":"apps.kruise.io/v1beta1","metadata":{"name":"n","uid":"u1","resourceVersion":%q,
		"managedFields":[{"manager":%q,"operation":"Update","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{}}}]}}`, version, manager)
}

func patchPod(version string) *shiplogv1.Command {
	return &shiplogv1.Command{Object: podRef, ResourceVersion: version, Effect: &shiplogv1.Command_Patch{Patch: &shiplogv1.PatchObject{
		Type: shiplogv1.PatchObject_TYPE_STRATEGIC_MERGE, Json: []byte(`{"metadata":{"labels":{"a":"b"}}}`),
	}}}
}

func deletePod() *shiplogv1.Command {
	return &shiplogv1.Command{Object: podRef, Effect: &shiplogv1.Command_Delete{Delete: &shiplogv1.DeleteObject{}}}
}

const (
	collectionPath = "/api/v1/namespaces/ns/pods"
	podPath        = collectionPath + "/a"
)

func TestOutcomes(t *testing.T) {
	for _, c := range []struct {
		name    string
		command *shiplogv1.Command
		steps   []step
		want    string
	}{
		{"create", createPod(), []step{{method: "POST", want: collectionPath, code: 201, body: pod("u1", "5", owned)}},
			"APPLIED  requests=1 facts=[5]"},
		{"create throttled", createPod(), []step{
			{method: "POST", code: 429, header: http.Header{"Retry-After": {"1"}}, body: "slow down"},
			{method: "POST", code: 201, body: pod("u1", "5", owned)}},
			"APPLIED  requests=2 facts=[5]"},
		{"create by an earlier try of which nothing was heard", createPod(), []step{
			{method: "POST", hang: true},
			{method: "POST", code: 409, body: status(409, "AlreadyExists")},
			{method: "GET", want: podPath, code: 200, body: pod("u1", "6", owned)}},
			"APPLIED  requests=3 facts=[6]"},
		{"create what somebody else has", createPod(), []step{
			{method: "POST", code: 409, body: status(409, "AlreadyExists")},
			{method: "GET", code: 200, body: pod("u1", "6", `,"ownerReferences":[{"controller":true,"uid":"other"}]`)}},
			"REFUSED AlreadyExists requests=2 facts=[6]"},
		{"create of what nobody controls by an earlier try of which nothing was heard", createNodeImage(), []step{
			{method: "POST", hang: true},
			{method: "POST", code: 409, body: status(409, "AlreadyExists")},
			{method: "GET", code: 200, body: nodeImage("6", "shiplog-executor")}},
			"APPLIED  requests=3 facts=[6]"},
		{"create of what nobody controls, and somebody was faster", createNodeImage(), []step{
			{method: "POST", hang: true},
			{method: "POST", code: 409, body: status(409, "AlreadyExists")},
			{method: "GET", code: 200, body: nodeImage("6", "kubectl")}},
			"REFUSED AlreadyExists requests=3 facts=[6] unsure"},
		{"create of what nobody controls, and a command wrote before", createNodeImage(), []step{
			{method: "POST", code: 409, body: status(409, "AlreadyExists")},
			{method: "GET", code: 200, body: nodeImage("6", "shiplog-executor")}},
			"REFUSED AlreadyExists requests=2 facts=[6]"},
		{"create what was gone when looked at", createPod(), []step{
			{method: "POST", code: 409, body: status(409, "AlreadyExists")},
			{method: "GET", code: 404, body: status(404, "NotFound")},
			{method: "POST", code: 201, body: pod("u1", "7", owned)}},
			"APPLIED  requests=3 facts=[7]"},
		{"create against a changing quota", createPod(), []step{
			{method: "POST", code: 409, body: status(409, "Conflict")},
			{method: "POST", code: 201, body: pod("u1", "7", owned)}},
			"APPLIED  requests=2 facts=[7]"},
		{"create forbidden", createPod(), []step{{method: "POST", code: 403, body: status(403, "Forbidden")}},
			"REFUSED Forbidden requests=1 facts=[]"},
		{"create refused by a webhook without a reason", createPod(), []step{{method: "POST", code: 422, body: status(422, "")}},
			"REFUSED Invalid requests=1 facts=[]"},

		{"patch", patchPod("4"), []step{{method: "PATCH", want: `"resourceVersion":"4","uid":"u1"`, code: 200, body: pod("u1", "5", "")}},
			"APPLIED  requests=1 facts=[5]"},
		{"patch after a failure of the server", patchPod(""), []step{
			{method: "PATCH", code: 500, body: "etcd"},
			{method: "PATCH", want: `"uid":"u1"`, code: 200, body: pod("u1", "5", "")}},
			"APPLIED  requests=2 facts=[5]"},
		{"patch gone", patchPod(""), []step{{method: "PATCH", code: 404, body: status(404, "NotFound")}},
			"REFUSED NotFound requests=1 facts=[]"},
		{"patch of another object", patchPod(""), []step{
			{method: "PATCH", code: 422, body: status(422, "Invalid")},
			{method: "GET", code: 200, body: pod("u2", "9", "")}},
			"REFUSED Conflict requests=2 facts=[9]"},
		{"patch invalid", patchPod(""), []step{
			{method: "PATCH", code: 422, body: status(422, "Invalid")},
			{method: "GET", code: 200, body: pod("u1", "9", "")}},
			"REFUSED Invalid requests=2 facts=[9]"},
		{"patch conflict", patchPod("4"), []step{
			{method: "PATCH", code: 409, body: status(409, "Conflict")},
			{method: "GET", code: 200, body: pod("u1", "9", "")}},
			"REFUSED Conflict requests=2 facts=[9]"},
		{"patch had its effect though nothing was heard", patchPod("4"), []step{
			{method: "PATCH", hang: true},
			{method: "PATCH", code: 409, body: status(409, "Conflict")},
			{method: "GET", code: 200, body: pod("u1", "5", "")},
			{method: "PATCH", want: "?dryRun=All", code: 200, body: pod("u1", "5", "")}},
			"APPLIED  requests=4 facts=[5]"},
		{"patch had its effect, and the question whether it had is not answered at once", patchPod("4"), []step{
			{method: "PATCH", hang: true},
			{method: "PATCH", code: 409, body: status(409, "Conflict")},
			{method: "GET", code: 200, body: pod("u1", "5", "")},
			{method: "PATCH", want: "?dryRun=All", code: 500, body: "lost"},
			{method: "PATCH", code: 409, body: status(409, "Conflict")},
			{method: "GET", code: 200, body: pod("u1", "5", "")},
			{method: "PATCH", want: "?dryRun=All", code: 200, body: pod("u1", "5", "")}},
			"APPLIED  requests=7 facts=[5]"},
		{"patch had its effect, and the object changes while the question is asked whether it had", patchPod("4"), []step{
			{method: "PATCH", hang: true},
			{method: "PATCH", code: 409, body: status(409, "Conflict")},
			{method: "GET", code: 200, body: pod("u1", "5", "")},
			{method: "PATCH", want: "?dryRun=All", code: 409, body: status(409, "Conflict")},
			{method: "PATCH", code: 409, body: status(409, "Conflict")},
			{method: "GET", code: 200, body: pod("u1", "6", "")},
			{method: "PATCH", want: "?dryRun=All", code: 200, body: pod("u1", "6", "")}},
			"APPLIED  requests=7 facts=[6]"},
		{"patch had no effect and somebody else was there", patchPod("4"), []step{
			{method: "PATCH", hang: true},
			{method: "PATCH", code: 409, body: status(409, "Conflict")},
			{method: "GET", code: 200, body: pod("u1", "5", "")},
			{method: "PATCH", want: "?dryRun=All", code: 200, body: pod("u1", "5", `,"labels":{"a":"b"}`)}},
			"REFUSED Conflict requests=4 facts=[5] unsure"},
		{"patch of which nothing was heard, and the object is gone since", patchPod("4"), []step{
			{method: "PATCH", hang: true},
			{method: "PATCH", code: 404, body: status(404, "NotFound")}},
			"REFUSED NotFound requests=2 facts=[] unsure"},
		{"patch that was throttled, and the object is gone since", patchPod("4"), []step{
			{method: "PATCH", code: 429, body: "slow down"},
			{method: "PATCH", code: 404, body: status(404, "NotFound")}},
			"REFUSED NotFound requests=2 facts=[]"},
		{"patch conflict, and a look of which nothing was heard", patchPod("4"), []step{
			{method: "PATCH", code: 409, body: status(409, "Conflict")},
			{method: "GET", hang: true},
			{method: "PATCH", code: 409, body: status(409, "Conflict")},
			{method: "GET", code: 200, body: pod("u1", "9", "")}},
			"REFUSED Conflict requests=4 facts=[9]"},
		{"patch had no effect", patchPod("4"), []step{
			{method: "PATCH", hang: true},
			{method: "PATCH", want: `"resourceVersion":"4"`, code: 200, body: pod("u1", "5", "")}},
			"APPLIED  requests=2 facts=[5]"},
		{"patch by tests in a JSON patch", &shiplogv1.Command{Object: podRef, ResourceVersion: "4", Effect: &shiplogv1.Command_Patch{Patch: &shiplogv1.PatchObject{
			Type: shiplogv1.PatchObject_TYPE_JSON, Subresource: "status", Json: []byte(`[{"op":"remove","path":"/x"}]`)}}},
			[]step{{method: "PATCH", want: podPath + `/status [{"op":"test","path":"/metadata/uid","value":"u1"},{"op":"test","path":"/metadata/resourceVersion","value":"4"},{"op":"remove"`,
				code: 200, body: pod("u1", "5", "")}},
			"APPLIED  requests=1 facts=[5]"},
		{"patch that is no patch", &shiplogv1.Command{Object: podRef, Effect: &shiplogv1.Command_Patch{Patch: &shiplogv1.PatchObject{
			Type: shiplogv1.PatchObject_TYPE_MERGE, Json: []byte(`[`)}}}, nil,
			"REFUSED BadRequest requests=0 facts=[]"},

		{"delete with grace", deletePod(), []step{{method: "DELETE", want: `"preconditions":{"uid":"u1"}`, code: 200,
			body: pod("u1", "8", `,"deletionTimestamp":"2026-01-01T00:00:00Z","deletionGracePeriodSeconds":30`)}},
			"APPLIED  requests=1 facts=[8]"},
		{"delete at once", deletePod(), []step{{method: "DELETE", code: 200,
			body: pod("u1", "8", `,"deletionTimestamp":"2026-01-01T00:00:00Z","deletionGracePeriodSeconds":0`)}},
			"APPLIED  requests=1 facts=[]"},
		{"delete answered by a Status", deletePod(), []step{{method: "DELETE", code: 200, body: `{"kind":"Status","status":"Success"}`}},
			"APPLIED  requests=1 facts=[]"},
		{"delete what is gone", deletePod(), []step{{method: "DELETE", code: 404, body: status(404, "NotFound")}},
			"APPLIED  requests=1 facts=[]"},
		{"delete what was replaced", deletePod(), []step{
			{method: "DELETE", code: 409, body: status(409, "Conflict")},
			{method: "GET", code: 200, body: pod("u2", "9", "")}},
			"APPLIED  requests=2 facts=[]"},
		{"delete had its effect though nothing was heard", deletePod(), []step{
			{method: "DELETE", hang: true},
			{method: "GET", code: 200, body: pod("u1", "8", `,"deletionTimestamp":"2026-01-01T00:00:00Z","deletionGracePeriodSeconds":30`)}},
			"APPLIED  requests=2 facts=[8]"},
		{"delete had no effect", deletePod(), []step{
			{method: "DELETE", hang: true},
			{method: "GET", code: 200, body: pod("u1", "8", "")},
			{method: "DELETE", code: 404, body: status(404, "NotFound")}},
			"APPLIED  requests=3 facts=[]"},
		{"delete forbidden", deletePod(), []step{{method: "DELETE", code: 403, body: status(403, "Forbidden")}},
			"REFUSED Forbidden requests=1 facts=[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := open(t)
			b.start(server(t, c.steps...))
			b.await(b.command(c.command)).want(t, c.want)
		})
	}
}

func TestGivesUp(t *testing.T) {
	b := open(t)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, strings.Repeat("down ", 1000), http.StatusServiceUnavailable)
	}))
	defer api.Close()
	b.start(&rest.Config{Host: api.URL}, func(e *executor) { e.command = 50 * time.Millisecond })
	outcome := b.await(b.command(createPod())).outcome
	if outcome.GetReason().GetCode() != unavailable || !outcome.GetUnsure() || outcome.GetRequests() < 2 || len(outcome.GetReason().GetMessage()) > maxMessage {
		t.Errorf("got %v", outcome)
	}
}

// A server that cannot be reached has done nothing.
func TestGivesUpUnreached(t *testing.T) {
	b := open(t)
	api := httptest.NewServer(nil)
	api.Close()
	b.start(&rest.Config{Host: api.URL}, func(e *executor) { e.command = 50 * time.Millisecond })
	if outcome := b.await(b.command(createPod())).outcome; outcome.GetReason().GetCode() != unavailable || outcome.GetUnsure() {
		t.Errorf("got %v", outcome)
	}
}

func TestRetryAfterBeyondPatience(t *testing.T) {
	b := open(t)
	b.start(server(t, step{method: "POST", code: 429, header: http.Header{"Retry-After": {"60"}}}))
	b.await(b.command(createPod())).want(t, "REFUSED Unavailable requests=1 facts=[]")
}

// An outcome in the log ends a command that is handed out again, without a request.
func TestAgainWithOutcome(t *testing.T) {
	b := open(t)
	sequence := b.command(deletePod())
	_, err := b.log.Append(t.Context(), &shiplogv1.Entry{Cause: sequence, Kind: &shiplogv1.Entry_Outcome{Outcome: &shiplogv1.Outcome{
		Result: shiplogv1.Outcome_RESULT_APPLIED, Object: podRef,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	work := &oneTask{journal.Task{Record: journal.Record{Sequence: sequence, Entry: commandEntry(deletePod())}, Again: true,
		Done: func(context.Context) error { close(done); return nil }}, make(chan struct{}, 1)}
	b.log = handing{b.log, work}
	b.start(server(t))
	<-done
}

// A create is handed out again. Meanwhile its Pod was there, and somebody deleted it: it is not made a second time.
func TestAgainAfterTheEnd(t *testing.T) {
	b := open(t)
	sequence := b.command(createPod())
	gone := &shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: "ns", Name: "a", Uid: "u1"}
	if _, err := b.log.Append(t.Context(), &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectDeleted{
		ObjectDeleted: &shiplogv1.ObjectDeleted{Object: gone, ResourceVersion: "9"}}}); err != nil {
		t.Fatal(err)
	}
	work := &oneTask{journal.Task{Record: journal.Record{Sequence: sequence, Entry: &shiplogv1.Entry{Rollout: "workload/1", Kind: commandEntry(createPod()).Kind}}, Again: true,
		Done: func(context.Context) error { return nil }}, make(chan struct{}, 1)}
	b.log = handing{b.log, work}
	b.start(server(t))
	b.await(sequence).want(t, "APPLIED  requests=0 facts=[]")
}

// An outcome that the log does not take at first is offered again, once the effect is there.
func TestLogFailsOnce(t *testing.T) {
	b := open(t)
	b.log = &failing{Journal: b.log, left: 2}
	b.start(server(t, step{method: "DELETE", code: 404, body: status(404, "NotFound")}))
	b.await(b.command(deletePod())).want(t, "APPLIED  requests=1 facts=[]")
}

// A second command for an object waits for the first; one for another object does not.
func TestOrderPerObject(t *testing.T) {
	b := open(t)
	var mu sync.Mutex
	var order []string
	first, other := make(chan struct{}), make(chan struct{})
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.RequestURI[strings.LastIndex(r.RequestURI, "/")+1:]
		mu.Lock()
		order = append(order, name)
		count := len(order)
		mu.Unlock()
		if name == "a" && count == 1 {
			close(first)
			<-other
		}
		if name == "b" {
			<-first
			close(other)
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	defer api.Close()
	b.start(&rest.Config{Host: api.URL}, func(e *executor) { e.request = 10 * time.Second })
	b.command(deletePod())
	<-first
	last := b.command(deletePod())
	elsewhere := deletePod()
	elsewhere.Object = &shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: "ns", Name: "b", Uid: "u9"}
	b.command(elsewhere)
	b.await(last)
	mu.Lock()
	defer mu.Unlock()
	if strings.Join(order, "") != "aba" {
		t.Errorf("requests came for %v", order)
	}
}

func commandEntry(c *shiplogv1.Command) *shiplogv1.Entry {
	return &shiplogv1.Entry{Kind: &shiplogv1.Entry_Command{Command: c}}
}

// announcing says when commands are being taken.
type announcing struct {
	journal.Journal
	taking chan struct{}
}

func (a announcing) Commands(ctx context.Context, name string) (journal.Work, error) {
	defer close(a.taking)
	return a.Journal.Commands(ctx, name)
}

// handing hands out the given work instead of the log's own.
type handing struct {
	journal.Journal
	work journal.Work
}

func (h handing) Commands(context.Context, string) (journal.Work, error) { return h.work, nil }

type oneTask struct {
	task  journal.Task
	given chan struct{}
}

func (o *oneTask) Next(ctx context.Context) (*journal.Task, error) {
	select {
	case o.given <- struct{}{}:
		return &o.task, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (o *oneTask) Close() {}

type failing struct {
	journal.Journal
	mu   sync.Mutex
	left int
}

func (f *failing) Append(ctx context.Context, entries ...*shiplogv1.Entry) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left > 0 {
		f.left--
		return 0, journal.ErrUnavailable
	}
	return f.Journal.Append(ctx, entries...)
}
