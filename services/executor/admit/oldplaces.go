package admit

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	quick "github.com/go-json-experiment/json/v1"

	"shiplog.dev/api/kruise/apps/v1alpha1"
	"shiplog.dev/api/kruise/apps/v1beta1"
)

// fromOldPlaces moves what a request in v1beta1 writes where v1alpha1 has it, and returns the object as it should be, the
// patch that makes it so, and what to tell the user. kubectl takes the newest version when none is named, so every script that
// says `kubectl patch clone web -p '{"spec": {"updateStrategy": {"partition": 2}}}'` writes such requests. The schema lets
// these fields through, so that they come to here; nothing else reads them.
func fromOldPlaces(q request) (object json.RawMessage, patch []operation, warnings []string) {
	if q.version != v1beta1.GroupVersion.Version {
		return q.object, nil, nil
	}
	var whole, spec map[string]json.RawMessage
	if quick.Unmarshal(q.object, &whole) != nil || quick.Unmarshal(whole["spec"], &spec) != nil {
		return q.object, nil, nil
	}
	strategy := func(name string) tree {
		var value any
		_ = decodeTree(spec[name], &value) // it is part of what has just been read
		is, _ := value.(tree)
		return is
	}
	replace := func(name string, value tree) {
		patch = append(patch, operation{"replace", "/spec/" + name, value})
		spec[name], _ = json.Marshal(value) // so is this
	}
	move := func(strategy, name, to string) {
		warnings = append(warnings, fmt.Sprintf("spec.%s.%s is spec.%s in v1beta1, and was moved there", strategy, name, to))
	}
	if update := strategy("updateStrategy"); update != nil {
		rolling := maps.Clone(mapAt(update, "rollingUpdate"))
		if rolling == nil {
			rolling = tree{}
		}
		kind := update["type"]
		switch word, _ := kind.(string); v1alpha1.CloneSetUpdateStrategyType(word) {
		case v1alpha1.RecreateCloneSetUpdateStrategyType, v1alpha1.InPlaceIfPossibleCloneSetUpdateStrategyType, v1alpha1.InPlaceOnlyCloneSetUpdateStrategyType:
			rolling["podUpdatePolicy"], kind = word, string(v1beta1.RollingUpdateCloneSetUpdateStrategyType)
			move("updateStrategy", "type", "updateStrategy.rollingUpdate.podUpdatePolicy")
		}
		for _, name := range slices.Sorted(maps.Keys(update)) {
			if name == "type" || name == "rollingUpdate" {
				continue
			}
			rolling[name] = over(rolling[name], update[name])
			move("updateStrategy", name, "updateStrategy.rollingUpdate."+name)
		}
		if len(warnings) > 0 {
			replace("updateStrategy", tree{"type": kind, "rollingUpdate": rolling})
		}
	}
	scale := strategy("scaleStrategy")
	if disabled, has := scale["disablePVCReuse"].(bool); has {
		delete(scale, "disablePVCReuse")
		scale["enablePVCReuse"] = !disabled
		replace("scaleStrategy", scale)
		move("scaleStrategy", "disablePVCReuse", "scaleStrategy.enablePVCReuse")
	}
	if len(patch) == 0 {
		return q.object, nil, nil
	}
	whole["spec"], _ = quick.Marshal(spec)
	object, _ = quick.Marshal(whole)
	return object, patch, warnings
}

// over lays the members of an object over those of another; any other value takes its place.
func over(below, above any) any {
	lower, is := below.(tree)
	upper, both := above.(tree)
	if !is || !both {
		return above
	}
	out := maps.Clone(lower)
	maps.Copy(out, upper)
	return out
}
