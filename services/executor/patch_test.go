package executor

import (
	"encoding/json"
	"reflect"
	"testing"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// The preconditions come into the patch's metadata, and nothing else changes.
func TestGuardedMerge(t *testing.T) {
	for _, c := range []struct{ patch, want string }{
		{`{}`, `{"metadata":{"resourceVersion":"4","uid":"u\"1"}}`},
		{` { } `, ` {"metadata":{"resourceVersion":"4","uid":"u\"1"} } `},
		{`{"spec":{"a":[1,{"metadata":{}}]}}`, `{"metadata":{"resourceVersion":"4","uid":"u\"1"},"spec":{"a":[1,{"metadata":{}}]}}`},
		{`{"metadata":{}}`, `{"metadata":{"resourceVersion":"4","uid":"u\"1"}}`},
		{`{"metadata":{"labels":{"a":"b"}},"spec":{}}`, `{"metadata":{"resourceVersion":"4","uid":"u\"1","labels":{"a":"b"}},"spec":{}}`},
		{`{"spec":{"a":"}"}, "metadata" : { "labels":null } }`, `{"spec":{"a":"}"}, "metadata" : {"resourceVersion":"4","uid":"u\"1", "labels":null } }`},
		{`{"met\u0061data":{"labels":{}}}`, `{"met\u0061data":{"resourceVersion":"4","uid":"u\"1","labels":{}}}`},
		{`[]`, ""},
		{`null`, ""},
		{`"a"`, ""},
		{``, ""},
		{`{"metadata":null}`, ""},
		{`{"metadata":{}`, ""},
		{`{"metadata":{}}{}`, ""},
	} {
		got, err := guarded(&shiplogv1.PatchObject{Type: shiplogv1.PatchObject_TYPE_MERGE, Json: []byte(c.patch)}, `u"1`, "4")
		if (err != nil) != (c.want == "") || string(got) != c.want {
			t.Errorf("%s: got %s, %v; want %s", c.patch, got, err, c.want)
		}
	}
}

// FuzzGuardedMerge: whatever is taken for a patch is that patch with the preconditions, and JSON.
func FuzzGuardedMerge(f *testing.F) {
	for _, seed := range []string{`{}`, `{"metadata":{"labels":{"a":"b"}},"spec":{"a":[1,2]}}`, `{"spec":null, "metadata" : { } }`, `[`, `null`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, patch []byte) {
		got, err := guarded(&shiplogv1.PatchObject{Type: shiplogv1.PatchObject_TYPE_MERGE, Json: patch}, "u1", "4")
		if err != nil {
			return
		}
		var before, after map[string]any
		if err := json.Unmarshal(patch, &before); err != nil {
			t.Fatalf("%s is taken for a patch: %v", patch, err)
		}
		if err := json.Unmarshal(got, &after); err != nil {
			t.Fatalf("%s became %s: %v", patch, got, err)
		}
		metadata, _ := after["metadata"].(map[string]any)
		if _, set := before["metadata"]; !set {
			before["metadata"] = map[string]any{}
		}
		was, _ := before["metadata"].(map[string]any)
		for name, value := range map[string]any{"uid": "u1", "resourceVersion": "4"} {
			if _, set := was[name]; set {
				return // no patch of ours
			}
			if metadata[name] != value {
				t.Fatalf("%s became %s, without %s", patch, got, name)
			}
			delete(metadata, name)
		}
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("%s became %s", patch, got)
		}
	})
}
