package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"syscall"
	"time"

	"shiplog.dev/integration/testbed"
)

// fault is one thing that goes wrong.
type fault struct {
	name string
	// on are the layouts in which it can happen; empty: all.
	on []string
	// shortest and longest bound how long it lasts.
	shortest, longest time.Duration
	// begin makes it, and returns what ends it, and what it hit.
	begin func(context.Context, *act) (end func(context.Context) error, hit string, err error)
}

// picks chooses the part that a fault hits; nil: there is none now.
type picks func(*system) *part

func named(name string) picks { return func(s *system) *part { return s.part(name) } }

func leader(s *system) *part  { return s.planner(true) }
func standby(s *system) *part { return s.planner(false) }

// killed ends a process at once, and starts it again later.
func killed(pick picks) func(context.Context, *act) (func(context.Context) error, string, error) {
	return func(_ context.Context, a *act) (func(context.Context) error, string, error) {
		p := pick(a.system)
		if p == nil {
			return nil, "nobody", nil
		}
		p.kill()
		return func(context.Context) error { return p.start() }, p.name, nil
	}
}

// paused stops a process where it is, and lets it go on later.
func paused(pick picks) func(context.Context, *act) (func(context.Context) error, string, error) {
	return func(_ context.Context, a *act) (func(context.Context) error, string, error) {
		p := pick(a.system)
		if p == nil || p.now() == nil {
			return nil, "nobody", nil
		}
		process := p.now()
		if err := process.Pause(); err != nil {
			return nil, p.name, nil // it has ended meanwhile
		}
		return func(context.Context) error { _ = process.Resume(); return nil }, p.name, nil
	}
}

// restarted asks a process to end, and starts it again when it has.
func restarted(pick picks) func(context.Context, *act) (func(context.Context) error, string, error) {
	return func(_ context.Context, a *act) (func(context.Context) error, string, error) {
		p := pick(a.system)
		if p == nil {
			return nil, "nobody", nil
		}
		if err := p.stop(); err != nil {
			a.note("%s did not end well when asked to: %.200v", p.name, err)
		}
		return func(context.Context) error { return p.start() }, p.name, nil
	}
}

// troubled has requests of Shiplog to the API server meet trouble.
func troubled(trouble testbed.Trouble) func(context.Context, *act) (func(context.Context) error, string, error) {
	return func(_ context.Context, a *act) (func(context.Context) error, string, error) {
		a.campaign.proxy.Make(&trouble)
		return func(context.Context) error { a.campaign.proxy.Make(nil); return nil }, "", nil
	}
}

// signalled sends a signal to a component of the cluster, which is started again if it ends.
func signalled(component string, signal, then syscall.Signal) func(context.Context, *act) (func(context.Context) error, string, error) {
	return func(_ context.Context, a *act) (func(context.Context) error, string, error) {
		pid, err := a.campaign.cluster.Pid(component)
		if err != nil {
			return nil, component, err
		}
		a.outage()
		if err := syscall.Kill(pid, signal); err != nil {
			return nil, component, fmt.Errorf("signal %s: %w", component, err)
		}
		return func(context.Context) error {
			if then == 0 {
				return nil
			}
			return syscall.Kill(pid, then)
		}, component, nil
	}
}

