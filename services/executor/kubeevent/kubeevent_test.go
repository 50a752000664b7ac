package kubeevent

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/protobuf/types/known/timestamppb"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/api/rolloutevent"
	"shiplog.dev/deploy/crd/apitest"
	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/journal/embedded"
)

// told is a rollout event about the CloneSet web, as the log holds it.
func told(namespace string, cause uint64, eventType string, data any) *shiplogv1.Entry {
	encoded, err := json.Marshal(data)
	if err != nil {
		panic(err)
	}
	return &shiplogv1.Entry{
		Cause: cause, Rollout: "uid-web/2", Skippable: true,
		Kind: &shiplogv1.Entry_RolloutEvent{RolloutEvent: &shiplogv1.RolloutEvent{
			Type: eventType, Kind: "CloneSet", Time: timestamppb.Now(), Data: encoded, Workload: &shiplogv1.ObjectRef{
				Group: "apps.kruise.io", Version: "v1alpha1", Resource: "clonesets", Namespace: namespace, Name: "web", Uid: "uid-web",
			},
		}},
	}
}

// TestTable: reasons, types and messages of cloneset section 4, with the Pod's name only where OpenKruise tells all of it
// (cloneset D20), and one at the end of an update in place (inplace-update section 4, inplace-update D24).
func TestTable(t *testing.T) {
	refusedTo := func(verb, resource, code string) rolloutevent.WriteRefused {
		return rolloutevent.WriteRefused{
			Verb: verb, Resource: resource, Name: "web-a", Revision: "web-2", Reason: code, Error: rolloutevent.Reason{Code: "Forbidden", Message: "exceeded quota"},
		}
	}
	for _, row := range []struct {
		eventType string
		data      any
		want      string
	}{
		{rolloutevent.TypePodCreated, rolloutevent.Pod{Pod: "web-a"}, "Normal SuccessfulCreate succeed to create pod web-a"},
		{rolloutevent.TypeWriteRefused, refusedTo("create", "pods", "ScaleUp"), "Warning FailedCreate failed to create pod: exceeded quota, pod: web-a"},
		{rolloutevent.TypeWriteRefused, refusedTo("create", "persistentvolumeclaims", "ScaleUp"), "Warning FailedCreate failed to create pvc: exceeded quota, pvc: web-a"},
		{rolloutevent.TypePodDeleted, rolloutevent.PodDeleted{Pod: rolloutevent.Pod{Pod: "web-a"}}, "Normal SuccessfulDelete succeed to delete pod web-a"},
		{rolloutevent.TypeClaimDeleted, rolloutevent.ClaimDeleted{Claim: "data-web-a"}, "Normal SuccessfulDelete succeed to delete pvc data-web-a"},
		{rolloutevent.TypeWriteRefused, refusedTo("delete", "pods", "ScaleDown"), "Warning FailedDelete failed to delete pod web-a: exceeded quota"},
		{rolloutevent.TypeWriteRefused, refusedTo("delete", "persistentvolumeclaims", "CleanClaim"), "Warning FailedDelete failed to clean up PVC web-a: exceeded quota"},
		{rolloutevent.TypeWriteRefused, refusedTo("patch", "persistentvolumeclaims", "CleanClaim"), "Warning FailedUpdate failed to update pvc web-a: exceeded quota"},
		{rolloutevent.TypeScaleLimited, rolloutevent.ScaleLimited{Missing: 3, Limit: 1}, "Warning ScaleUpLimited scaleUp is limited because of scaleStrategy.maxUnavailable, limit: 1"},
		{rolloutevent.TypePodUpdating, rolloutevent.PodUpdating{Pod: "web-a", Revision: "web-2"}, "Normal SuccessfulUpdatePodInPlace successfully update pod web-a in-place(revision web-2)"},
		{rolloutevent.TypePodUpdated, rolloutevent.PodUpdated{Pod: "web-a", Revision: "web-2", How: "in-place", Seconds: 1.5},
			"Normal CompletedUpdatePodInPlace completed update of pod web-a in-place(revision web-2) after 1.5 s"},
		{rolloutevent.TypePodUpdated, rolloutevent.PodUpdated{Pod: "web-a", Revision: "web-2", How: "created"}, ""},
		{rolloutevent.TypeWriteRefused, refusedTo("patch", "pods", "UpdateInPlace"), "Warning FailedUpdatePodInPlace failed to update pod web-a in-place(revision web-2): exceeded quota"},
		{rolloutevent.TypeWriteRefused, refusedTo("patch", "pods", "DrainPod"), "Warning FailedUpdatePodInPlace failed to update pod web-a in-place(revision web-2): exceeded quota"},
		{rolloutevent.TypePodReplacing, rolloutevent.PodUpdating{Pod: "web-a", Revision: "web-2"},
			"Normal SuccessfulUpdatePodReCreate successfully patch pod web-a specified-delete for update(revision web-2)"},
		{rolloutevent.TypeWriteRefused, refusedTo("patch", "pods", "UpdateReCreate"),
			"Warning FailedUpdatePodReCreate failed to patch pod specified-delete web-a for update(revision web-2): exceeded quota"},
		{rolloutevent.TypeWriteRefused, refusedTo("patch", "pods", "RefreshPod"), ""},
		{rolloutevent.TypeStalled, rolloutevent.Stalled{Condition: "Stalled", Reason: "InvalidSpec", Detail: "spec.selector: is empty"}, "Warning InvalidSpec spec.selector: is empty"},
		{rolloutevent.TypeStalled, rolloutevent.Stalled{Condition: "Progressing", Reason: "ProgressDeadlineExceeded"}, ""},
		{rolloutevent.TypeStarted, rolloutevent.Started{}, ""},
	} {
		n, got := noticeOf(&journal.Task{Record: journal.Record{Entry: told("default", 1, row.eventType, row.data)}}), ""
		if n != nil {
			got = fmt.Sprintf("%s %s %s", n.eventType(), n.reason, n.message)
		}
		if got != row.want {
			t.Errorf("%s gives %q, want %q", row.eventType, got, row.want)
		}
	}
}

