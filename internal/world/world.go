// Package world folds the entries of the log into the state that everything is decided on, and answers questions about it.
// It holds objects as the API server last showed them, commands that are under way, what was refused, the ticks that were
// asked for, and how fresh the facts are.
//
// It is pure: no clock, no randomness, no I/O, no goroutine, no order taken from a map. Time is that of the newest entry.
// It knows no kind's rules; those are in the planner's decide.
package world

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// tombstoneAge is how long a deleted object is remembered, so that a late fact does not bring it back, and so is the delete of
// a Pod. Log time.
const tombstoneAge = 10 * time.Minute

// World is the state that folding all entries up to Sequence gives. It is not safe for concurrent use.
type World struct {
	sequence uint64
	now      time.Time

	pods       map[string]map[string]*slot    // by namespace, name
	podsOf     map[types.UID]*siblings        // by controlling owner
	children   map[types.UID]map[Ref]struct{} // revisions, claims and ImagePullJobs by controlling owner, those included that are being created
	parents    map[Ref]types.UID              // the same, the other way round
	cloneSets  map[Ref]*CloneSet
	revisions  map[Ref]*Revision
	nodes      map[string]*Node
	namespaces map[string]*Namespace
	claims     map[Ref]*Claim
	services   map[string]map[string]*Service       // by namespace, name
	slices     map[string]map[string]*EndpointSlice // by namespace, name
	customs    map[Ref]custom
	workloads  map[types.UID]Ref
	// podJobs are the ImagePullJobs of a namespace that select Pods, restarts the ContainerRecreateRequests of a Pod.
	podJobs  map[string]map[Ref]struct{}
	restarts map[Ref]map[Ref]struct{}
	results  map[types.UID]map[string]result // of pulls, by job and node

	agents map[string]uint64 // newest fact of a node's agent, by node

	calls      map[callKey]*Call
	callsBy    map[uint64]*Call            // the same, by sequence
	openCalls  map[string]map[uint64]*Call // those without an outcome, by node
	endedCalls []endedCall                 // oldest first

	underWay  map[Ref]*UnderWay
	commands  map[uint64]*UnderWay // the same, by sequence
	deletions map[types.UID]deletion
	removals  map[Ref]Removal
	removed   []grave // of removals, oldest first
	refusals  map[refusalKey]*Refusal
	wakes     map[string]*UnderWay

	tombstones map[Ref]tombstone
	graves     []grave // oldest first

	vouches map[GroupResource]vouch
	fence   uint64
	// Of the newest fence.
	gates    map[string]bool
	settings map[string]int64
	// rewound is the sequence of the newest Rewound: versions before and after it do not compare.
	rewound uint64
	// turned is the newest entry before which the log's clock was put back; 0: it never was. A compacted start may not know it: whoever leads
	// after one wants a vouch since its fence anyway.
	turned uint64

	touched map[Ref]struct{}
}

type tombstone struct {
	version  uint64
	sequence uint64
	time     time.Time
}

// grave says when a tombstone is to be forgotten; one whose tombstone has been replaced says nothing.
type grave struct {
	ref      Ref
	sequence uint64
}

type vouch struct {
	sequence uint64
	asOf     time.Time
}

// deletion is an applied delete whose fact has not come yet. It rests on the command, its outcome, and the fact that showed
// the object when the outcome came.
type deletion struct {
	object                 Ref
	command, outcome, fact uint64
}

// Removal is an applied delete of a Pod by a command. It is remembered for a while after the Pod is gone, because what belongs
// to the Pod follows it.
type Removal struct {
	// Workload that the command served, and its reason's code.
	Workload types.UID
	Code     string

	command, outcome uint64
	time             time.Time
}

type refusalKey struct {
	workload types.UID
	code     string
}

// New returns the world before the first entry.
func New() *World {
	return &World{
		pods: map[string]map[string]*slot{}, podsOf: map[types.UID]*siblings{}, children: map[types.UID]map[Ref]struct{}{}, parents: map[Ref]types.UID{},
		removals: map[Ref]Removal{}, cloneSets: map[Ref]*CloneSet{}, revisions: map[Ref]*Revision{},
		nodes: map[string]*Node{}, namespaces: map[string]*Namespace{}, claims: map[Ref]*Claim{},
		customs: map[Ref]custom{}, podJobs: map[string]map[Ref]struct{}{}, restarts: map[Ref]map[Ref]struct{}{}, results: map[types.UID]map[string]result{},
		agents: map[string]uint64{}, calls: map[callKey]*Call{}, callsBy: map[uint64]*Call{}, openCalls: map[string]map[uint64]*Call{},
		services: map[string]map[string]*Service{}, slices: map[string]map[string]*EndpointSlice{},
		workloads: map[types.UID]Ref{}, underWay: map[Ref]*UnderWay{}, commands: map[uint64]*UnderWay{},
		deletions: map[types.UID]deletion{}, refusals: map[refusalKey]*Refusal{}, wakes: map[string]*UnderWay{},
		tombstones: map[Ref]tombstone{}, vouches: map[GroupResource]vouch{}, touched: map[Ref]struct{}{},
	}
}