var faults = slices.Concat(
	processFaults("watcher", []string{"services", "cluster", "clocks"}, named("watcher")),
	processFaults("planner", []string{"services", "cluster", "clocks"}, leader),
	processFaults("standby", []string{"services", "cluster", "clocks"}, standby),
	processFaults("executor", []string{"services", "cluster", "clocks"}, named("executor-1")),
	processFaults("nodeagent", []string{"services", "cluster", "clocks"}, named("nodeagent")),
	processFaults("nats", []string{"services", "clocks"}, named("nats")),
	processFaults("up", []string{"one"}, named("up")),
	clockFaults("clocks", everybody),
	clockFaults("watcher", one(named("watcher"))),
	clockFaults("planner", one(leader)),
	clockFaults("executor", one(named("executor-1"))),
	clockFaults("nodeagent", one(named("nodeagent"))),
	clockFaults("nats", one(named("nats"))),
	[]fault{
		{"kill-apiserver", nil, 0, 0, signalled("kube-apiserver", syscall.SIGKILL, 0)},
		{"pause-apiserver", nil, time.Second, 20 * time.Second, signalled("kube-apiserver", syscall.SIGSTOP, syscall.SIGCONT)},
		{"kill-etcd", nil, 0, 0, signalled("etcd", syscall.SIGKILL, 0)},
		{"slow-api", nil, 3 * time.Second, 20 * time.Second, troubled(testbed.Trouble{Delay: 3 * time.Second})},
		{"api-429", nil, 3 * time.Second, 20 * time.Second, troubled(testbed.Trouble{Share: 0.5, Answer: http.StatusTooManyRequests})},
		{"api-500", nil, 3 * time.Second, 20 * time.Second, troubled(testbed.Trouble{Share: 0.5, Answer: http.StatusInternalServerError})},
		{"lost-answers", nil, 3 * time.Second, 20 * time.Second, troubled(testbed.Trouble{Share: 0.4, Lose: true})},
		{"no-watches", nil, 3 * time.Second, 30 * time.Second, troubled(noWatches)},
		{"held-watch", nil, 3 * time.Second, 30 * time.Second, heldWatch},
		{"compaction", nil, 3 * time.Second, 10 * time.Second, compaction},
		{"restore-etcd", nil, 3 * time.Second, 20 * time.Second, restoreEtcd},
		{"full-disk", []string{"services", "one"}, 3 * time.Second, 20 * time.Second, fullDisk},
	},
	serverFaults,
)

var noWatches = testbed.Trouble{NoWatches: true}

// processFaults are those that any process of ours meets.
func processFaults(name string, on []string, pick picks) []fault {
	return []fault{
		{"kill-" + name, on, 0, 4 * time.Second, killed(pick)},
		{"pause-" + name, on, time.Second, time.Minute, paused(pick)},
		{"restart-" + name, on, 0, time.Second, restarted(pick)},
	}
}

// heldWatch keeps back what watches of Pods show while everything else lives on.
func heldWatch(_ context.Context, a *act) (func(context.Context) error, string, error) {
	a.campaign.proxy.Hold()
	return func(context.Context) error { a.campaign.proxy.Release(); return nil }, "", nil
}

func faultNames() []string {
	var names []string
	for _, f := range faults {
		names = append(names, f.name)
	}
	return names
}

// group of faults that cannot be made at the same time.
func (f fault) group() string {
	if ofServers(f) {
		return "servers"
	}
	switch f.name {
	case "slow-api", "api-429", "api-500", "lost-answers", "no-watches":
		return "proxy"
	case "compaction", "restore-etcd", "kill-etcd", "kill-apiserver", "pause-apiserver":
		return "cluster"
	}
	if slices.Contains(f.on, "clocks") && len(f.on) == 1 {
		return "clock"
	}
	for _, how := range []string{"kill-", "pause-", "restart-"} {
		if len(f.name) > len(how) && f.name[:len(how)] == how {
			return f.name[len(how):]
		}
	}
	return f.name
}

// planned is a fault with its moments in a round.
type planned struct {
	fault
	after, lasts time.Duration
}

// plan chooses the faults of a round, and their moments, from a seed. first says which can be the first of a pair.
func plan(random *rand.Rand, possible []fault, first func(fault) bool, alone *[]fault, longest time.Duration) []planned {
	if len(possible) == 0 {
		return nil
	}
	// Each alone once, in a random order; between them pairs.
	var chosen []fault
	if len(*alone) > 0 && random.IntN(2) == 0 {
		chosen, *alone = (*alone)[:1], (*alone)[1:]
	} else {
		for _, i := range random.Perm(len(possible)) {
			f := possible[i]
			if len(chosen) == 0 && !first(f) {
				continue
			}
			if len(chosen) == 1 && (chosen[0].group() == f.group() || chosen[0].group() == "planner" && f.group() == "standby" || chosen[0].group() == "standby" && f.group() == "planner") {
				continue
			}
			if chosen = append(chosen, f); len(chosen) == 2 {
				break
			}
		}
	}
	var out []planned
	for _, f := range chosen {
		lasts := min(f.longest, longest)
		if lasts > f.shortest {
			lasts = f.shortest + time.Duration(random.Int64N(int64(lasts-f.shortest)))
		}
		out = append(out, planned{f, 2*time.Second + time.Duration(random.Int64N(int64(6*time.Second))), lasts})
	}
	return out
}
