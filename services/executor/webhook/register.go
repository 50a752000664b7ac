package webhook

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"shiplog.dev/api/kruise/apps/v1alpha1"
	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/services/executor/admit"
)

// Names of the configurations (install-and-config 2.3). An earlier installation's are taken over: what they name would
// answer no more, and a webhook that nobody answers stops what it guards.
const (
	mutatingName   = "kruise-mutating-webhook-configuration"
	validatingName = "kruise-validating-webhook-configuration"

	// ownerLabel marks configurations as ours, in which what a user edits stays.
	ownerLabel = "app.kubernetes.io/managed-by"
	owner      = "shiplog"
)

// answerWithin is how long the API server waits, in seconds; admission gives up before.
const answerWithin int32 = 10

// register writes the webhook configurations where they differ, and says whether they did.
func (w *Webhook) register(ctx context.Context) (bool, error) {
	client, err := kubernetes.NewForConfig(w.options.Config)
	if err != nil {
		return false, fmt.Errorf("register webhooks: %w", err)
	}
	w.narrowed = false
	mutating := client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	mutated, err := assert(ctx, mutating, mutatingName, &admissionregistrationv1.MutatingWebhookConfiguration{},
		func(present *admissionregistrationv1.MutatingWebhookConfiguration) {
			wanted := w.mutating()
			if present.Labels[ownerLabel] == owner {
				for i := range wanted {
					if at := slices.IndexFunc(present.Webhooks, func(h admissionregistrationv1.MutatingWebhook) bool { return h.Name == wanted[i].Name }); at >= 0 {
						edited := present.Webhooks[at]
						wanted[i].FailurePolicy, wanted[i].TimeoutSeconds = edited.FailurePolicy, edited.TimeoutSeconds
						wanted[i].NamespaceSelector, wanted[i].ObjectSelector = edited.NamespaceSelector, edited.ObjectSelector
						w.narrowed = w.narrowed || narrow(edited.NamespaceSelector, edited.ObjectSelector)
					}
				}
			}
			present.Webhooks = wanted
		})
	if err != nil {
		return mutated, err
	}
	validating := client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	validated, err := assert(ctx, validating, validatingName, &admissionregistrationv1.ValidatingWebhookConfiguration{},
		func(present *admissionregistrationv1.ValidatingWebhookConfiguration) {
			wanted := w.validating()
			if present.Labels[ownerLabel] == owner {
				for i := range wanted {
					if at := slices.IndexFunc(present.Webhooks, func(h admissionregistrationv1.ValidatingWebhook) bool { return h.Name == wanted[i].Name }); at >= 0 {
						edited := present.Webhooks[at]
						wanted[i].FailurePolicy, wanted[i].TimeoutSeconds = edited.FailurePolicy, edited.TimeoutSeconds
						wanted[i].NamespaceSelector, wanted[i].ObjectSelector = edited.NamespaceSelector, edited.ObjectSelector
						w.narrowed = w.narrowed || narrow(edited.NamespaceSelector, edited.ObjectSelector)
					}
				}
			}
			present.Webhooks = wanted
		})
	return mutated || validated, err
}

// narrow says whether selectors leave out anything.
func narrow(selectors ...*metav1.LabelSelector) bool {
	return slices.ContainsFunc(selectors, func(s *metav1.LabelSelector) bool { return s != nil && len(s.MatchLabels)+len(s.MatchExpressions) > 0 })
}

// configuration is one of the two kinds, and client the API of it.
type configuration interface {
	metav1.Object
	comparable
}

type client[T configuration] interface {
	Get(context.Context, string, metav1.GetOptions) (T, error)
	Create(context.Context, T, metav1.CreateOptions) (T, error)
	Update(context.Context, T, metav1.UpdateOptions) (T, error)
}

