package main

import (
	"cmp"
	"fmt"
	"html"
	"slices"
	"strings"
)

// The plot is as wide as a README's column shows it; everything in it is in its own units of a pixel.
const (
	plotWidth = 920
	margin    = 24
	labels    = 168 // what a row is about, left of its panels
	gap       = 22  // between panels
	rowHeight = 22
	barHeight = 13
	titleRoom = 54 // of a part: its title, a line below, and the heads of its columns
	axisRoom  = 40 // below a part

	histogramHeight = 54 // of a row of histograms
)

// style serves readers in light and in dark. The sheet has a colour of its own, for a page may follow another wish than the browser's.
const style = `<style>
text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: var(--ink) }
svg { --sheet: #ffffff; --ink: #24292f; --soft: #57606a; --line: #d0d7de; --bar: #3b7dd8; --over: #cf4a3f;
  --nats: #8a6fd1; --watcher: #2b9c90; --planner: #d9822b; --executor: #3b7dd8; --up: #b85c8e; --server: #b3bac2 }
@media (prefers-color-scheme: dark) { svg { --sheet: #0d1117; --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --bar: #5a9bf0; --over: #f0766b;
  --nats: #a78bef; --watcher: #4fc3b5; --planner: #f0a04b; --executor: #5a9bf0; --up: #dd86b2; --server: #5c646d } }
.title { font-size: 15px; font-weight: 600 } .soft { fill: var(--soft) } .small { font-size: 11px }
.head { font-weight: 600 } .end { text-anchor: end } .middle { text-anchor: middle }
.sheet { fill: var(--sheet) } .axis { stroke: var(--line); stroke-width: 1 } .floor { stroke: var(--ink); stroke-width: 1 }
.budget { stroke: var(--over); stroke-width: 1.5; stroke-dasharray: 4 3 }
.bar { fill: var(--bar) } .over { fill: var(--over) } .nats { fill: var(--nats) } .watcher { fill: var(--watcher) }
.planner { fill: var(--planner) } .executor { fill: var(--executor) } .up { fill: var(--up) } .server { fill: var(--server) }
</style>
`

// drawing is an SVG that grows downwards.
type drawing struct {
	strings.Builder
	y float64 // where the next part begins
}

func (d *drawing) text(x, y float64, class, format string, arguments ...any) {
	fmt.Fprintf(d, "<text x=\"%.1f\" y=\"%.1f\" class=%q>%s</text>\n", x, y, class, html.EscapeString(fmt.Sprintf(format, arguments...)))
}

func (d *drawing) bar(x, y, width, height float64, class, told string) {
	fmt.Fprintf(d, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" class=%q><title>%s</title></rect>\n", x, y, width, height, class, html.EscapeString(told))
}

func (d *drawing) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(d, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=%q/>\n", x1, y1, x2, y2, class)
}

// part begins a part with a title, and a line that says how to read it.
func (d *drawing) part(title, how string) {
	d.text(margin, d.y+18, "title", "%s", title)
	d.text(margin, d.y+36, "soft", "%s", how)
	d.y += titleRoom
}

// panel is where column i of n begins, and how wide it is.
func panel(i, n int) (x, width float64) {
	width = (plotWidth - 2*margin - labels - float64(n-1)*gap) / float64(n)
	return margin + labels + float64(i)*(width+gap), width
}

// plot draws the ratios, the CPU and the stages of all cells.
func (r results) plot() string {
	d := &drawing{y: margin - 8}
	cells := slices.DeleteFunc(slices.Clone(r.cells), func(c result) bool { return len(c.Jobs) == 0 })
	d.ratios(cells)
	d.usage(cells)
	d.stages(r)
	return fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %.0f\" role=\"img\" aria-label=\"Shiplog's time beside the floor, its CPU, and its stages\">\n", plotWidth, d.y) +
		style + fmt.Sprintf("<rect width=\"%d\" height=\"%.0f\" rx=\"8\" class=\"sheet\"/>\n", plotWidth, d.y) + d.String() + "</svg>\n"
}

// field is how a job of a cell is drawn: what its length comes to, and the drawing of it.
type field struct {
	value func(result, job) float64
	draw  func(c result, j job, x, y, scale float64)
	// over draws across a column; nil: nothing.
	over func(job string, x, scale, top, bottom float64)
}

