package conversion_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"shiplog.dev/api/kruise/apps/conversion"
)

const (
	alpha = "apps.kruise.io/v1alpha1"
	beta  = "apps.kruise.io/v1beta1"

	exclude     = "apps.kruise.io/cloneset-scaling-exclude-preparing-delete"
	parallelism = "apps.kruise.io/image-predownload-parallelism"
	timeout     = "apps.kruise.io/image-predownload-timeout-seconds"
	minimum     = "apps.kruise.io/image-predownload-min-updated-ready-pods"
)

// cloneset 2.3, api-surface 4.1: what each side looks like on the other. Both columns convert into each other.
func TestSpellings(t *testing.T) {
	for name, c := range map[string]struct{ alpha, beta string }{
		"recreate": {
			`spec: {scaleStrategy: {}, updateStrategy: {type: ReCreate, partition: 0, maxUnavailable: 20%, maxSurge: 1, paused: true}}`,
			`spec: {scaleStrategy: {enablePVCReuse: true}, updateStrategy: {type: RollingUpdate, rollingUpdate: {podUpdatePolicy: ReCreate,
			   partition: 0, maxUnavailable: 20%, maxSurge: 1, paused: true}}}`},
		"in place, with strategies": {
			`spec: {scaleStrategy: {disablePVCReuse: true, podsToDelete: [a]}, updateStrategy: {type: InPlaceIfPossible, inPlaceUpdateStrategy: {},
			   priorityStrategy: {orderPriority: [{orderedKey: k}]}, scatterStrategy: [{key: a, value: b}]}}`,
			`spec: {scaleStrategy: {enablePVCReuse: false, podsToDelete: [a]}, updateStrategy: {type: RollingUpdate, rollingUpdate: {
			   podUpdatePolicy: InPlaceIfPossible, inPlaceUpdateStrategy: {},
			   priorityStrategy: {orderPriority: [{orderedKey: k}]}, scatterStrategy: [{key: a, value: b}]}}}`},
		"OnDelete keeps its siblings": {
			`spec: {scaleStrategy: {}, updateStrategy: {type: OnDelete, partition: 30%, paused: true}}`,
			`spec: {scaleStrategy: {enablePVCReuse: true}, updateStrategy: {type: OnDelete, rollingUpdate: {podUpdatePolicy: ReCreate, partition: 30%, paused: true}}}`},
		"the label is a field": {
			`{metadata: {labels: {` + exclude + `: "true", a: b}}, spec: {scaleStrategy: {}}}`,
			`{metadata: {labels: {a: b}}, spec: {scaleStrategy: {enablePVCReuse: true, excludePreparingDelete: true}}}`},
		"annotations are fields": {
			`{metadata: {annotations: {` + parallelism + `: "2", ` + timeout + `: "60", ` + minimum + `: "3"}},
			  spec: {scaleStrategy: {}, updateStrategy: {type: InPlaceOnly, inPlaceUpdateStrategy: {gracePeriodSeconds: 5}}}}`,
			`{spec: {scaleStrategy: {enablePVCReuse: true}, updateStrategy: {type: RollingUpdate, rollingUpdate: {podUpdatePolicy: InPlaceOnly,
			   inPlaceUpdateStrategy: {gracePeriodSeconds: 5, imagePreDownloadParallelism: 2, imagePreDownloadTimeoutSeconds: 60, imagePreDownloadMinUpdatedReadyPods: 3}}}}}`},
		"cloneset D17: what no field can hold stays an annotation": {
			`{metadata: {annotations: {` + parallelism + `: "-1", ` + minimum + `: "10%"}},
			  spec: {scaleStrategy: {}, updateStrategy: {type: InPlaceOnly, inPlaceUpdateStrategy: {}}}}`,
			`{metadata: {annotations: {` + parallelism + `: "-1", ` + minimum + `: "10%"}},
			  spec: {scaleStrategy: {enablePVCReuse: true}, updateStrategy: {type: RollingUpdate, rollingUpdate: {podUpdatePolicy: InPlaceOnly, inPlaceUpdateStrategy: {}}}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := object(t, alpha, c.alpha), object(t, beta, c.beta)
			equal(t, convert(t, a, beta), b)
			equal(t, convert(t, b, alpha), a)
		})
	}
}

// cloneset 2.3: what has no place in the other version survives there, and only as long as it is true.
func TestSavedSpellings(t *testing.T) {
	// v1alpha1 has no place for a policy beside OnDelete.
	policy := object(t, beta, `spec: {scaleStrategy: {enablePVCReuse: false}, updateStrategy: {type: OnDelete, rollingUpdate: {podUpdatePolicy: InPlaceOnly}}}`)
	seen := convert(t, policy, alpha)
	equal(t, seen["spec"], object(t, alpha, `spec: {scaleStrategy: {disablePVCReuse: true}, updateStrategy: {type: OnDelete}}`)["spec"])
	equal(t, convert(t, seen, beta), policy)

	// Somebody who writes v1alpha1 chooses another type: the saved policy is void.
	seen["spec"].(map[string]any)["updateStrategy"] = map[string]any{"type": "ReCreate"}
	equal(t, convert(t, seen, beta), object(t, beta, `spec: {scaleStrategy: {enablePVCReuse: false}, updateStrategy: {type: RollingUpdate, rollingUpdate: {podUpdatePolicy: ReCreate}}}`))

	// Spelled out in v1alpha1, then turned round in v1beta1.
	stored := convert(t, object(t, alpha, `spec: {scaleStrategy: {disablePVCReuse: false}}`), beta)
	equal(t, convert(t, stored, alpha), object(t, alpha, `spec: {scaleStrategy: {disablePVCReuse: false}}`))
	stored["spec"].(map[string]any)["scaleStrategy"].(map[string]any)["enablePVCReuse"] = false
	equal(t, convert(t, stored, alpha), object(t, alpha, `spec: {scaleStrategy: {disablePVCReuse: true}}`))
}

// cloneset 2.3: a field that v1beta1 clears does not come back by way of v1alpha1.
func TestClearedFieldsStayCleared(t *testing.T) {
	stored := convert(t, object(t, alpha, `{metadata: {labels: {`+exclude+`: "true"}, annotations: {`+parallelism+`: "2"}},
		spec: {scaleStrategy: {}, updateStrategy: {type: InPlaceOnly, inPlaceUpdateStrategy: {}}}}`), beta)
	spec := stored["spec"].(map[string]any)
	spec["scaleStrategy"].(map[string]any)["excludePreparingDelete"] = false
	spec["updateStrategy"].(map[string]any)["rollingUpdate"].(map[string]any)["inPlaceUpdateStrategy"] = map[string]any{}
	seen := convert(t, stored, alpha)
	metadata, _ := json.Marshal(seen["metadata"])
	if strings.Contains(string(metadata), exclude) || strings.Contains(string(metadata), parallelism) {
		t.Errorf("v1alpha1 shows %s", metadata)
	}
	// A label or annotation that v1beta1 does not obey is not shown as if it counted.
	seen = convert(t, object(t, beta, `{metadata: {labels: {`+exclude+`: "true"}, annotations: {`+timeout+`: "9"}}, spec: {scaleStrategy: {enablePVCReuse: true}}}`), alpha)
	metadata, _ = json.Marshal(seen["metadata"])
	if strings.Contains(string(metadata), `"`+exclude+`"`) && !strings.Contains(string(metadata), conversion.SavedKey) {
		t.Errorf("v1alpha1 shows %s", metadata)
	}
}

// cloneset 2.3: the round trip is exact, whatever the object and in whichever version it begins.
func TestRoundTrip(t *testing.T) {
	for _, way := range []struct{ from, to string }{{alpha, beta}, {beta, alpha}} {
		t.Run(way.from, rapid.MakeCheck(func(t *rapid.T) {
			whole := anyCloneSet(way.from).Draw(t, "object")
			there := convert(t, whole, way.to)
			equal(t, convert(t, there, way.from), whole)
			equal(t, there["metadata"].(map[string]any)["name"], whole["metadata"].(map[string]any)["name"])
			equal(t, there["status"], whole["status"])
		}))
	}
}

// cloneset 2.3: an annotation saved for another state of the object changes nothing of this one.
func TestStaleSavedSpelling(t *testing.T) {
	for _, way := range []struct{ from, to string }{{alpha, beta}, {beta, alpha}} {
		t.Run(way.from, rapid.MakeCheck(func(t *rapid.T) {
			whole := anyCloneSet(way.from).Draw(t, "object")
			before := convert(t, anyCloneSet(way.to).Draw(t, "object before"), way.from)
			if saved, has := annotations(before)[conversion.SavedKey]; has {
				metadata := whole["metadata"].(map[string]any)
				if metadata["annotations"] == nil {
					metadata["annotations"] = map[string]any{}
				}
				metadata["annotations"].(map[string]any)[conversion.SavedKey] = saved
			}
			returned := convert(t, convert(t, whole, way.to), way.from)
			equal(t, withoutSaved(returned), withoutSaved(whole))
		}))
	}
}

func FuzzConvert(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"apps.kruise.io/v1alpha1","kind":"CloneSet","spec":{"updateStrategy":{"type":1},"scaleStrategy":[]}}`), true)
	f.Add([]byte(`{"apiVersion":"apps.kruise.io/v1beta1","kind":"CloneSet","metadata":{"annotations":{"shiplog.dev/conversion":"[1]"}},"spec":{"updateStrategy":{"rollingUpdate":null}}}`), false)
	f.Add([]byte(`{"apiVersion":"apps.kruise.io/v1alpha1","kind":"CloneSet","metadata":null,"spec":null}`), true)
	f.Fuzz(func(t *testing.T, object []byte, up bool) {
		version := alpha
		if up {
			version = beta
		}
		if out, err := conversion.Convert(object, version); err == nil && !json.Valid(out) {
			t.Errorf("%s became %s", object, out)
		}
	})
}