// assert brings a configuration to what set makes of it. Who loses against another replica tries again with the next turn.
func assert[T interface {
	configuration
	DeepCopy() T
}](ctx context.Context, client client[T], name string, empty T, set func(T)) (bool, error) {
	present, err := client.Get(ctx, name, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	switch {
	case missing:
		present = empty
		present.SetName(name)
	case err != nil:
		return false, fmt.Errorf("read %s: %w", name, err)
	}
	next := present.DeepCopy()
	set(next)
	labels := next.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[ownerLabel] = owner
	next.SetLabels(labels)
	// The source from which OpenKruise would rebuild its list.
	annotations := next.GetAnnotations()
	delete(annotations, "template")
	next.SetAnnotations(annotations)
	switch {
	case missing:
		_, err = client.Create(ctx, next, metav1.CreateOptions{FieldManager: owner})
	case equality.Semantic.DeepEqual(present, next):
		return false, nil
	default:
		_, err = client.Update(ctx, next, metav1.UpdateOptions{FieldManager: owner})
	}
	if err != nil {
		return false, fmt.Errorf("write %s: %w", name, err)
	}
	return true, nil
}

// mutating and validating are the webhooks, with everything that the API server would fill in, so that they compare
// (cloneset A1, install-and-config R30).
func (w *Webhook) mutating() []admissionregistrationv1.MutatingWebhook {
	one := func(name, path, resource string) admissionregistrationv1.MutatingWebhook {
		return admissionregistrationv1.MutatingWebhook{
			Name: name, ClientConfig: w.client(path), Rules: rules(resource, admissionregistrationv1.Create, admissionregistrationv1.Update),
			FailurePolicy: ptr.To(admissionregistrationv1.Fail), MatchPolicy: ptr.To(admissionregistrationv1.Equivalent),
			NamespaceSelector: &metav1.LabelSelector{}, ObjectSelector: &metav1.LabelSelector{},
			SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone), TimeoutSeconds: ptr.To(answerWithin),
			AdmissionReviewVersions: []string{"v1"}, ReinvocationPolicy: ptr.To(admissionregistrationv1.NeverReinvocationPolicy),
			MatchConditions: []admissionregistrationv1.MatchCondition{staying},
		}
	}
	return []admissionregistrationv1.MutatingWebhook{
		one("mcloneset.kb.io", admit.MutateCloneSetPath, "clonesets"),
		one("mcontainerrecreaterequest.kb.io", admit.MutateRestartPath, "containerrecreaterequests"),
	}
}

func (w *Webhook) validating() []admissionregistrationv1.ValidatingWebhook {
	one := func(name, path, resource string, operations ...admissionregistrationv1.OperationType) admissionregistrationv1.ValidatingWebhook {
		return admissionregistrationv1.ValidatingWebhook{
			Name: name, ClientConfig: w.client(path), Rules: rules(resource, operations...),
			FailurePolicy: ptr.To(admissionregistrationv1.Fail), MatchPolicy: ptr.To(admissionregistrationv1.Equivalent),
			NamespaceSelector: &metav1.LabelSelector{}, ObjectSelector: &metav1.LabelSelector{},
			SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone), TimeoutSeconds: ptr.To(answerWithin),
			AdmissionReviewVersions: []string{"v1"}, MatchConditions: []admissionregistrationv1.MatchCondition{staying},
		}
	}
	cloneSets := one("vcloneset.kb.io", admit.ValidateCloneSetPath, "clonesets",
		admissionregistrationv1.Create, admissionregistrationv1.Update, admissionregistrationv1.Delete)
	cloneSets.MatchConditions = append(cloneSets.MatchConditions, guarded)
	return []admissionregistrationv1.ValidatingWebhook{
		cloneSets,
		one("vimagepulljob-v1beta1.kb.io", admit.ValidateJobPath, "imagepulljobs", admissionregistrationv1.Create, admissionregistrationv1.Update),
		one("vimagelistpulljob-v1beta1.kb.io", admit.ValidateListPath, "imagelistpulljobs", admissionregistrationv1.Create, admissionregistrationv1.Update),
	}
}

