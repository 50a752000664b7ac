package world

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Sequence is the position of the newest entry folded.
func (w *World) Sequence() uint64 { return w.sequence }

// Now is the time of the newest entry folded, by the log's clock, which is all the time that decisions know. It goes back where that
// clock was put back.
func (w *World) Now() time.Time { return w.now }

// Fence is the sequence of the newest fence.
func (w *World) Fence() uint64 { return w.fence }

// Touched returns the workloads whose part of the world changed since the last call, sorted.
func (w *World) Touched() []Ref {
	out := slices.SortedFunc(maps.Keys(w.touched), CompareRefs)
	clear(w.touched)
	return out
}

// Workloads returns everything that rules decide on, sorted: every workload, and the NodeImage of every Node, which may have
// to be created.
func (w *World) Workloads() []Ref {
	out := slices.Collect(maps.Keys(w.cloneSets)) //shiplog:unordered: sorted below
	out = slices.AppendSeq(out, maps.Keys(w.customs))
	for name := range w.nodes { //shiplog:unordered: sorted below
		if ref := nodeImageOf(name); w.customs[ref] == nil {
			out = append(out, ref)
		}
	}
	slices.SortFunc(out, CompareRefs)
	return out
}

// CompareRefs orders references by group, resource, namespace and name.
func CompareRefs(a, b Ref) int {
	return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Resource, b.Resource),
		cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// Trusted says whether the watcher has vouched for everything that the rules of a workload read, since the newest fence, since the API
// server was rewound, and since the log's clock was put back. Before that nothing may be decided.
func (w *World) Trusted(workload Ref) bool {
	for _, resource := range readBy(workload) {
		if vouched := w.vouches[resource].sequence; vouched <= max(w.fence, w.rewound) || vouched < w.turned {
			return false
		}
	}
	return true
}

// FactsAge is how long ago what the rules of a workload read was last known to be complete, by log time. Meaningless before
// Trusted.
func (w *World) FactsAge(workload Ref) time.Duration {
	age := time.Duration(0)
	for _, resource := range readBy(workload) {
		age = max(age, w.now.Sub(w.vouches[resource].asOf))
	}
	return age
}

// CloneSet returns a CloneSet, or nil.
func (w *World) CloneSet(ref Ref) *CloneSet { return w.cloneSets[ref] }

// PodsOf returns the Pods that a workload controls, sorted by name, those included that a command under way creates. The
// caller must not change them.
func (w *World) PodsOf(owner types.UID) []*Pod {
	owned := w.podsOf[owner]
	if owned == nil {
		return nil
	}
	pods := make([]*Pod, len(owned.slots))
	for i, at := range owned.slots {
		pods[i] = at.shown
	}
	return pods
}

// Pod returns a Pod as its newest fact shows it, and as rules see it, with the command under way; nil where there is none.
func (w *World) Pod(ref Ref) (held, shown *Pod) {
	if at := w.slot(ref); at != nil {
		return at.held, at.shown
	}
	return nil, nil
}

// Workload returns the workload that has a UID, and whether there is one.
func (w *World) Workload(uid types.UID) (Ref, bool) {
	ref, is := w.workloads[uid]
	return ref, is
}

// WorkloadUID returns the UID by which commands for a workload name it: that of the object, or of the Node whose NodeImage
// is missing; empty: there is no such workload.
func (w *World) WorkloadUID(ref Ref) types.UID {
	if held := w.meta(ref); held != nil {
		return held.UID
	}
	if node := w.nodes[ref.Name]; node != nil && ref == nodeImageOf(ref.Name) {
		return node.UID
	}
	return ""
}

// Busy says whether any command is under way.
func (w *World) Busy() bool { return len(w.commands) > 0 }

// Command returns the command at a position while it is under way, or nil.
func (w *World) Command(sequence uint64) *UnderWay { return w.commands[sequence] }

// PodNamed says whether any Pod, in whatever phase, holds a name, or is about to.
func (w *World) PodNamed(namespace, name string) bool {
	at := w.pods[namespace][name]
	return at != nil && at.shown != nil
}