func TestRefusals(t *testing.T) {
	for object, words := range map[string]string{
		`[]`: "decode the object",
		`{"apiVersion":"apps.kruise.io/v1alpha1","kind":"Pod"}`:                                          `convert "Pod"`,
		`{"apiVersion":"apps.kruise.io/v2","kind":"CloneSet"}`:                                           `from "apps.kruise.io/v2"`,
		`{"apiVersion":"apps.kruise.io/v1alpha1","kind":"CloneSet","metadata":{"labels":{"a":1}}}`:       "decode labels",
		`{"apiVersion":"apps.kruise.io/v1alpha1","kind":"CloneSet","metadata":{"annotations":["none"]}}`: "decode annotations",
	} {
		if _, err := conversion.Convert([]byte(object), beta); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: got %v, want %q", object, err, words)
		}
	}
}

// anyCloneSet draws objects whose parts are as a schema allows, or absent, or what an older release may have stored.
func anyCloneSet(version string) *rapid.Generator[map[string]any] {
	return rapid.Custom(func(t *rapid.T) map[string]any {
		spec := map[string]any{"template": map[string]any{"spec": map[string]any{"unknown": json.Number("9007199254740993"), "ratio": json.Number("1.50")}}}
		common := map[string][]any{
			"partition": {json.Number("0"), "33.3%"}, "maxUnavailable": {"20%", json.Number("1")}, "maxSurge": {json.Number("0"), "10%"}, "paused": {true, false},
			"priorityStrategy": {map[string]any{"orderPriority": []any{map[string]any{"orderedKey": "k"}}}},
			"scatterStrategy":  {[]any{map[string]any{"key": "a", "value": "b"}}, []any{}},
			"unknown":          {"kept", json.Number("1")},
		}
		inPlace := map[string][]any{"gracePeriodSeconds": {json.Number("0"), json.Number("7")}}
		for _, field := range []string{"imagePreDownloadParallelism", "imagePreDownloadTimeoutSeconds", "imagePreDownloadMinUpdatedReadyPods"} {
			inPlace[field] = []any{json.Number("0"), json.Number("3"), json.Number("-2"), "5", "10%"}
		}
		common["inPlaceUpdateStrategy"] = []any{some(t, inPlace), map[string]any{}}
		scale := map[string][]any{"podsToDelete": {[]any{"a"}, []any{}}, "maxUnavailable": {json.Number("1"), "50%"},
			"disablePVCReuse": {true, false}, "enablePVCReuse": {true, false}, "excludePreparingDelete": {true, false}}
		if rapid.Bool().Draw(t, "scale strategy") {
			spec["scaleStrategy"] = some(t, scale)
		}
		if rapid.Bool().Draw(t, "update strategy") {
			if version == alpha {
				common["type"] = []any{"ReCreate", "InPlaceIfPossible", "InPlaceOnly", "OnDelete", "", "Other"}
				spec["updateStrategy"] = some(t, common)
			} else {
				common["podUpdatePolicy"] = []any{"ReCreate", "InPlaceIfPossible", "InPlaceOnly", "", "Other"}
				spec["updateStrategy"] = some(t, map[string][]any{"type": {"RollingUpdate", "OnDelete", "", "Other"}, "rollingUpdate": {some(t, common)}, "unknown": {"kept"}})
			}
		}
		metadata := map[string]any{"name": "web", "uid": "1"}
		values := []any{"2", "0", "007", "-1", "10%", "", "word", "+5", "99999999999"}
		if m := some(t, map[string][]any{exclude: {"true", "false", "", "TRUE"}, "a": {"b"}}); len(m) > 0 {
			metadata["labels"] = m
		}
		if m := some(t, map[string][]any{parallelism: values, timeout: values, minimum: values, "a": {"b"}}); len(m) > 0 {
			metadata["annotations"] = m
		}
		return map[string]any{"apiVersion": version, "kind": "CloneSet", "metadata": metadata, "spec": spec, "status": map[string]any{"replicas": json.Number("3")}}
	})
}

