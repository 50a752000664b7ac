package admit

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

const (
	// acceptedTemplates is how many templates that the API server accepted are remembered, none of more than acceptedBytes, for acceptedFor:
	// defaulting asks about one, and validation right after it about the same or about what it has become by defaulting.
	acceptedTemplates = 128
	acceptedBytes     = 32 << 10
	acceptedFor       = 5 * time.Second
)

// apiServer looks things up at the API server.
type apiServer struct {
	pods, nodes metadata.Getter
	core        rest.Interface
	accepted    *cache.LRUExpireCache // Judgement by the hash of what was asked; nobody changes one
}

// newAPIServer needs permission to get Pods and Nodes and to create PodTemplates; it creates none, it only asks what would happen.
func newAPIServer(config *rest.Config) (*apiServer, error) {
	config = rest.CopyConfig(config)
	config.UserAgent = "shiplog-admission"
	config.QPS = -1
	config.WarningHandler = rest.NoWarnings{} // they go to the user
	pods, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("set up admission's connection to the API server: %w", err)
	}
	core, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("set up admission's connection to the API server: %w", err)
	}
	return &apiServer{
		pods: pods.Resource(corev1.SchemeGroupVersion.WithResource("pods")), nodes: pods.Resource(corev1.SchemeGroupVersion.WithResource("nodes")),
		core: core.CoreV1().RESTClient(), accepted: cache.NewLRUExpireCache(acceptedTemplates),
	}, nil
}

func (a *apiServer) Pod(ctx context.Context, namespace, name string) (*metav1.ObjectMeta, error) {
	return metadataOf(a.pods.Namespace(namespace).Get(ctx, name, metav1.GetOptions{}))
}

func (a *apiServer) Node(ctx context.Context, name string) (*metav1.ObjectMeta, error) {
	return metadataOf(a.nodes.Get(ctx, name, metav1.GetOptions{}))
}

func metadataOf(object *metav1.PartialObjectMetadata, err error) (*metav1.ObjectMeta, error) {
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &object.ObjectMeta, nil
}

func (a *apiServer) WholePod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	raw, err := a.core.Get().Namespace(namespace).Resource("pods").Name(name).SetHeader("Accept", "application/json").Do(ctx).Raw()
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, err
	}
	var pod corev1.Pod
	if err := json.Unmarshal(raw, &pod); err != nil {
		return nil, fmt.Errorf("decode Pod %s/%s: %w", namespace, name, err)
	}
	return &pod, nil
}

// Judge asks what would become of a PodTemplate: the API server checks and defaults it as it does the template of any
// workload of its own. One that it has accepted a moment ago it is not asked about again.
func (a *apiServer) Judge(ctx context.Context, namespace string, template tree) (Judgement, error) {
	body, err := question(template)
	if err != nil {
		return Judgement{}, err
	}
	if judgement, known := a.accepted.Get(keyOf(namespace, body)); known {
		return judgement.(Judgement), nil
	}
	result := a.core.Post().Namespace(namespace).Resource("podtemplates").Param("dryRun", metav1.DryRunAll).
		Param("fieldValidation", metav1.FieldValidationWarn).SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").
		Body(body).Do(ctx)
	var judgement Judgement
	for _, warning := range result.Warnings() {
		judgement.Warnings = append(judgement.Warnings, strings.ReplaceAll(warning.Text, `"template.`, `"spec.template.`))
	}
	err = result.Error() // this, and not Raw, reads the API server's account
	if err == nil {
		var answer struct{ Template tree }
		raw, err := result.Raw()
		if err == nil {
			err = decodeTree(raw, &answer)
		}
		if err != nil {
			return Judgement{}, fmt.Errorf("decode the API server's answer: %w", err)
		}
		judgement.Defaulted = answer.Template
		a.remember(namespace, body, judgement)
		return judgement, nil
	}
	status := (*apierrors.StatusError)(nil)
	if !errors.As(err, &status) {
		return Judgement{}, err
	}
	switch details := status.ErrStatus.Details; {
	case apierrors.IsInvalid(err) && details != nil && len(details.Causes) > 0:
		judgement.Problems = details.Causes
	case status.ErrStatus.Code == http.StatusBadRequest: // it cannot even be read
		judgement.Problems = []metav1.StatusCause{{Type: metav1.CauseTypeFieldValueInvalid, Field: "template", Message: "Invalid value: " + status.ErrStatus.Message}}
	default:
		return Judgement{}, err
	}
	return judgement, nil
}

func (a *apiServer) Remember(namespace string, template tree, judgement Judgement) {
	if body, err := question(template); err == nil { // what cannot be asked is not asked
		a.remember(namespace, body, judgement)
	}
}

func (a *apiServer) remember(namespace string, body []byte, judgement Judgement) {
	if len(body) <= acceptedBytes {
		a.accepted.Add(keyOf(namespace, body), judgement, acceptedFor)
	}
}

// question is the PodTemplate by which the API server is asked about a template.
func question(template tree) ([]byte, error) {
	return json.Marshal(tree{"apiVersion": "v1", "kind": "PodTemplate", "metadata": tree{"generateName": "cloneset-"}, "template": template})
}

func keyOf(namespace string, body []byte) [sha256.Size]byte {
	return sha256.Sum256(append([]byte(namespace+"/"), body...))
}
