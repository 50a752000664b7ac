package admit

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// TestAcceptedTemplatesAreAskedAboutOnce: the API server is asked about one template once, in each namespace, but again about one that
// it refused: what was missing may be there now. What such a template became by defaulting it is not asked about.
func TestAcceptedTemplatesAreAskedAboutOnce(t *testing.T) {
	asked := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Template tree }
		data, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(data, &body)
		}
		if err != nil {
			t.Errorf("asked %s: %v", data, err)
		}
		namespace := strings.Split(r.URL.Path, "/")[4]
		image, _ := body.Template["image"].(string)
		asked[namespace+" "+image]++
		w.Header().Set("Content-Type", "application/json")
		if image == "bad" {
			w.WriteHeader(http.StatusUnprocessableEntity)
			_ = json.NewEncoder(w).Encode(metav1.Status{
				TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid,
				Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Field: "template.image", Message: "no such image"}}},
			})
			return
		}
		w.Header().Set("Warning", `299 - "old"`)
		body.Template["defaulted"] = true
		_ = json.NewEncoder(w).Encode(body)
	}))
	t.Cleanup(server.Close)
	api, err := newAPIServer(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	judge := func(namespace, image string) Judgement {
		t.Helper()
		judgement, err := api.Judge(t.Context(), namespace, tree{"image": image})
		if err != nil {
			t.Fatal(err)
		}
		return judgement
	}
	for range 2 {
		if j := judge("a", "good"); j.Defaulted["defaulted"] != true || len(j.Warnings) != 1 {
			t.Errorf("judged %+v", j)
		}
		if j := judge("a", "bad"); j.Defaulted != nil || len(j.Problems) != 1 {
			t.Errorf("judged %+v", j)
		}
	}
	judge("b", "good")
	api.Remember("a", tree{"image": "filled"}, judge("a", "good"))
	if j := judge("a", "filled"); j.Defaulted["defaulted"] != true || len(j.Warnings) != 1 {
		t.Errorf("judged %+v", j)
	}
	for what, want := range map[string]int{"a good": 1, "a bad": 2, "b good": 1, "a filled": 0} {
		if asked[what] != want {
			t.Errorf("asked %d times about %s, want %d", asked[what], what, want)
		}
	}
}
