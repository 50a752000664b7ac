package conversion

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"

	"shiplog.dev/api/kruise/apps/v1alpha1"
	"shiplog.dev/api/kruise/apps/v1beta1"
)

// excludeLabel is a label in v1alpha1 and a field in v1beta1.
const excludeLabel = v1beta1.CloneSetScalingExcludePreparingDeleteKey

// preDownload are annotations in v1alpha1 and fields of inPlaceUpdateStrategy in v1beta1.
var preDownload = []struct{ annotation, field string }{
	{v1beta1.ImagePreDownloadParallelismKey, "imagePreDownloadParallelism"},
	{v1beta1.ImagePreDownloadTimeoutSecondsKey, "imagePreDownloadTimeoutSeconds"},
	{v1beta1.ImagePreDownloadMinUpdatedReadyPodsKey, "imagePreDownloadMinUpdatedReadyPods"},
}

// cloneSet is how CloneSets differ (cloneset 2.3).
var cloneSet = difference{
	labels: []string{excludeLabel},
	annotations: func() (keys []string) {
		for _, moved := range preDownload {
			keys = append(keys, moved.annotation)
		}
		return keys
	}(),
	section: "spec", members: []string{"scaleStrategy", "updateStrategy"}, up: upCloneSet, down: downCloneSet,
}

// tree is a JSON object.
type tree = map[string]any

// upCloneSet is the plain way from v1alpha1 to v1beta1 (cloneset 2.3). Labels and annotations that a field holds move there,
// so that who clears the field finds no label that sets it again.
func upCloneSet(alpha parts) parts {
	beta := alpha.clone()

	if scale, is := objectOr(beta.members["scaleStrategy"]); is {
		disabled := scale["disablePVCReuse"] == true
		delete(scale, "disablePVCReuse")
		delete(scale, "excludePreparingDelete")
		scale["enablePVCReuse"] = !disabled
		if beta.keys[excludeLabel] == "true" {
			scale["excludePreparingDelete"] = true
			delete(beta.keys, excludeLabel)
		}
		beta.members["scaleStrategy"] = scale
	}

	rolling, is := objectOr(beta.members["updateStrategy"])
	if !is {
		return beta
	}
	fields := tree{}
	inPlace, strategy := objectOr(rolling["inPlaceUpdateStrategy"])
	for _, moved := range preDownload {
		delete(inPlace, moved.field)
		if number, is := count(json.Number(beta.keys[moved.annotation])); strategy && is {
			fields[moved.field] = number
			delete(beta.keys, moved.annotation)
		}
	}
	if beta.members["updateStrategy"] == nil && len(fields) == 0 {
		return beta // all defaults, in both versions
	}
	if len(fields) > 0 {
		maps.Copy(inPlace, fields)
		rolling["inPlaceUpdateStrategy"] = inPlace
	}
	kind, policy := string(v1beta1.RollingUpdateCloneSetUpdateStrategyType), string(v1beta1.RecreateCloneSetPodUpdatePolicy)
	switch word, _ := rolling["type"].(string); v1alpha1.CloneSetUpdateStrategyType(word) {
	case v1alpha1.OnDeleteCloneSetUpdateStrategyType:
		kind = string(v1beta1.OnDeleteCloneSetUpdateStrategyType)
	case v1alpha1.InPlaceIfPossibleCloneSetUpdateStrategyType, v1alpha1.InPlaceOnlyCloneSetUpdateStrategyType:
		policy = word
	}
	delete(rolling, "type")
	rolling["podUpdatePolicy"] = policy
	beta.members["updateStrategy"] = tree{"type": kind, "rollingUpdate": rolling}
	return beta
}

// downCloneSet is the plain way from v1beta1 to v1alpha1 (cloneset 2.3).
func downCloneSet(beta parts) parts {
	alpha := beta.clone()

	if scale, is := objectOr(alpha.members["scaleStrategy"]); is {
		enabled, exclude := scale["enablePVCReuse"] == true, scale["excludePreparingDelete"] == true
		delete(scale, "enablePVCReuse")
		delete(scale, "excludePreparingDelete")
		delete(scale, "disablePVCReuse")
		if !enabled {
			scale["disablePVCReuse"] = true
		}
		switch {
		case exclude:
			alpha.keys[excludeLabel] = "true"
		case alpha.keys[excludeLabel] == "true": // v1beta1 does not obey it
			delete(alpha.keys, excludeLabel)
		}
		alpha.members["scaleStrategy"] = scale
	}

	update, is := objectOr(alpha.members["updateStrategy"])
	if !is {
		return alpha
	}
	rolling, is := objectOr(update["rollingUpdate"])
	if !is {
		return alpha
	}
	inPlace, strategy := objectOr(rolling["inPlaceUpdateStrategy"])
	for _, moved := range preDownload {
		number, set := count(inPlace[moved.field])
		_, held := count(json.Number(alpha.keys[moved.annotation]))
		switch {
		case set:
			alpha.keys[moved.annotation] = string(number)
		case held && strategy: // v1beta1 does not obey an annotation that the field could hold
			delete(alpha.keys, moved.annotation)
		}
		delete(inPlace, moved.field)
	}
	if alpha.members["updateStrategy"] == nil {
		return alpha // all defaults, in both versions
	}
	word := string(v1alpha1.RecreateCloneSetUpdateStrategyType)
	policy, _ := rolling["podUpdatePolicy"].(string)
	switch kind, _ := update["type"].(string); {
	case kind == string(v1beta1.OnDeleteCloneSetUpdateStrategyType):
		word = kind
	case slices.Contains([]v1alpha1.CloneSetUpdateStrategyType{
		v1alpha1.InPlaceIfPossibleCloneSetUpdateStrategyType, v1alpha1.InPlaceOnlyCloneSetUpdateStrategyType,
	}, v1alpha1.CloneSetUpdateStrategyType(policy)):
		word = policy
	}
	delete(rolling, "podUpdatePolicy")
	rolling["type"] = word
	alpha.members["updateStrategy"] = rolling
	return alpha
}

// objectOr returns a JSON object, an empty one for an absent value; false where the value is something else, which only an
// object can be that no schema has seen.
func objectOr(value any) (tree, bool) {
	if value == nil {
		return tree{}, true
	}
	object, is := value.(tree)
	return object, is
}

// count reads a number that an int32 field of at least 0 can hold.
func count(value any) (json.Number, bool) {
	text, is := value.(json.Number)
	if !is {
		return "", false
	}
	number, err := strconv.ParseInt(string(text), 10, 32)
	if err != nil || number < 0 || number > math.MaxInt32 {
		return "", false
	}
	return json.Number(strconv.FormatInt(number, 10)), true
}

// IsCount says whether the value of an annotation is one that its field in v1beta1 could hold, so that v1beta1 does not obey
// the annotation.
func IsCount(value string) bool {
	_, is := count(json.Number(value))
	return is
}
