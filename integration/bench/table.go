package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"shiplog.dev/integration/testbed"
)

// madeBegins is the line of the document below which stands what is made from results.
const madeBegins = "<!-- made by make bench and make performance from docs/performance/*.json -->"

// document is what results are written into.
type document struct{ into, plot string }

func (d *document) bind(command *cobra.Command) {
	command.Flags().StringVar(&d.into, "into", "docs/performance.md", "write tables into this `DOCUMENT`, between its marks; empty: none")
	command.Flags().StringVar(&d.plot, "plot", "docs/performance.svg", "write the plot to this `FILE`; empty: none")
}

// tableCommand makes the document from what cells left.
func tableCommand() *cobra.Command {
	var d document
	command := &cobra.Command{
		Use: "table RESULT...", Short: "Make docs/performance.md and its plot from the results of cells", Args: cobra.MinimumNArgs(1),
		Example: "  go run ./integration/bench table docs/performance/*.json",
		RunE:    func(command *cobra.Command, paths []string) error { return d.make(command.OutOrStdout(), paths) },
	}
	d.bind(command)
	return command
}

// make prints the budgets, and writes the document and the plot.
func (d document) make(out io.Writer, paths []string) error {
	r, err := readResults(paths)
	if err != nil {
		return err
	}
	budgets := figures{lines: r.budgets()}
	if err := budgets.print(out); err != nil {
		return err
	}
	if d.into != "" {
		if err := testbed.WriteInto(d.into, madeBegins, r.markdown()); err != nil {
			return err
		}
	}
	if d.plot == "" {
		return nil
	}
	return os.WriteFile(d.plot, []byte(r.plot()), 0o644)
}

// results are what cells came to, and figures that were measured apart: of images, of a long log.
type results struct {
	cells []result
	apart []figure
}

func readResults(paths []string) (results, error) {
	var r results
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return r, err
		}
		var one struct {
			result
			measured
		}
		if err := json.Unmarshal(data, &one); err != nil {
			return r, fmt.Errorf("read %s: %w", path, err)
		}
		if one.Pods > 0 {
			r.cells = append(r.cells, one.result)
		}
		r.apart = append(r.apart, one.Figures...)
	}
	slices.SortFunc(r.cells, func(a, b result) int {
		return cmp.Or(cmp.Compare(a.Pods, b.Pods), cmp.Compare(a.CloneSets, b.CloneSets), -cmp.Compare(a.Layout, b.Layout))
	})
	return r, nil
}

// what the layouts are called for readers.
var layoutTitles = map[string]string{"services": "a process each", "one": "`shiplog up`"}

func (r result) title() string {
	sets := "1 CloneSet"
	if r.CloneSets != 1 {
		sets = fmt.Sprintf("%s CloneSets", short(float64(r.CloneSets)))
	}
	return fmt.Sprintf("%s Pods in %s, %s", short(float64(r.Pods)), sets, layoutTitles[r.Layout])
}

// updateBudget is how many times the floor an in-place update may take.
const updateBudget = 1.3

