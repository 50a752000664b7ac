package history

import (
	"maps"
	"slices"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/object"
	"shiplog.dev/internal/world"
)

// Object is an object as a fact shows it.
type Object struct {
	Ref world.Ref
	// APIVersion in which it was observed, for example "apps.kruise.io/v1alpha1".
	APIVersion string
	UID        string
	Version    uint64
	JSON       []byte
	LastChange *shiplogv1.LastChange
	// Sequence and Time of the fact.
	Sequence uint64
	Time     time.Time
}

// Objects are all objects as they were at one position: of each the newest version, whatever order the facts came in.
type Objects struct {
	held map[world.Ref]*Object
	gone map[world.Ref]uint64 // version of the deletion
	// rewound is the sequence of the newest Rewound: versions before and after it do not compare.
	rewound uint64
}

// NewObjects returns the objects before the first entry: none.
func NewObjects() *Objects {
	return &Objects{held: map[world.Ref]*Object{}, gone: map[world.Ref]uint64{}}
}

// Show takes the next entry. It returns what it changed: the object before, nil if there was none, and after, nil if there
// is none any more. Both are nil where the entry changes nothing.
func (o *Objects) Show(record journal.Record) (before, after *Object) {
	switch kind := record.Entry.GetKind().(type) {
	case *shiplogv1.Entry_ObjectObserved:
		seen := kind.ObjectObserved
		ref := world.RefOf(seen.GetObject())
		version, _ := object.Version(seen.GetResourceVersion())
		before = o.held[ref]
		if before != nil && before.Version >= version && before.Sequence > o.rewound || o.gone[ref] >= version {
			return nil, nil
		}
		after = &Object{
			Ref: ref, APIVersion: apiVersion(seen.GetObject()), UID: seen.GetObject().GetUid(), Version: version, JSON: seen.GetJson(),
			LastChange: seen.GetLastChange(), Sequence: record.Sequence, Time: record.Time,
		}
		o.held[ref] = after
	case *shiplogv1.Entry_ObjectDeleted:
		ref := world.RefOf(kind.ObjectDeleted.GetObject())
		version, _ := object.Version(kind.ObjectDeleted.GetResourceVersion())
		before = o.held[ref]
		if before != nil && before.Version > version && before.Sequence > o.rewound {
			return nil, nil
		}
		o.gone[ref] = max(o.gone[ref], version)
		delete(o.held, ref)
	case *shiplogv1.Entry_Rewound:
		o.rewound = record.Sequence
		clear(o.gone)
	}
	return before, after
}

func apiVersion(ref *shiplogv1.ObjectRef) string {
	if ref.GetGroup() == "" {
		return ref.GetVersion()
	}
	return ref.GetGroup() + "/" + ref.GetVersion()
}

// Get returns an object, or nil.
func (o *Objects) Get(ref world.Ref) *Object { return o.held[ref] }

// All returns every object, sorted by reference.
func (o *Objects) All() []*Object {
	out := make([]*Object, 0, len(o.held))
	for _, ref := range slices.SortedFunc(maps.Keys(o.held), world.CompareRefs) {
		out = append(out, o.held[ref])
	}
	return out
}
