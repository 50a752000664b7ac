package admit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	quick "github.com/go-json-experiment/json/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"shiplog.dev/api/kruise/apps/conversion"
	"shiplog.dev/api/kruise/apps/v1alpha1"
	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/internal/gate"
	"shiplog.dev/internal/world"
)

// maxCloneSetName is how long a name may be so that a label can hold that of a revision, <name>-<up to 10 characters>
// (cloneset R17).
const maxCloneSetName = 63 - 11

// cloneSet is a CloneSet of a request.
type cloneSet struct {
	meta metav1.ObjectMeta
	// spec as v1beta1 has it, without template and volumeClaimTemplates, which no schema has checked.
	spec v1beta1.CloneSetSpec
	// template as the request has it; nil: absent or no JSON object.
	template tree
	claims   []any
	claimErr error
	// rolling is where the fields of a rolling update are in the version of the request, and update what is there.
	rolling *field.Path
	update  tree
}

// readCloneSet reads a CloneSet of either version.
func readCloneSet(raw json.RawMessage, version string) (*cloneSet, error) {
	var given struct {
		Spec struct{ UpdateStrategy json.RawMessage }
	}
	if err := quick.Unmarshal(raw, &given); err != nil {
		return nil, fmt.Errorf("decode the CloneSet: %w", err)
	}
	set := &cloneSet{rolling: field.NewPath("spec", "updateStrategy")}
	var update any
	if err := decodeTree(given.Spec.UpdateStrategy, &update); err != nil {
		return nil, fmt.Errorf("decode spec.updateStrategy: %w", err)
	}
	set.update, _ = update.(tree)
	switch version {
	case v1alpha1.GroupVersion.Version:
	case v1beta1.GroupVersion.Version:
		set.rolling, set.update = set.rolling.Child("rollingUpdate"), mapAt(set.update, "rollingUpdate")
	default:
		return nil, fmt.Errorf("unsupported version: %s", version)
	}
	stored, err := conversion.Convert(raw, v1beta1.GroupVersion.String())
	if err != nil {
		return nil, err
	}
	var wire struct {
		Metadata metav1.ObjectMeta
		Spec     struct {
			v1beta1.CloneSetSpec
			// In place of what has these names in CloneSetSpec: no schema has checked it.
			Template             json.RawMessage `json:"template"`
			VolumeClaimTemplates json.RawMessage `json:"volumeClaimTemplates"`
		}
	}
	if err := quick.Unmarshal(stored, &wire); err != nil {
		return nil, fmt.Errorf("decode the CloneSet: %w", err)
	}
	set.meta, set.spec = wire.Metadata, wire.Spec.CloneSetSpec
	var template any
	if err := decodeTree(wire.Spec.Template, &template); err != nil {
		return nil, fmt.Errorf("decode spec.template: %w", err)
	}
	set.template, _ = template.(tree)
	set.claimErr = decodeTree(wire.Spec.VolumeClaimTemplates, &set.claims)
	return set, nil
}

func decodeTree(raw json.RawMessage, into any) error {
	if len(raw) == 0 {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	return decoder.Decode(into)
}

func (s *cloneSet) policy() v1beta1.CloneSetPodUpdatePolicy {
	if s.spec.UpdateStrategy.Type == v1beta1.OnDeleteCloneSetUpdateStrategyType {
		return ""
	}
	return s.spec.UpdateStrategy.RollingUpdate.PodUpdatePolicy
}

// readBoth reads the objects of a request; old is nil on creation. The refusal is 400 (cloneset A1).
func readBoth(r request) (set, old *cloneSet, refusal verdict) {
	for _, one := range []struct {
		raw  json.RawMessage
		into **cloneSet
	}{{r.object, &set}, {r.old, &old}} {
		if len(one.raw) == 0 {
			continue
		}
		read, err := readCloneSet(one.raw, r.version)
		if err != nil {
			return nil, nil, refuse(http.StatusBadRequest, metav1.StatusReasonBadRequest, "%v", err)
		}
		*one.into = read
	}
	return set, old, verdict{}
}

// mutateCloneSet fills in the defaults that the schema cannot (cloneset A2). Its patch is in the version of the request.
func (r rules) mutateCloneSet(ctx context.Context, q request) (verdict, error) {
	var answer verdict
	q.object, answer.patch, answer.warnings = fromOldPlaces(q)
	set, old, unreadable := readBoth(q)
	if unreadable.refusal != nil || set == nil {
		return answer, nil // the schema comes next, and names the field
	}
	if policy := set.policy(); policy == v1beta1.InPlaceIfPossibleCloneSetPodUpdatePolicy || policy == v1beta1.InPlaceOnlyCloneSetPodUpdatePolicy {
		if set.update["inPlaceUpdateStrategy"] == nil {
			answer.patch = append(answer.patch, operation{"add", pointer(set.rolling.Child("inPlaceUpdateStrategy")), tree{}})
		}
	}
	if r.gates.On(gate.TemplateNoDefaults) {
		return answer, nil
	}
	if set.template != nil && (old == nil || !world.SameMeaning(set.template, old.template)) {
		filled, err := r.fillTemplate(ctx, q.namespace, set, old)
		if err != nil {
			return verdict{}, err
		}
		if !world.SameMeaning(filled, set.template) {
			answer.patch = append(answer.patch, operation{"replace", "/spec/template", filled})
		}
	}
	if old == nil || !world.SameMeaning(set.claims, old.claims) {
		if filled := withClaimDefaults(set.claims); !world.SameMeaning(filled, set.claims) {
			answer.patch = append(answer.patch, operation{"replace", "/spec/volumeClaimTemplates", filled})
		}
	}
	return answer, nil
}

// fillTemplate returns the template with its defaults: without asking where nothing but images changes, which is what most updates do.
func (r rules) fillTemplate(ctx context.Context, namespace string, set, old *cloneSet) (tree, error) {
	var before tree
	if old != nil {
		before = old.template
		if restored := restore(set.template, before).(tree); onlyImages(before, restored) {
			return restored, nil
		}
	}
	judgement, err := r.cluster.Judge(ctx, namespace, withClaims(set.template, set.claims))
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask the API server for the defaults of spec.template: %w", err)
	case judgement.Defaulted == nil: // what is wrong with it, validation says
		return set.template, nil
	}
	filled := fill(set.template, withoutClaims(judgement.Defaulted, set.template, set.claims), before, old == nil).(tree)
	// What is filled in is the API server's own, or was there before.
	r.cluster.Remember(namespace, withClaims(filled, set.claims), judgement)
	return filled, nil
}

