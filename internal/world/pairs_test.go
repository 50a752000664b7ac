package world_test

import (
	"encoding/json"
	"maps"
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
)

// labelsOf are the labels of a Namespace as its fact shows them.
func labelsOf(t *testing.T, object string) (world.Pairs, error) {
	t.Helper()
	change, err := world.Decode(1, rolloutBegan, observed(&shiplogv1.ObjectRef{Version: "v1", Resource: world.ResourceNamespaces, Name: "a"}, "1", []byte(object)))
	if err != nil {
		return world.Pairs{}, err
	}
	return change.Object().(*world.Namespace).Labels, nil
}

func TestPairs(t *testing.T) {
	const object = `{"metadata":{"labels":{"tier":"front","app":"web","none":"","say\"so":"a\u00e9\n"," ":null}}}`
	pairs, err := labelsOf(t, object)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"tier": "front", "app": "web", "none": "", "say\"so": "aé\n"}
	if got := maps.Collect(pairs.All()); !maps.Equal(got, want) || pairs.Len() != len(want) {
		t.Errorf("%d pairs: %q, want %q", pairs.Len(), got, want)
	}
	last := ""
	for key := range pairs.All() {
		if key <= last {
			t.Errorf("%q comes after %q", key, last)
		}
		last = key
	}
	if _, has := pairs.Lookup("none"); !has || !pairs.Has("none") || pairs.Has("gone") || pairs.Get("gone") != "" || pairs.Get("app") != "web" {
		t.Error("what is there, or not, is not found")
	}
	if selector, err := labels.Parse("app=web,tier in (front),!gone"); err != nil || !selector.Matches(pairs) {
		t.Errorf("no match of the selector: %v", err)
	}
	fewer := pairs.Without("app")
	if fewer.Has("app") || !pairs.Has("app") || !fewer.Within(pairs) || pairs.Within(fewer) || pairs.Equal(fewer) || !pairs.Equal(pairs.Without("gone")) {
		t.Errorf("without app: %v of %v", fewer, pairs)
	}
	if data, err := json.Marshal(fewer); err != nil || string(data) != `{"none":"","say\"so":"aé\n","tier":"front"}` {
		t.Errorf("in JSON: %s, %v", data, err)
	}
	for _, wrong := range []string{`{"metadata":{"labels":{"app":5}}}`, `{"metadata":{"labels":{"app":["web"]}}}`, `{"metadata":{"labels":["app"]}}`, `{"metadata":{"labels":"app"}}`} {
		if pairs, err := labelsOf(t, wrong); err == nil {
			t.Errorf("%s is read as %v", wrong, pairs)
		}
	}
	for _, none := range []string{`{"metadata":{"labels":null}}`, `{"metadata":{"labels":{}}}`, `{"metadata":{}}`} {
		if pairs, err := labelsOf(t, none); err != nil || pairs.Len() > 0 {
			t.Errorf("%s is read as %v, %v", none, pairs, err)
		}
	}
}
