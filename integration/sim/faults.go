package sim

import (
	"math/rand/v2"
	"net/http"
	"time"

	"shiplog.dev/internal/world"
)

// requestFault is what can happen to a request.
type requestFault int

const (
	none requestFault = iota
	throttled
	broken
	brokenAfter // the write is made, the answer is an error
	conflicts
	forbidden
	invalid
	timesOut
	timesOutAfter // the write is made, no answer comes
	requestFaults
)

func (f requestFault) String() string {
	return [...]string{"none", "429", "500", "500 after the write", "conflict", "403", "422", "timeout", "timeout after the write"}[f]
}

// faults are those that are on.
type faults struct {
	requests []requestWindow
	// lostAppends is how many of the planners' next appends fail, with or without effect.
	lostAppends int
	// lostOutcomes is the share of the executors' appends that fail, with or without effect.
	lostOutcomes float64
}

// requestWindow is a time in which some requests fail.
type requestWindow struct {
	fault    requestFault
	share    float64
	method   string // empty: all writes and looks
	resource string // empty: all
	until    time.Time
}

func (f *faults) ofRequest(s *simulation, r *http.Request) requestFault {
	ref, _ := address(r.URL.Path)
	for _, w := range f.requests {
		if s.now.After(w.until) || w.method != "" && w.method != r.Method || w.resource != "" && w.resource != ref.Resource {
			continue
		}
		if r.Method == http.MethodGet && (w.fault == conflicts || w.fault == forbidden || w.fault == invalid) {
			continue
		}
		if s.chance(w.share) {
			return w.fault
		}
	}
	return none
}

// drawFault returns a fault as an item of a plan.
func drawFault(r *rand.Rand) Item {
	d := seconds(r, 1, 60)
	share := []float64{0.1, 0.3, 1}[r.IntN(3)]
	switch r.IntN(17) {
	case 0, 1, 2:
		w := requestWindow{
			fault: none + 1 + requestFault(r.IntN(int(requestFaults)-1)), share: share,
			method:   []string{"", http.MethodPost, http.MethodPatch, http.MethodDelete, http.MethodGet}[r.IntN(5)],
			resource: []string{"", world.ResourcePods, world.ResourcePods, world.ResourceCloneSets, world.ResourceRevisions}[r.IntN(5)],
		}
		return item(func(s *simulation, _ *rand.Rand) {
			w.until = s.now.Add(d)
			s.faults.requests = append(s.faults.requests, w)
		}, "for %s %.0f%% of requests [%s %s] get %s", d, 100*share, w.method, w.resource, w.fault)
	case 3, 4:
		n, m := r.IntN(2), beforeCall+moment(r.IntN(int(moments)-1))
		return item(func(s *simulation, _ *rand.Rand) { s.executors[n].crashAt = m }, "executor %d crashes %s of its next command", n, m)
	case 5:
		n := r.IntN(2)
		return item(func(s *simulation, _ *rand.Rand) {
			s.executors[n].cutOff()
			s.after(d, s.executors[n].start)
		}, "executor %d is cut off from the log for %s", n, d)
	case 6, 7:
		n, compacted := r.IntN(2), r.IntN(2) == 0
		return item(func(s *simulation, _ *rand.Rand) {
			s.planners[n].crash()
			s.after(d/4, func() { s.planners[n].start(compacted) })
		}, "planner %d is down for %s, compacted start: %v", n, d/4, compacted)
	case 8:
		n := r.IntN(2)
		return item(func(s *simulation, _ *rand.Rand) {
			if p := s.planners[n]; p.alive {
				p.lead()
			}
		}, "planner %d believes that nobody leads", n)
	case 9:
		n, d := r.IntN(2), seconds(r, 1, 8)
		return item(func(s *simulation, _ *rand.Rand) { s.planners[n].heldUntil = s.now.Add(d) }, "planner %d stands still for %s", n, d)
	case 10:
		resource := []string{"", world.ResourcePods, world.ResourceCloneSets}[r.IntN(3)]
		relist := r.IntN(2) == 0
		return item(func(s *simulation, _ *rand.Rand) {
			for _, watched := range world.Watched {
				if resource == "" || resource == watched.Resource {
					s.watcher.held[watched.Resource] = s.now.Add(d)
				}
			}
			if relist {
				s.after(d, s.watcher.relist)
			}
		}, "the watch of [%s] is held back for %s, relist: %v", resource, d, relist)
	case 11:
		return item(func(s *simulation, _ *rand.Rand) {
			s.watcher.duplicates = share
			s.after(d, func() { s.watcher.duplicates = 0 })
		}, "for %s %.0f%% of the facts come again later", d, 100*share)
	case 12:
		return item(func(s *simulation, _ *rand.Rand) { s.compact() }, "the log is compacted")
	case 13:
		n := 1 + r.IntN(3)
		return item(func(s *simulation, _ *rand.Rand) { s.faults.lostAppends += n }, "%d appends of planners are lost, or their answers", n)
	case 15, 16:
		off := []time.Duration{-time.Minute, -10 * time.Second, 10 * time.Second, time.Minute}[r.IntN(4)]
		return item(func(s *simulation, _ *rand.Rand) {
			s.setClock(off)
			s.after(d, func() { s.setClock(0) })
		}, "the log's clock is off by %s for %s", off, d)
	}
	d /= 4
	if r.IntN(2) == 0 {
		return item(func(s *simulation, _ *rand.Rand) {
			s.faults.lostOutcomes = share / 2
			s.after(d, func() { s.faults.lostOutcomes = 0 })
		}, "for %s %.0f%% of outcomes are lost, or the log's answer", d, 50*share)
	}
	return item(func(s *simulation, _ *rand.Rand) {
		s.log.SetDown(true)
		s.after(d, func() {
			s.log.SetDown(false)
			s.fireTicks()
			s.logChanged()
			for _, p := range s.planners {
				p.wake()
			}
			for _, w := range s.executors {
				w.wake()
			}
		})
	}, "the log is down for %s", d)
}

