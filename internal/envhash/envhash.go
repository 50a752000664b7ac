// Package envhash hashes the environment that a container has from its Pod's metadata, so that what is wanted and what really runs
// can be compared. Rules and node agents share it; both must come to the same number. It is pure.
package envhash

import (
	"encoding/json"
	"hash/fnv"

	"k8s.io/utils/dump"
)

// Variable is one environment variable, encoded as Kubernetes encodes it: a value that is empty is left out.
type Variable struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
}

// Of returns the hash of variables that are sorted by name (pod-probe B4). None at all have a hash too, which is not 0.
func Of(variables []Variable) uint64 {
	if len(variables) == 0 {
		variables = nil // encoded as null, however the list came to be empty
	}
	return JSON(variables)
}

// JSON returns FNV-32a over Kubernetes' dump of the JSON of a value that has one.
func JSON(value any) uint64 {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err) // only values of our own are hashed
	}
	sum := fnv.New32a()
	sum.Write([]byte(dump.ForHash(data)))
	return uint64(sum.Sum32())
}