// Fold takes the next entry. It cannot fail: what Decode let through has happened. An entry that the world has passed
// already changes nothing.
func (w *World) Fold(change Change) {
	if change.Sequence <= w.sequence {
		return
	}
	w.sequence = change.Sequence
	w.tell(change)
	w.bury()
	switch kind := change.Entry.GetKind().(type) {
	case *shiplogv1.Entry_ObjectObserved:
		w.observe(change)
	case *shiplogv1.Entry_ObjectDeleted:
		w.remove(change)
	case *shiplogv1.Entry_Vouched:
		asOf := change.Time.Add(-kind.Vouched.GetAge().AsDuration())
		for _, complete := range kind.Vouched.GetComplete() {
			w.vouches[GroupResource{complete.GetGroup(), complete.GetResource()}] = vouch{change.Sequence, asOf}
		}
	case *shiplogv1.Entry_Rewound:
		w.rewind(change.Sequence)
	case *shiplogv1.Entry_Ticked:
		// The log keeps one note for an identity. Where it holds the note of a later wish and not the wish, this tick came in place of the
		// known wish's own.
		if wish := w.wakes[kind.Ticked.GetId()]; wish != nil {
			delete(w.wakes, kind.Ticked.GetId())
			w.touch(wish.Object)
		}
	case *shiplogv1.Entry_Command:
		if change.call != nil {
			w.startCall(change.call)
			return
		}
		w.start(change.under)
	case *shiplogv1.Entry_NodeObserved:
		w.agents[kind.NodeObserved.GetNode()] = change.Sequence
	case *shiplogv1.Entry_CallObserved:
		w.observeCall(change, kind.CallObserved)
	case *shiplogv1.Entry_Outcome:
		if kind.Outcome.GetNode() != "" {
			w.endCall(change, kind.Outcome)
			return
		}
		w.finish(change.Sequence, change.Time, change.Entry.GetCause(), kind.Outcome)
	case *shiplogv1.Entry_FenceRaised:
		w.fence, w.gates, w.settings = change.Sequence, kind.FenceRaised.GetGates(), kind.FenceRaised.GetSettings()
		for _, ref := range w.Workloads() {
			w.touch(ref)
		}
	}
}

// clockJitter is how far the log's clock may go back without notice: servers that take turns do not agree to the millisecond.
const clockJitter = time.Second

// tell moves the time on to that of an entry. A clock that was put back says nothing of how long ago a vouch was, so those before do
// not count any more; and ticks asked for by the time before would come late, so whoever waits for one is looked at.
func (w *World) tell(change Change) {
	if w.now.Sub(change.Time) > clockJitter {
		w.turned = change.Sequence
		for _, wish := range w.wakes { //shiplog:unordered: touches a set
			w.touch(wish.Object)
		}
	}
	w.now = change.Time
}

func (w *World) observe(change Change) {
	if change.object == nil || change.version <= w.tombstones[change.ref].version {
		return
	}
	if held := w.meta(change.ref); held != nil && change.version <= held.Version && held.Sequence > w.rewound {
		return
	}
	ref := change.ref
	switch object := change.object.(type) {
	case *Pod:
		at := w.slotOf(ref)
		w.unlist(at)
		if at.held != nil && at.held.UID != object.UID {
			w.forgetDeletion(at)
		}
		w.touchSelecting(at.held, object)
		w.share(object, at.held)
		at.held = object
		w.list(at)
		w.touchOwner(at.shown)
		w.touchRestarts(ref)
	case *CloneSet:
		object.UnderWay = w.underWay[ref]
		if before := w.cloneSets[ref]; before != nil && before.UID != object.UID {
			delete(w.workloads, before.UID)
		}
		w.cloneSets[ref] = object
		w.workloads[object.UID] = ref
		w.touch(ref)
	case *Revision:
		object.UnderWay = w.underWay[ref]
		w.revisions[ref] = object
		w.adopt(ref)
	case *Node:
		if before := w.nodes[object.Name]; before != nil && before.UID != object.UID {
			delete(w.workloads, before.UID)
		}
		w.nodes[object.Name] = object
		w.workloads[object.UID] = nodeImageOf(object.Name) // by this UID commands name a NodeImage that is missing
		w.touch(nodeImageOf(object.Name))
	case *Namespace:
		w.namespaces[object.Name] = object
	case *Claim:
		object.UnderWay = w.underWay[ref]
		w.claims[ref] = object
		w.adopt(ref)
	case *Service:
		put(w.services, object.Namespace, object.Name, object)
	case *EndpointSlice:
		put(w.slices, object.Namespace, object.Name, object)
	case custom:
		w.observeCustom(ref, object)
	}
}