// start runs a writer until the returned function or the test ends it.
func start(t *testing.T, log journal.Journal, config *rest.Config, pace pace) (stop func()) {
	t.Helper()
	return startBeside(t, log, config, pace, nil)
}

// startBeside does so beside other writes.
func startBeside(t *testing.T, log journal.Journal, config *rest.Config, pace pace, pressed func() bool) (stop func()) {
	t.Helper()
	w, err := newWriter(Options{
		Config: config, Journal: log, Logger: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.InfoLevel), Writer: "executor/test", Pressed: pressed,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.pace = pace
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := w.run(ctx); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

// quick is the standard pace for those who wait.
var quick = pace{singles: 10, window: time.Minute, combineFor: 200 * time.Millisecond, yieldFor: time.Minute, combineMax: 400}

func appendTo(t *testing.T, log journal.Journal, entries ...*shiplogv1.Entry) {
	t.Helper()
	for len(entries) > 0 {
		n := min(len(entries), journal.MaxCommands)
		if err := log.AppendEvents(t.Context(), 0, entries[:n]...); err != nil {
			t.Fatal(err)
		}
		entries = entries[n:]
	}
}

func openLog(t *testing.T) journal.Journal {
	t.Helper()
	log, err := journal.Open(t.Context(), journal.Options{Server: &embedded.Server{Directory: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log
}

// await returns the Events of a namespace once they stand for as many entries as wanted, and checks that none is told twice.
func await(t *testing.T, config *rest.Config, namespace string, want int) []corev1.Event {
	t.Helper()
	client, err := corev1client.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	var list *corev1.EventList
	testbed.Eventually(t, 30*time.Second, func() error {
		if list, err = client.Events(namespace).List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		entries, counts := map[string]int{}, 0
		for _, event := range list.Items {
			counts += int(event.Count)
			for position := range strings.SplitSeq(event.Annotations[entriesAnnotation], ",") {
				entries[position]++
			}
		}
		for position, times := range entries {
			if times > 1 {
				t.Fatalf("entry %s is told %d times", position, times)
			}
		}
		if counts != len(entries) || counts > want {
			t.Fatalf("%d Events count %d, they stand for %d entries", len(list.Items), counts, len(entries))
		}
		if counts < want {
			return fmt.Errorf("%d Events count %d, want %d", len(list.Items), counts, want)
		}
		return nil
	})
	return list.Items
}

// TestThousand: of a thousand outcomes none is lost, and few are written one by one.
func TestThousand(t *testing.T) {
	config, log := apitest.Config(t), openLog(t)
	namespace := apitest.Namespace(t, config)
	start(t, log, config, quick)
	var entries []*shiplogv1.Entry
	for i := range 1000 {
		entries = append(entries, told(namespace, uint64(i+1), rolloutevent.TypePodUpdating, rolloutevent.PodUpdating{Pod: fmt.Sprintf("web-%d", i), Revision: "web-2"}))
	}
	appendTo(t, log, entries...)
	appendTo(t, log, told(namespace, 2000, rolloutevent.TypeScaleLimited, rolloutevent.ScaleLimited{Missing: 2, Limit: 1}))
	events := await(t, config, namespace, 1001)
	if len(events) > 30 {
		t.Errorf("%d Events are written for 1,001 notices", len(events))
	}
	singles := 0
	for _, event := range events {
		if event.Count == 1 {
			singles++
		} else if want := fmt.Sprintf("and %d more; see all: shiplog timeline cloneset/web -n %s", event.Count-1, namespace); !strings.HasSuffix(event.Message, want) {
			t.Errorf("a combined Event says %q, want %q at its end", event.Message, want)
		}
		object := event.InvolvedObject
		if object.Kind != "CloneSet" || object.APIVersion != "apps.kruise.io/v1alpha1" || object.Name != "web" || object.UID != "uid-web" || object.Namespace != namespace {
			t.Errorf("an Event is about %+v", object)
		}
		if event.Source.Component != "cloneset-controller" || event.ReportingController != "cloneset-controller" {
			t.Errorf("an Event comes from %q, reported by %q", event.Source.Component, event.ReportingController)
		}
	}
	if singles < 11 {
		t.Errorf("%d Events stand alone, want 10 of the many and 1 of the other reason", singles)
	}
}

// TestManyWorkloads: what many workloads have to tell at once is combined too, or the last of it would come minutes late.
func TestManyWorkloads(t *testing.T) {
	config, log := apitest.Config(t), openLog(t)
	namespace := apitest.Namespace(t, config)
	start(t, log, config, quick)
	const workloads, pods = 60, 8 // fewer of one workload than are written one by one
	var entries []*shiplogv1.Entry
	for pod := range pods {
		for i := range workloads {
			entry := told(namespace, uint64(len(entries)+1), rolloutevent.TypePodCreated, rolloutevent.Pod{Pod: fmt.Sprintf("web-%d-%d", i, pod)})
			entry.Rollout = fmt.Sprintf("uid-%d/2", i)
			entry.GetRolloutEvent().GetWorkload().Name = fmt.Sprintf("web-%d", i)
			entries = append(entries, entry)
		}
	}
	appendTo(t, log, entries...)
	if events := await(t, config, namespace, workloads*pods); len(events) > 2*workloads+writesAtOnce {
		t.Errorf("%d Events are written for %d notices about %d workloads", len(events), workloads*pods, workloads)
	}
}

// TestYields: while other writes wait for the API server no Event is written, and rollout events are left in the log.
func TestYields(t *testing.T) {
	config, log := apitest.Config(t), openLog(t)
	namespace := apitest.Namespace(t, config)
	var others atomic.Bool
	var asked atomic.Int32
	others.Store(true)
	startBeside(t, log, config, quick, func() bool { asked.Add(1); return others.Load() })
	const notices = 5
	var entries []*shiplogv1.Entry
	for i := range notices {
		entries = append(entries, told(namespace, uint64(i+1), rolloutevent.TypePodCreated, rolloutevent.Pod{Pod: fmt.Sprintf("web-%d", i)}))
	}
	appendTo(t, log, entries...)
	testbed.Eventually(t, 30*time.Second, func() error { // it asks again when they have waited for long enough
		if n := asked.Load(); n < 2*notices {
			return fmt.Errorf("asked %d times whether others write", n)
		}
		return nil
	})
	if events := await(t, config, namespace, 0); len(events) > 0 {
		t.Errorf("%d Events are written while others wait", len(events))
	}
	if left, err := log.Backlog(t.Context()); err != nil || left[workName] != notices {
		t.Errorf("%d rollout events are left in the log, want %d: %v", left[workName], notices, err)
	}
	others.Store(false)
	if events := await(t, config, namespace, notices); len(events) != notices {
		t.Errorf("%d Events tell of %d Pods that nothing else was told of", len(events), notices)
	}
}

// TestYieldsForAWhile: Events come although other writes wait and wait.
func TestYieldsForAWhile(t *testing.T) {
	config, log := apitest.Config(t), openLog(t)
	namespace := apitest.Namespace(t, config)
	pace := quick
	pace.yieldFor = 300 * time.Millisecond
	startBeside(t, log, config, pace, func() bool { return true })
	appendTo(t, log, told(namespace, 1, rolloutevent.TypePodCreated, rolloutevent.Pod{Pod: "web-a"}), told(namespace, 2, rolloutevent.TypePodCreated, rolloutevent.Pod{Pod: "web-b"}))
	if events := await(t, config, namespace, 2); len(events) != 1 {
		t.Errorf("%d Events are written", len(events))
	}
}

// TestRestarts: a writer that is ended at any moment leaves nothing out and tells nothing twice.
func TestRestarts(t *testing.T) {
	config, log := apitest.Config(t), openLog(t)
	namespace := apitest.Namespace(t, config)
	var entries []*shiplogv1.Entry
	for i := range 300 {
		entries = append(entries, told(namespace, uint64(i+1), rolloutevent.TypePodCreated, rolloutevent.Pod{Pod: fmt.Sprintf("web-%d", i)}))
	}
	pace := quick
	pace.combineMax = 20
	for i := range 6 {
		stop := start(t, log, config, pace)
		appendTo(t, log, entries[50*i:50*(i+1)]...)
		// Each time a little later into the work: the end is to come at any moment of it, so there is none to wait for.
		time.Sleep(time.Duration(i*7) * time.Millisecond)
		stop()
	}
	start(t, log, config, pace)
	await(t, config, namespace, 300)
}

// TestNowhere: what is about a namespace that is not there is dropped, and holds up nothing.
func TestNowhere(t *testing.T) {
	config, log := apitest.Config(t), openLog(t)
	namespace := apitest.Namespace(t, config)
	start(t, log, config, quick)
	appendTo(t, log,
		told("gone", 1, rolloutevent.TypePodCreated, rolloutevent.Pod{Pod: "web-a"}),
		told(namespace, 2, rolloutevent.TypePodCreated, rolloutevent.Pod{Pod: strings.Repeat("x", 2000)}),
		told(namespace, 3, rolloutevent.TypePodCreated, rolloutevent.Pod{Pod: "web-b"}))
	events := await(t, config, namespace, 2)
	if events[0].Message == events[1].Message {
		t.Errorf("two Events say %q", events[0].Message)
	}
}
