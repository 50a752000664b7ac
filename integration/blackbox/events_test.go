package blackbox

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	corev1 "k8s.io/api/core/v1"

	"shiplog.dev/api/rolloutevent/schematest"
	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal"
)

// cloudEvent is what a subscriber reads of a rollout event.
type cloudEvent struct {
	ID, Type, Subject, Cause, Rollout string
	Data                              struct{ Message, Pod, Revision, How string }
}

func (e cloudEvent) kind() string { return strings.TrimPrefix(e.Type, "dev.shiplog.rollout.") }

// TestRolloutEvents: whoever subscribes to shiplog.*.event.> with a plain NATS client sees a rollout as it happens, each event
// as its schema says, in order, with a cause in the log.
func TestRolloutEvents(t *testing.T) {
	namespace, stateDir := space(t), t.TempDir()
	up(t, stateDir)
	connection, err := nats.Connect(logURL(t, stateDir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(connection.Close)
	subscription, err := connection.SubscribeSync("shiplog.*.event.>")
	if err != nil {
		t.Fatal(err)
	}
	var seen []cloudEvent
	// until reads on until an event of a kind about the CloneSet web of this namespace has come.
	until := func(kind string) {
		t.Helper()
		for {
			message, err := subscription.NextMsg(time.Minute)
			if err != nil {
				t.Fatalf("no %s came: %v, but %+v", kind, err, seen)
			}
			var event cloudEvent
			if err := json.Unmarshal(message.Data, &event); err != nil {
				t.Fatalf("%s: %v", message.Data, err)
			}
			schematest.Event(t, message.Data)
			if event.Subject != "/apis/apps.kruise.io/v1beta1/namespaces/"+namespace+"/clonesets/web" {
				continue
			}
			if want := "shiplog.local.event.CloneSet." + namespace + ".web." + event.kind(); message.Subject != want {
				t.Errorf("event %s comes on %s, want %s", event.ID, message.Subject, want)
			}
			t.Logf("%s %s  %s", event.ID, event.kind(), event.Data.Message)
			if seen = append(seen, event); event.kind() == kind {
				return
			}
		}
	}
	kubectl(t, cloneSet("web", 2, "nginx:1.20", "false", inPlace+"    maxUnavailable: 1\n"), "apply", "-n", namespace, "-f", "-")
	until("completed")
	kubectl(t, cloneSet("web", 2, "nginx:latest", "false", inPlace+"    maxUnavailable: 1\n"), "apply", "-n", namespace, "-f", "-")
	until("completed")
	kubectl(t, cloneSet("web", 2, "nginx:1.20", "false", inPlace+"    maxUnavailable: 1\n"), "apply", "-n", namespace, "-f", "-")
	until("completed")

	var kinds []string
	for i, event := range seen {
		kinds = append(kinds, event.kind())
		cause, err := strconv.ParseUint(event.Cause, 10, 64)
		if err != nil || i > 0 && cause < causeOf(t, seen[i-1]) {
			t.Errorf("event %s was caused before the one in front of it, %s", event.ID, seen[i-1].ID)
		}
	}
	created := []string{"started", "pod-created", "pod-created", "pod-updated", "pod-updated", "completed"}
	if got := kinds[:min(len(created), len(kinds))]; !slices.Equal(got, created) {
		t.Errorf("creation is told as %v", got)
	}
	changed := []string{"batch", "pod-updating", "pod-updated", "batch", "pod-updating", "pod-updated", "completed"}
	if got := kinds[min(len(created), len(kinds)):]; !slices.Equal(got, slices.Concat([]string{"started"}, changed, []string{"rolled-back"}, changed)) {
		t.Errorf("the rollouts are told as %v", got)
	}
	reader, err := openLog(t, stateDir).Read(t.Context(), journal.From{Sequence: causeOf(t, seen[len(created)])})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	records, err := reader.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if fact := records[0].Entry.GetObjectObserved(); fact.GetObject().GetName() != "web" || !strings.Contains(string(fact.GetJson()), "nginx:latest") {
		t.Errorf("the cause of %q is %v", seen[len(created)].Data.Message, records[0].Entry)
	}
	followExample(t, logURL(t, stateDir), seen)
	kubernetesEvents(t, namespace, seen)
}

func causeOf(t *testing.T, event cloudEvent) uint64 {
	t.Helper()
	cause, err := strconv.ParseUint(event.Cause, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return cause
}

// followExample: the example of docs/events.md reads the same afterwards, and goes on where it ended.
func followExample(t *testing.T, url string, want []cloudEvent) {
	t.Helper()
	binary := t.TempDir() + "/rollout-events"
	if out, err := exec.Command("go", "build", "-o", binary, "shiplog.dev/examples/rollout-events").CombinedOutput(); err != nil {
		t.Fatalf("build the example: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var got []string
	for _, until := range []int{3, len(want)} {
		follow := exec.CommandContext(ctx, binary, url, "blackbox")
		out, err := follow.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := follow.Start(); err != nil {
			t.Fatal(err)
		}
		// What it printed between the last line wanted and its end is read as well: it has acknowledged that.
		for lines := bufio.NewScanner(out); lines.Scan(); {
			id, rest, _ := strings.Cut(lines.Text(), "\t")
			if strings.Contains(rest, want[0].Subject+"\t") && !slices.Contains(got, id) { // the last one may come again
				got = append(got, id)
			}
			if len(got) >= until {
				_ = follow.Process.Kill()
			}
		}
		_ = follow.Wait()
	}
	for i, event := range want {
		if i >= len(got) || got[i] != event.ID {
			t.Fatalf("the example reads %v, event %d is %s", got, i, event.ID)
		}
	}
}

// kubernetesEvents: kubectl shows what cloneset section 4 lists, and the end of updates in place (inplace-update D24).
func kubernetesEvents(t *testing.T, namespace string, seen []cloudEvent) {
	t.Helper()
	var want []string
	for _, event := range seen {
		switch pod := event.Data.Pod; {
		case event.kind() == "pod-created":
			want = append(want, "Normal SuccessfulCreate succeed to create pod "+pod)
		case event.kind() == "pod-updating":
			want = append(want, fmt.Sprintf("Normal SuccessfulUpdatePodInPlace successfully update pod %s in-place(revision %s)", pod, event.Data.Revision))
		case event.kind() == "pod-updated" && event.Data.How == "in-place":
			want = append(want, fmt.Sprintf("Normal CompletedUpdatePodInPlace completed update of pod %s in-place(revision %s)", pod, event.Data.Revision))
		}
	}
	slices.Sort(want)
	testbed.Eventually(t, 20*time.Second, func() error {
		var list corev1.EventList
		out := kubectl(t, "", "get", "events", "-n", namespace, "-o", "json", "--field-selector", "involvedObject.kind=CloneSet,involvedObject.name=web")
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return err
		}
		var got []string
		for _, event := range list.Items {
			message, _, _ := strings.Cut(event.Message, " after ")
			got = append(got, fmt.Sprintf("%s %s %s", event.Type, event.Reason, message))
			if event.Source.Component != "cloneset-controller" {
				t.Errorf("an Event comes from %q", event.Source.Component)
			}
		}
		slices.Sort(got)
		return errNot("Events", strings.Join(got, "\n"), strings.Join(want, "\n"))
	})
	described := kubectl(t, "", "describe", "cloneset", "web", "-n", namespace)
	_, events, _ := strings.Cut(described, "\nEvents:")
	for _, line := range want {
		if message := strings.SplitN(line, " ", 3)[2]; !strings.Contains(events, message) {
			t.Errorf("kubectl describe does not say %q but\n%s", message, events)
		}
	}
	t.Logf("kubectl describe cloneset web:\nEvents:%s", events)
}