func put[T any](index map[string]map[string]T, namespace, name string, object T) {
	if index[namespace] == nil {
		index[namespace] = map[string]T{}
	}
	index[namespace][name] = object
}

func (w *World) remove(change Change) {
	ref := change.ref
	if held := w.meta(ref); held != nil && held.Version > change.version && held.Sequence > w.rewound {
		return
	}
	if change.version <= w.tombstones[ref].version {
		return
	}
	w.tombstones[ref] = tombstone{change.version, change.Sequence, change.Time}
	w.graves = append(w.graves, grave{ref, change.Sequence})
	switch (GroupResource{ref.Group, ref.Resource}) {
	case GroupResource{"", ResourcePods}:
		if at := w.slot(ref); at != nil {
			w.touchOwner(at.shown)
			w.touchSelecting(at.held, nil)
			w.touchRestarts(ref)
			w.unlist(at)
			w.forgetDeletion(at)
			at.held = nil
			w.list(at)
			w.dropEmpty(ref, at)
		}
	case GroupResource{GroupKruise, ResourceCloneSets}:
		if set := w.cloneSets[ref]; set != nil {
			delete(w.workloads, set.UID)
			w.forgetWorkload(set.UID)
		}
		delete(w.cloneSets, ref)
	case GroupResource{GroupApps, ResourceRevisions}:
		delete(w.revisions, ref)
		w.adopt(ref)
	case GroupResource{"", ResourceNodes}:
		if node := w.nodes[ref.Name]; node != nil {
			delete(w.workloads, node.UID)
		}
		delete(w.nodes, ref.Name)
		delete(w.agents, ref.Name)
		w.touch(nodeImageOf(ref.Name))
	case GroupResource{"", ResourceNamespaces}:
		delete(w.namespaces, ref.Name)
	case GroupResource{"", ResourceClaims}:
		delete(w.claims, ref)
		w.adopt(ref)
	case GroupResource{"", ResourceServices}:
		delete(w.services[ref.Namespace], ref.Name)
	case GroupResource{GroupDiscovery, ResourceEndpointSlices}:
		delete(w.slices[ref.Namespace], ref.Name)
	default:
		w.removeCustom(ref)
	}
}

// rewind takes note that the API server is at an earlier state than the world: any fact that follows is newer than what is held or
// gone, and an applied delete of a Pod may not have happened.
func (w *World) rewind(sequence uint64) {
	w.rewound = sequence
	clear(w.tombstones)
	w.graves = nil
	for _, deletion := range w.deletions { //shiplog:unordered: changes each
		at := w.slot(deletion.object)
		w.unlist(at)
		w.forgetDeletion(at)
		w.list(at)
	}
	for _, ref := range w.Workloads() {
		w.touch(ref)
	}
}

// forgetWorkload drops what is remembered for a workload that is gone.
func (w *World) forgetWorkload(uid types.UID) {
	for key := range w.refusals { //shiplog:unordered: deletes by key
		if key.workload == uid {
			delete(w.refusals, key)
		}
	}
	for id, wish := range w.wakes { //shiplog:unordered: deletes by key
		if wish.Workload == uid {
			delete(w.wakes, id)
		}
	}
}

func (w *World) start(under *UnderWay) {
	if under.verb == Wake {
		w.wakes[under.wakeID] = under
		return
	}
	if before := w.underWay[under.Object]; before != nil {
		delete(w.commands, before.Sequence) // its outcome will say nothing to anybody,
		w.touchUID(before.Workload)         // so whoever waits for it looks now
	}
	w.underWay[under.Object], w.commands[under.Sequence] = under, under
	w.showUnderWay(under.Object)
	w.touchUID(under.Workload)
}

