package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/object"
	"shiplog.dev/internal/world"
)

// patch changes an object that still has the command's UID and resource version. A patch that changes nothing is applied.
//
// A JSON patch that appends to a list has its effect again with every try, unless the command carries a resource version.
func (c *call) patch(ctx context.Context, effect *shiplogv1.PatchObject) verdict {
	contentType, known := patchTypes[effect.GetType()]
	if !known {
		return refused(reason(malformed, fmt.Sprintf("patch type %s", effect.GetType())), nil)
	}
	body, err := guarded(effect, c.ref.GetUid(), c.command.GetResourceVersion())
	if err != nil {
		return refused(reason(malformed, err.Error()), nil)
	}
	got := c.sendPatch(ctx, effect, contentType, body, nil)
	switch {
	case got.ok() && effect.GetSubresource() == "scale":
		return c.lookApplied(ctx) // the answer is a Scale, not the object
	case got.ok():
		return c.shown(got)
	case got.temporary():
		return failed(got)
	case got.code == http.StatusNotFound:
		return refused(got.explain(), nil)
	}
	conflict := got.code == http.StatusConflict
	if conflict && c.command.GetResourceVersion() == "" && c.ref.GetUid() == "" {
		return verdict{reason: got.explain()} // nothing was asked for; somebody was faster a few times
	}
	// Invalid may be the API server's way to say that the UID is another one, or that a JSON patch's test failed.
	if !conflict && got.code != http.StatusUnprocessableEntity {
		return failed(got)
	}
	now := c.look(ctx)
	switch {
	case !now.known:
		return now.verdict
	case now.object == nil:
		return refused(reason(string(metav1.StatusReasonNotFound), "the object is gone"), nil)
	case c.another(now.object):
		return refused(otherUID(c.ref.GetUid(), now.object.UID), now.object)
	case !c.moved(now.object) && conflict:
		return verdict{reason: got.explain()} // our preconditions hold; somebody was faster a few times
	case !c.moved(now.object):
		return refused(got.explain(), now.object)
	}
	conflicted := refused(reason(string(metav1.StatusReasonConflict), got.status().Message), now.object)
	if !c.unsure {
		return conflicted
	}
	return c.already(ctx, effect, contentType, now.object, conflicted)
}

// moved says that the object has left the resource version that the command was meant for.
func (c *call) moved(now *object.Object) bool {
	return c.command.GetResourceVersion() != "" && now.ResourceVersion != c.command.GetResourceVersion()
}

// already is the verdict when an earlier try may have had the effect: it had it if the patch would change nothing in the object as it is
// now; else the verdict is otherwise. The API server is asked by a dry run, because it alone knows what the patch means.
func (c *call) already(ctx context.Context, effect *shiplogv1.PatchObject, contentType types.PatchType, now *object.Object, otherwise verdict) verdict {
	body, err := guarded(effect, now.UID, now.ResourceVersion)
	if err != nil || effect.GetSubresource() == "scale" {
		return otherwise
	}
	got := c.sendPatch(ctx, effect, contentType, body, url.Values{"dryRun": {metav1.DryRunAll}})
	switch {
	case got.temporary():
		return failed(got)
	case got.code == http.StatusConflict:
		return verdict{reason: got.explain(), unsure: true} // changed since it was looked at, which says nothing of the patch
	}
	if after, err := got.object(c.ref); got.ok() && err == nil && after.Hash == now.Hash {
		return applied(now)
	}
	return otherwise
}

func (c *call) sendPatch(ctx context.Context, effect *shiplogv1.PatchObject, contentType types.PatchType, body []byte, query url.Values) answer {
	path := named(c.ref)
	if effect.GetSubresource() != "" {
		path += "/" + url.PathEscape(effect.GetSubresource())
	}
	purpose := change
	if effect.GetSubresource() == "status" && c.ref.GetResource() != world.ResourcePods { // that of a Pod opens its gates
		purpose = report
	}
	return c.send(ctx, request{method: http.MethodPatch, path: path, query: query, contentType: string(contentType), body: body, purpose: purpose})
}

// lookApplied is the verdict when the write is known to have happened and only its result has to be read.
func (c *call) lookApplied(ctx context.Context) verdict {
	now := c.look(ctx)
	if !now.known {
		return now.verdict
	}
	return applied(now.object)
}

var patchTypes = map[shiplogv1.PatchObject_Type]types.PatchType{
	shiplogv1.PatchObject_TYPE_MERGE:           types.MergePatchType,
	shiplogv1.PatchObject_TYPE_STRATEGIC_MERGE: types.StrategicMergePatchType,
	shiplogv1.PatchObject_TYPE_JSON:            types.JSONPatchType,
}

// guarded is the patch with its preconditions inside: the API server refuses it for an object with another UID or version.
func guarded(effect *shiplogv1.PatchObject, uid, version string) ([]byte, error) {
	preconditions := map[string]string{}
	if uid != "" {
		preconditions["uid"] = uid
	}
	if version != "" {
		preconditions["resourceVersion"] = version
	}
	if len(preconditions) == 0 {
		return effect.GetJson(), nil
	}
	if effect.GetType() == shiplogv1.PatchObject_TYPE_JSON {
		return guardedOperations(effect.GetJson(), preconditions)
	}
	return guardedMerge(effect.GetJson(), preconditions)
}

// guardedOperations puts tests before the operations of a JSON patch.
func guardedOperations(patch []byte, preconditions map[string]string) ([]byte, error) {
	var operations []json.RawMessage
	if err := json.Unmarshal(patch, &operations); err != nil {
		return nil, fmt.Errorf("decode the JSON patch: %w", err)
	}
	tests := make([]json.RawMessage, 0, len(operations)+len(preconditions))
	for _, name := range []string{"uid", "resourceVersion"} {
		if value, set := preconditions[name]; set {
			test, err := json.Marshal(map[string]string{"op": "test", "path": "/metadata/" + name, "value": value})
			if err != nil {
				return nil, err
			}
			tests = append(tests, test)
		}
	}
	return json.Marshal(append(tests, operations...))
}

// guardedMerge puts the preconditions into the metadata of a merge patch, and leaves the rest as it is. The patch must not have any
// of them.
func guardedMerge(patch []byte, preconditions map[string]string) ([]byte, error) {
	if !json.Valid(patch) {
		return nil, errors.New("the patch is no JSON")
	}
	guard, err := json.Marshal(preconditions)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(patch))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return nil, errors.New("the patch is no JSON object")
	}
	begin, more := decoder.InputOffset(), decoder.More()
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		if name != "metadata" {
			if err := decoder.Decode(new(json.RawMessage)); err != nil {
				return nil, err
			}
			continue
		}
		if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
			return nil, errors.New("the patch's metadata is no JSON object")
		}
		return spliced(patch, decoder.InputOffset(), guard[1:len(guard)-1], decoder.More()), nil
	}
	return spliced(patch, begin, fmt.Appendf(nil, `"metadata":%s`, guard), more), nil
}

// spliced is an object's JSON with members put in at an offset; more: others follow them.
func spliced(object []byte, at int64, members []byte, more bool) []byte {
	out := make([]byte, 0, len(object)+len(members)+1)
	out = append(append(out, object[:at]...), members...)
	if more {
		out = append(out, ',')
	}
	return append(out, object[at:]...)
}

func otherUID(want, have string) *shiplogv1.Reason {
	return reason(string(metav1.StatusReasonConflict), fmt.Sprintf("the object has UID %s, the command is for %s", have, want))
}
