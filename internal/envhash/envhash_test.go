package envhash_test

import (
	"encoding/json"
	"hash/fnv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/dump"

	"shiplog.dev/internal/envhash"
)

// TestAsKubernetesEncodes: the hash is over the JSON of Kubernetes' own type, which other tools hash.
func TestAsKubernetesEncodes(t *testing.T) {
	for _, variables := range [][]corev1.EnvVar{nil, {{Name: "A", Value: "1"}}, {{Name: "A"}, {Name: "B", Value: "x\ny"}}} {
		own := []envhash.Variable{}
		for _, v := range variables {
			own = append(own, envhash.Variable{Name: v.Name, Value: v.Value})
		}
		data, err := json.Marshal(variables)
		if err != nil {
			t.Fatal(err)
		}
		want := fnv.New32a()
		want.Write([]byte(dump.ForHash(data)))
		if got := envhash.Of(own); got != uint64(want.Sum32()) || got == 0 {
			t.Errorf("%s: hash %d, want %d", data, got, want.Sum32())
		}
	}
}
