package page

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/narrate"
	"shiplog.dev/internal/world"
)

// rollout is the account of a CloneSet of n Pods that are created and then updated in place, a batch of a tenth at a time.
func rollout(t testing.TB, n int) narrate.View {
	t.Helper()
	account := narrate.NewAccount("shop", "web")
	now, sequence, version := time.Date(2026, 1, 15, 14, 0, 0, 0, time.UTC), uint64(0), 0
	show := func(entry *shiplogv1.Entry) uint64 {
		sequence++
		now = now.Add(5 * time.Millisecond)
		if err := account.Show(journal.Record{Sequence: sequence, Time: now, Entry: entry}); err != nil {
			t.Fatal(err)
		}
		return sequence
	}
	fact := func(ref *shiplogv1.ObjectRef, object string) {
		version++
		show(&shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
			Object: ref, ResourceVersion: fmt.Sprint(version), Json: []byte(object),
			LastChange: &shiplogv1.LastChange{Manager: "kubectl-edit", Time: timestamppb.New(now)},
		}}})
	}
	set := &shiplogv1.ObjectRef{Group: world.GroupKruise, Version: "v1alpha1", Resource: world.ResourceCloneSets, Namespace: "shop", Name: "web", Uid: "uid"}
	edit := func(generation int, image string) {
		fact(set, fmt.Sprintf(`{"metadata":{"namespace":"shop","name":"web","uid":"uid","generation":%d},"spec":{"replicas":%d,"updateStrategy":{"maxUnavailable":"10%%"},
			"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"main","image":%q}]}}}}`, generation, n, image))
	}
	pod := func(i int, image string, ready bool) {
		name := fmt.Sprintf("web-%05d", i)
		status := map[bool]string{true: "True", false: "False"}[ready]
		fact(&shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: "shop", Name: name, Uid: "uid-" + name}, fmt.Sprintf(
			`{"metadata":{"namespace":"shop","name":%q,"uid":"uid-%s","labels":{"controller-revision-hash":"web-%s"},"ownerReferences":[{"controller":true,"uid":"uid","kind":"CloneSet","name":"web"}]},
			"spec":{"containers":[{"name":"main","image":%q}]},"status":{"phase":"Running","conditions":[{"type":"Ready","status":%q}],"containerStatuses":[{"name":"main","image":%q,"ready":%t}]}}`,
			name, name, image, image, status, image, ready))
	}
	write := func(i int, code string, command *shiplogv1.Command) {
		command.Object = &shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: "shop", Name: fmt.Sprintf("web-%05d", i)}
		command.Reason = &shiplogv1.Reason{Code: code, Message: fmt.Sprintf("%d of %d may be unavailable, %d are", n/10, n, i%(n/10+1))}
		cause := show(&shiplogv1.Entry{Cause: sequence, Rollout: "uid/1", Writer: "planner/test", Kind: &shiplogv1.Entry_Command{Command: command}})
		show(&shiplogv1.Entry{Cause: cause, Kind: &shiplogv1.Entry_Outcome{Outcome: &shiplogv1.Outcome{Result: shiplogv1.Outcome_RESULT_APPLIED, Object: command.Object}}})
	}
	body := func(i int, image string) []byte {
		var lines []string
		for k := range 30 { // as many as a Pod has
			lines = append(lines, fmt.Sprintf(`"field%d":"some value of the template"`, k))
		}
		return fmt.Appendf(nil, `{"metadata":{"name":"web-%05d","labels":{"id":"%05d"}},"spec":{"image":%q,%s}}`, i, i, image, strings.Join(lines, ","))
	}
	edit(1, "v1")
	for i := range n {
		write(i, "ScaleUp", &shiplogv1.Command{Effect: &shiplogv1.Command_Create{Create: &shiplogv1.CreateObject{Json: body(i, "v1")}}})
		pod(i, "v1", false)
	}
	for i := range n {
		pod(i, "v1", true)
	}
	edit(2, "v2")
	for from := 0; from < n; from += max(n/10, 1) {
		for i := from; i < min(from+max(n/10, 1), n); i++ {
			write(i, "UpdateInPlace", &shiplogv1.Command{Effect: &shiplogv1.Command_Patch{Patch: &shiplogv1.PatchObject{Json: body(i, "v2")}}})
			pod(i, "v2", false)
		}
		for i := from; i < min(from+max(n/10, 1), n); i++ {
			pod(i, "v2", true)
		}
	}
	return account.View(history.Moment{}, 0)
}

func written(t testing.TB, view narrate.View) string {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, view, "test"); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// The page of 1,000 Pods that are created and updated stays small enough to attach to a mail.
func TestSize(t *testing.T) {
	if size := len(written(t, rollout(t, 1000))); size > 2_000_000 {
		t.Errorf("%d bytes", size)
	}
}

// A page in an archive must show the same in ten years: it asks for nothing.
func TestPageStandsAlone(t *testing.T) {
	text := written(t, rollout(t, 4))
	for _, outside := range []string{"http://", "https://", "src=", "@import", "<link", "fetch(", "XMLHttpRequest", "import("} {
		if strings.Contains(text, outside) {
			t.Errorf("the page contains %q", outside)
		}
	}
	if strings.Contains(text, "ZgotmplZ") {
		t.Error("the template refused a value")
	}
}

// What people write into objects must not become part of the page.
func TestPageEscapes(t *testing.T) {
	view := rollout(t, 4)
	const evil = `</script><script>alert(1)</script>`
	view.Steps[0].Edit.Who, view.Steps[0].What, view.Lives[0].Name, view.Lives[0].Spans[0].Note, view.Name = evil, evil, evil, evil, evil
	if text := written(t, view); strings.Contains(text, "<script>alert") {
		t.Error("a name becomes a script")
	}
}

// The picture is well formed and shows a lane for each Pod, with nothing outside of it.
func TestPicture(t *testing.T) {
	text := written(t, rollout(t, 4))
	pictures := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(text, -1)
	if len(pictures) != 2 {
		t.Fatalf("%d pictures", len(pictures))
	}
	for _, picture := range pictures {
		decoder := xml.NewDecoder(strings.NewReader(picture))
		for {
			token, err := decoder.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			element, is := token.(xml.StartElement)
			if !is {
				continue
			}
			for _, attribute := range element.Attr {
				if strings.Contains(attribute.Value, "NaN") || strings.Contains(attribute.Value, "Inf") {
					t.Errorf("%s %s=%q", element.Name.Local, attribute.Name.Local, attribute.Value)
				}
			}
		}
	}
	for i := range 4 {
		if name := fmt.Sprintf("web-%05d", i); !strings.Contains(pictures[1], ">"+name+"<") {
			t.Errorf("no lane of %s", name)
		}
	}
	if got := strings.Count(pictures[0], `class="flag"`); got != 2 {
		t.Errorf("%d edits are flagged", got)
	}
}

func BenchmarkWrite1000(b *testing.B) {
	view := rollout(b, 1000)
	for b.Loop() {
		written(b, view)
	}
}
