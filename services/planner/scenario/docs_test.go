package scenario

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"shiplog.dev/api/rolloutevent"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/rollout"
)

// TestDocs: docs/events.md shows an event of each type as scenarios give it, and the code of the example. With -rewrite it is
// written anew.
func TestDocs(t *testing.T) {
	const path = "../../../docs/events.md"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("../../../examples/rollout-events/main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, snippet, _ := strings.Cut(string(code), "\t// The position of a durable")
	snippet = "\t// The position of a durable" + snippet[:strings.LastIndex(snippet, "}\n")]
	want := between(t, string(page), "snippet", "```go\n"+strings.ReplaceAll("\n"+snippet, "\n\t", "\n")[1:]+"```\n")
	want = between(t, want, "examples", examples(t))
	if want == string(page) {
		return
	}
	if !flag.Lookup("rewrite").Value.(flag.Getter).Get().(bool) {
		t.Fatalf("%s does not show what scenarios and the example say: go test ./services/planner/scenario -rewrite", path)
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// between puts text between the marks of a name.
func between(t *testing.T, page, name, text string) string {
	t.Helper()
	begin := "<!-- " + name + " -->\n"
	before, rest, found := strings.Cut(page, begin)
	_, after, ended := strings.Cut(rest, "<!-- end -->")
	if !found || !ended {
		t.Fatalf("the page has no marks of %s", name)
	}
	return before + begin + text + "<!-- end -->" + after
}

// examples is an event of each type, the first that the scenarios about events give.
func examples(t *testing.T) string {
	t.Helper()
	shown := map[string]string{}
	paths, err := filepath.Glob("testdata/events/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		w, tracker := world.New(), rollout.New()
		for _, r := range recording(t, path) {
			for _, event := range tracker.Fold(w, decode(t, r)) {
				if shown[event.Type] != "" {
					continue
				}
				entry := event.Entry()
				entry.Writer, entry.WriterVersion = "planner/host-1", "v1.0.0"
				encoded, err := journal.CloudEvent("local", entry)
				if err != nil {
					t.Fatal(err)
				}
				subject, err := journal.SubjectOf("local", 1, entry)
				if err != nil {
					t.Fatal(err)
				}
				var pretty bytes.Buffer
				if err := json.Indent(&pretty, encoded, "", "  "); err != nil {
					t.Fatal(err)
				}
				shown[event.Type] = fmt.Sprintf("### %s\n\n`%s`\n\n```json\n%s\n```\n\n", event.Type, subject, pretty.String())
			}
		}
	}
	var out strings.Builder
	for _, eventType := range slices.Sorted(maps.Keys(rolloutevent.Data)) {
		if shown[eventType] == "" {
			t.Errorf("no scenario of testdata/events gives an event of type %s", eventType)
		}
		out.WriteString(shown[eventType])
	}
	return out.String()
}

// TestWeight: what rollout events add to the log for each Pod that is updated in place.
func TestWeight(t *testing.T) {
	const pods = 200
	c := newCluster(t)
	step := func(command, arguments string) {
		d := &datadriven.TestData{Cmd: command, Pos: t.Name()}
		for word := range strings.FieldsSeq(arguments) {
			key, value, has := strings.Cut(word, "=")
			argument := datadriven.CmdArg{Key: key}
			if has {
				argument.Vals = []string{value}
			}
			d.CmdArgs = append(d.CmdArgs, argument)
		}
		c.step(d)
	}
	step("cloneset", fmt.Sprintf("web replicas=%d type=InPlaceIfPossible maxUnavailable=100%%", pods))
	step("run", "")
	c.events = nil
	before := len(c.entries)
	step("cloneset", "web image=v2")
	step("run", "")
	size, others := 0, 0
	for _, event := range c.events {
		entry := event.Entry()
		entry.Writer, entry.WriterVersion = "planner/host-1", "v1.0.0"
		encoded, err := journal.CloudEvent("local", entry)
		if err != nil {
			t.Fatal(err)
		}
		size += len(encoded)
		if event.Type != rolloutevent.TypePodUpdating && event.Type != rolloutevent.TypePodUpdated {
			others++
		}
	}
	t.Logf("%d Pods: %d events of %d bytes beside %d other entries: %.2f events and %.0f bytes for each Pod",
		pods, len(c.events), size, len(c.entries)-before, float64(len(c.events))/pods, float64(size)/pods)
	if len(c.events) != 2*pods+others || others > 3 || size > 1600*pods {
		t.Errorf("%d events, %d of them not about one Pod, %d bytes: want 2 and at most 1,600 bytes for each of %d Pods", len(c.events), others, size, pods)
	}
}
