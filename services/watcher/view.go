package watcher

import (
	"strconv"
	"sync"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/object"
)

// view is what the watcher knows of one kind: what the watch showed, and what the log holds. The difference is what gets
// published. It is the store that the kind's reflector fills.
type view struct {
	kind    kind
	client  *client
	source  *source
	w       *watcher
	metrics kindMetrics

	mu      sync.Mutex
	entries map[place]*entry
	// gone are objects whose end the watch has shown, by UID, and the version of that. None of them can be there later, unless etcd was put
	// back; so as many are remembered as may end while that happens.
	gone map[string]uint64
	// progress is the resource version that the watch has passed; 0 before the first list.
	progress uint64
	// listed says whether the watch has begun.
	listed bool
	// changed is closed and replaced at every change.
	changed chan struct{}

	// compared is used by proofs alone, of which there is one at a time.
	compared comparison

	// missing are facts that the log can never take. It has a lock of its own, because a full queue holds mu.
	missingMu sync.Mutex
	missing   map[place]uint64
}

const rememberGone = 10_000

// entry is one object. seen is what the watch showed last; logged what a reader of the log holds: of all facts the newest.
type entry struct{ seen, logged state }

// state of an object; without UID: there is none.
type state struct {
	uid     string
	version uint64
	hash    uint64
}

func newView(kind kind, client *client, w *watcher) *view {
	log := w.options.Logger.With().Str("resource", kind.name).Logger()
	return &view{
		kind: kind, client: client, source: &source{kind: kind, client: client, log: log}, w: w,
		metrics: w.metrics.of(kind.name), entries: map[place]*entry{}, gone: map[string]uint64{},
		changed: make(chan struct{}), missing: map[place]uint64{},
	}
}

// Add takes an object from the watch. It blocks while the log is behind.
func (v *view) Add(o any) error { return v.Update(o) }

// Update see Add.
func (v *view) Update(o any) error {
	i := o.(*item)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.show(i)
	v.advance(i.version)
	return nil
}

// Delete takes the end of an object from the watch.
func (v *view) Delete(o any) error {
	i := o.(*item)
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.gone) >= rememberGone {
		clear(v.gone)
	}
	v.gone[i.normal.UID] = i.version
	v.hide(place{i.Namespace, i.Name}, i.version)
	v.advance(i.version)
	return nil
}

// Replace takes a whole list.
func (v *view) Replace(list []any, resourceVersion string) error {
	version, err := object.Version(resourceVersion)
	if err != nil {
		return err
	}
	listed := make(map[place]struct{}, len(list))
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, o := range list {
		i := o.(*item)
		listed[place{i.Namespace, i.Name}] = struct{}{}
		v.show(i)
	}
	if !v.listed {
		v.listed = true
		v.w.begin(list)
	}
	for at := range v.entries {
		if _, ok := listed[at]; !ok {
			v.hide(at, version)
		}
	}
	v.advance(version)
	return nil
}

// Bookmark takes the word of the API server that nothing happened up to a version.
func (v *view) Bookmark(resourceVersion string) error {
	version, err := object.Version(resourceVersion)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.advance(version)
	return nil
}

// Resync has nothing to do: the log keeps what it took.
func (v *view) Resync() error { return nil }

func (v *view) advance(version uint64) {
	v.progress = max(v.progress, version)
	close(v.changed)
	v.changed = make(chan struct{})
}

func (v *view) at(at place) *entry {
	e := v.entries[at]
	if e == nil {
		e = &entry{}
		v.entries[at] = e
	}
	return e
}

// show notes a state and publishes it unless the log holds it, or one that differs in nothing but the version, or a newer
// one from the executor.
func (v *view) show(i *item) {
	e := v.at(place{i.Namespace, i.Name})
	e.seen = state{i.normal.UID, i.version, i.normal.Hash}
	same := e.logged.uid == e.seen.uid
	if e.logged.uid != "" && e.logged.version >= e.seen.version || same && e.logged.hash == e.seen.hash {
		v.metrics.unchanged.Inc()
		return
	}
	if e.logged.uid != "" && !same {
		v.publishGone(place{i.Namespace, i.Name}, e, i.version)
	}
	e.logged = e.seen
	v.metrics.observed.Inc()
	entry := i.normal.Observed()
	entry.GetObjectObserved().Rewound = v.w.thread.rewound()
	v.w.queue.push(fact{entry: entry, bytes: len(i.normal.JSON), lost: func() { v.lost(place{i.Namespace, i.Name}, i.version) }})
}

// hide notes that at version there is no object, and publishes that unless the log knows it or holds something newer.
func (v *view) hide(at place, version uint64) {
	e := v.entries[at]
	if e == nil {
		return
	}
	e.seen = state{}
	if e.logged.uid != "" && e.logged.version <= version {
		v.publishGone(at, e, version)
	}
	if e.logged.uid == "" {
		delete(v.entries, at)
	}
}

func (v *view) publishGone(at place, e *entry, version uint64) {
	ref := &shiplogv1.ObjectRef{
		Group: v.kind.resource.Group, Version: v.kind.resource.Version, Resource: v.kind.resource.Resource,
		Namespace: at.namespace, Name: at.name, Uid: e.logged.uid,
	}
	e.logged = state{}
	v.metrics.deleted.Inc()
	v.w.queue.push(fact{lost: func() {}, entry: &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectDeleted{
		ObjectDeleted: &shiplogv1.ObjectDeleted{Object: ref, ResourceVersion: strconv.FormatUint(version, 10), Rewound: v.w.thread.rewound()},
	}}})
}

// lost notes that the log does not take a fact; until the object is another, its kind cannot be vouched for.
func (v *view) lost(at place, version uint64) {
	v.missingMu.Lock()
	defer v.missingMu.Unlock()
	v.missing[at] = version
}

// lossless says whether the log has taken everything that still counts.
func (v *view) lossless() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.missingMu.Lock()
	defer v.missingMu.Unlock()
	for at, version := range v.missing {
		if e := v.entries[at]; e == nil || e.seen.uid == "" || e.seen.version != version {
			delete(v.missing, at)
		}
	}
	return len(v.missing) == 0
}

// holds notes a fact of the log that this watcher did not just publish.
func (v *view) holds(at place, fact state) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if e := v.at(at); e.logged.uid == "" || fact.version > e.logged.version {
		e.logged = fact
	}
}

// lacks notes a deletion in the log that this watcher did not just publish.
func (v *view) lacks(at place, uid string, version uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.entries[at]
	if e == nil || e.logged.uid != uid && e.logged.version > version {
		return
	}
	e.logged = state{}
	if e.seen.uid == "" {
		delete(v.entries, at)
	}
}
