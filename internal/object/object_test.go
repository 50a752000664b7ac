package object

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	pods    = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	nodes   = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	secrets = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
)

func TestNormalise(t *testing.T) {
	const ids = `"name":"a","uid":"u","resourceVersion":"7"`
	for _, c := range []struct {
		name     string
		resource schema.GroupVersionResource
		in, want string
	}{
		{"nothing to drop", pods, `{"metadata":{` + ids + `},"x":[1,{"y":"}"}]}`, `{"metadata":{` + ids + `},"x":[1,{"y":"}"}]}`},
		{"managedFields last", pods, `{"metadata":{` + ids + `,"managedFields":[{"a":"]"}]}}`, `{"metadata":{` + ids + `}}`},
		{"managedFields first", pods, `{"metadata":{"managedFields":[],` + ids + `}}`, `{"metadata":{` + ids + `}}`},
		{"managedFields between", pods, `{"metadata":{"name":"a","managedFields":[{}],"uid":"u","resourceVersion":"7"}}`, `{"metadata":{` + ids + `}}`},
		{"elsewhere it stays", pods, `{"metadata":{` + ids + `},"spec":{"managedFields":1}}`, `{"metadata":{` + ids + `},"spec":{"managedFields":1}}`},
		{"spaces", pods, " {\n \"metadata\" : { \"managedFields\" : 1 , " + ids + " } }\n", `{"metadata":{` + ids + `}}`},
		{"escapes", pods, `{"a\"":"\\","metadata":{` + ids + `,"managedFields":"\\\""},"b":"\\"}`, `{"a\"":"\\","metadata":{` + ids + `},"b":"\\"}`},
		{"node", nodes, `{"metadata":{` + ids + `},"status":{"conditions":[{"type":"Ready","lastHeartbeatTime":"t","x":1},{"lastHeartbeatTime":"t"}],"images":[{"names":["i"]}]}}`,
			`{"metadata":{` + ids + `},"status":{"conditions":[{"type":"Ready","x":1},{}]}}`},
		{"node without conditions", nodes, `{"metadata":{` + ids + `},"status":{"images":[],"conditions":null,"z":1}}`, `{"metadata":{` + ids + `},"status":{"conditions":null,"z":1}}`},
		{"secret", secrets, `{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"data\":1}"},` + ids + `},"data":{"k":"djE="},"stringData":{"k":"v"},"type":"Opaque"}`,
			`{"metadata":{"annotations":{},` + ids + `},"type":"Opaque"}`},
	} {
		got, err := Normalise(c.resource, []byte(c.in))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, got.JSON); err != nil {
			t.Errorf("%s: %v in %s", c.name, err, got.JSON)
		}
		if compact.String() != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, compact.String(), c.want)
		}
		if got.Name != "a" || got.UID != "u" || got.ResourceVersion != "7" {
			t.Errorf("%s: took %q %q %q", c.name, got.Name, got.UID, got.ResourceVersion)
		}
	}
}

func TestHashIgnoresOnlyTheResourceVersion(t *testing.T) {
	of := func(raw string) uint64 {
		o, err := Normalise(pods, []byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		return o.Hash
	}
	first := of(`{"metadata":{"name":"a","uid":"u","resourceVersion":"9","managedFields":[{"time":1}]},"s":1}`)
	if second := of(`{"metadata":{"name":"a","uid":"u","resourceVersion":"10","managedFields":[{"time":2}]},"s":1}`); first != second {
		t.Error("a new resource version alone changes the hash")
	}
	if third := of(`{"metadata":{"name":"a","uid":"u","resourceVersion":"9"},"s":2}`); first == third {
		t.Error("a change does not change the hash")
	}
}

// Whatever prefix of an object arrives: an error, never a panic and never half an object.
func TestTruncated(t *testing.T) {
	whole := []byte(pod())
	for n := range len(whole) {
		if o, err := Normalise(pods, whole[:n]); err == nil {
			t.Fatalf("the first %d bytes gave %s", n, o.JSON)
		}
	}
}

func FuzzNormalise(f *testing.F) {
	f.Add([]byte(pod()))
	f.Add([]byte(`{"metadata":{"managedFields":[],"name":"a","uid":"u","resourceVersion":"7"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := Normalise(pods, raw)
		if !json.Valid(raw) {
			return // only well-formed JSON has a promise beyond not panicking
		}
		if err == nil && !json.Valid(got.JSON) {
			t.Fatalf("from %q came %q", raw, got.JSON)
		}
	})
}

func BenchmarkNormalisePod(b *testing.B) {
	raw := []byte(pod())
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Normalise(pods, raw); err != nil {
			b.Fatal(err)
		}
	}
}

// pod is about 3 kB after normalising and 5 kB before.
func pod() string {
	return `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"sample-x7k2p","generateName":"sample-","namespace":"default",` +
		`"uid":"3f0b2c1a-5d6e-4f70-8a91-b2c3d4e5f607","resourceVersion":"123456","creationTimestamp":"2026-01-01T00:00:00Z",` +
		`"labels":{"app":"sample","controller-revision-hash":"sample-7d9f8c6b5"},"managedFields":[` +
		strings.Repeat(`{"manager":"kubelet","operation":"Update","apiVersion":"v1","fieldsV1":{"f:status":{"f:conditions":{"k:{\"type\":\"Ready\"}":{".":{},"f:lastProbeTime":{}}}}}},`, 11) +
		`{}]},"spec":{"containers":[` + strings.Repeat(`{"name":"main","image":"nginx:1.25","env":[{"name":"A","value":"some \"quoted\" value"}],"resources":{"limits":{"cpu":"1"}}},`, 12) +
		`{}]},"status":{"phase":"Running","conditions":[` + strings.Repeat(`{"type":"Ready","status":"True","lastProbeTime":null,"lastTransitionTime":"2026-01-01T00:00:00Z"},`, 8) + `{}]}}`
}
