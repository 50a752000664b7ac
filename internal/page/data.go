package page

import (
	"encoding/json"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/narrate"
)

// data is what the script knows, made small: texts and lines of commands that occur often are stored once. Times are
// milliseconds since the view began.
type data struct {
	Start   int64    `json:"start"`  // Unix time in milliseconds
	Offset  int      `json:"offset"` // of the zone, in minutes
	Length  float64  `json:"length"`
	Axis    [][5]any `json:"axis"`
	Left    float64  `json:"left"`
	Plot    float64  `json:"plot"`
	Width   float64  `json:"width"`
	LanesY  float64  `json:"lanesY"`
	Row     float64  `json:"row"`
	Texts   []string `json:"texts"`
	Pods    []any    `json:"pods"`
	Steps   []any    `json:"steps"`
	Curve   [][5]any `json:"curve"`
	Lines   []string `json:"lines"`
	Bodies  [][]int  `json:"bodies"`
	texts   map[string]int
	lines   map[string]int
	start   time.Time
	podsNow map[string]int
}

func compact(view narrate.View, d drawing) *data {
	_, offset := view.From.Local().Zone()
	out := &data{
		Start: view.From.UnixMilli(), Offset: offset / 60, start: view.From, Left: d.Left, Plot: d.Plot, Width: d.Width, LanesY: d.LanesY, Row: d.Row,
		texts: map[string]int{}, lines: map[string]int{}, podsNow: map[string]int{},
		Pods: []any{}, Steps: []any{}, Curve: [][5]any{}, Lines: []string{}, Bodies: [][]int{},
	}
	out.text("")
	out.Length = out.ms(view.To)
	for _, piece := range d.axis {
		out.Axis = append(out.Axis, [5]any{out.ms(piece.From), out.ms(piece.To), piece.Start, piece.Width, piece.Broken})
	}
	for i, life := range view.Lives {
		spans := make([]any, len(life.Spans))
		for k, span := range life.Spans {
			spans[k] = []any{out.text(string(span.State)), out.ms(span.From), span.Sequence, out.text(span.Revision), out.text(span.Images), out.text(span.Note)}
		}
		var gone any
		if !life.Gone.IsZero() {
			gone = out.ms(life.Gone)
		}
		out.Pods = append(out.Pods, []any{life.Name, gone, spans})
		out.podsNow[life.Name] = i
	}
	for _, step := range view.Steps {
		out.Steps = append(out.Steps, out.step(step))
	}
	for _, sample := range view.Curve {
		out.Curve = append(out.Curve, [5]any{out.ms(sample.From), sample.Pods, sample.Available, sample.Wanted, sample.Floor})
	}
	return out
}

// step is [sequence, time, kind, pod, what, code, why, outcome, outcome's sequence, cause, body], with -1 for none.
func (d *data) step(step *narrate.Step) []any {
	kind := "pod"
	switch {
	case step.Edit != nil:
		kind = "edit"
	case step.Tick || step.Verb == "wake":
		kind = "tick"
	case step.Refused:
		kind = "refused"
	case step.Verb != "":
		kind = "command"
	}
	pod, is := d.podsNow[step.Pod]
	if !is {
		pod = -1
	}
	return []any{step.Sequence, d.ms(step.Time), kind, pod, d.text(step.What), d.text(step.Code), d.text(step.Why), d.text(step.Outcome),
		step.OutcomeSequence, step.Cause, d.body(step.Command())}
}

func (d *data) ms(at time.Time) float64 { return float64(at.Sub(d.start).Microseconds()) / 1000 }

func (d *data) text(text string) int { return intern(text, &d.Texts, d.texts) }

func intern(text string, list *[]string, index map[string]int) int {
	at, known := index[text]
	if !known {
		at = len(*list)
		index[text] = at
		*list = append(*list, text)
	}
	return at
}

// body is what a command writes, as YAML, line by line.
func (d *data) body(command *shiplogv1.Command) int {
	var written []byte
	switch effect := command.GetEffect().(type) {
	case *shiplogv1.Command_Create:
		written = effect.Create.GetJson()
	case *shiplogv1.Command_Patch:
		written = effect.Patch.GetJson()
	default:
		return -1
	}
	if !json.Valid(written) {
		return -1
	}
	text, err := yaml.JSONToYAML(written)
	if err != nil {
		return -1
	}
	var body []int
	for line := range strings.SplitSeq(strings.TrimSuffix(string(text), "\n"), "\n") {
		body = append(body, intern(line, &d.Lines, d.lines))
	}
	d.Bodies = append(d.Bodies, body)
	return len(d.Bodies) - 1
}