func (w *World) finish(sequence uint64, at time.Time, command uint64, outcome *shiplogv1.Outcome) {
	under := w.commands[command]
	if under == nil {
		return
	}
	drop(&w.commands, command)
	drop(&w.underWay, under.Object)
	key := refusalKey{under.Workload, under.Code}
	switch outcome.GetResult() {
	case shiplogv1.Outcome_RESULT_APPLIED:
		delete(w.refusals, key)
		if slot := w.slot(under.Object); under.verb == Delete && slot != nil && slot.held != nil && slot.held.UID == under.uid && !slot.held.Terminating {
			slot.deleted = under.uid
			w.deletions[under.uid] = deletion{under.Object, command, sequence, slot.held.Sequence}
		}
		if under.verb == Delete && under.Object.Resource == ResourcePods {
			w.removals[under.Object] = Removal{under.Workload, under.Code, command, sequence, at}
			w.removed = append(w.removed, grave{under.Object, sequence})
		}
	case shiplogv1.Outcome_RESULT_REFUSED:
		if Final(outcome.GetReason().GetCode()) {
			w.refusals[key] = &Refusal{
				Time: at, Attempt: under.attempt + 1, Code: outcome.GetReason().GetCode(),
				Message: outcome.GetReason().GetMessage(), Object: under.Object, command: command, outcome: sequence,
			}
		}
	}
	w.showUnderWay(under.Object)
	w.touchUID(under.Workload)
}

// Final says whether a refusal speaks against trying again soon. A precondition that did not hold does not: the newer state
// of the object is in the log by then, and deciding on it is all that is needed.
func Final(code string) bool { return code != "Conflict" && code != "NotFound" }

// showUnderWay brings an object in line with the command that is under way on it, or no longer is.
func (w *World) showUnderWay(ref Ref) {
	under := w.underWay[ref]
	switch (GroupResource{ref.Group, ref.Resource}) {
	case GroupResource{"", ResourcePods}:
		at := w.slotOf(ref)
		w.unlist(at)
		at.under = under
		w.list(at)
		w.touchOwner(at.shown)
		w.dropEmpty(ref, at)
	case GroupResource{GroupKruise, ResourceCloneSets}:
		if set := w.cloneSets[ref]; set != nil {
			set.UnderWay = under
			w.touch(ref) // it may be another one of the same name than the command was for
		}
	case GroupResource{GroupApps, ResourceRevisions}:
		if revision := w.revisions[ref]; revision != nil {
			revision.UnderWay = under
		}
		w.adopt(ref)
	case GroupResource{"", ResourceClaims}:
		if claim := w.claims[ref]; claim != nil {
			claim.UnderWay = under
		}
		w.adopt(ref)
	default:
		w.showOnCustom(ref, under)
	}
}

// adopt keeps the index of revisions, claims and ImagePullJobs by owner in line with the object as it is shown now.
func (w *World) adopt(ref Ref) {
	var owner types.UID
	switch ref.Resource {
	case ResourceRevisions:
		if revision := w.Revision(ref.Namespace, ref.Name); revision != nil {
			owner = revision.Owner.UID()
		}
	case ResourceClaims:
		if claim := w.Claim(ref.Namespace, ref.Name); claim != nil {
			owner = claim.Owner.UID()
		}
	case ResourceImagePullJobs:
		if job := w.pullJob(ref); job != nil {
			owner = job.Owner.UID()
		}
	}
	before := w.parents[ref]
	w.touchUID(before)
	w.touchUID(owner)
	if before == owner {
		return
	}
	delete(w.parents, ref)
	delete(w.children[before], ref)
	if len(w.children[before]) == 0 {
		delete(w.children, before)
	}
	if owner != "" {
		w.parents[ref] = owner
		if w.children[owner] == nil {
			w.children[owner] = map[Ref]struct{}{}
		}
		w.children[owner][ref] = struct{}{}
	}
}

// drop deletes a key. A map gives back the room that it has taken only as a whole, and there may have been very many at once.
func drop[K comparable, V any](from *map[K]V, key K) {
	if delete(*from, key); len(*from) == 0 {
		*from = map[K]V{}
	}
}

// slot returns that of a Pod, or nil.
func (w *World) slot(pod Ref) *slot { return w.pods[pod.Namespace][pod.Name] }

// slotOf returns that of a Pod, a new one where there was none.
func (w *World) slotOf(pod Ref) *slot {
	at := w.slot(pod)
	if at == nil {
		at = &slot{under: w.underWay[pod]}
		put(w.pods, pod.Namespace, pod.Name, at)
	}
	return at
}

func (w *World) dropEmpty(ref Ref, at *slot) {
	if at.held == nil && at.shown == nil {
		if delete(w.pods[ref.Namespace], ref.Name); len(w.pods[ref.Namespace]) == 0 {
			delete(w.pods, ref.Namespace)
		}
	}
}