// drawTrouble returns, as an item, something that happens to Pods and nodes by itself or by hand.
func drawTrouble(r *rand.Rand) Item {
	d := seconds(r, 1, 60)
	onPod := func(what string, do func(s *simulation, o *object)) Item {
		return item(func(s *simulation, r *rand.Rand) {
			if pods := s.api.list(isPod); len(pods) > 0 {
				o := pods[r.IntN(len(pods))]
				s.tell("plan", "it is %s", o.ref.Name)
				do(s, o)
			}
		}, "%s", what)
	}
	switch r.IntN(10) {
	case 9:
		return item(func(s *simulation, _ *rand.Rand) { s.hooks.stopped = s.now.Add(d) }, "nobody answers lifecycle hooks for %s", d)
	case 0, 1:
		return onPod("a Pod is not ready for "+d.String(), func(s *simulation, o *object) { s.kubelets.fail(o, d) })
	case 2:
		return onPod("a Pod fails for good", func(s *simulation, o *object) { s.kubelets.finish(o) })
	case 3, 4:
		return onPod("a Pod is deleted by hand", func(s *simulation, o *object) { s.api.delete(o, writer{name: "a user"}) })
	case 5:
		return onPod("a Pod is labelled for deletion by hand", func(s *simulation, o *object) {
			s.api.edit(o, "a user", func(tree map[string]any) {
				child(child(tree, "metadata"), "labels")["apps.kruise.io/specified-delete"] = "true"
			})
		})
	case 6:
		n, evict := r.IntN(3), r.IntN(2) == 0
		return item(func(s *simulation, _ *rand.Rand) {
			s.kubelets.setLost(nodeName(n), true)
			if evict {
				s.after(d/2, func() { s.kubelets.evict(nodeName(n)) })
			}
			s.after(d, func() { s.kubelets.setLost(nodeName(n), false) })
		}, "node %s is lost for %s, Pods evicted: %v", nodeName(n), d, evict)
	case 7:
		return item(func(s *simulation, _ *rand.Rand) { s.kubelets.slowUntil = s.now.Add(d) }, "kubelets are slow for %s", d)
	}
	return item(func(s *simulation, _ *rand.Rand) { s.kubelets.stuck = s.now.Add(d) }, "no Pod is scheduled for %s", d)
}

func serviceRef(set string) world.Ref {
	return world.Ref{Resource: world.ResourceServices, Namespace: "default", Name: set}
}
