package main

import (
	"encoding/json"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal"
)

func TestCells(t *testing.T) {
	o := options{sizes: []int{1000, 5000}, shapes: []int{1, 100}, growth: []int{10000}, layouts: layoutNames, changes: 1}
	cells, err := o.cells()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range cells {
		name := c.name()
		if c.idles {
			name += " idle"
		}
		names = append(names, name)
	}
	want := `1000-pods-1-clonesets-services idle
1000-pods-1-clonesets-one idle
1000-pods-100-clonesets-services
5000-pods-1-clonesets-services
5000-pods-100-clonesets-services
10000-pods-1-clonesets-services`
	if got := strings.Join(names, "\n"); got != want {
		t.Errorf("cells:\n%s\nwant:\n%s", got, want)
	}
	for _, wrong := range []options{
		{sizes: []int{10}, shapes: []int{3}, layouts: layoutNames},
		{sizes: []int{10}, shapes: []int{1}, layouts: []string{"two"}},
		{layouts: layoutNames},
	} {
		if _, err := wrong.cells(); err == nil {
			t.Errorf("%+v is taken", wrong)
		}
	}
}

func TestFloorKeepsTheOrderOfWrites(t *testing.T) {
	patch := func(subresource string) *shiplogv1.PatchObject {
		return &shiplogv1.PatchObject{Subresource: subresource}
	}
	chains, gates := chainsOf([]write{
		{pod: true, name: "old-1", patch: patch("")}, {pod: true, name: "old-2", patch: patch("")}, {pod: true, name: "old-2", delete: &shiplogv1.DeleteObject{}},
		{pod: true, name: "new-1", create: []byte("{}")}, {pod: true, name: "old-1", delete: &shiplogv1.DeleteObject{}}, {pod: true, name: "new-1", patch: patch("status")},
		{name: "web-000", patch: patch("status")},
		{pod: true, name: "new-2", create: []byte("{}")}, {pod: true, name: "more", create: []byte("{}")}, {pod: true, name: "new-2", patch: patch("status")},
	})
	var got []string
	for _, chain := range chains {
		var pods []string
		for _, w := range chain {
			what := "patch "
			if w.create != nil {
				what = "create "
			} else if w.delete != nil {
				what = "delete "
			}
			pods = append(pods, what+w.name)
		}
		got = append(got, strings.Join(pods, ", "))
	}
	want := "patch old-1, delete old-1, create new-2\npatch old-2, delete old-2, create new-1\npatch web-000\ncreate more"
	if strings.Join(got, "\n") != want {
		t.Errorf("chains:\n%s\nwant:\n%s", strings.Join(got, "\n"), want)
	}
	if len(gates) != 2 || !gates["new-1"].opens() || !gates["new-2"].opens() {
		t.Errorf("gates: %v", gates)
	}
}

func TestStudyMeasuresStages(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	change, request := testbed.Audit{Verb: "patch", UserAgent: "bench", Received: at(0)}, testbed.Audit{Verb: "patch", UserAgent: "shiplog-executor", AuditID: "shiplog-3-1", Received: at(10)}
	change.ObjectRef.Resource, change.ObjectRef.Name = "clonesets", "web-000"
	request.ObjectRef.Resource, request.ObjectRef.Name = "pods", "web-000-a"
	w := window{job: jobUpdate, round: 1, after: 1, upTo: 9}
	s := newStudy()
	s.expect(w)
	s.hear([]testbed.Audit{change, request})
	set := &shiplogv1.ObjectRef{Resource: "clonesets", Name: "web-000", Uid: "u"}
	pod := &shiplogv1.ObjectRef{Resource: "pods", Name: "web-000-a", Uid: "p"}
	for i, entry := range []*shiplogv1.Entry{
		{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{Object: set, Json: []byte(`{"metadata":{"generation":2}}`)}}},
		{Rollout: "u/2", Kind: &shiplogv1.Entry_Command{Command: &shiplogv1.Command{Object: pod, Effect: &shiplogv1.Command_Patch{Patch: &shiplogv1.PatchObject{}}}}},
		{Cause: 3, Kind: &shiplogv1.Entry_Outcome{Outcome: &shiplogv1.Outcome{Result: shiplogv1.Outcome_RESULT_APPLIED}}},
	} {
		s.note(journal.Record{Sequence: uint64(i + 2), Time: at([]int{3, 7, 15}[i]), Size: 100, Entry: entry})
	}
	for i, want := range []float64{3, 4, 3, 5, 10} {
		data, err := json.Marshal(s.stages[jobUpdate][i])
		if err != nil {
			t.Fatal(err)
		}
		var got stage
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		if got.P50 != want || got.P99 != want || len(got.Counts) != len(bounds)+1 {
			t.Errorf("%s: %s, want %v ms", got.Name, data, want)
		}
	}
	if len(s.recorded[w]) != 1 || s.entries[jobUpdate]["facts"] != 1 || sum(s.bytes[jobUpdate]) != 300 {
		t.Errorf("recorded %v, entries %v, bytes %v", s.recorded, s.entries, s.bytes)
	}
}

