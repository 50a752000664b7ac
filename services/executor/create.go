package executor

import (
	"context"
	"encoding/json"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// create writes a new object. An object of that name with the same controller is the one that was wanted: names come from
// a hash of what caused them, so nobody but an earlier try of this command created it. Objects without a controller are named
// after what they describe: such a one is the one that was wanted if an earlier try may have made it and a command wrote it.
func (c *call) create(ctx context.Context, effect *shiplogv1.CreateObject) verdict {
	got := c.send(ctx, request{
		method: http.MethodPost, path: collection(c.ref), contentType: "application/json", body: effect.GetJson(),
	})
	switch {
	case got.ok():
		return c.shown(got)
	case got.code != http.StatusConflict:
		return failed(got)
	case got.status().Reason != metav1.StatusReasonAlreadyExists:
		// Something that admission counts in, such as a quota, was changed at the same time.
		return verdict{reason: got.explain()}
	}
	existing := c.look(ctx)
	switch {
	case !existing.known:
		return existing.verdict
	case existing.object == nil:
		return verdict{reason: got.explain()} // gone since; the name is free again
	}
	owner := controller(effect.GetJson())
	if owner != controller(existing.object.JSON) || owner == "" && (!c.unsure || existing.object.Written.IsZero()) {
		return refused(got.explain(), existing.object)
	}
	return applied(existing.object)
}

// controller is the UID of the object's controller, empty if it has none.
func controller(raw []byte) string {
	var owned metav1.PartialObjectMetadata
	if json.Unmarshal(raw, &owned) != nil {
		return ""
	}
	if owner := metav1.GetControllerOfNoCopy(&owned); owner != nil {
		return string(owner.UID)
	}
	return ""
}