// some draws which of the members are there, and with which value.
func some(t *rapid.T, choices map[string][]any) map[string]any {
	drawn := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(choices)) {
		if rapid.Bool().Draw(t, name) {
			drawn[name] = rapid.SampledFrom(choices[name]).Draw(t, name)
		}
	}
	return drawn
}

type failer interface {
	Helper()
	Fatalf(string, ...any)
}

func object(t failer, version, text string) map[string]any {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	whole := decode(t, raw)
	whole["apiVersion"], whole["kind"] = version, "CloneSet"
	return whole
}

func convert(t failer, whole map[string]any, version string) map[string]any {
	t.Helper()
	raw, err := json.Marshal(whole)
	if err != nil {
		t.Fatalf("%v", err)
	}
	out, err := conversion.Convert(raw, version)
	if err != nil {
		t.Fatalf("convert %s: %v", raw, err)
	}
	return decode(t, out)
}

func decode(t failer, raw []byte) map[string]any {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.UseNumber()
	var whole map[string]any
	if err := decoder.Decode(&whole); err != nil {
		t.Fatalf("decode %s: %v", raw, err)
	}
	return whole
}

func equal(t failer, got, want any) {
	t.Helper()
	g, _ := json.Marshal(got)
	w, _ := json.Marshal(want)
	if !reflect.DeepEqual(g, w) {
		t.Fatalf("got\n%s\nwant\n%s", g, w)
	}
}