// budgets are the lines of design.md's table of budgets.
func (r results) budgets() (lines []figure) {
	add := func(f figure) { lines = append(lines, f) }
	for _, c := range r.cells {
		update, measured := c.job(jobUpdate)
		if !measured || update.ratio() == 0 {
			continue
		}
		f := figure{What: "in-place update, " + c.title(), Floor: median(update.Floor), Value: median(update.Shiplog), Unit: "s", Ratio: update.ratio()}
		add(f.atMost(updateBudget))
	}
	for _, w := range []struct {
		job, what string
		budget    float64
	}{{jobUpdate, "updated in place", 1}, {jobCreate, "created", 2}, {jobScaleDown, "deleted", 1}} {
		worst, known := 0.0, false
		for _, c := range r.cells {
			if job, measured := c.job(w.job); measured {
				worst, known = max(worst, job.podWrites(c.Pods)), true
			}
		}
		if known {
			add(figure{What: "API writes per Pod " + w.what + ", the most of all cells", Value: worst, Unit: "writes"}.atMost(w.budget))
		}
	}
	for _, c := range r.cells {
		if c.Idle != nil {
			of := ", " + layoutTitles[c.Layout]
			add(figure{What: "spec change to first Pod write, p50" + of, Value: at(c.Idle.SinceAnswer, 50), Unit: "ms"}.atMost(10))
			add(figure{What: "spec change to first Pod write, p99" + of, Value: at(c.Idle.SinceAnswer, 99), Unit: "ms"}.atMost(50))
			if len(c.Idle.Floor) > 0 {
				add(figure{What: "the same of a bare client that watches and writes, p50", Value: at(c.Idle.Floor, 50), Unit: "ms"})
				add(figure{What: "the same of a bare client that watches and writes, p99", Value: at(c.Idle.Floor, 99), Unit: "ms"})
			}
		}
	}
	if c := r.largest(func(c result) bool { return c.Fold != nil && c.Fold.Entries > 0 }); c != nil {
		of := fmt.Sprintf(" (%s Pods, %s entries)", short(float64(c.Pods)), short(float64(c.Fold.Entries)))
		add(figure{What: "fold alone" + of, Value: c.Fold.Alone, Unit: "entries/s"}.atLeast(50_000))
		add(figure{What: "fold, reading and decoding included", Value: c.Fold.PerSecond, Unit: "entries/s"})
		add(figure{What: "memory of the world per Pod held" + of, Value: c.Fold.BytesPerPod / 1000, Unit: "KB"}.atMost(2.5))
	}
	if c := r.largest(func(c result) bool { return len(c.Restarts) > 0 }); c != nil {
		f := figure{What: fmt.Sprintf("planner restarted with %s Pods, until it decides", short(float64(c.Pods+smallPods))), Value: median(c.Restarts), Unit: "s"}
		add(f.atMost(3))
	}
	for _, c := range r.cells {
		if c.Idle != nil && c.Idle.Watched > 0 {
			of := fmt.Sprintf(" in %s s of idling, %s", short(c.Idle.Watched), layoutTitles[c.Layout])
			add(figure{What: "log entries" + of, Value: c.Idle.Entries, Unit: "entries"}.atMost(0))
			add(figure{What: "API writes" + of, Value: float64(c.Idle.Writes), Unit: "writes"}.atMost(0))
			add(figure{What: "CPU" + of, Value: c.Idle.CPU, Unit: "% of a core"}.atMost(1))
		}
	}
	return append(lines, r.apart...)
}

// largest is the cell of most Pods of those that fit, the first of several; nil: none does. Of cells that were measured on another day than the
// newest, with other code, only the times count.
func (r results) largest(fits func(result) bool) (found *result) {
	newest := ""
	for _, c := range r.cells {
		newest = max(newest, c.day())
	}
	for i := range r.cells {
		if c := &r.cells[i]; fits(*c) && c.day() == newest && (found == nil || c.Pods > found.Pods) {
			found = c
		}
	}
	return found
}

