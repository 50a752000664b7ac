package admit

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/distribution/reference"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/internal/gate"
	"shiplog.dev/internal/world"
)

// validateImagePullJob judges an ImagePullJob that the schema has passed (image-pull 5).
func (r rules) validateImagePullJob(_ context.Context, q request) (verdict, error) {
	return judgeJob(r.gates, q, "ImagePullJob", func(spec v1beta1.ImagePullJobSpec) (v1beta1.ImagePullJobTemplate, field.ErrorList) {
		return spec.ImagePullJobTemplate, imageProblems(field.NewPath("spec", "image"), spec.Image)
	})
}

// validateImageListPullJob judges an ImageListPullJob that the schema has passed (image-pull 5, D3).
func (r rules) validateImageListPullJob(_ context.Context, q request) (verdict, error) {
	return judgeJob(r.gates, q, "ImageListPullJob", func(spec v1beta1.ImageListPullJobSpec) (v1beta1.ImagePullJobTemplate, field.ErrorList) {
		var errs field.ErrorList
		for i, image := range spec.Images {
			errs = append(errs, imageProblems(field.NewPath("spec", "images").Index(i), image)...)
		}
		return spec.ImagePullJobTemplate, errs
	})
}

// judgeJob judges a job of either kind; read returns the common part of its spec and what is wrong with its images. A write
// that leaves the spec alone goes through, gate or not: finalizers can always be taken off (D15).
func judgeJob[Spec any](gates gate.Set, q request, kind string, read func(Spec) (v1beta1.ImagePullJobTemplate, field.ErrorList)) (verdict, error) {
	type object struct {
		Metadata metav1.ObjectMeta
		Spec     Spec
	}
	var now, old object
	if err := json.Unmarshal(q.object, &now); err != nil {
		return refuse(http.StatusBadRequest, metav1.StatusReasonBadRequest, "decode the %s: %v", kind, err), nil
	}
	if len(q.old) > 0 && json.Unmarshal(q.old, &old) == nil && world.SameMeaning(asTree(now.Spec), asTree(old.Spec)) {
		return verdict{}, nil
	}
	for _, name := range []string{gate.KruiseDaemon, gate.ImagePullJob} {
		if !gates.On(name) {
			return refuse(http.StatusForbidden, metav1.StatusReasonForbidden, "feature-gate %s is not enabled", name), nil
		}
	}
	template, errs := read(now.Spec)
	selectors, spec := metavalidation.LabelSelectorValidationOptions{}, field.NewPath("spec")
	if selector := template.Selector; selector != nil {
		errs = append(errs, metavalidation.ValidateLabelSelector(&selector.LabelSelector, selectors, spec.Child("selector"))...)
	}
	if selector := template.PodSelector; selector != nil {
		errs = append(errs, metavalidation.ValidateLabelSelector(&selector.LabelSelector, selectors, spec.Child("podSelector"))...)
	}
	problems := make([]problem, len(errs))
	for i, err := range errs {
		problems[i] = problemOf(err)
	}
	return invalid(v1beta1.GroupVersion.Group, kind, now.Metadata.Name, now.Metadata.UID, problems), nil
}

func imageProblems(path *field.Path, image string) field.ErrorList {
	if _, err := reference.ParseNormalizedNamed(image); err != nil {
		return field.ErrorList{field.Invalid(path, image, fmt.Sprintf("invalid image %s: %v", image, err))}
	}
	return nil
}

func asTree(value any) any {
	raw, err := json.Marshal(value)
	var out any
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		return nil // it was decoded from JSON
	}
	return out
}
