package page

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"shiplog.dev/internal/narrate"
	"shiplog.dev/internal/world"
)

// Sizes of the picture, in its own units; a browser scales it to the window.
const (
	width   = 1200.0
	left    = 118.0 // room for names
	right   = 16.0
	plot    = width - left - right
	curveY  = 30.0 // room for the flags of edits
	curveH  = 96.0
	axisH   = 22.0
	lanesY  = 6.0
	mostRow = 26.0
	// labelled is how many Pods have their names written.
	labelled = 120
	// marked is how many Pods have their commands drawn.
	marked = 120
)

// drawing is the picture, ready to be put into the page.
type drawing struct {
	Width, CurveHeight, LanesHeight float64
	Left, Plot, LanesY, Row         float64
	CurveY, CurveH                  float64
	// Shapes of one class each.
	Lanes     []shape
	Area      string
	Wanted    string
	Floor     string
	Available string
	Lacking   string
	Grid      []mark
	Levels    []mark
	Flags     []flag
	Breaks    []mark
	Names     []mark
	Writes    string
	Refused   string
	Revisions []revision
	States    []legend

	axis narrate.Axis
}

type shape struct{ Class, Path string }

type mark struct {
	X, Y float64
	Text string
}

type flag struct {
	X      float64
	Number int
}

type revision struct {
	Class, Name, Images string
}

type legend struct{ Class, Text string }

// classes of the states.
var classes = map[narrate.State]string{
	narrate.Starting: "starting", narrate.Ready: "ready", narrate.Settling: "settling", narrate.Updating: "updating", narrate.NotReady: "notready",
	narrate.Failing: "failing", narrate.Held: "held", narrate.Terminating: "terminating", narrate.Finished: "finished",
}

// colours is how many revisions have a colour of their own.
const colours = 6

func draw(view narrate.View) drawing {
	n := len(view.Lives)
	row := min(mostRow, max(1.6, 1600/float64(max(n, 1))))
	if n <= labelled {
		row = max(row, 11)
	}
	d := drawing{
		Width: width, Left: left, Plot: plot, LanesY: lanesY, Row: row, CurveY: curveY, CurveH: curveH,
		CurveHeight: curveY + curveH + axisH, LanesHeight: lanesY + row*float64(n) + 8, axis: view.Axis(),
	}
	d.lanes(view)
	d.curve(view)
	d.grid(view)
	return d
}

func (d *drawing) x(at time.Time) float64 { return left + plot*d.axis.Place(at) }

// classOf returns the class of a revision: they get their colours in the order in which they were seen ready.
func (d *drawing) classOf(span narrate.Span) string {
	at := slices.IndexFunc(d.Revisions, func(r revision) bool { return r.Name == span.Revision })
	if at < 0 {
		at = len(d.Revisions)
		d.Revisions = append(d.Revisions, revision{fmt.Sprintf("r%d", at%colours), span.Revision, span.Images})
	}
	return d.Revisions[at].Class
}

func (d *drawing) lanes(view narrate.View) {
	paths := map[string]*strings.Builder{}
	var order []string
	seen := map[narrate.State]bool{}
	for i, life := range view.Lives {
		y, h := lanesY+d.Row*float64(i), d.Row
		if d.Row > 6 {
			y, h = y+1, h-2
		}
		for k, span := range life.Spans {
			end := view.To
			if k < len(life.Spans)-1 {
				end = life.Spans[k+1].From
			} else if !life.Gone.IsZero() {
				end = life.Gone
			}
			if !end.After(view.From) || !span.From.Before(view.To) {
				continue
			}
			from, to := d.x(latest(span.From, view.From)), d.x(earliest(end, view.To))
			class := classes[span.State]
			if span.State == narrate.Ready || span.State == narrate.Settling {
				class += " " + d.classOf(span)
			}
			seen[span.State] = true
			if paths[class] == nil {
				paths[class] = &strings.Builder{}
				order = append(order, class)
			}
			top, height := y, h
			if span.State == narrate.Terminating || span.State == narrate.Finished {
				top, height = y+h*0.35, h*0.3
			}
			rectangle(paths[class], from, top, max(to-from, 1), height)
		}
		if len(view.Lives) <= labelled {
			d.Names = append(d.Names, mark{left - 8, lanesY + d.Row*float64(i) + d.Row/2, life.Name})
		}
	}
	slices.Sort(order)
	for _, class := range order {
		d.Lanes = append(d.Lanes, shape{class, paths[class].String()})
	}
	for _, state := range narrate.States {
		if seen[state] && state != narrate.Ready {
			d.States = append(d.States, legend{classes[state], string(state)})
		}
	}
	d.writes(view)
}