// grid draws a row for each cell and a column for each job, all to one scale that reaches to at least so much.
func (d *drawing) grid(cells []result, least float64, unit string, f field) {
	most := least
	for _, c := range cells {
		for _, j := range c.Jobs {
			most = max(most, f.value(c, j))
		}
	}
	top := d.y + 24
	bottom := top + float64(len(cells))*rowHeight
	for i, c := range cells {
		d.text(margin+labels-12, top+float64(i)*rowHeight+barHeight+1, "end small", "%s", rowOf(c))
	}
	for column, name := range jobNames {
		x, width := panel(column, len(jobNames))
		scale := (width - numberRoom) / most
		d.text(x, d.y+12, "head", "%s", name)
		d.line(x, top-4, x, bottom, "axis")
		for i, c := range cells {
			if j, measured := c.job(name); measured {
				f.draw(c, j, x, top+float64(i)*rowHeight+3, scale)
			}
		}
		if f.over != nil {
			f.over(name, x, scale, top-4, bottom)
		}
		d.text(x, bottom+14, "soft small middle", "0")
		d.text(x+width-numberRoom, bottom+14, "soft small middle", "%s%s", short(most), unit)
	}
	d.y = bottom + axisRoom
}

// numberRoom is for the number behind a bar.
const numberRoom = 34

// rowOf is what a row says of its cell.
func rowOf(c result) string {
	sets := "1 set"
	if c.CloneSets != 1 {
		sets = short(float64(c.CloneSets)) + " sets"
	}
	if c.Layout == "one" {
		sets += ", up"
	}
	return short(float64(c.Pods)) + " Pods, " + sets
}

// budgetOf is the most that a job may take, in times of the floor; 0: there is no budget.
func budgetOf(job string) float64 {
	if job == jobUpdate {
		return updateBudget
	}
	return 0
}

func (d *drawing) ratios(cells []result) {
	d.part("Time, in times of the floor", "The floor, the line at 1, is a bare client with the same writes and no controller. Dashed: the budget. Shorter is better.")
	d.grid(cells, 1.5, "×", field{
		value: func(_ result, j job) float64 { return j.ratio() },
		draw: func(_ result, j job, x, y, scale float64) {
			ratio := j.ratio()
			if ratio == 0 {
				return
			}
			class := "bar"
			if most := budgetOf(j.Name); most > 0 && ratio > most {
				class = "over"
			}
			d.bar(x, y, ratio*scale, barHeight, class, fmt.Sprintf("%.2f s, floor %.2f s", median(j.Shiplog), median(j.Floor)))
			d.text(x+max(ratio, 1)*scale+4, y+barHeight-2, "small", "%.2f", ratio) // beyond the floor's line
		},
		over: func(name string, x, scale, top, bottom float64) {
			d.line(x+scale, top, x+scale, bottom, "floor")
			if most := budgetOf(name); most > 0 {
				d.line(x+most*scale, top, x+most*scale, bottom, "budget")
			}
		},
	})
}

// usagePerPod is the CPU of a job's processes in milliseconds per Pod: Shiplog's one by one, then the API server with etcd.
func usagePerPod(c result, j job) (parts []use, all float64) {
	per := 1000 / float64(c.Pods*max(1, len(j.Shiplog)))
	for _, name := range append(slices.Clone(serviceNames), "up") {
		for _, u := range j.Use {
			if u.Process == name && u.Ours {
				parts = append(parts, use{Process: name, CPU: u.CPU * per})
			}
		}
	}
	parts = append(parts, use{Process: "server", CPU: cpuOfServer(j.Use) * per})
	for _, p := range parts {
		all += p.CPU
	}
	return parts, all
}

