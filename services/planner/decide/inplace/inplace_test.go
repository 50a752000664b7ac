package inplace

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
)

var on = Gates{EnvFromMetadata: true, Resize: true}

var noon = time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)

// podOf reads a Pod as the fold does.
func podOf(t *testing.T, text string) *world.Pod {
	t.Helper()
	entry := &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
		Object: &shiplogv1.ObjectRef{Version: "v1", Resource: world.ResourcePods, Namespace: "default", Name: "web-a"}, ResourceVersion: "1", Json: []byte(text),
	}}}
	change, err := world.Decode(1, noon, proto.Clone(entry).(*shiplogv1.Entry))
	if err != nil {
		t.Fatal(err)
	}
	return change.Object().(*world.Pod)
}

func templateOf(t *testing.T, text string) world.Template {
	t.Helper()
	template, err := world.ParseTemplate([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return template
}

const plain = `{"metadata":{"labels":{"app":"web","color":"red"}},"spec":{"containers":[{"name":"main","image":"v1"},{"name":"side","image":"v1"}]}}`

// TestWhatQualifies is inplace-update R1 to R3, R6, R7 and D3.
func TestWhatQualifies(t *testing.T) {
	for _, test := range []struct{ to, want string }{
		{plain, "nothing that runs"},
		{strings.Replace(plain, `"v1"},{`, `"v2"},{`, 1), "main to v2"},
		{strings.Replace(plain, `"red"`, `"blue"`, 1), "1 metadata keys"},
		{strings.Replace(plain, `,"color":"red"`, ``, 1), "1 metadata keys"},
		{strings.Replace(plain, `"labels"`, `"annotations":{"a":"b"},"finalizers":["x/y"],"labels"`, 1), "2 metadata keys"},
		{strings.Replace(plain, `"spec":{`, `"spec":{"volumes":null,"securityContext":{},`, 1), "nothing that runs"},
		{strings.Replace(plain, `"spec":{`, `"spec":{"hostNetwork":true,`, 1), "spec.hostNetwork differs"},
		{strings.Replace(plain, `"image":"v1"},{`, `"image":"v1","command":["x"]},{`, 1), "spec.containers[0].command differs"},
		{strings.Replace(plain, `"image":"v1"},{`, `"image":"v1","env":[{"name":"A","value":"b"}]},{`, 1), "spec.containers[0].env differs"},
		{`{"metadata":{"labels":{"app":"web","color":"red"}},"spec":{"containers":[{"name":"side","image":"v1"},{"name":"main","image":"v1"}]}}`, "spec.containers[0].name differs"},
		{strings.Replace(plain, `,{"name":"side","image":"v1"}`, ``, 1), "spec.containers: 2 before, 1 now"},
		{strings.Replace(plain, `"spec":{`, `"spec":{"initContainers":[{"name":"i"}],`, 1), "spec.initContainers differs"},
	} {
		pod := podOf(t, `{"metadata":{"labels":{"app":"web","color":"red","mine":"stays"}},"spec":{"containers":[{"name":"main","image":"v1"},{"name":"side","image":"v1"}]}}`)
		change, err := Between(pod, templateOf(t, plain), templateOf(t, test.to), on)
		got := change.Describe()
		if err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("to %s: got %q, want %q", test.to, got, test.want)
		}
	}
}

// TestKeysOfOthersStay is inplace-update R6: what somebody put on the Pod survives, what the template drops is dropped.
func TestKeysOfOthersStay(t *testing.T) {
	pod := podOf(t, `{"metadata":{"labels":{"app":"web","color":"red","mine":"stays"}},"spec":{"containers":[{"name":"main","image":"v1"},{"name":"side","image":"v1"}]}}`)
	change, err := Between(pod, templateOf(t, plain), templateOf(t, strings.Replace(plain, `,"color":"red"`, `,"size":"big"`, 1)), on)
	if err != nil {
		t.Fatal(err)
	}
	patch, _ := json.Marshal(Start(pod, change, "web-2", noon).Patch(pod)["metadata"].(map[string]any)["labels"])
	if want := `{"color":null,"size":"big"}`; string(patch) != want {
		t.Errorf("got %s, want %s", patch, want)
	}
}

// TestSharedMetadata is inplace-update R14 and D4: a container that reads the same key as one of the batch goes with it,
// whatever its priority, and an injected container counts.
func TestSharedMetadata(t *testing.T) {
	env := func(name, key string, priority int) string {
		return fmt.Sprintf(`{"name":%q,"image":"v1","env":[{"name":"K","valueFrom":{"fieldRef":{"fieldPath":"metadata.labels['%s']"}}},`+
			`{"name":"KRUISE_CONTAINER_BARRIER","valueFrom":{"configMapKeyRef":{"key":"p_%d"}}}]}`, name, key, priority)
	}
	containers := env("high", "a", 5) + "," + env("low", "a", 1) + "," + env("other", "b", 1)
	from := `{"metadata":{"labels":{"a":"1","b":"1"}},"spec":{"containers":[` + containers + `]}}`
	pod := podOf(t, `{"metadata":{"labels":{"a":"1","b":"1"},"annotations":{"apps.kruise.io/runtime-containers-meta":"{}"}},"spec":{"containers":[`+containers+`,`+env("injected", "b", 5)+`]}}`)
	change, err := Between(pod, templateOf(t, from), templateOf(t, strings.NewReplacer(`"a":"1"`, `"a":"2"`, `"b":"1"`, `"b":"2"`).Replace(from)), on)
	if err != nil {
		t.Fatal(err)
	}
	write := Start(pod, change, "web-2", noon)
	if want := []string{"high", "injected", "low", "other"}; !slices.Equal(write.Batch, want) {
		t.Errorf("the first batch is %v, want %v: all share a or b with one of priority 5", write.Batch, want)
	}
	change, err = Between(pod, templateOf(t, from), templateOf(t, strings.Replace(from, `"a":"1"`, `"a":"2"`, 1)), on)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := Start(pod, change, "web-2", noon).Batch, []string{"high", "low"}; !slices.Equal(got, want) {
		t.Errorf("the first batch is %v, want %v", got, want)
	}
}

// TestComplete is inplace-update R22 to R28, D5 and D13.
func TestComplete(t *testing.T) {
	const state = `{"revision":"web-2","updateTimestamp":"2026-01-15T08:00:00Z","lastContainerStatuses":{"main":{"imageID":"sha256:old"}},"updateImages":true,"containerBatchesRecord":[{"timestamp":"2026-01-15T08:00:00Z","containers":["main"]}]}`
	hash := func(name, image string) uint64 {
		return plainHash(&world.Container{Name: name, Image: image})
	}
	for name, test := range map[string]struct {
		image, status, meta, state string
		own                        string // container that ran before
		observed                   int
		want                       bool
	}{
		"the content changed":                           {image: "v2", status: `"image":"v2","imageID":"sha256:new"`, want: true},
		"nothing happened yet":                          {image: "v2", status: `"image":"v1","imageID":"sha256:old"`},
		"back from what cannot be pulled (R27)":         {image: "v1", status: `"image":"v1","imageID":"sha256:old"`, want: true},
		"by its full name (D5)":                         {image: "nginx:alpine", status: `"image":"docker.io/library/nginx:alpine","imageID":"sha256:old"`, want: true},
		"no tag is latest (R25)":                        {image: "localhost:5000/app", status: `"image":"localhost:5000/app:latest","imageID":"sha256:old"`, want: true},
		"a new tag of the old content, by hash (R26)":   {image: "v2", status: `"image":"v1","imageID":"sha256:old"`, meta: fmt.Sprintf(`{"containers":[{"name":"side","containerID":"c2","hashes":{"plainHash":%d}},{"name":"main","containerID":"c1","hashes":{"plainHash":%d}}]}`, hash("side", "s1"), hash("main", "v2")), want: true},
		"the hash of another container (R23)":           {image: "v2", status: `"image":"v1","imageID":"sha256:old"`, meta: fmt.Sprintf(`{"containers":[{"name":"side","containerID":"c2","hashes":{"plainHash":%d}},{"name":"main","containerID":"gone","hashes":{"plainHash":%d}}]}`, hash("side", "s1"), hash("main", "v2"))},
		"a new tag of the old content, started (D5)":    {image: "v2", status: `"image":"v1","imageID":"sha256:old","state":{"running":{"startedAt":"2026-01-15T08:00:00Z"}}`, observed: 2, own: "c0", want: true},
		"started, but the kubelet has not seen it (D5)": {image: "v2", status: `"image":"v1","imageID":"sha256:old","state":{"running":{"startedAt":"2026-01-15T08:00:00Z"}}`, observed: 1, own: "c0"},
		"seen, and not started anew yet (D5)":           {image: "v2", status: `"image":"v1","imageID":"sha256:old","state":{"running":{"startedAt":"2026-01-15T08:00:00Z"}}`, observed: 2, own: "c1"},
		"batches to come (R28)":                         {image: "v2", status: `"image":"v2","imageID":"sha256:new"`, state: strings.Replace(state, `"updateImages":true`, `"updateImages":true,"nextContainerImages":{"side":"s2"}`, 1)},
		"an account that is no JSON (D20)":              {image: "v2", status: `"image":"v1","imageID":"sha256:old"`, state: "no", want: true},
	} {
		account := state
		if test.state != "" {
			account = test.state
		}
		annotations := map[string]string{world.InPlaceUpdateAnnotation: account}
		if test.own != "" {
			annotations[world.OwnInPlaceUpdateAnnotation] = fmt.Sprintf(`{"main":{"containerID":%q}}`, test.own)
		}
		if test.meta != "" {
			annotations[RuntimeAnnotation] = test.meta
		}
		encoded, _ := json.Marshal(annotations)
		pod := podOf(t, fmt.Sprintf(`{"metadata":{"generation":2,"annotations":%s},"spec":{"containers":[{"name":"main","image":%q},{"name":"side","image":"s1"}]},`+
			`"status":{"observedGeneration":%d,"containerStatuses":[{"name":"side","image":"s1","imageID":"s","containerID":"c2"},{"name":"main","containerID":"c1",%s}]}}`, encoded, test.image, test.observed, test.status))
		if got := Complete(pod); got != test.want {
			t.Errorf("%s: complete is %v, want %v", name, got, test.want)
		}
	}
}

// TestResizedComparesOnlyWhatChanges is inplace-update R29 and D6.
func TestResizedComparesOnlyWhatChanges(t *testing.T) {
	template := templateOf(t, `{"spec":{"containers":[{"name":"main","image":"v1","resources":{"requests":{"cpu":"200m","example.com/gpu":1}}},{"name":"side","image":"v1","resources":{"requests":{"cpu":"1"}}}]}}`)
	pod := func(status string) *world.Pod {
		return podOf(t, `{"metadata":{"annotations":{"apps.kruise.io/inplace-update-state":"{\"revision\":\"r\",\"updateTimestamp\":\"2026-01-15T08:00:00Z\",\"lastContainerStatuses\":null,\"updateResources\":true,\"containerBatchesRecord\":[{\"timestamp\":\"2026-01-15T08:00:00Z\",\"containers\":[\"main\"]}]}"}},`+
			`"spec":{"containers":[{"name":"main","image":"v1","resources":{"requests":{"cpu":"0.2","example.com/gpu":"1"}}},{"name":"side","image":"v1","resources":{"requests":{"cpu":"500m"}}}]},`+
			`"status":{"containerStatuses":[{"name":"main","image":"v1"`+status+`},{"name":"side","image":"v1"}]}}`)
	}
	for status, want := range map[string]bool{
		``: false,
		`,"resources":{"requests":{"cpu":"100m"}}`:  false,
		`,"resources":{"requests":{"cpu":"200m"}}`:  true,
		`,"resources":{"requests":{"cpu":"0.200"}}`: true,
	} {
		if got := Resized(pod(status), template); got != want {
			t.Errorf("status%s: resized is %v, want %v", status, got, want)
		}
	}
}
