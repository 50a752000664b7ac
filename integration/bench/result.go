package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// result is what a cell came to.
type result struct {
	Pods      int       `json:"pods"`
	CloneSets int       `json:"cloneSets"`
	Layout    string    `json:"layout"`
	Began     time.Time `json:"began"`
	Took      float64   `json:"tookSeconds"`
	Workers   int       `json:"floorWorkers"`
	Machine   machine   `json:"machine"`
	Jobs      []job     `json:"jobs"`
	Fold      *folding  `json:"fold,omitempty"`
	// Restarts are seconds from the start of a planner to the first command that it appended for a change made while there was none.
	Restarts []float64 `json:"restartSeconds,omitempty"`
	Idle     *idle     `json:"idle,omitempty"`
	// Failed says why the cell could not be measured to its end.
	Failed string `json:"failed,omitempty"`
}

// machine is where it was measured.
type machine struct {
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"`
	MemoryGB int    `json:"memoryGB"`
	Go       string `json:"go"`
}

func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	m.CPU = "unknown CPU"
	info, _ := os.ReadFile("/proc/cpuinfo")
	if _, rest, found := strings.Cut(string(info), "model name"); found {
		name, _, _ := strings.Cut(rest, "\n")
		m.CPU = strings.Join(strings.Fields(strings.TrimLeft(name, "\t :")), " ")
	}
	memory, _ := os.ReadFile("/proc/meminfo")
	kilobytes := 0
	_, _ = fmt.Sscanf(string(memory), "MemTotal: %d", &kilobytes)
	m.MemoryGB = (kilobytes + 1<<19) >> 20
	return m
}

// job is one thing that is done to all Pods of a cell, by Shiplog and by the bare client.
type job struct {
	Name string `json:"name"`
	// Seconds until a watch saw all Pods as wanted, of each round.
	Shiplog []float64 `json:"shiplogSeconds"`
	Floor   []float64 `json:"floorSeconds"`
	// Writes that Shiplog requested, by what was written, over all rounds: "patch pods/status". Kubernetes Events are left out: they are written
	// a few at a time, long after what they tell of.
	Writes map[string]int `json:"writes"`
	// Entries and Bytes that the log took, by kind of entry, over all rounds.
	Entries map[string]int `json:"logEntries"`
	Bytes   map[string]int `json:"logBytes"`
	// Use and FloorUse are what each process needed, over all rounds and until everything had settled.
	Use      []use `json:"use"`
	FloorUse []use `json:"floorUse"`
	// Stages are the ways from a change of a spec to the writes that follow from it.
	Stages   []stage   `json:"stages,omitempty"`
	Profiles []profile `json:"profiles,omitempty"`
}

// ratio is how many times the floor Shiplog took, the median of all rounds; 0: unknown.
func (j job) ratio() float64 {
	var ratios []float64
	for i := range min(len(j.Shiplog), len(j.Floor)) {
		ratios = append(ratios, j.Shiplog[i]/j.Floor[i])
	}
	return median(ratios)
}

// bystanders do the same work under Shiplog and under the bare client, for nobody asks them anything.
var bystanders = []string{"hollow nodes", "kube-controller-manager", "kube-scheduler"}

// pace is how many times the CPU of the floor bystanders took for the same work while Shiplog ran: how much slower the machine was
// then, by itself or because more processes shared its caches. 0: unknown.
func (j job) pace() float64 {
	of := func(uses []use) (cpu float64) {
		for _, u := range uses {
			if slices.Contains(bystanders, u.Process) {
				cpu += u.CPU
			}
		}
		return cpu
	}
	if of(j.FloorUse) == 0 {
		return 0
	}
	return of(j.Use) / of(j.FloorUse)
}

// podWrites are the writes to Pods for each Pod of a job.
func (j job) podWrites(pods int) float64 {
	count := 0
	for what, n := range j.Writes {
		if strings.Contains(what, " pods") {
			count += n
		}
	}
	return float64(count) / float64(pods*max(1, len(j.Shiplog)))
}

func (r result) job(name string) (job, bool) {
	i := slices.IndexFunc(r.Jobs, func(j job) bool { return j.Name == name })
	if i < 0 {
		return job{}, false
	}
	return r.Jobs[i], true
}

// name of the cell, as its file has it.
func (r result) name() string {
	return fmt.Sprintf("%d-pods-%d-clonesets-%s", r.Pods, r.CloneSets, r.Layout)
}

// day on which the cell was measured.
func (r result) day() string { return r.Began.UTC().Format(time.DateOnly) }

func save(what any, path string) error {
	data, err := json.MarshalIndent(what, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

func median(of []float64) float64 {
	if len(of) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(of))[len(of)/2]
}

func sum(of map[string]int) (all int) {
	for _, n := range of {
		all += n
	}
	return all
}
