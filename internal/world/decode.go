package world

import (
	"fmt"
	"slices"
	"time"

	"shiplog.dev/api/kruise/apps/v1beta1"
	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// Change is one entry of the log, read and checked, ready to be folded.
type Change struct {
	Sequence uint64
	Time     time.Time
	Entry    *shiplogv1.Entry

	ref     Ref
	version uint64
	object  any // one of the pointer types of this package; nil where the kind does not concern the world
	under   *UnderWay
	call    *Call
}

// Groups and resources that the world holds.
const (
	GroupApps      = "apps"
	GroupKruise    = "apps.kruise.io"
	GroupDiscovery = "discovery.k8s.io"

	ResourceCloneSets         = "clonesets"
	ResourceNodeImages        = "nodeimages"
	ResourceImagePullJobs     = "imagepulljobs"
	ResourceImageListPullJobs = "imagelistpulljobs"
	ResourceRestartRequests   = "containerrecreaterequests"
	ResourceRevisions         = "controllerrevisions"
	ResourcePods              = "pods"
	ResourceClaims            = "persistentvolumeclaims"
	ResourceNodes             = "nodes"
	ResourceNamespaces        = "namespaces"
	ResourceServices          = "services"
	ResourceEndpointSlices    = "endpointslices"
)

// GroupResource names a resource of the API server.
type GroupResource struct{ Group, Resource string }

// What the rules of workloads read. A vouch must cover it before anything is decided.
var (
	readByCloneSets = []GroupResource{
		{GroupKruise, ResourceCloneSets}, {GroupApps, ResourceRevisions}, {"", ResourcePods}, {"", ResourceClaims},
		{"", ResourceNodes}, {"", ResourceNamespaces}, {"", ResourceServices}, {GroupDiscovery, ResourceEndpointSlices},
	}
	readByNodeWork = []GroupResource{
		{GroupKruise, ResourceNodeImages}, {GroupKruise, ResourceImagePullJobs}, {GroupKruise, ResourceImageListPullJobs},
		{GroupKruise, ResourceRestartRequests}, {"", ResourcePods}, {"", ResourceNodes},
	}
)

// Watched are all of them: what the watcher reports and vouches for.
var Watched = slices.Concat(readByCloneSets, readByNodeWork[:4])

// readBy returns what the rules of a workload read.
func readBy(workload Ref) []GroupResource {
	if workload.Resource == ResourceCloneSets {
		return readByCloneSets
	}
	return readByNodeWork
}

// Decode reads an entry. It is the gate: what it accepts, Fold takes without fail. An error means that the log holds what
// no watcher or planner of this version writes; the caller must stop and name the sequence.
func Decode(sequence uint64, at time.Time, entry *shiplogv1.Entry) (Change, error) {
	change := Change{Sequence: sequence, Time: at, Entry: entry}
	var err error
	switch kind := entry.GetKind().(type) {
	case *shiplogv1.Entry_ObjectObserved:
		change.ref = RefOf(kind.ObjectObserved.GetObject())
		if change.version, err = parseVersion(kind.ObjectObserved.GetResourceVersion()); err == nil {
			change.object, err = decodeObject(change.ref, kind.ObjectObserved.GetObject().GetVersion(), kind.ObjectObserved.GetJson())
		}
		if err == nil && change.object != nil {
			meta := metaOf(change.object)
			meta.Version, meta.Sequence = change.version, sequence
			switch object := change.object.(type) {
			case *CloneSet:
				object.Seen = at
			case custom:
				object.seen(at)
			}
		}
	case *shiplogv1.Entry_ObjectDeleted:
		change.ref = RefOf(kind.ObjectDeleted.GetObject())
		change.version, err = parseVersion(kind.ObjectDeleted.GetResourceVersion())
	case *shiplogv1.Entry_Command:
		change.ref = RefOf(kind.Command.GetObject())
		if kind.Command.GetNode() != "" {
			change.call, err = decodeCall(sequence, at, entry, kind.Command)
			break
		}
		change.under, err = decodeCommand(sequence, at, entry, kind.Command)
	case *shiplogv1.Entry_RolloutEvent: // follows from the world, which does not depend on it
	}
	if err != nil {
		return Change{}, fmt.Errorf("entry %d: %s: %w", sequence, change.ref, err)
	}
	return change, nil
}

func decodeObject(ref Ref, version string, data []byte) (object any, err error) {
	switch (GroupResource{ref.Group, ref.Resource}) {
	case GroupResource{"", ResourcePods}:
		object, err = decodePod(data)
	case GroupResource{GroupKruise, ResourceCloneSets}:
		object, err = decodeCloneSet(version, data)
	case GroupResource{GroupApps, ResourceRevisions}:
		object, err = decodeRevision(data)
	case GroupResource{"", ResourceNodes}:
		object, err = decodeNode(data)
	case GroupResource{"", ResourceServices}:
		object, err = decodeService(data)
	case GroupResource{GroupDiscovery, ResourceEndpointSlices}:
		object, err = decodeEndpointSlice(data)
	case GroupResource{GroupKruise, ResourceNodeImages}:
		object, err = decodeCustom[v1beta1.NodeImageSpec, v1beta1.NodeImageStatus]("", version, data)
	case GroupResource{GroupKruise, ResourceImagePullJobs}:
		object, err = decodeCustom[v1beta1.ImagePullJobSpec, v1beta1.ImagePullJobStatus]("", version, data)
	case GroupResource{GroupKruise, ResourceImageListPullJobs}:
		object, err = decodeCustom[v1beta1.ImageListPullJobSpec, v1beta1.ImageListPullJobStatus]("", version, data)
	case GroupResource{GroupKruise, ResourceRestartRequests}:
		object, err = decodeCustom[v1beta1.ContainerRecreateRequestSpec, v1beta1.ContainerRecreateRequestStatus]("ContainerRecreateRequest", version, data)
	case GroupResource{"", ResourceNamespaces}:
		var meta Meta
		meta, err = decodeMeta(data)
		object = &Namespace{meta}
	case GroupResource{"", ResourceClaims}:
		var meta Meta
		meta, err = decodeMeta(data)
		object = &Claim{Meta: meta}
	default:
		return nil, nil
	}
	return object, err
}

func metaOf(object any) *Meta {
	switch object := object.(type) {
	case *Pod:
		return &object.Meta
	case *CloneSet:
		return &object.Meta
	case *Revision:
		return &object.Meta
	case *Node:
		return &object.Meta
	case *Service:
		return &object.Meta
	case *EndpointSlice:
		return &object.Meta
	case *Namespace:
		return &object.Meta
	case *Claim:
		return &object.Meta
	case custom:
		return object.meta()
	}
	panic(fmt.Sprintf("world: no metadata in %T", object))
}

// Object returns what a fact shows, one of this package's pointer types; nil for other entries, and for objects that the
// world does not hold. The caller must not change it.
func (c Change) Object() any { return c.object }
