package admit

import (
	"context"
	"encoding/json"

	quick "github.com/go-json-experiment/json/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
)

// telling tells who asked for what a judge lets through, where it changes the spec. The objects of a validation are as they will be
// stored, so UID and generation are those of the object that results.
func telling(resource string, tell func(*shiplogv1.Admitted), judge func(context.Context, request) (verdict, error)) func(context.Context, request) (verdict, error) {
	return func(ctx context.Context, q request) (verdict, error) {
		given, err := judge(ctx, q)
		if err == nil && given.refusal == nil && !q.dryRun && tell != nil {
			if admitted := admittedOf(resource, q); admitted != nil {
				tell(admitted)
			}
		}
		return given, err
	}
}

// admittedOf is what the log is to know of a request; nil: nothing, for it changes no spec.
func admittedOf(resource string, q request) *shiplogv1.Admitted {
	read := func(object json.RawMessage) (meta metav1.ObjectMeta) {
		var wire struct{ Metadata *metav1.ObjectMeta }
		wire.Metadata = &meta
		_ = quick.Unmarshal(object, &wire) // the judge has read it, or there is none
		return meta
	}
	object, old := read(q.object), read(q.old)
	if q.operation == "DELETE" {
		object = old
	}
	if object.UID == "" || q.operation == "UPDATE" && object.Generation == old.Generation {
		return nil
	}
	return &shiplogv1.Admitted{
		Object:     &shiplogv1.ObjectRef{Group: world.GroupKruise, Version: q.version, Resource: resource, Namespace: q.namespace, Name: object.Name, Uid: string(object.UID)},
		Generation: object.Generation, Operation: q.operation, User: q.user,
	}
}
