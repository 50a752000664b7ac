package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/world"
)

// transport carries one command's requests to the simulated API server, and its answers back, with the faults of both ways.
type transport struct {
	s    *simulation
	w    *worker
	task *journal.Task
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	p, s := processOf(r.Context()), t.s
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	t.w.at(p, beforeCall)
	if err := p.pause(s.between(time.Millisecond, 100*time.Millisecond)); err != nil {
		return nil, err
	}
	code, answer := 0, []byte(nil)
	serve := func() {
		code, answer = s.api.serve(r, body, writer{fmt.Sprintf("command %d", t.task.Sequence), t.task.Sequence})
	}
	wait, lost := time.Duration(0), false
	switch fault := s.faults.ofRequest(s, r); fault {
	case none:
		serve()
	case throttled:
		code, answer = status(http.StatusTooManyRequests, "TooManyRequests", "too many requests, please try again later")
	case broken:
		code, answer = status(http.StatusInternalServerError, "InternalError", "etcdserver: leader changed")
	case brokenAfter:
		serve()
		code, answer = status(http.StatusInternalServerError, "InternalError", "etcdserver: request timed out")
	case conflicts:
		code, answer = status(http.StatusConflict, "Conflict", "the object has been modified; please apply your changes to the latest version")
	case forbidden:
		code, answer = status(http.StatusForbidden, "Forbidden", "admission webhook denied the request: exceeded quota")
	case invalid:
		code, answer = status(http.StatusUnprocessableEntity, "Invalid", "admission webhook denied the request: spec is invalid")
	case timesOut:
		wait, lost = 10*time.Second, true
	case timesOutAfter:
		serve()
		wait, lost = 10*time.Second, true
	}
	t.w.at(p, afterCall)
	if err := p.pause(wait + s.between(time.Millisecond, 50*time.Millisecond)); err != nil {
		return nil, err
	}
	if lost {
		s.tell("fault", "%s %s by command %d times out", r.Method, r.URL.Path, t.task.Sequence)
		return nil, context.DeadlineExceeded
	}
	if code >= 300 {
		s.tell("api", "%s %s by command %d: %d", r.Method, r.URL.Path, t.task.Sequence, code)
	}
	response := &http.Response{
		StatusCode: code, Status: http.StatusText(code), Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewReader(answer)), Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if code == http.StatusTooManyRequests {
		response.Header.Set("Retry-After", "1")
	}
	return response, nil
}

func status(code int, reason, message string) (int, []byte) {
	body, _ := json.Marshal(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code})
	return code, body
}

// address reads the path of a request.
func address(path string) (ref world.Ref, subresource string) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if parts[0] == "apis" {
		ref.Group = parts[1]
		parts = parts[1:]
	}
	parts = parts[2:] // api or group, version
	if parts[0] == "namespaces" && len(parts) > 2 {
		ref.Namespace = parts[1]
		parts = parts[2:]
	}
	ref.Resource = parts[0]
	if len(parts) > 1 {
		ref.Name = parts[1]
	}
	if len(parts) > 2 {
		subresource = parts[2]
	}
	return ref, subresource
}

func (a *api) serve(r *http.Request, body []byte, by writer) (int, []byte) {
	ref, subresource := address(r.URL.Path)
	if r.Method == http.MethodPost {
		return a.create(ref, body, by)
	}
	held := a.objects[ref]
	if held == nil {
		return status(http.StatusNotFound, "NotFound", fmt.Sprintf("%s not found", ref))
	}
	switch r.Method {
	case http.MethodGet:
		return http.StatusOK, held.raw
	case http.MethodPatch:
		return a.patch(held, subresource, types.PatchType(r.Header.Get("Content-Type")), body, r.URL.Query().Get("dryRun") != "", by)
	case http.MethodDelete:
		var options struct {
			Preconditions struct{ UID, ResourceVersion string }
		}
		if err := json.Unmarshal(body, &options); err != nil {
			return status(http.StatusBadRequest, "BadRequest", err.Error())
		}
		if want := options.Preconditions.UID; want != "" && want != held.uid {
			return status(http.StatusConflict, "Conflict", fmt.Sprintf("Precondition failed: UID in precondition: %s, UID in object meta: %s", want, held.uid))
		}
		if want := options.Preconditions.ResourceVersion; want != "" && want != fmt.Sprint(held.version) {
			return status(http.StatusConflict, "Conflict", "Precondition failed: ResourceVersion")
		}
		if left := a.delete(held, by); left != nil {
			return http.StatusOK, left.raw
		}
		return http.StatusOK, []byte(`{"kind":"Status","apiVersion":"v1","status":"Success"}`)
	}
	return status(http.StatusMethodNotAllowed, "MethodNotAllowed", r.Method)
}

func (a *api) create(ref world.Ref, body []byte, by writer) (int, []byte) {
	tree := map[string]any{}
	if err := json.Unmarshal(body, &tree); err != nil {
		return status(http.StatusBadRequest, "BadRequest", err.Error())
	}
	ref.Name, _ = child(tree, "metadata")["name"].(string)
	if a.objects[ref] != nil {
		return status(http.StatusConflict, "AlreadyExists", fmt.Sprintf("%s already exists", ref))
	}
	delete(tree, "status")
	switch ref.Resource {
	case world.ResourcePods:
		tree["status"] = map[string]any{"phase": "Pending"}
		child(tree, "metadata")["generation"] = float64(1)
	case world.ResourceCloneSets:
		child(tree, "metadata")["generation"] = float64(1)
	}
	return http.StatusCreated, a.put(ref, tree, by).raw
}

// patch is optimistic concurrency, then the patch, then what the (sub)resource may not change is put back.
func (a *api) patch(held *object, subresource string, kind types.PatchType, body []byte, dry bool, by writer) (int, []byte) {
	var after []byte
	var err error
	switch {
	case kind == types.StrategicMergePatchType && held.ref.Resource == world.ResourcePods:
		after, err = strategicpatch.StrategicMergePatch(held.raw, body, corev1.Pod{})
	case kind == types.MergePatchType:
		after, err = jsonpatch.MergePatch(held.raw, body)
	default:
		return status(http.StatusUnsupportedMediaType, "UnsupportedMediaType", string(kind))
	}
	tree := map[string]any{}
	if err == nil {
		err = json.Unmarshal(after, &tree)
	}
	if err != nil {
		return status(http.StatusBadRequest, "BadRequest", err.Error())
	}
	before, metadata := held.tree(), child(tree, "metadata")
	if metadata["resourceVersion"] != fmt.Sprint(held.version) {
		return status(http.StatusConflict, "Conflict", "the object has been modified; please apply your changes to the latest version")
	}
	if metadata["uid"] != held.uid {
		return status(http.StatusUnprocessableEntity, "Invalid", "metadata.uid: Invalid value: field is immutable")
	}
	switch {
	case subresource == "status" && held.ref.Resource == world.ResourceCloneSets:
		status := tree["status"]
		tree = before
		tree["status"] = status
	case subresource == "status":
		tree["spec"] = before["spec"]
	case held.ref.Resource == world.ResourcePods || held.ref.Resource == world.ResourceCloneSets:
		if tree["status"] = before["status"]; tree["status"] == nil {
			delete(tree, "status")
		}
	}
	if dry {
		out, _ := json.Marshal(tree)
		return http.StatusOK, out
	}
	return http.StatusOK, a.put(held.ref, generation(held, tree), by).raw
}
