package executor

import (
	"context"
	"encoding/json"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/object"
)

// delete deletes an object; that it is gone, or is another one by now, is as good. An object that is ending already is
// left to end: asking again could change the time that it has.
func (c *call) delete(ctx context.Context, effect *shiplogv1.DeleteObject) verdict {
	if c.unsure {
		if now := c.look(ctx); now.known && (now.object == nil || c.another(now.object) || ending(now.object)) {
			return c.going(now.object)
		}
	}
	body, err := json.Marshal(deleteOptions(c.command, effect))
	if err != nil {
		return refused(reason(malformed, err.Error()), nil)
	}
	got := c.send(ctx, request{method: http.MethodDelete, path: named(c.ref), contentType: "application/json", body: body})
	switch {
	case got.ok():
		// Either the object, which has time or finalizers left, or a Status: it is gone.
		if o, err := got.object(c.ref); err == nil {
			return c.going(o)
		}
		return applied(nil)
	case got.code == http.StatusNotFound:
		return applied(nil)
	case got.code != http.StatusConflict:
		return failed(got)
	}
	now := c.look(ctx)
	switch {
	case !now.known:
		return now.verdict
	case now.object == nil || c.another(now.object):
		return applied(nil)
	}
	return refused(got.explain(), now.object)
}

// going is the verdict when the object is ending or gone. Only what still exists is a fact of ours: that it is gone is the
// watcher's to say.
func (c *call) going(o *object.Object) verdict {
	if o == nil || c.another(o) || !lingers(o) {
		return applied(nil)
	}
	return applied(o)
}

func deleteOptions(command *shiplogv1.Command, effect *shiplogv1.DeleteObject) *metav1.DeleteOptions {
	options := &metav1.DeleteOptions{
		TypeMeta:           metav1.TypeMeta{Kind: "DeleteOptions", APIVersion: "v1"},
		GracePeriodSeconds: effect.GracePeriodSeconds,
		PropagationPolicy:  ptr.To(metav1.DeletePropagationBackground),
	}
	uid, version := command.GetObject().GetUid(), command.GetResourceVersion()
	if uid != "" || version != "" {
		options.Preconditions = &metav1.Preconditions{}
	}
	if uid != "" {
		options.Preconditions.UID = ptr.To(types.UID(uid))
	}
	if version != "" {
		options.Preconditions.ResourceVersion = &version
	}
	return options
}

func ending(o *object.Object) bool { return ended(o).DeletionTimestamp != nil }

// lingers says that an object which is being deleted has not left the API server.
func lingers(o *object.Object) bool {
	meta := ended(o)
	return meta.DeletionTimestamp != nil && (len(meta.Finalizers) > 0 || ptr.Deref(meta.DeletionGracePeriodSeconds, 0) > 0)
}

func ended(o *object.Object) metav1.ObjectMeta {
	var partial metav1.PartialObjectMetadata
	// Normalised JSON came from the API server; what cannot be decoded has no deletion timestamp that we know of.
	_ = json.Unmarshal(o.JSON, &partial)
	return partial.ObjectMeta
}