// Without anybody to answer, these still go through.
var (
	// staying leaves out what is being deleted: its finalizers can always be taken off.
	staying = admissionregistrationv1.MatchCondition{Name: "is-not-being-deleted",
		Expression: "request.operation == 'DELETE' || !has(object.metadata.deletionTimestamp)"}
	// guarded leaves out deletions of what no protection covers (deletion-protection do better 7).
	guarded = admissionregistrationv1.MatchCondition{Name: "is-no-deletion-or-is-protected",
		Expression: "request.operation != 'DELETE' || (has(oldObject.metadata.labels) && 'policy.kruise.io/delete-protection' in oldObject.metadata.labels)"}
)

func rules(resource string, operations ...admissionregistrationv1.OperationType) []admissionregistrationv1.RuleWithOperations {
	return []admissionregistrationv1.RuleWithOperations{{Operations: operations, Rule: admissionregistrationv1.Rule{
		APIGroups:   []string{v1beta1.GroupVersion.Group},
		APIVersions: []string{v1alpha1.GroupVersion.Version, v1beta1.GroupVersion.Version},
		Resources:   []string{resource}, Scope: ptr.To(admissionregistrationv1.AllScopes),
	}}}
}

func (w *Webhook) client(path string) admissionregistrationv1.WebhookClientConfig {
	config := admissionregistrationv1.WebhookClientConfig{CABundle: w.held().Authorities}
	if service := w.options.Service; service != nil {
		config.Service = &admissionregistrationv1.ServiceReference{Namespace: service.Namespace, Name: service.Name, Path: &path, Port: ptr.To[int32](servicePort)}
	} else {
		config.URL = ptr.To(w.options.URL + path)
	}
	return config
}

// probe is a CloneSet that is never created.
func probe(podsToDelete ...any) *unstructured.Unstructured {
	labels := map[string]any{"shiplog.dev/probe": "true"}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "CloneSet", "metadata": map[string]any{"generateName": "shiplog-reaches-"},
		"spec": map[string]any{
			"selector":       map[string]any{"matchLabels": labels},
			"updateStrategy": map[string]any{"type": "InPlaceIfPossible"},
			"scaleStrategy":  map[string]any{"podsToDelete": podsToDelete},
			"template": map[string]any{
				"metadata": map[string]any{"labels": labels},
				"spec":     map[string]any{"containers": []any{map[string]any{"name": "none", "image": "none"}}},
			},
		},
	}}
}

// reach has the API server go through conversion and admission, without an effect. nil: it got through.
func (w *Webhook) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	config := rest.CopyConfig(w.options.Config)
	config.WarningHandler = rest.NoWarnings{}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	cloneSets := client.Resource(v1alpha1.GroupVersion.WithResource("clonesets")).Namespace(metav1.NamespaceDefault)
	once := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	passed, err := cloneSets.Create(ctx, probe(), once)
	if err != nil {
		return unreached(err)
	}
	if w.narrowed {
		return nil // the probe may be none of those that they see
	}
	if _, has, _ := unstructured.NestedMap(passed.Object, "spec", "updateStrategy", "inPlaceUpdateStrategy"); !has {
		return fmt.Errorf("the API server does not know %s yet", mutatingName)
	}
	if _, err := cloneSets.Create(ctx, probe("shiplog-reaches-none"), once); err != nil {
		return unreached(err)
	}
	return fmt.Errorf("the API server does not know %s yet", validatingName)
}

// unreached is the error if it says that somebody who should answer did not. Others are answers, which came through.
func unreached(err error) error {
	for _, words := range []string{"failed calling webhook", "conversion webhook for", "no kind \"CloneSet\"", "could not find the requested resource"} {
		if strings.Contains(err.Error(), words) {
			return err
		}
	}
	return nil
}