// markdown is what the document says of the results.
func (r results) markdown() string {
	var out strings.Builder
	say := func(format string, arguments ...any) { fmt.Fprintf(&out, format+"\n", arguments...) }
	say("## Budgets\n")
	say("| what | floor | Shiplog | | ratio | budget | holds |\n|---|--:|--:|---|--:|---|---|")
	for _, f := range r.budgets() {
		floor, ratio := "", ""
		if f.Floor > 0 {
			floor, ratio = short(f.Floor), fmt.Sprintf("%.2f", f.Ratio)
		}
		say("| %s | %s | %s | %s | %s | %s | %s |", f.What, floor, short(f.Value), f.Unit, ratio, f.budget(), f.verdict())
	}
	if len(r.cells) == 0 {
		return out.String()
	}
	say("")
	for _, c := range r.cells {
		if c.Failed != "" {
			first, _, _ := strings.Cut(c.Failed, "\n")
			say("%s could not be measured to the end: %s\n", c.title(), first)
		}
	}
	r.runs(say)
	worst := 0.0
	r.eachJob(func(_ string, _ result, j job) { worst = max(worst, shareElsewhere(j.Use), shareElsewhere(j.FloorUse)) })
	say("During a job, at most %.0f %% of the CPU that was used went to processes that have no part in this.\n", 100*worst)
	say("## Time\n")
	say("Bystanders: how many times the CPU of the floor hollow nodes, controller-manager and scheduler took for the same work while Shiplog ran.\n")
	say("| | job | floor | Shiplog | ratio | bystanders | Pods per second |\n|---|---|--:|--:|--:|--:|--:|")
	r.eachJob(func(title string, c result, j job) {
		if j.ratio() > 0 {
			say("| %s | %s | %.2f s | %.2f s | %.2f | %.2f | %s |", title, j.Name, median(j.Floor), median(j.Shiplog), j.ratio(), j.pace(), short(float64(c.Pods)/median(j.Shiplog)))
		}
	})
	say("\n## API writes and log, per Pod\n")
	say("| | job | writes to Pods | other writes | entries | log |\n|---|---|---|---|--:|--:|")
	r.eachJob(func(title string, c result, j job) {
		per := func(n int) float64 { return float64(n) / float64(c.Pods*max(1, len(j.Shiplog))) }
		var pods, others []string
		for _, what := range slices.Sorted(maps.Keys(j.Writes)) {
			text := short(per(j.Writes[what])) + " " + strings.Replace(what, " pods", "", 1)
			if strings.Contains(what, " pods") {
				pods = append(pods, strings.TrimSuffix(text, " "))
			} else if per(j.Writes[what]) >= 0.001 {
				others = append(others, text)
			}
		}
		say("| %s | %s | %s | %s | %s | %s KB |", title, j.Name, cmp.Or(strings.Join(pods, ", "), "0"), strings.Join(others, ", "),
			short(per(sum(j.Entries))), short(per(sum(j.Bytes))/1000))
	})
	say("\nKubernetes Events, and other writes of less than 0.001 per Pod, are left out. The log's size is that of its messages, before the server compresses them.\n")
	r.usage(say)
	r.stages(say)
	r.profiles(say)
	return out.String()
}

// runs tells when and on what machine cells were measured, the newest run first.
func (r results) runs(say func(string, ...any)) {
	titles := map[string][]string{}
	for _, c := range r.cells {
		m := c.Machine
		run := fmt.Sprintf("%s, on one machine that runs everything, the cluster too: %d cores of %s, %d GB, %s. The floor had %d requests under way.",
			c.day(), m.Cores, m.CPU, m.MemoryGB, m.Go, c.Workers)
		titles[run] = append(titles[run], c.title())
	}
	for i, run := range slices.Backward(slices.Sorted(maps.Keys(titles))) {
		if i == len(titles)-1 {
			say("Measured on %s\n", run)
		} else {
			say("%s: measured on %s\n", strings.Join(titles[run], "; "), run)
		}
	}
}

// shareElsewhere is how much of the CPU that was used went to processes that are not measured: figures of a busy machine say little.
func shareElsewhere(uses []use) float64 {
	all, other := 0.0, 0.0
	for _, u := range uses {
		all += u.CPU
		if u.Process == elsewhere {
			other = u.CPU
		}
	}
	return max(other, 0) / max(all, 1e-9)
}

// eachJob shows every job, with the cell's title at its first.
func (r results) eachJob(show func(title string, c result, j job)) {
	for _, c := range r.cells {
		title := c.title()
		for _, j := range c.Jobs {
			show(title, c, j)
			title = ""
		}
	}
}

