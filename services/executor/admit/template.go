package admit

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"shiplog.dev/internal/world"
)

// pointer writes a field path without lists as a JSON pointer.
func pointer(path *field.Path) string { return "/" + strings.ReplaceAll(path.String(), ".", "/") }

func mapAt(of tree, key string) tree {
	value, _ := of[key].(tree)
	return value
}

func listAt(of tree, key string) []any {
	value, _ := of[key].([]any)
	return value
}

func claimNames(claims []any) []string {
	var names []string
	for _, claim := range claims {
		claim, _ := claim.(tree)
		if name, _ := mapAt(claim, "metadata")["name"].(string); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// withClaims returns the template with a volume for each claim template that it has no volume for, as its Pods will have.
func withClaims(template tree, claims []any) tree {
	spec := maps.Clone(mapAt(template, "spec"))
	if spec == nil || len(claims) == 0 {
		return template
	}
	volumes := slices.Clone(listAt(spec, "volumes"))
	for _, name := range claimNames(claims) {
		if !slices.ContainsFunc(volumes, func(v any) bool { v2, _ := v.(tree); return v2["name"] == name }) {
			volumes = append(volumes, tree{"name": name, "persistentVolumeClaim": tree{"claimName": name}})
		}
	}
	spec["volumes"] = volumes
	out := maps.Clone(template)
	out["spec"] = spec
	return out
}

// withoutClaims takes those volumes away again: they follow the ones that the template has itself.
func withoutClaims(defaulted, template tree, claims []any) tree {
	if len(claims) == 0 {
		return defaulted
	}
	spec, own := maps.Clone(mapAt(defaulted, "spec")), listAt(mapAt(template, "spec"), "volumes")
	if volumes := listAt(spec, "volumes"); len(own) == 0 {
		delete(spec, "volumes")
	} else if len(volumes) > len(own) {
		spec["volumes"] = volumes[:len(own)]
	}
	out := maps.Clone(defaulted)
	out["spec"] = spec
	return out
}

// fill adds to a value what defaulting added, and changes nothing that is there: quantities stay as they are written and
// unknown fields where they are. In what an update leaves standing (fresh: false) it adds only what the old value has at the
// same place, so that neither another release of the API server nor a gate that was switched changes a template with an
// update that is about something else.
func fill(value, defaulted, old any, fresh bool) any {
	switch value := value.(type) {
	case tree:
		defaulted, is := defaulted.(tree)
		if !is {
			return value
		}
		before, _ := old.(tree)
		filled := maps.Clone(value)
		for key, add := range defaulted {
			present, has := value[key]
			past, had := before[key]
			switch {
			case has && present != nil:
				filled[key] = fill(present, add, past, fresh || !had)
			case key == "imagePullPolicy" && had && past == pullPolicy(before["image"]):
				filled[key] = past
			case !derived[key] && add != nil && (fresh || had):
				filled[key] = add
			}
		}
		return filled
	case []any:
		defaulted, is := defaulted.([]any)
		if !is || len(defaulted) != len(value) {
			return value
		}
		before, _ := old.([]any)
		filled := make([]any, len(value))
		for i := range value {
			past, had := sameElement(value[i], i, before)
			filled[i] = fill(value[i], defaulted[i], past, fresh || !had)
		}
		return filled
	}
	return value
}

// fixed are defaults of containers that are the same in every release of the API server and follow from nothing else.
var fixed = map[string]any{
	"terminationMessagePath": corev1.TerminationMessagePathDefault, "terminationMessagePolicy": string(corev1.TerminationMessageReadFile),
	"protocol": string(corev1.ProtocolTCP), "scheme": string(corev1.URISchemeHTTP),
	"timeoutSeconds": json.Number("1"), "periodSeconds": json.Number("10"), "successThreshold": json.Number("1"), "failureThreshold": json.Number("3"),
}

// restore adds to a value the defaults that it had before and that an update left out, as kubectl apply does when it replaces a list whole: those
// that are defaults without doubt. The empty resources that the API server writes into a container are one; an empty selector is none.
func restore(value, old any) any {
	switch value := value.(type) {
	case tree:
		before, is := old.(tree)
		if !is {
			return value
		}
		restored := maps.Clone(value)
		for key, past := range before {
			present, has := value[key]
			standing, known := fixed[key]
			switch {
			case has && present != nil:
				restored[key] = restore(present, past)
			case known && past == standing, key == "imagePullPolicy" && past == pullPolicy(before["image"]), key == "resources" && world.SameMeaning(past, nil):
				restored[key] = past
			}
		}
		return restored
	case []any:
		before, _ := old.([]any)
		restored := make([]any, len(value))
		for i := range value {
			past, _ := sameElement(value[i], i, before)
			restored[i] = restore(value[i], past)
		}
		return restored
	}
	return value
}

// onlyImages says whether a template differs from one that is stored by images of containers alone, and these are well formed. Then the API server
// has judged all that there is to judge. It compares containers by their places, so one that moved is something else.
func onlyImages(old, now tree) bool {
	if !world.SameMeaning(without(old, "spec"), without(now, "spec")) || notInPlace(old, now, false) != "" {
		return false
	}
	return !slices.ContainsFunc(listAt(mapAt(now, "spec"), "containers"), func(container any) bool {
		fields, _ := container.(tree)
		image, _ := fields["image"].(string)
		return image == "" || strings.TrimSpace(image) != image
	})
}

// derived are fields that the API server writes beside others and that say nothing of their own. OpenKruise's defaults do
// not have them, so adding them would make an update of the image one that needs new Pods.
var derived = map[string]bool{"creationTimestamp": true, "serviceAccount": true}

// pullPolicy is what the API server gives a container of an image without a policy. It is the one default that follows from
// a field which a running Pod can take a change of; a Pod cannot change its policy. So a container keeps what it was given by
// default, as it would in a Deployment, where kubectl apply changes the image alone.
func pullPolicy(image any) any {
	text, _ := image.(string)
	named, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return nil
	}
	if _, digested := named.(reference.Digested); digested {
		return string(corev1.PullIfNotPresent)
	}
	if tagged, is := named.(reference.Tagged); is && tagged.Tag() != "latest" {
		return string(corev1.PullIfNotPresent)
	}
	return string(corev1.PullAlways)
}

// sameElement finds what a list's element was before: the one with its name, or without names the one at its place.
func sameElement(element any, at int, before []any) (any, bool) {
	named, _ := element.(tree)
	if name, has := named["name"]; has {
		for _, candidate := range before {
			if candidate, _ := candidate.(tree); candidate["name"] == name {
				return candidate, true
			}
		}
		return nil, false
	}
	if at < len(before) {
		return before[at], true
	}
	return nil, false
}

// withClaimDefaults fills in what the API server fills in for a claim (cloneset A2): the claims of OpenKruise's Pods have it,
// and the hash of the claim templates is taken over it.
func withClaimDefaults(claims []any) []any {
	filled := make([]any, len(claims))
	for i, claim := range claims {
		filled[i] = claim
		if claim, is := claim.(tree); is {
			filled[i] = fill(claim, tree{"spec": tree{"volumeMode": string(corev1.PersistentVolumeFilesystem)},
				"status": tree{"phase": string(corev1.ClaimPending)}}, nil, true)
		}
	}
	return filled
}

// notInPlace returns the first difference between two templates that no running Pod can take, as "OP PATH" of a JSON patch;
// "" when there is none (cloneset A5, D16; inplace-update R2).
func notInPlace(old, now tree, resources bool) string {
	before, after := mapAt(old, "spec"), mapAt(now, "spec")
	was, is := listAt(before, "containers"), listAt(after, "containers")
	if len(was) != len(is) {
		if len(is) > len(was) {
			return fmt.Sprintf("add /containers/%d", len(was))
		}
		return fmt.Sprintf("remove /containers/%d", len(is))
	}
	found := differences("", without(before, "containers"), without(after, "containers"))
	resized := false
	for i := range was {
		for _, d := range differences(fmt.Sprintf("/containers/%d", i), was[i], is[i]) {
			path := strings.Split(d.path, "/") // "", containers, index, field, ...
			switch {
			case d.op == "replace" && len(path) == 4 && path[3] == "image":
			case resources && d.op == "replace" && len(path) == 6 && path[3] == "resources" && (path[4] == "limits" || path[4] == "requests") &&
				(path[5] == string(corev1.ResourceCPU) || path[5] == string(corev1.ResourceMemory)):
				resized = true
			default:
				found = append(found, d)
			}
		}
	}
	if len(found) > 0 {
		return found[0].op + " " + found[0].path
	}
	if resized && serviceClass(old) != serviceClass(now) {
		return "replace /containers: the quality of service class would become " + string(serviceClass(now))
	}
	return ""
}

func without(of tree, key string) tree {
	rest := maps.Clone(of)
	delete(rest, key)
	return rest
}

type difference struct{ op, path string }

// differences are where two values do not mean the same, in the order of their paths.
func differences(path string, before, after any) []difference {
	if world.SameMeaning(before, after) {
		return nil
	}
	left, leftIs := before.(tree)
	right, rightIs := after.(tree)
	if leftIs && rightIs {
		keys := map[string]bool{}
		for key := range left {
			keys[key] = true
		}
		for key := range right {
			keys[key] = true
		}
		var found []difference
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			found = append(found, differences(path+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(key), left[key], right[key])...)
		}
		return found
	}
	switch {
	case world.SameMeaning(before, nil):
		return []difference{{"add", path}}
	case world.SameMeaning(after, nil):
		return []difference{{"remove", path}}
	}
	leftList, leftIs := before.([]any)
	rightList, rightIs := after.([]any)
	if leftIs && rightIs && len(leftList) == len(rightList) {
		var found []difference
		for i := range leftList {
			found = append(found, differences(fmt.Sprintf("%s/%d", path, i), leftList[i], rightList[i])...)
		}
		return found
	}
	return []difference{{"replace", path}}
}

// serviceClass is the quality of service class that Pods of a template get: Guaranteed when every container limits cpu and
// memory and requests just that, BestEffort when none asks for anything, else Burstable.
func serviceClass(template tree) corev1.PodQOSClass {
	spec := mapAt(template, "spec")
	guaranteed, nothing := true, true
	for _, entry := range append(slices.Clone(listAt(spec, "containers")), listAt(spec, "initContainers")...) {
		var container struct{ Resources corev1.ResourceRequirements }
		if raw, err := json.Marshal(entry); err != nil || json.Unmarshal(raw, &container) != nil {
			continue // core validation has said so
		}
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			limit, request := container.Resources.Limits[name], container.Resources.Requests[name]
			if !limit.IsZero() || !request.IsZero() {
				nothing = false
			}
			if limit.IsZero() || !sameAmount(request, limit) {
				guaranteed = false
			}
		}
	}
	switch {
	case nothing:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// sameAmount compares a request with its limit: an absent request is the limit.
func sameAmount(request, limit resource.Quantity) bool {
	return request.IsZero() || request.Cmp(limit) == 0
}
