package executor

import (
	"context"
	"net/http"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/object"
)

// sight is what a look at the command's object showed.
type sight struct {
	// known: the API server answered. Else verdict says how the command goes on.
	known bool
	// object as it is now; nil: there is none.
	object  *object.Object
	verdict verdict
}

// look reads the command's object, consistently.
func (c *call) look(ctx context.Context) sight { return c.lookAt(ctx, c.ref) }

// lookAt reads an object, consistently.
func (c *call) lookAt(ctx context.Context, ref *shiplogv1.ObjectRef) sight {
	got := c.send(ctx, request{method: http.MethodGet, path: named(ref)})
	switch {
	case got.ok():
		o, err := got.object(ref)
		if err != nil {
			return sight{verdict: refused(reason(malformed, err.Error()), nil)}
		}
		return sight{known: true, object: o}
	case got.code == http.StatusNotFound:
		return sight{known: true}
	}
	v := failed(got)
	v.unsure = false // a look changes nothing
	return sight{verdict: v}
}

// shown is the verdict for an ok answer that holds the object. Should the write have met another object of the same name,
// because the API server does not check the UID there, that is said.
func (c *call) shown(got answer) verdict {
	o, err := got.object(c.ref)
	if err != nil {
		return verdict{reason: reason(unavailable, err.Error()), unsure: true}
	}
	if c.another(o) {
		return refused(otherUID(c.ref.GetUid(), o.UID), o)
	}
	return applied(o)
}

// another says that o only shares the name with the object that the command is for.
func (c *call) another(o *object.Object) bool { return c.ref.GetUid() != "" && o.UID != c.ref.GetUid() }