func annotations(whole map[string]any) map[string]any {
	metadata, _ := whole["metadata"].(map[string]any)
	all, _ := metadata["annotations"].(map[string]any)
	return all
}

func withoutSaved(whole map[string]any) map[string]any {
	all := annotations(whole)
	delete(all, conversion.SavedKey)
	if all != nil && len(all) == 0 {
		delete(whole["metadata"].(map[string]any), "annotations")
	}
	return whole
}

// container-restart 2.4: what v1alpha1 says in annotations, v1beta1 says in its status; both ways are exact, and what cannot be
// read stays as it is.
func TestRestartRequests(t *testing.T) {
	const snapshot, acquired = "crr.apps.kruise.io/sync-container-statuses", "crr.apps.kruise.io/unready-acquired"
	one := `[{"name":"main","ready":true,"restartCount":2,"containerID":"containerd://a"}]`
	seen := convertRestart(t, restart(t, alpha, `{metadata: {annotations: {`+snapshot+`: '`+one+`', `+acquired+`: "2026-01-15T10:00:00+02:00"}}, status: {phase: Recreating}}`), beta)
	status, _ := json.Marshal(seen["status"])
	for _, want := range []string{`"containerID":"containerd://a"`, `"lastTransitionTime":"2026-01-15T08:00:00Z"`, `"type":"PreRecreateGrace"`} {
		if !strings.Contains(string(status), want) {
			t.Errorf("v1beta1 has status %s, want %s in it", status, want)
		}
	}
	if annotations(seen)[snapshot] != one {
		t.Error("the annotation is gone on the way up: a writer of v1alpha1 would lose it")
	}
	down := convertRestart(t, restart(t, beta, `status: {phase: Recreating, containerStatusSnapshot: `+one+`, conditions: [{type: PreRecreateGrace, status: "True", reason: PreRecreateGrace, message: m, lastTransitionTime: "2026-01-15T08:00:00Z"}]}`), alpha)
	if got := annotations(down)[acquired]; got != "2026-01-15T08:00:00Z" {
		t.Errorf("v1alpha1 says %q", got)
	}
	if _, has := down["status"].(map[string]any)["conditions"]; has {
		t.Error("v1alpha1 has conditions")
	}
	for _, way := range []struct{ from, to string }{{alpha, beta}, {beta, alpha}} {
		t.Run(way.from, rapid.MakeCheck(func(t *rapid.T) {
			whole := anyRestart(way.from).Draw(t, "object")
			equal(t, convertRestart(t, convertRestart(t, whole, way.to), way.from), whole)
		}))
	}
}