// writes marks the commands in the lanes.
func (d *drawing) writes(view narrate.View) {
	if len(view.Lives) > marked {
		return
	}
	lane := map[string]int{}
	for i, life := range view.Lives {
		lane[life.Name] = i
	}
	var applied, refused strings.Builder
	for _, step := range view.Steps {
		i, there := lane[step.Pod]
		if !there || step.Verb == "" || step.Verb == world.Wake {
			continue
		}
		x, y := d.x(step.Time), lanesY+d.Row*float64(i)+1
		into := &applied
		if step.Refused {
			into = &refused
		}
		size := min(5, d.Row/3)
		fmt.Fprintf(into, "M%s %sh%sl-%s %sz", number(x-size), number(y), number(2*size), number(size), number(1.4*size))
	}
	d.Writes, d.Refused = applied.String(), refused.String()
}

func (d *drawing) curve(view narrate.View) {
	most := 1
	for _, sample := range view.Curve {
		most = max(most, sample.Pods, sample.Wanted)
	}
	y := func(n int) float64 { return curveY + curveH*(1-float64(n)/float64(most)) }
	var available, floor, wanted, lacking strings.Builder
	levels := map[int]bool{0: true}
	for i, sample := range view.Curve {
		from, to := d.x(sample.From), d.x(view.To)
		if i < len(view.Curve)-1 {
			to = d.x(view.Curve[i+1].From)
		}
		command := "L"
		if i == 0 {
			command = "M"
		}
		for _, line := range []struct {
			into *strings.Builder
			n    int
		}{{&available, sample.Available}, {&floor, sample.Floor}, {&wanted, sample.Wanted}} {
			fmt.Fprintf(line.into, "%s%s %sH%s", command, number(from), number(y(line.n)), number(to))
		}
		if sample.Available < sample.Floor {
			rectangle(&lacking, from, y(sample.Floor), max(to-from, 1), y(sample.Available)-y(sample.Floor))
		}
	}
	d.Available, d.Floor, d.Wanted, d.Area, d.Lacking = available.String(), floor.String(), wanted.String(), available.String()+fmt.Sprintf("V%sH%sz", number(curveY+curveH), number(left)), lacking.String()
	for _, limit := range view.Limits {
		levels[limit.Replicas], levels[max(limit.Replicas-limit.MaxUnavailable, 0)] = true, true
	}
	var written []float64
	for n := most; n >= 0; n-- {
		if levels[n] && !slices.ContainsFunc(written, func(other float64) bool { return math.Abs(other-y(n)) < 11 }) {
			written = append(written, y(n))
			d.Levels = append(d.Levels, mark{left - 8, y(n), fmt.Sprint(n)})
		}
	}
}

func (d *drawing) grid(view narrate.View) {
	free := left - 1
	layout := time.TimeOnly
	marks := d.axis.Marks(12)
	if len(marks) > 1 && marks[1].Sub(marks[0]) < time.Second {
		layout = "15:04:05.0"
	}
	for _, at := range marks {
		if x := d.x(at); x >= free && x < width-56 {
			d.Grid = append(d.Grid, mark{x, curveY + curveH + 15, at.Local().Format(layout)})
			free = x + 64
		}
	}
	for _, piece := range d.axis {
		if piece.Broken {
			x := left + plot*(piece.Start+piece.Width/2)
			d.Breaks = append(d.Breaks, mark{x, curveY + curveH/2, narrate.Duration(piece.To.Sub(piece.From))})
		}
	}
	for i, edit := range edits(view) {
		step := slices.IndexFunc(view.Steps, func(s *narrate.Step) bool { return s.Sequence == edit.Sequence })
		d.Flags = append(d.Flags, flag{d.x(view.Steps[step].Time), i + 1})
	}
}

func rectangle(out *strings.Builder, x, y, w, h float64) {
	fmt.Fprintf(out, "M%s %sh%sv%sh-%sz", number(x), number(y), number(w), number(h), number(w))
}

// number writes a coordinate with one decimal, and none where it is zero.
func number(v float64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
