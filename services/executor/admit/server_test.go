package admit

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	admissionv1 "k8s.io/api/admission/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"shiplog.dev/internal/gate"
)

func serverOf(c *cluster) http.Handler {
	return handler(Options{Gates: gate.Default(), Logger: zerolog.Nop(), Registry: prometheus.NewRegistry()}, c)
}

func post(handler http.Handler, path, body string) *httptest.ResponseRecorder {
	out := httptest.NewRecorder()
	handler.ServeHTTP(out, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
	return out
}

func reviewOf(t *testing.T, version, operation string, object, old json.RawMessage) string {
	t.Helper()
	body, err := json.Marshal(map[string]any{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": map[string]any{
		"uid": "1", "operation": operation, "namespace": "n", "name": "web", "kind": map[string]any{"group": "apps.kruise.io", "version": version, "kind": "CloneSet"},
		"object": object, "oldObject": old,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func responseOf(t *testing.T, out *httptest.ResponseRecorder) *admissionv1.AdmissionResponse {
	t.Helper()
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(out.Body.Bytes(), &review); err != nil || out.Code != http.StatusOK || review.Response == nil {
		t.Fatalf("answered %d %s", out.Code, out.Body)
	}
	if review.Kind != "AdmissionReview" || review.APIVersion != "admission.k8s.io/v1" || review.Response.UID != "1" {
		t.Errorf("answered %s", out.Body)
	}
	return review.Response
}

// cloneset A1: what cannot be read is 400, what is wrong 422, what cannot be known 500, and nothing is a panic.
func TestAnswers(t *testing.T) {
	set := raw(t, "v1alpha1", "", sound)
	c := &cluster{judgement: Judgement{Problems: []metav1.StatusCause{{Field: "template.spec", Message: "wrong"}}}}
	if r := responseOf(t, post(serverOf(c), ValidateCloneSetPath, reviewOf(t, "v1alpha1", "CREATE", set, nil))); r.Allowed || r.Result.Code != 422 {
		t.Errorf("got %+v", r)
	}
	if r := responseOf(t, post(serverOf(c), ValidateCloneSetPath, reviewOf(t, "v9", "CREATE", set, nil))); r.Allowed || r.Result.Code != 400 || r.Result.Message != "unsupported version: v9" {
		t.Errorf("got %+v", r.Result) // api-surface R7
	}
	if r := responseOf(t, post(serverOf(&cluster{err: errors.New("gone")}), ValidateCloneSetPath, reviewOf(t, "v1alpha1", "CREATE", set, nil))); r.Allowed || r.Result.Code != 500 {
		t.Errorf("got %+v", r)
	}
	if r := responseOf(t, post(serverOf(&cluster{}), MutateCloneSetPath, reviewOf(t, "v1alpha1", "CREATE", json.RawMessage(`{"kind":"CloneSet","apiVersion":"apps.kruise.io/v1alpha1","spec":{"replicas":"x"}}`), nil))); !r.Allowed {
		t.Errorf("what the schema will name was refused: %+v", r.Result)
	}
	for path, body := range map[string]string{ValidateCloneSetPath: `{`, MutateCloneSetPath: `{}`, ConvertPath: `{"request":null}`} {
		if out := post(serverOf(&cluster{}), path, body); out.Code != http.StatusBadRequest {
			t.Errorf("%s with %s: %d", path, body, out.Code)
		}
	}
}

func TestConversionReview(t *testing.T) {
	for _, c := range []struct{ objects, version, want string }{
		{`[{"apiVersion":"apps.kruise.io/v1alpha1","kind":"CloneSet","spec":{}},{"apiVersion":"apps.kruise.io/v1beta1","kind":"CloneSet"}]`, "apps.kruise.io/v1beta1", "Success"},
		{`[{"apiVersion":"apps.kruise.io/v1alpha1","kind":"Pod"}]`, "apps.kruise.io/v1beta1", "Failure"},
		{`[]`, "apps.kruise.io/v1beta1", "Success"},
	} {
		out := post(serverOf(&cluster{}), ConvertPath, `{"request":{"uid":"1","desiredAPIVersion":"`+c.version+`","objects":`+c.objects+`}}`)
		var review apiextensionsv1.ConversionReview
		if err := json.Unmarshal(out.Body.Bytes(), &review); err != nil || review.Response == nil || review.Response.Result.Status != c.want || review.Response.UID != "1" {
			t.Errorf("%s: answered %d %s", c.objects, out.Code, out.Body)
		}
		for _, object := range review.Response.ConvertedObjects {
			if !bytes.Contains(object.Raw, []byte(c.version)) {
				t.Errorf("converted into %s", object.Raw)
			}
		}
	}
}

func TestBodiesAreLimited(t *testing.T) {
	for _, c := range []struct {
		size int64
		code int
	}{{-1, http.StatusLengthRequired}, {maxReview + 1, http.StatusRequestEntityTooLarge}} {
		r := httptest.NewRequest(http.MethodPost, ValidateCloneSetPath, io.LimitReader(strings.NewReader(""), 0))
		r.ContentLength = c.size
		out := httptest.NewRecorder()
		serverOf(&cluster{}).ServeHTTP(out, r)
		if out.Code != c.code {
			t.Errorf("a body of %d bytes: %d, want %d", c.size, out.Code, c.code)
		}
	}
	out := httptest.NewRecorder()
	serverOf(&cluster{}).ServeHTTP(out, httptest.NewRequest(http.MethodGet, ValidateCloneSetPath, nil))
	if out.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", out.Code)
	}
}

// Whatever is sent, the answer is one that the API server understands.
func FuzzServer(f *testing.F) {
	f.Add(ConvertPath, []byte(`{"request":{"uid":"1","desiredAPIVersion":"apps.kruise.io/v1beta1","objects":[{"apiVersion":"apps.kruise.io/v1alpha1","kind":"CloneSet"}]}}`))
	for _, object := range []string{
		`{"apiVersion":"apps.kruise.io/v1beta1","kind":"CloneSet","spec":{"template":{"spec":{"containers":[{"name":"a","image":"b"},null,1]}},"volumeClaimTemplates":[null,{"metadata":{"name":"x"}}]}}`,
		`{"apiVersion":"apps.kruise.io/v1alpha1","kind":"CloneSet","spec":{"updateStrategy":{"type":"InPlaceOnly"},"template":{"spec":{"containers":{"a":1}}}}}`,
		`{"apiVersion":"apps.kruise.io/v1alpha1","kind":"CloneSet","spec":null}`, `[]`,
	} {
		for _, operation := range []string{"CREATE", "UPDATE", "DELETE"} {
			f.Add(ValidateCloneSetPath, []byte(`{"request":{"operation":"`+operation+`","kind":{"version":"v1alpha1"},"object":`+object+`,"oldObject":`+object+`}}`))
			f.Add(MutateCloneSetPath, []byte(`{"request":{"operation":"`+operation+`","kind":{"version":"v1beta1"},"object":`+object+`,"oldObject":`+object+`}}`))
		}
	}
	server := serverOf(&cluster{judgement: Judgement{Defaulted: tree{"spec": tree{"containers": []any{tree{"imagePullPolicy": "x"}, tree{}, nil}, "volumes": []any{}}}}})
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		if path != ConvertPath && path != MutateCloneSetPath && path != ValidateCloneSetPath {
			path = ValidateCloneSetPath
		}
		out := post(server, path, string(body))
		if out.Code == http.StatusOK && !json.Valid(out.Body.Bytes()) || out.Code != http.StatusOK && out.Code != http.StatusBadRequest {
			t.Errorf("%s with %s: %d %s", path, body, out.Code, out.Body)
		}
	})
}
