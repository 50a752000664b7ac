package admit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	quick "github.com/go-json-experiment/json/v1"
	admissionv1 "k8s.io/api/admission/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"shiplog.dev/api/kruise/apps/conversion"
)

// maxWarning is how long the API server lets a warning be before it cuts it.
const maxWarning = 256

// review answers an AdmissionReview with a verdict.
func (s *server) review(judge func(context.Context, request) (verdict, error)) func(context.Context, []byte) (any, string, error) {
	return func(ctx context.Context, body []byte) (any, string, error) {
		var review admissionv1.AdmissionReview
		if err := quick.Unmarshal(body, &review); err != nil {
			return nil, "", malformed{fmt.Errorf("decode the admission review: %w", err)}
		}
		asked := review.Request
		if asked == nil {
			return nil, "", malformed{errors.New("the admission review has no request")}
		}
		answer := &admissionv1.AdmissionResponse{UID: asked.UID, Allowed: true}
		said := "allowed"
		if asked.SubResource == "" && asked.Operation != admissionv1.Connect {
			given, err := judge(ctx, request{
				operation: string(asked.Operation), version: asked.Kind.Version, namespace: asked.Namespace, user: asked.UserInfo.Username,
				dryRun: asked.DryRun != nil && *asked.DryRun,
				object: asked.Object.Raw, old: asked.OldObject.Raw,
			})
			if err != nil {
				s.logger.Warn().Err(err).Str("object", asked.Kind.Kind+" "+asked.Namespace+"/"+asked.Name).Msg("no verdict")
				given = refuse(http.StatusInternalServerError, metav1.StatusReasonInternalError, "%v", err)
			}
			if given.refusal != nil {
				answer.Allowed, answer.Result, said = false, given.refusal, "refused"
			} else if len(given.patch) > 0 {
				raw, err := json.Marshal(given.patch)
				if err != nil {
					return nil, "", fmt.Errorf("encode the patch: %w", err)
				}
				kind := admissionv1.PatchTypeJSONPatch
				answer.Patch, answer.PatchType, said = raw, &kind, "patched"
			}
			for _, warning := range given.warnings {
				answer.Warnings = append(answer.Warnings, warning[:min(len(warning), maxWarning)])
			}
		}
		return &admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "AdmissionReview"}, Response: answer}, said, nil
	}
}

// convert answers a ConversionReview.
func (s *server) convert(_ context.Context, body []byte) (any, string, error) {
	var review apiextensionsv1.ConversionReview
	if err := quick.Unmarshal(body, &review); err != nil {
		return nil, "", malformed{fmt.Errorf("decode the conversion review: %w", err)}
	}
	asked := review.Request
	if asked == nil {
		return nil, "", malformed{errors.New("the conversion review has no request")}
	}
	answer := &apiextensionsv1.ConversionResponse{UID: asked.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
	said := "converted"
	for i := range asked.Objects {
		converted, err := conversion.Convert(asked.Objects[i].Raw, asked.DesiredAPIVersion)
		if err != nil {
			answer.ConvertedObjects, said = nil, "refused"
			answer.Result = metav1.Status{Status: metav1.StatusFailure, Message: err.Error()}
			break
		}
		answer.ConvertedObjects = append(answer.ConvertedObjects, runtime.RawExtension{Raw: converted})
	}
	return &apiextensionsv1.ConversionReview{TypeMeta: metav1.TypeMeta{APIVersion: apiextensionsv1.SchemeGroupVersion.String(), Kind: "ConversionReview"}, Response: answer}, said, nil
}