func TestFiguresAreJudged(t *testing.T) {
	for _, c := range []struct {
		figure figure
		want   string
	}{
		{figure{Value: 0}.atMost(0), "yes"},
		{figure{Value: 1}.atMost(0), "no"},
		{figure{Value: 60_000}.atLeast(50_000), "yes"},
		{figure{Value: 40_000}.atLeast(50_000), "no"},
		{figure{Value: 2.4, Floor: 2, Ratio: 1.2}.atMost(1.3), "yes"},
		{figure{Value: 2.8, Floor: 2, Ratio: 1.4}.atMost(1.3), "no"},
		{figure{Value: 7}, ""},
	} {
		if got := c.figure.verdict(); got != c.want {
			t.Errorf("%+v with %s: %q, want %q", c.figure, c.figure.budget(), got, c.want)
		}
	}
	for value, want := range map[float64]string{0: "0", 1: "1", 1.3: "1.30", 12.34: "12.3", 0.0051: "0.0051", 456.7: "457", 1234567.8: "1,234,568", 1000: "1,000"} {
		if got := short(value); got != want {
			t.Errorf("short(%v) is %q, want %q", value, got, want)
		}
	}
}

func TestBystandersTellThePace(t *testing.T) {
	j := job{
		Use:      []use{{Process: "planner", Ours: true, CPU: 9}, {Process: "hollow nodes", CPU: 4}, {Process: "kube-scheduler", CPU: 2}},
		FloorUse: []use{{Process: "kube-apiserver", CPU: 9}, {Process: "hollow nodes", CPU: 3}, {Process: "kube-scheduler", CPU: 1}},
	}
	if got := j.pace(); got != 1.5 {
		t.Errorf("6 seconds of CPU beside 4 are a pace of %v", got)
	}
	if got := (job{Use: j.Use}).pace(); got != 0 {
		t.Errorf("without a floor the pace is %v", got)
	}
}

func TestWorkIsNamed(t *testing.T) {
	for _, c := range []struct{ stack, function, pkg string }{
		{"runtime.mallocgc encoding/json.Unmarshal shiplog.dev/internal/world.decodePod.func1 shiplog.dev/internal/world.Decode", "internal/world.decodePod", "internal/world"},
		{"runtime.futex runtime.findRunnable runtime.mcall", "", "Go's scheduler"},
		{"runtime.scanobject runtime.gcBgMarkWorker", "", "garbage collection"},
		{"runtime.memmove github.com/nats-io/nats%2ego.(*Conn).readLoop", "", "github.com/nats-io/nats.go"},
		{"shiplog.dev/internal/a.Map[go.shape.struct { a/b.C }].func2", "internal/a.Map", "internal/a"},
	} {
		stack := strings.Fields(c.stack)
		if strings.Contains(c.stack, "[") {
			stack = []string{c.stack}
		}
		if function, pkg := workOf(stack, "shiplog.dev/"); function != c.function || pkg != c.pkg {
			t.Errorf("%s is %q of %q, want %q of %q", c.stack, function, pkg, c.function, c.pkg)
		}
	}
}

func TestDocument(t *testing.T) {
	directory := t.TempDir()
	path := func(name string) string { return filepath.Join(directory, name) }
	stages := newStages()
	for i := range stages {
		stages[i].add(time.Duration(i+1) * time.Millisecond)
	}
	good := result{Pods: 1000, CloneSets: 1, Layout: "services", Began: time.Now(), Workers: 64, Restarts: []float64{2}, Fold: &folding{Entries: 9, PerSecond: 9e4, Alone: 9e5, BytesPerPod: 2000}}
	good.Idle = &idle{SinceAnswer: []float64{5}, Watched: 60, Stages: stages}
	for _, name := range jobNames {
		good.Jobs = append(good.Jobs, job{
			Name: name, Shiplog: []float64{3, 1.5, 1}, Floor: []float64{1, 1, 1}, Writes: map[string]int{"patch pods": 3000, "patch clonesets/status": 9}, Stages: stages,
			Use:      []use{{Process: "planner", Ours: true, CPU: 3, Peak: 1e8}, {Process: apiServer, CPU: 6}},
			Profiles: []profile{{Process: "planner", Seconds: 2, CPU: 1, Packages: []share{{"internal/world", 0.5}}}},
		})
	}
	bad := result{Pods: 10_000, CloneSets: 1, Layout: "services", Jobs: []job{}, Failed: "the disk is full\nmore"}
	other := measured{Figures: []figure{{What: "pulls", Value: 1, Unit: "s"}}}
	for name, what := range map[string]any{"good.json": good, "bad.json": bad, "images.json": other} {
		if err := save(what, path(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path("doc.md"), []byte(madeBegins+"\n"+testbed.MadeEnds+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	d := document{into: path("doc.md"), plot: path("plot.svg")}
	if err := d.make(&out, []string{path("good.json"), path("bad.json"), path("images.json")}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path("doc.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, want := range []string{
		"| 1.50 | at most 1.30 | no |", "pulls", "the disk is full", "1,000 Pods in 1 CloneSet", "at most 2.50 | yes",
		"until it decides |  | 2 | s |", "<summary>scale down</summary>", idleJob,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the document lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "\nmore") || !strings.Contains(out.String(), "in-place update") {
		t.Errorf("the document:\n%s\nand out:\n%s", text, &out)
	}
	plot, err := os.Open(path("plot.svg"))
	if err != nil {
		t.Fatal(err)
	}
	defer plot.Close()
	bars := 0
	for decoder := xml.NewDecoder(plot); ; {
		token, err := decoder.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if start, is := token.(xml.StartElement); is && start.Name.Local == "rect" {
			bars++
		}
	}
	if bars < 2*len(jobNames)+len(stages) {
		t.Errorf("the plot has %d bars", bars)
	}
}
