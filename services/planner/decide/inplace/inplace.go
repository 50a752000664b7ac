// Package inplace judges and words the update of a running Pod to a newer template (spec: inplace-update). It decides
// whether a change qualifies, what each of its writes holds, and when an update is complete. Which Pod may start, and when,
// is the business of the workload's rules.
package inplace

import (
	"slices"

	"shiplog.dev/internal/world"
)

// Keys and conditions (inplace-update 2.2).
const (
	GraceAnnotation       = "apps.kruise.io/inplace-update-grace"
	LegacyGraceAnnotation = "inplace-update-grace"
	RuntimeAnnotation     = "apps.kruise.io/runtime-containers-meta"
	ReadyCondition        = "InPlaceUpdateReady"
	StartReason           = "StartInPlaceUpdate"
)

// Gates that decide what qualifies.
const (
	GateEnvFromMetadata = "InPlaceUpdateEnvFromMetadata"
	GateResize          = "InPlaceWorkloadVerticalScaling"
)

// Gates are the feature gates of in-place update.
type Gates struct{ EnvFromMetadata, Resize bool }

// GatesOf reads the gates from a world.
func GatesOf(w *world.World) Gates {
	return Gates{EnvFromMetadata: w.Gate(GateEnvFromMetadata), Resize: w.Gate(GateResize)}
}

func sortedKeys[V any](of map[string]V) []string {
	keys := make([]string, 0, len(of))
	for key := range of { //shiplog:unordered: sorted below
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func mapAt(tree map[string]any, key string) map[string]any {
	value, _ := tree[key].(map[string]any)
	return value
}

func listAt(tree map[string]any, key string) []any {
	value, _ := tree[key].([]any)
	return value
}

func containerOf(pod *world.Pod, name string) *world.Container {
	for i := range pod.Containers {
		if pod.Containers[i].Name == name {
			return &pod.Containers[i]
		}
	}
	return nil
}

func imageOf(pod *world.Pod, name string) string {
	if container := containerOf(pod, name); container != nil {
		return container.Image
	}
	return ""
}