// validateCloneSet judges a CloneSet that the schema has passed (cloneset A3 to A8).
func (r rules) validateCloneSet(ctx context.Context, q request) (verdict, error) {
	if q.operation == "DELETE" {
		return r.protectCloneSet(q), nil
	}
	set, old, refusal := readBoth(q)
	if refusal.refusal != nil || set == nil {
		return refusal, nil
	}
	problems := shapeProblems(set)

	judged := old != nil && world.SameMeaning(set.claims, old.claims) && (world.SameMeaning(set.template, old.template) || onlyImages(old.template, set.template))
	var warnings []string
	if !judged {
		judgement, err := r.cluster.Judge(ctx, q.namespace, withClaims(set.template, set.claims))
		if err != nil {
			return verdict{}, fmt.Errorf("let the API server check spec.template: %w", err)
		}
		for _, cause := range judgement.Problems {
			problems = append(problems, problem{"spec." + cause.Field, string(cause.Type), cause.Message})
		}
		warnings = judgement.Warnings
	}
	if old != nil && set.policy() == v1beta1.InPlaceOnlyCloneSetPodUpdatePolicy {
		if difference := notInPlace(old.template, set.template, r.gates.On(gate.InPlaceWorkloadVerticalScaling)); difference != "" {
			problems = append(problems, problemOf(field.Forbidden(field.NewPath("spec", "template", "spec"),
				"only allowed to update images in spec for InPlaceOnly, but found "+difference)))
		}
	}
	found, err := r.podsToDelete(ctx, q.namespace, set, old)
	if err != nil {
		return verdict{}, err
	}
	answer := invalid(v1beta1.GroupVersion.Group, "CloneSet", set.meta.Name, set.meta.UID, append(problems, found...))
	answer.warnings = append(warnings, advice(set, old, q.version, r.gates)...)
	return answer, nil
}

// shapeProblems are those that a CloneSet has by itself.
func shapeProblems(set *cloneSet) []problem {
	spec, rolling := field.NewPath("spec"), set.rolling
	var errs field.ErrorList
	selectors := metavalidation.LabelSelectorValidationOptions{}
	errs = append(errs, metavalidation.ValidateLabelSelector(set.spec.Selector, selectors, spec.Child("selector"))...)
	if priority := set.spec.UpdateStrategy.RollingUpdate.PriorityStrategy; priority != nil {
		for i := range priority.WeightPriority {
			errs = append(errs, metavalidation.ValidateLabelSelector(&priority.WeightPriority[i].MatchSelector, selectors,
				rolling.Child("priorityStrategy", "weightPriority").Index(i).Child("matchSelector"))...)
		}
		for i, term := range priority.OrderPriority {
			errs = append(errs, metavalidation.ValidateLabelName(term.OrderedKey, rolling.Child("priorityStrategy", "orderPriority").Index(i).Child("orderedKey"))...)
		}
	}
	if set.template == nil {
		errs = append(errs, field.Invalid(spec.Child("template"), "", "must be a Pod template"))
	}
	errs = append(errs, claimProblems(set)...)
	problems := make([]problem, 0, len(errs))
	for _, err := range errs {
		problems = append(problems, problemOf(err))
	}
	return problems
}