func (d *drawing) usage(cells []result) {
	d.part("CPU per Pod, in milliseconds", "Of each service of Shiplog, and of the API server with etcd, which carries out what they ask for.")
	told := map[string]string{"nats": "NATS (the log)", "up": "all in one process", "server": "API server and etcd"}
	x := float64(margin + labels)
	for _, name := range append(slices.Clone(serviceNames), "up", "server") {
		d.bar(x, d.y-2, 11, 11, name, name)
		name = cmp.Or(told[name], name)
		d.text(x+16, d.y+8, "small", "%s", name)
		x += 38 + 6*float64(len(name))
	}
	d.y += 22
	d.grid(cells, 1, "", field{
		value: func(c result, j job) float64 { _, all := usagePerPod(c, j); return all },
		draw: func(c result, j job, x, y, scale float64) {
			parts, all := usagePerPod(c, j)
			for _, p := range parts {
				d.bar(x, y, p.CPU*scale, barHeight, p.Process, fmt.Sprintf("%s: %.2f ms", p.Process, p.CPU))
				x += p.CPU * scale
			}
			d.text(x+4, y+barHeight-2, "small", "%s", short(all))
		},
	})
}

// stages draws histograms of the parts of the way from a change to a write: a row for each of a few jobs, a column for each stage.
func (d *drawing) stages(r results) {
	type row struct {
		cell, job string
		stages    []stage
	}
	var rows []row
	idle, largest := (*result)(nil), r.largest(func(c result) bool { return len(stagesOf(c, jobUpdate)) > 0 })
	for i, c := range r.cells {
		if c.Idle != nil && len(c.Idle.Stages) > 0 && idle == nil {
			idle = &r.cells[i]
			rows = append(rows, row{"10 Pods, idle cluster", jobUpdate, c.Idle.Stages})
		}
	}
	if idle != nil && largest != idle && len(stagesOf(*idle, jobUpdate)) > 0 {
		rows = append(rows, row{rowOf(*idle), jobUpdate, stagesOf(*idle, jobUpdate)})
	}
	if largest != nil {
		for _, name := range []string{jobUpdate, jobCreate, jobScaleDown} {
			if of := stagesOf(*largest, name); len(of) > 0 {
				rows = append(rows, row{rowOf(*largest), name, of})
			}
		}
	}
	if len(rows) == 0 {
		return
	}
	d.part("From a change of a spec to a Pod write", "How long each stage took for each write, with the median. Of many Pods, most wait for the API server to take their writes.")
	top := d.y + 24
	for column, name := range stageHeads {
		x, width := panel(column, len(stageHeads))
		d.text(x, d.y+12, "head small", "%s", name)
		step := width / float64(len(bounds)+1)
		for i, r := range rows {
			base := top + float64(i+1)*histogramHeight - 10
			d.line(x, base, x+width, base, "axis")
			if column >= len(r.stages) || len(r.stages[column].Counts) == 0 {
				continue
			}
			counts := r.stages[column].Counts
			highest := float64(slices.Max(counts))
			for b, n := range counts {
				if n > 0 {
					height := max(1, float64(n)/highest*(histogramHeight-26))
					d.bar(x+float64(b)*step+0.5, base-height, step-1, height, "bar", fmt.Sprintf("%d writes", n))
				}
			}
			d.text(x+width, base-histogramHeight+22, "soft small end", "%s", duration(r.stages[column].P50))
		}
		bottom := top + float64(len(rows))*histogramHeight - 10
		for _, b := range []int{1, 7, 13} { // bounds of 1 ms, 100 ms and 10 s
			at := x + float64(b+1)*step
			d.line(at, bottom, at, bottom+3, "axis")
			d.text(at, bottom+14, "soft small middle", "%s", duration(bounds[b]))
		}
	}
	for i, r := range rows {
		base := top + float64(i+1)*histogramHeight - 10
		d.text(margin+labels-12, base-14, "end small", "%s", r.cell)
		d.text(margin+labels-12, base, "end soft small", "%s", r.job)
	}
	d.y = top + float64(len(rows))*histogramHeight + axisRoom - 10
}

// stageHeads are the stages, short.
var stageHeads = []string{"change → fact", "fact → command", "command → write", "write → outcome", "all: change → write"}

func stagesOf(c result, name string) []stage {
	j, _ := c.job(name)
	return j.Stages
}

// duration of some milliseconds, for people.
func duration(ms float64) string {
	if ms >= 1000 {
		return short(ms/1000) + " s"
	}
	return short(ms) + " ms"
}