// usage tells what each service needed, and the cluster beside it.
func (r results) usage(say func(string, ...any)) {
	say("## CPU and memory\n")
	say("CPU in milliseconds per Pod, and the largest resident memory in MB. API server: with etcd, under Shiplog and under the bare client.\n")
	say("| | job | nats | watcher | planner | executor | all of Shiplog | API server | at the floor |\n|---|---|--:|--:|--:|--:|--:|--:|--:|")
	r.eachJob(func(title string, c result, j job) {
		per := 1000 / float64(c.Pods*max(1, len(j.Shiplog)))
		cells, all, memory := []string{}, 0.0, 0.0
		for _, u := range j.Use {
			if u.Ours {
				all, memory = all+u.CPU, memory+u.Peak
			}
		}
		for _, name := range serviceNames {
			text := ""
			if i := slices.IndexFunc(j.Use, func(u use) bool { return u.Process == name }); i >= 0 {
				text = fmt.Sprintf("%.1f ms, %.0f MB", j.Use[i].CPU*per, j.Use[i].Peak/1e6)
			}
			cells = append(cells, text)
		}
		say("| %s | %s | %s | %.1f ms, %.0f MB | %.1f ms | %.1f ms |", title, j.Name, strings.Join(cells, " | "), all*per, memory/1e6, cpuOfServer(j.Use)*per, cpuOfServer(j.FloorUse)*per)
	})
	say("")
}

// serviceNames are the processes of Shiplog, in the order in which a change passes them.
var serviceNames = []string{"nats", "watcher", "planner", "executor"}

func cpuOfServer(uses []use) (all float64) {
	for _, u := range uses {
		if u.Process == apiServer || u.Process == "etcd" {
			all += u.CPU
		}
	}
	return all
}

// stages tells how long the parts of the way from a change to a write are.
func (r results) stages(say func(string, ...any)) {
	say("## From a change of a spec to a Pod write\n")
	say("By the times of the log's entries and of the API server's audit log, of each write that follows from the change alone.\n")
	say("| | job | stage | p50 | p99 | longest |\n|---|---|---|--:|--:|--:|")
	r.eachStage(func(title, name string, s stage) {
		say("| %s | %s | %s | %s ms | %s ms | %s ms |", title, name, s.Name, short(s.P50), short(s.P99), short(s.Max))
	})
	say("")
}

// idleJob names the spec changes on an idle cluster among the jobs.
const idleJob = "10 Pods, idle cluster"

func (r results) eachStage(show func(title, name string, s stage)) {
	for _, c := range r.cells {
		title := c.title()
		stages := func(name string, of []stage) {
			for _, s := range of {
				if len(s.Counts) > 0 {
					show(title, name, s)
					title, name = "", ""
				}
			}
		}
		if c.Idle != nil {
			stages(idleJob, c.Idle.Stages)
		}
		for _, j := range c.Jobs {
			stages(j.Name, j.Stages)
		}
	}
}

// profiles tells where the CPU of the largest cell went.
func (r results) profiles(say func(string, ...any)) {
	c := r.largest(func(c result) bool {
		return slices.ContainsFunc(c.Jobs, func(j job) bool { return len(j.Profiles) > 0 })
	})
	if c == nil {
		return
	}
	say("## What bounds it: %s\n", c.title())
	say("CPU profiles of the first seconds of each job, by the innermost package and function of the process's own (of Kubernetes', for the API server) on the stack: what it calls, down to memory, JSON and system calls, counts as its own.\n")
	for _, j := range c.Jobs {
		if len(j.Profiles) == 0 {
			continue
		}
		say("<details><summary>%s</summary>\n", j.Name)
		say("| process | of a core | packages | functions |\n|---|--:|---|---|")
		for _, p := range j.Profiles {
			say("| %s | %.0f %% | %s | %s |", p.Process, 100*p.CPU/max(p.Seconds, 1e-9), listed(p.Packages), listed(p.Functions))
		}
		say("\n</details>\n")
	}
}

func listed(shares []share) string {
	var out []string
	for _, s := range shares {
		if s.Share >= 0.01 {
			out = append(out, fmt.Sprintf("%.0f %% `%s`", 100*s.Share, s.Name))
		}
	}
	return strings.Join(out, "<br>")
}
