package world

import (
	"encoding/json"
	"time"

	"shiplog.dev/api/kruise/apps/conversion"
	"shiplog.dev/api/kruise/apps/v1alpha1"
	"shiplog.dev/api/kruise/apps/v1beta1"
)

// Custom is what rules read of an object whose kind means nothing more to the world than its spec and its status, in v1beta1
// whatever version the fact was in.
type Custom[Spec, Status any] struct {
	Meta
	Finalizers []string
	// Seen is when the log took the fact that this state comes from.
	Seen   time.Time
	Spec   Spec
	Status Status
	// HasStatus: the object has a status.
	HasStatus bool
	// Malformed says why Spec cannot be read; empty: it can.
	Malformed string
	// UnderWay is the command that is being carried out on the object; nil: none.
	UnderWay *UnderWay
}

// The kinds.
type (
	NodeImage        = Custom[v1beta1.NodeImageSpec, v1beta1.NodeImageStatus]
	ImagePullJob     = Custom[v1beta1.ImagePullJobSpec, v1beta1.ImagePullJobStatus]
	ImageListPullJob = Custom[v1beta1.ImageListPullJobSpec, v1beta1.ImageListPullJobStatus]
	RestartRequest   = Custom[v1beta1.ContainerRecreateRequestSpec, v1beta1.ContainerRecreateRequestStatus]
)

// custom is any Custom.
type custom interface {
	meta() *Meta
	seen(time.Time)
	underWay(*UnderWay)
}

func (c *Custom[Spec, Status]) meta() *Meta          { return &c.Meta }
func (c *Custom[Spec, Status]) seen(at time.Time)    { c.Seen = at }
func (c *Custom[Spec, Status]) underWay(u *UnderWay) { c.UnderWay = u }

// decodeCustom reads an object; kind is named for kinds whose versions differ.
func decodeCustom[Spec, Status any](kind, version string, data []byte) (any, error) {
	if kind != "" && version == v1alpha1.GroupVersion.Version {
		converted, err := conversion.Up(kind, data)
		if err != nil {
			return nil, err
		}
		data = converted
	}
	var wire struct {
		Metadata struct {
			metadata
			Finalizers []string `json:"finalizers"`
		} `json:"metadata"`
		Spec   json.RawMessage `json:"spec"`
		Status json.RawMessage `json:"status"`
	}
	if err := json.Unmarshal(data, &wire); err != nil {
		return nil, err
	}
	object := &Custom[Spec, Status]{Meta: wire.Metadata.meta(), Finalizers: wire.Metadata.Finalizers}
	if len(wire.Spec) > 0 {
		if err := json.Unmarshal(wire.Spec, &object.Spec); err != nil {
			object.Malformed = "spec: " + err.Error()
		}
	}
	if len(wire.Status) > 0 {
		object.HasStatus = json.Unmarshal(wire.Status, &object.Status) == nil
		if !object.HasStatus {
			object.Status = *new(Status) // one that cannot be read is written anew
		}
	}
	return object, nil
}

func customOf[T custom](w *World, ref Ref) T {
	object, _ := w.customs[ref].(T)
	return object
}

// Writing says which command is being carried out on an object, whether there is such an object or not; nil: none.
func (w *World) Writing(ref Ref) *UnderWay { return w.underWay[ref] }

func (w *World) observeCustom(ref Ref, object custom) {
	object.underWay(w.underWay[ref])
	before := w.customs[ref]
	if before != nil && before.meta().UID != object.meta().UID {
		delete(w.workloads, before.meta().UID)
		w.forgetWorkload(before.meta().UID)
	}
	w.customs[ref] = object
	w.workloads[object.meta().UID] = ref
	w.touch(ref)
	w.relate(ref, before, object)
}

func (w *World) removeCustom(ref Ref) {
	before := w.customs[ref]
	if before == nil {
		return
	}
	delete(w.workloads, before.meta().UID)
	w.forgetWorkload(before.meta().UID)
	delete(w.customs, ref)
	w.touch(ref)
	w.relate(ref, before, nil)
}

func (w *World) showOnCustom(ref Ref, under *UnderWay) {
	if held := w.customs[ref]; held != nil {
		held.underWay(under)
	}
	if ref.Group == GroupKruise {
		w.touch(ref)
	}
	if ref.Resource == ResourceImagePullJobs {
		w.adopt(ref)
	}
}

// relate marks the workloads that an object of a kind concerns beside itself, and keeps the indexes by which Pods find such
// objects. before and after are nil where there was, or is, none.
func (w *World) relate(ref Ref, before, after custom) {
	switch ref.Resource {
	case ResourceNodeImages:
		was, _ := before.(*NodeImage)
		is, _ := after.(*NodeImage)
		w.relateNodeImage(ref, was, is)
	case ResourceImagePullJobs:
		was, _ := before.(*ImagePullJob)
		is, _ := after.(*ImagePullJob)
		w.relatePullJob(ref, was, is)
	case ResourceRestartRequests:
		was, _ := before.(*RestartRequest)
		is, _ := after.(*RestartRequest)
		w.relateRestart(ref, was, is)
	}
}

// index puts a reference into a set of an index, or takes it out.
func index[K comparable](sets map[K]map[Ref]struct{}, key K, ref Ref, in bool) {
	switch {
	case in && sets[key] == nil:
		sets[key] = map[Ref]struct{}{ref: {}}
	case in:
		sets[key][ref] = struct{}{}
	default:
		if delete(sets[key], ref); len(sets[key]) == 0 {
			delete(sets, key)
		}
	}
}