// RevisionsOf returns the revisions that a workload controls, by number then name, those included that are being created.
func (w *World) RevisionsOf(owner types.UID) []*Revision {
	var out []*Revision
	for ref := range w.children[owner] { //shiplog:unordered: sorted below
		if ref.Resource == ResourceRevisions {
			out = append(out, w.Revision(ref.Namespace, ref.Name))
		}
	}
	slices.SortFunc(out, func(a, b *Revision) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// ClaimsOf returns the claims that a workload controls, by name, those included that are being created.
func (w *World) ClaimsOf(owner types.UID) []*Claim {
	var out []*Claim
	for ref := range w.children[owner] { //shiplog:unordered: sorted below
		if ref.Resource == ResourceClaims {
			out = append(out, w.Claim(ref.Namespace, ref.Name))
		}
	}
	slices.SortFunc(out, func(a, b *Claim) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Revision returns the revision of a name, one that is being created included, or nil.
func (w *World) Revision(namespace, name string) *Revision {
	return shown(w, w.revisions, Ref{Group: GroupApps, Resource: ResourceRevisions, Namespace: namespace, Name: name},
		func(revision *Revision, under *UnderWay) { revision.UnderWay = under })
}

// Claim returns the claim of a name, one that is being created included, or nil.
func (w *World) Claim(namespace, name string) *Claim {
	return shown(w, w.claims, Ref{Resource: ResourceClaims, Namespace: namespace, Name: name},
		func(claim *Claim, under *UnderWay) { claim.UnderWay = under })
}

// shown returns what is held, or else a copy of what a command under way creates, marked as such; nil when there is neither.
func shown[T any](w *World, held map[Ref]*T, ref Ref, mark func(*T, *UnderWay)) *T {
	if object := held[ref]; object != nil {
		return object
	}
	under := w.underWay[ref]
	if under == nil {
		return nil
	}
	created, is := under.created.(*T)
	if !is {
		return nil
	}
	out := *created
	mark(&out, under)
	return &out
}

// Nodes returns all Nodes, by name.
func (w *World) Nodes() []*Node {
	return slices.SortedFunc(maps.Values(w.nodes), func(a, b *Node) int { return cmp.Compare(a.Name, b.Name) })
}

// Node returns a node, or nil.
func (w *World) Node(name string) *Node { return w.nodes[name] }

// HasAgent says whether an agent has ever reported what runs on a node.
func (w *World) HasAgent(node string) bool { return w.agents[node] > 0 }

// Gate says whether a feature gate is on.
func (w *World) Gate(name string) bool { return w.gates[name] }

// Setting returns a number that the operator chose, and whether one was chosen.
func (w *World) Setting(name string) (int64, bool) {
	value, set := w.settings[name]
	return value, set
}

// Removed says whether a Pod of this name was lately deleted by a command, and by which one last.
func (w *World) Removed(namespace, name string) (Removal, bool) {
	removal, is := w.removals[Ref{Resource: ResourcePods, Namespace: namespace, Name: name}]
	return removal, is
}

// Refusal returns the newest no that commands of a workload with a reason code got since the last that was applied, or nil.
func (w *World) Refusal(workload types.UID, code string) *Refusal {
	return w.refusals[refusalKey{workload, code}]
}

// WakeTime returns when the tick of an identity falls due, and whether one was asked for.
func (w *World) WakeTime(id string) (time.Time, bool) {
	if wish := w.wakes[id]; wish != nil {
		return wish.wakeTime, true
	}
	return time.Time{}, false
}

// Routed says whether anything sends traffic to a Pod: a Service selects it or an EndpointSlice names it.
func (w *World) Routed(pod *Pod) bool {
	for _, service := range w.services[pod.Namespace] { //shiplog:unordered: asks whether any
		if service.Selector.Len() > 0 && service.Selector.Within(pod.Labels) {
			return true
		}
	}
	for _, slice := range w.slices[pod.Namespace] { //shiplog:unordered: asks whether any
		if slices.Contains(slice.Pods, pod.Name) {
			return true
		}
	}
	return false
}

// Live returns the sequences of the entries that the world rests on, in order: folding only those gives the same world.
func (w *World) Live() []uint64 {
	live := make([]uint64, 0, len(w.tombstones)+64)
	if w.sequence > 0 {
		live = append(live, w.sequence)
	}
	for _, pods := range w.pods { //shiplog:unordered: sorted below
		for _, at := range pods { //shiplog:unordered: sorted below
			if at.held != nil {
				live = append(live, at.held.Sequence)
			}
		}
	}
	live = appendSequences(live, w.cloneSets)
	live = appendSequences(live, w.revisions)
	live = appendSequences(live, w.nodes)
	live = appendSequences(live, w.namespaces)
	live = appendSequences(live, w.claims)
	for _, object := range w.customs { //shiplog:unordered: sorted below
		live = append(live, object.meta().Sequence)
	}
	for _, sequence := range w.agents { //shiplog:unordered: sorted below
		live = append(live, sequence)
	}
	for _, nodes := range w.results { //shiplog:unordered: sorted below
		for _, held := range nodes { //shiplog:unordered: sorted below
			live = append(live, held.image, held.job)
		}
	}
	for _, call := range w.callsBy { //shiplog:unordered: sorted below
		live = append(live, call.Command)
		for _, sequence := range []uint64{call.fact, call.running, call.outcome} {
			if sequence > 0 {
				live = append(live, sequence)
			}
		}
	}
	for _, services := range w.services { //shiplog:unordered: sorted below
		live = appendSequences(live, services)
	}
	for _, endpoints := range w.slices { //shiplog:unordered: sorted below
		live = appendSequences(live, endpoints)
	}
	for sequence := range w.commands { //shiplog:unordered: sorted below
		live = append(live, sequence)
	}
	for _, wish := range w.wakes { //shiplog:unordered: sorted below
		live = append(live, wish.Sequence)
	}
	for _, refusal := range w.refusals { //shiplog:unordered: sorted below
		live = append(live, refusal.command, refusal.outcome)
	}
	for _, deletion := range w.deletions { //shiplog:unordered: sorted below
		live = append(live, deletion.command, deletion.outcome, deletion.fact)
	}
	for _, removal := range w.removals { //shiplog:unordered: sorted below
		live = append(live, removal.command, removal.outcome)
	}
	for _, stone := range w.tombstones { //shiplog:unordered: sorted below
		live = append(live, stone.sequence)
	}
	for _, vouch := range w.vouches { //shiplog:unordered: sorted below
		live = append(live, vouch.sequence)
	}
	if w.fence > 0 {
		live = append(live, w.fence)
	}
	if w.rewound > 0 {
		live = append(live, w.rewound)
	}
	slices.Sort(live)
	return slices.Compact(live)
}

func appendSequences[K comparable, T interface{ sequenceOfFact() uint64 }](live []uint64, held map[K]T) []uint64 {
	for _, object := range held { //shiplog:unordered: sorted by the caller
		live = append(live, object.sequenceOfFact())
	}
	return live
}

func (m *Meta) sequenceOfFact() uint64 { return m.Sequence }
