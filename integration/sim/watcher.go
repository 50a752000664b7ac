package sim

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"k8s.io/apimachinery/pkg/runtime/schema"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	normal "shiplog.dev/internal/object"
	"shiplog.dev/internal/world"
)

// watcher turns changes of the API server into facts: late, in order for each object, in any order between objects, some of
// them again later. It vouches when all that a consistent read showed has come through.
type watcher struct {
	s       *simulation
	pending map[world.Ref][]*fact
	planned map[world.Ref]bool
	held    map[string]time.Time // resources that do not come through until a time
	// proof: everything up to a version was in the log as of a time.
	proof      time.Time
	proving    uint64
	provingAt  time.Time
	moved      bool // the log holds more than at the last vouch
	duplicates float64
}

// proofWithin bounds one proof; one older than proofFresh is no base for a vouch (services/watcher, pace).
const (
	proofWithin = 10 * time.Second
	proofFresh  = 15 * time.Second
)

type fact struct {
	version uint64 // of the oldest change that it stands for
	entry   *shiplogv1.Entry
}

func newWatcher(s *simulation) *watcher {
	return &watcher{s: s, pending: map[world.Ref][]*fact{}, planned: map[world.Ref]bool{}, held: map[string]time.Time{}}
}

func (w *watcher) begin() { w.s.after(time.Second, w.prove) }

func (w *watcher) heal() {
	clear(w.held)
	w.duplicates = 0
	w.relist()
}

// change is told of every write.
func (w *watcher) change(o *object) {
	if slices.ContainsFunc(world.Watched, func(r world.GroupResource) bool { return r.Group == o.ref.Group && r.Resource == o.ref.Resource }) {
		w.pending[o.ref] = append(w.pending[o.ref], factOf(o, o.version))
		w.plan(o.ref, w.s.between(time.Millisecond, 300*time.Millisecond))
	}
}

// apiVersions are those that the watcher reads.
func apiVersion(group string) string {
	if group == world.GroupKruise {
		return "v1beta1"
	}
	return "v1"
}

func factOf(o *object, version uint64) *fact {
	ref := &shiplogv1.ObjectRef{
		Group: o.ref.Group, Version: apiVersion(o.ref.Group), Resource: o.ref.Resource, Namespace: o.ref.Namespace, Name: o.ref.Name, Uid: o.uid,
	}
	if o.gone {
		return &fact{version, &shiplogv1.Entry{Writer: "watcher/a", Kind: &shiplogv1.Entry_ObjectDeleted{
			ObjectDeleted: &shiplogv1.ObjectDeleted{Object: ref, ResourceVersion: fmt.Sprint(version)},
		}}}
	}
	return &fact{version, normalised(o)}
}

func normalised(o *object) *shiplogv1.Entry {
	n, err := normal.Normalise(schema.GroupVersionResource{Group: o.ref.Group, Version: apiVersion(o.ref.Group), Resource: o.ref.Resource}, o.raw)
	if err != nil {
		panic(err) // it came from put
	}
	entry := n.Observed()
	entry.Writer = "watcher/a"
	return entry
}

func (w *watcher) plan(ref world.Ref, pause time.Duration) {
	if w.planned[ref] {
		return
	}
	w.planned[ref] = true
	w.s.after(pause, func() {
		w.planned[ref] = false
		w.deliver(ref)
	})
}

// deliver puts the oldest pending fact of an object into the log.
func (w *watcher) deliver(ref world.Ref) {
	if len(w.pending[ref]) == 0 {
		return
	}
	if until := w.held[ref.Resource]; until.After(w.s.now) {
		w.plan(ref, until.Sub(w.s.now)+w.s.between(0, 100*time.Millisecond))
		return
	}
	next := w.pending[ref][0]
	if !w.s.append(next.entry) {
		w.plan(ref, w.s.between(100*time.Millisecond, 2*time.Second))
		return
	}
	w.pending[ref] = w.pending[ref][1:]
	if len(w.pending[ref]) > 0 {
		w.plan(ref, w.s.between(time.Millisecond, 50*time.Millisecond))
	} else {
		delete(w.pending, ref)
	}
	if w.s.chance(w.duplicates) {
		w.s.after(w.s.between(time.Second, 6*time.Minute), func() { w.s.append(next.entry) })
	}
}

// relist is a new watch: only the newest state of each object comes through, and of one that is gone that it is not there
// as of now.
func (w *watcher) relist() {
	for _, ref := range sortedKeys(w.pending) {
		facts := w.pending[ref]
		last := facts[len(facts)-1]
		last.version = facts[0].version // it stands for all that did not come through
		if deleted := last.entry.GetObjectDeleted(); deleted != nil {
			deleted.ResourceVersion = fmt.Sprint(w.s.api.version)
		}
		w.pending[ref] = []*fact{last}
		w.plan(ref, w.s.between(time.Millisecond, 300*time.Millisecond))
	}
}

func sortedKeys[V any](of map[world.Ref]V) []world.Ref {
	keys := make([]world.Ref, 0, len(of))
	for ref := range of {
		keys = append(keys, ref)
	}
	slices.SortFunc(keys, func(a, b world.Ref) int { return compareText(a.String(), b.String()) })
	return keys
}

func compareText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// prove makes a consistent read every few seconds, for ever, and waits until all of it has come through.
func (w *watcher) prove() {
	if w.proving == 0 || w.s.now.Sub(w.provingAt) > proofWithin {
		w.proving, w.provingAt = w.s.api.version, w.s.now
	}
	w.check()
	w.s.after(w.s.between(time.Second, 3*time.Second), w.prove)
}

// check ends a proof when it can, and says so in the log if the log has moved.
func (w *watcher) check() {
	if w.proving > 0 && !w.lacks(w.proving) {
		w.proof, w.proving = w.provingAt, 0
	}
	if !w.moved || w.proof.IsZero() || w.s.now.Sub(w.proof) > proofFresh {
		return
	}
	vouched := &shiplogv1.Vouched{Age: durationpb.New(w.s.now.Sub(w.proof))}
	for _, resource := range world.Watched {
		vouched.Complete = append(vouched.Complete, &shiplogv1.Completeness{Group: resource.Group, Resource: resource.Resource, ResourceVersion: "1"})
	}
	if w.s.append(&shiplogv1.Entry{Writer: "watcher/a", Kind: &shiplogv1.Entry_Vouched{Vouched: vouched}}) {
		w.moved = false
	}
}

// lacks says whether something up to a version has not come through.
func (w *watcher) lacks(version uint64) bool {
	for _, facts := range w.pending {
		if facts[0].version <= version {
			return true
		}
	}
	return false
}

func (w *watcher) logMoved() { w.moved = true }