func claimProblems(set *cloneSet) field.ErrorList {
	path := field.NewPath("spec", "volumeClaimTemplates")
	if set.claimErr != nil {
		return field.ErrorList{field.Invalid(path, "", "must be a list of PersistentVolumeClaims: "+set.claimErr.Error())}
	}
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, claim := range set.claims {
		var typed corev1.PersistentVolumeClaim
		raw, err := json.Marshal(claim)
		if err == nil {
			err = json.Unmarshal(raw, &typed)
		}
		if err != nil {
			at, detail := path.Index(i), err.Error()
			if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) && wrong.Field != "" {
				at, detail = at.Child(wrong.Field), "must not be a "+wrong.Value
			}
			errs = append(errs, field.Invalid(at, "", detail))
			continue
		}
		name := path.Index(i).Child("metadata", "name")
		switch {
		case typed.Name == "":
			errs = append(errs, field.Required(name, "Pods name the volume by it"))
		case seen[typed.Name]:
			errs = append(errs, field.Duplicate(name, typed.Name))
		default:
			for _, message := range apivalidation.NameIsDNSLabel(typed.Name, false) {
				errs = append(errs, field.Invalid(name, typed.Name, message))
			}
		}
		seen[typed.Name] = true
	}
	return errs
}

// podsToDelete judges the names that a request adds: each must be that of a Pod of this CloneSet (cloneset A6, A8).
func (r rules) podsToDelete(ctx context.Context, namespace string, set, old *cloneSet) ([]problem, error) {
	var problems []problem
	for i, name := range set.spec.ScaleStrategy.PodsToDelete {
		if old != nil && slices.Contains(old.spec.ScaleStrategy.PodsToDelete, name) {
			continue
		}
		pod, err := r.cluster.Pod(ctx, namespace, name)
		if err != nil {
			return nil, fmt.Errorf("look up Pod %s of spec.scaleStrategy.podsToDelete: %w", name, err)
		}
		detail := ""
		switch {
		case pod == nil:
			detail = fmt.Sprintf("find pod %s failed: there is no such Pod", name)
		case pod.DeletionTimestamp != nil:
			detail = fmt.Sprintf("find pod %s already terminating", name)
		default:
			if owner := metav1.GetControllerOfNoCopy(pod); owner == nil || owner.UID != set.meta.UID || set.meta.UID == "" {
				detail = fmt.Sprintf("find pod %s owner is not this CloneSet", name)
			}
		}
		if detail != "" {
			problems = append(problems, problemOf(field.Invalid(field.NewPath("spec", "scaleStrategy", "podsToDelete").Index(i), name, detail)))
		}
	}
	return problems, nil
}

// advice is what an allowed object's user should know.
func advice(set, old *cloneSet, version string, gates gate.Set) []string {
	var advice []string
	if len(set.meta.Name) > maxCloneSetName && !gates.On(gate.CloneSetShortHash) && old == nil {
		advice = append(advice, fmt.Sprintf("metadata.name is longer than %d characters: names of its revisions may not fit into a label, and then no Pod can be created", maxCloneSetName))
	}
	if value, has := set.meta.Labels[protectionLabel]; has && value != protectAlways && value != protectCascading {
		advice = append(advice, fmt.Sprintf("metadata.labels[%s]: %q protects nothing; known are %s and %s", protectionLabel, value, protectAlways, protectCascading))
	}
	if version != v1beta1.GroupVersion.Version {
		return advice
	}
	const instead = "metadata.%s[%s] has no effect in v1beta1: set %s"
	if set.meta.Labels[v1beta1.CloneSetScalingExcludePreparingDeleteKey] == "true" && !set.spec.ScaleStrategy.ExcludePreparingDelete {
		advice = append(advice, fmt.Sprintf(instead, "labels", v1beta1.CloneSetScalingExcludePreparingDeleteKey, "spec.scaleStrategy.excludePreparingDelete"))
	}
	in := v1beta1.InPlaceUpdateStrategy{}
	if given := set.spec.UpdateStrategy.RollingUpdate.InPlaceUpdateStrategy; given != nil {
		in = *given
	}
	for _, moved := range []struct {
		annotation, field string
		set               bool
	}{
		{v1beta1.ImagePreDownloadParallelismKey, "imagePreDownloadParallelism", in.ImagePreDownloadParallelism != nil},
		{v1beta1.ImagePreDownloadTimeoutSecondsKey, "imagePreDownloadTimeoutSeconds", in.ImagePreDownloadTimeoutSeconds != nil},
		{v1beta1.ImagePreDownloadMinUpdatedReadyPodsKey, "imagePreDownloadMinUpdatedReadyPods", in.ImagePreDownloadMinUpdatedReadyPods != nil},
	} {
		if value := set.meta.Annotations[moved.annotation]; !moved.set && conversion.IsCount(value) {
			advice = append(advice, fmt.Sprintf(instead, "annotations", moved.annotation, "spec.updateStrategy.rollingUpdate.inPlaceUpdateStrategy."+moved.field))
		}
	}
	return advice
}
