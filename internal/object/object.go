// Package object decides what of a Kubernetes object enters the log, for the watcher and the executor alike: the whole
// object as the API server's JSON, without managedFields, without what only heartbeats change, and never a Secret's data.
// It works on bytes, so unknown fields survive; it knows no kind beyond what has to be left out of it, and no network.
package object

import (
	"errors"
	"fmt"
	"hash/maphash"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// Object is one normalised object.
type Object struct {
	Resource        schema.GroupVersionResource
	Namespace, Name string
	UID             string
	ResourceVersion string
	// JSON is what the log holds.
	JSON []byte
	// Hash of JSON without the resource version. Two states of an object with the same hash differ in nothing that
	// matters. Hashes of different processes cannot be compared.
	Hash uint64
	// LastChange says who last changed more than the status; nil when managedFields do not tell.
	LastChange *shiplogv1.LastChange
	// Written is when a command wrote the object last, its status included, by the API server's clock in whole seconds; zero: never.
	Written time.Time
}

// Normalise returns what of an object enters the log. raw is not changed and not kept. The error says what is missing or
// malformed; raw must be JSON as the API server writes it.
func Normalise(resource schema.GroupVersionResource, raw []byte) (*Object, error) {
	s := stripper{raw: raw, out: make([]byte, 0, len(raw))}
	end, err := s.value(skipSpace(raw, 0), rulesFor(resource), 0)
	if err != nil {
		return nil, fmt.Errorf("normalise an object of %s: %w", resource.GroupResource(), err)
	}
	s.flush(end)
	o := &Object{
		Resource:        resource,
		Namespace:       s.taken[takeNamespace],
		Name:            s.taken[takeName],
		UID:             s.taken[takeUID],
		ResourceVersion: s.taken[takeVersion],
		JSON:            s.out,
		Hash:            hash(s.out, s.versionStart, s.versionEnd),
		LastChange:      s.last.message(),
		Written:         parseTime(s.last.written),
	}
	if o.Name == "" || o.UID == "" || o.ResourceVersion == "" {
		return nil, fmt.Errorf("normalise an object of %s: name %q, uid %q, resourceVersion %q: none may be empty",
			resource.GroupResource(), o.Name, o.UID, o.ResourceVersion)
	}
	return o, nil
}

// Ref names the object in an entry.
func (o *Object) Ref() *shiplogv1.ObjectRef {
	return &shiplogv1.ObjectRef{
		Group: o.Resource.Group, Version: o.Resource.Version, Resource: o.Resource.Resource,
		Namespace: o.Namespace, Name: o.Name, Uid: o.UID,
	}
}

// Observed is the fact that this is the object's state. The caller names itself in the entry.
func (o *Object) Observed() *shiplogv1.Entry {
	return &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
		Object: o.Ref(), ResourceVersion: o.ResourceVersion, Json: o.JSON, LastChange: o.LastChange,
	}}}
}

// Version is a resource version as a number: of two states of one object the later has the greater one. The error says
// that the text is not a decimal number.
func Version(text string) (uint64, error) {
	version, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("resource version %q is not a decimal number", text)
	}
	return version, nil
}

var seed = maphash.MakeSeed()

// hash leaves out the bytes from start to end.
func hash(json []byte, start, end int) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	h.Write(json[:start])
	h.Write(json[end:])
	return h.Sum64()
}

var errTruncated = errors.New("the JSON ends too early")
