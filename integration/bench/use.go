package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// use is what a process needed.
type use struct {
	Process string `json:"process"`
	// Ours says that it belongs to Shiplog.
	Ours bool `json:"ours,omitempty"`
	// CPU in seconds.
	CPU float64 `json:"cpuSeconds"`
	// Peak is the largest resident memory in bytes.
	Peak float64 `json:"peakBytes"`
}

// meter measures what processes need from one moment to another.
type meter struct {
	pids   map[string]int
	ours   map[string]bool
	before map[string]float64
	busy   float64 // of the whole machine
}

// elsewhere names what has no part in the measurement, whose CPU is missing here: the cluster that rests, too.
const elsewhere = "elsewhere"

// ticks in a second of the CPU times that the kernel tells: the same on every Linux.
const ticks = 100

// meter begins to measure the processes of a cluster, of Shiplog if it works there, and this one.
func (c *cell) meter(on *cluster) (*meter, error) {
	pids, err := on.Processes()
	if err != nil {
		return nil, err
	}
	m := &meter{pids: pids, ours: map[string]bool{}, before: map[string]float64{}}
	m.pids["bench"] = os.Getpid()
	for _, one := range c.servicesOn(on) {
		m.pids[one.name], m.ours[one.name] = one.process.Pid(), true
	}
	for name, pid := range m.pids {
		// 5: the largest resident memory is counted anew (proc(5)).
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
			return nil, fmt.Errorf("measure the memory of %s: %w", name, err)
		}
		if m.before[name], err = cpuOf(pid); err != nil {
			return nil, err
		}
	}
	m.busy, err = cpuOfAll()
	return m, err
}

// read says what they needed until now, Shiplog's first.
func (m *meter) read() ([]use, error) {
	var out []use
	for _, name := range slices.Sorted(maps.Keys(m.pids)) {
		cpu, err := cpuOf(m.pids[name])
		if err != nil {
			return nil, err
		}
		out = append(out, use{Process: name, Ours: m.ours[name], CPU: cpu - m.before[name], Peak: float64(resident(m.pids[name])) * 1024})
	}
	busy, err := cpuOfAll()
	if err != nil {
		return nil, err
	}
	other := use{Process: elsewhere, CPU: busy - m.busy}
	for _, u := range out {
		other.CPU -= u.CPU
	}
	out = append(out, other)
	slices.SortStableFunc(out, func(a, b use) int {
		switch {
		case a.Ours == b.Ours:
			return 0
		case a.Ours:
			return -1
		}
		return 1
	})
	return out, nil
}

// both is what processes needed in two stretches of time.
func both(one, other []use) []use {
	if one == nil {
		return other
	}
	out := slices.Clone(one)
	for i := range out {
		at := slices.IndexFunc(other, func(u use) bool { return u.Process == out[i].Process })
		out[i].CPU += other[at].CPU
		out[i].Peak = max(out[i].Peak, other[at].Peak)
	}
	return out
}

// cpuOf is how many seconds of CPU a process has used.
func cpuOf(pid int) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	var user, system float64
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	_, _ = fmt.Sscan(fields[11], &user)
	_, _ = fmt.Sscan(fields[12], &system)
	return (user + system) / ticks, nil
}

// cpuOfAll is how many seconds of CPU all processes and the kernel have used.
func cpuOfAll() (float64, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	var user, nice, system float64
	if _, err := fmt.Sscanf(string(data), "cpu %f %f %f", &user, &nice, &system); err != nil {
		return 0, fmt.Errorf("read /proc/stat: %w", err)
	}
	return (user + nice + system) / ticks, nil
}

// cpuOfOurs is what Shiplog's processes have used.
func cpuOfOurs(uses []use) (all float64) {
	for _, u := range uses {
		if u.Ours {
			all += u.CPU
		}
	}
	return all
}
