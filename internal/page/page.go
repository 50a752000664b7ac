// Package page draws a rollout as one HTML page that needs nothing else: no network, no other file. What it shows comes from
// a narrate.View; it reads no log and decides nothing. The picture is SVG that stands in the page; the script only adds what
// a hand that points at it asks for, and fills the table.
package page

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"time"

	"shiplog.dev/internal/narrate"
	"shiplog.dev/internal/world"
)

//go:embed page.html
var layout string

//go:embed page.css
var style string

//go:embed page.js
var script string

var parsed = template.Must(template.New("page").Parse(layout))

// Write writes the page of a view. version names the program, for the foot of the page. The view must have a step.
func Write(out io.Writer, view narrate.View, version string) error {
	if len(view.Lives) > labelled {
		view.Lives = byFirstChange(view)
	}
	drawing := draw(view)
	data, err := json.Marshal(compact(view, drawing))
	if err != nil {
		return fmt.Errorf("write the page of cloneset %s/%s: %w", view.Namespace, view.Name, err)
	}
	return parsed.Execute(out, map[string]any{
		"View": view, "Drawing": drawing, "Version": version,
		"Style": template.CSS(style), "Script": template.JS(script), "Data": template.JS(data),
		"Day": view.From.Local().Format("Monday, 2 January 2006"), "From": clock(view.From), "To": clock(view.To),
		"Zone": view.From.Local().Format("MST"), "Took": narrate.Duration(view.To.Sub(view.From)),
		"Edits": edits(view), "Figures": figures(view), "Many": len(view.Lives) > labelled,
		"First": view.Steps[0].Sequence, "Last": view.Steps[len(view.Steps)-1].Sequence,
	})
}

// byFirstChange orders Pods by when something first happened to them in the view, so that many lanes make one shape: the front of
// the rollout.
func byFirstChange(view narrate.View) []*narrate.Life {
	first := func(life *narrate.Life) time.Time {
		for _, span := range life.Spans {
			if span.From.After(view.From) {
				return span.From
			}
		}
		if !life.Gone.IsZero() {
			return life.Gone
		}
		return view.To
	}
	return slices.SortedStableFunc(slices.Values(view.Lives), func(a, b *narrate.Life) int { return first(a).Compare(first(b)) })
}

func clock(at time.Time) string { return at.Local().Format("15:04:05") }

// editLine is an edit with its number in the picture.
type editLine struct {
	Number   int
	Time     string
	Sequence uint64
	*narrate.Edit
	Summary string
}

func edits(view narrate.View) []editLine {
	var out []editLine
	for _, step := range view.Steps {
		if step.Edit != nil && !step.Ours {
			out = append(out, editLine{len(out) + 1, clock(step.Time), step.Sequence, step.Edit, step.Edit.Summary()})
		}
	}
	return out
}

// figure is one number of the head.
type figure struct {
	Value, Label string
	Bad          bool
}

func figures(view narrate.View) []figure {
	commands, refused, open := 0, 0, 0
	codes := map[string]int{}
	for _, step := range view.Steps {
		if step.Verb == "" || step.Verb == world.Wake {
			continue
		}
		commands++
		codes[step.Code]++
		if step.Refused {
			refused++
		}
		if step.Outcome == "" {
			open++
		}
	}
	var out []figure
	if lowest, any := view.Lowest(); any {
		out = append(out, figure{fmt.Sprintf("%d of %d", lowest.Available, lowest.Wanted),
			fmt.Sprintf("Pods available at the lowest, at %s; %d were to stay", clock(lowest.From), lowest.Floor), lowest.Available < lowest.Floor})
	}
	out = append(out, figure{fmt.Sprint(commands), "writes commanded" + also(refused, "refused") + also(open, "without outcome"), refused > 0})
	for _, code := range slices.SortedFunc(maps.Keys(codes), func(a, b string) int { return cmp.Or(codes[b]-codes[a], cmp.Compare(a, b)) }) {
		if len(out) < 6 {
			out = append(out, figure{fmt.Sprint(codes[code]), code, false})
		}
	}
	return out
}

func also(n int, what string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %d %s", n, what)
}