func restart(t failer, version, text string) map[string]any {
	whole := object(t, version, text)
	whole["kind"] = "ContainerRecreateRequest"
	return whole
}

func convertRestart(t failer, whole map[string]any, version string) map[string]any {
	t.Helper()
	return convert(t, whole, version)
}

func anyRestart(version string) *rapid.Generator[map[string]any] {
	return rapid.Custom(func(t *rapid.T) map[string]any {
		times := []any{"2026-01-15T08:00:00Z", "2026-01-15T10:00:00+02:00", "2026-01-15T08:00:00.5Z", "yesterday", ""}
		snapshots := []any{`[{"name":"a","ready":true,"restartCount":1}]`, `[]`, `{`, `null`, `[ {"name":"a", "ready":false, "restartCount":1, "containerID":"x"} ]`}
		status := map[string][]any{"phase": {"Recreating", "Completed"}, "message": {"m"}}
		if version == beta {
			status["containerStatusSnapshot"] = []any{[]any{}, []any{map[string]any{"name": "a", "ready": true, "restartCount": json.Number("1")}}}
			condition := func(kind, value string, at any) any {
				return map[string]any{"type": kind, "status": value, "reason": "r", "message": "m", "lastTransitionTime": at}
			}
			status["conditions"] = []any{[]any{}, []any{condition("PreRecreateGrace", "True", "2026-01-15T08:00:00Z")},
				[]any{condition("PreRecreateGrace", "False", "2026-01-15T08:00:00Z"), condition("Other", "True", "2026-01-15T09:00:00Z")}}
		}
		metadata := map[string]any{"name": "again"}
		if m := some(t, map[string][]any{"crr.apps.kruise.io/sync-container-statuses": snapshots, "crr.apps.kruise.io/unready-acquired": times, "a": {"b"}}); len(m) > 0 {
			metadata["annotations"] = m
		}
		whole := map[string]any{"apiVersion": version, "kind": "ContainerRecreateRequest", "metadata": metadata, "spec": map[string]any{"podName": "web"}}
		if s := some(t, status); len(s) > 0 {
			whole["status"] = s
		}
		return whole
	})
}