func (w *World) forgetDeletion(at *slot) {
	if at.deleted != "" {
		drop(&w.deletions, at.deleted)
		at.deleted = ""
	}
}

// siblings are the Pods of one owner.
type siblings struct {
	slots  []*slot // sorted by name
	newest *Pod    // the one that a fact came of last
}

// list shows the slot to its owner's rules; unlist takes it away again. Invariant: a slot is listed under the owner of its
// shown Pod, and nowhere else, whenever Fold returns.
func (w *World) list(at *slot) {
	if at.held != nil && at.held.Terminating {
		w.forgetDeletion(at)
	}
	at.show()
	if at.shown == nil || !at.shown.Owner.Present() {
		return
	}
	owned := w.podsOf[at.shown.Owner.UID()]
	if owned == nil {
		owned = &siblings{}
		w.podsOf[at.shown.Owner.UID()] = owned
	}
	i, _ := slices.BinarySearchFunc(owned.slots, at, bySlotName)
	owned.slots = slices.Insert(owned.slots, i, at)
}

func (w *World) unlist(at *slot) {
	if at.shown == nil || !at.shown.Owner.Present() {
		return
	}
	owned := w.podsOf[at.shown.Owner.UID()]
	if i, found := slices.BinarySearchFunc(owned.slots, at, bySlotName); found {
		owned.slots = slices.Delete(owned.slots, i, i+1)
	}
	if len(owned.slots) == 0 {
		delete(w.podsOf, at.shown.Owner.UID())
	}
}

func bySlotName(a, b *slot) int { return cmp.Compare(a.shown.Name, b.shown.Name) }

// meta returns the metadata of the newest fact held for a reference, or nil.
func (w *World) meta(ref Ref) *Meta {
	var object any
	switch (GroupResource{ref.Group, ref.Resource}) {
	case GroupResource{"", ResourcePods}:
		if at := w.slot(ref); at != nil && at.held != nil {
			return &at.held.Meta
		}
		return nil
	case GroupResource{GroupKruise, ResourceCloneSets}:
		object = orNil(w.cloneSets[ref])
	case GroupResource{GroupApps, ResourceRevisions}:
		object = orNil(w.revisions[ref])
	case GroupResource{"", ResourceNodes}:
		object = orNil(w.nodes[ref.Name])
	case GroupResource{"", ResourceNamespaces}:
		object = orNil(w.namespaces[ref.Name])
	case GroupResource{"", ResourceClaims}:
		object = orNil(w.claims[ref])
	case GroupResource{"", ResourceServices}:
		object = orNil(w.services[ref.Namespace][ref.Name])
	case GroupResource{GroupDiscovery, ResourceEndpointSlices}:
		object = orNil(w.slices[ref.Namespace][ref.Name])
	default:
		if held := w.customs[ref]; held != nil {
			return held.meta()
		}
	}
	if object == nil {
		return nil
	}
	return metaOf(object)
}

func orNil[T any](object *T) any {
	if object == nil {
		return nil
	}
	return object
}

// bury forgets tombstones, removals and calls that are old enough.
func (w *World) bury() {
	w.buryCalls()
	w.graves = forget(w.graves, func(g grave) (old bool) {
		stone := w.tombstones[g.ref]
		if stone.sequence == g.sequence {
			if old = w.old(stone.time); old {
				drop(&w.tombstones, g.ref)
			}
			return old
		}
		return true
	})
	w.removed = forget(w.removed, func(g grave) (old bool) {
		removal := w.removals[g.ref]
		if removal.outcome == g.sequence {
			if old = w.old(removal.time); old {
				drop(&w.removals, g.ref)
			}
			return old
		}
		return true
	})
}

func (w *World) old(since time.Time) bool { return w.now.Sub(since) >= tombstoneAge }

// forget cuts off the oldest graves that say they are done with.
func forget(graves []grave, done func(grave) bool) []grave {
	for len(graves) > 0 && done(graves[0]) {
		graves = graves[1:]
	}
	if len(graves) == 0 {
		return nil // and not the end of what may have been long
	}
	return graves
}

func (w *World) touch(ref Ref) { w.touched[ref] = struct{}{} }

func (w *World) touchUID(uid types.UID) {
	if ref, known := w.workloads[uid]; known {
		w.touch(ref)
	}
}

func (w *World) touchOwner(pod *Pod) {
	if pod != nil {
		w.touchUID(pod.Owner.UID())
	}
}
