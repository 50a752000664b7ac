package cloneset

import (
	"fmt"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"shiplog.dev/api/kruise/apps/v1beta1"
	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/gate"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
	"shiplog.dev/services/planner/decide/inplace"
)

const (
	// Labels of a revision: nothing is to be pulled ahead for it, or jobs were made that do.
	preDownloadIgnored = "apps.kruise.io/image-predownload-ignored"
	preDownloadCreated = "apps.kruise.io/pre-predownload-created"
	// fewPods are not worth it (R60).
	fewPods = 3
	// What a job gets (R61).
	preDownloadTimeout, preDownloadBackoff, preDownloadTTL = 300, 1, 600
)

// preDownload has images of an update in place pulled on the nodes of the Pods before their turn comes, once for each revision
// (R59 to R61).
func (r *round) preDownload() {
	if !r.World.Gate(gate.PreDownloadImageForInPlaceUpdate) || !r.World.Gate(gate.KruiseDaemon) {
		return
	}
	jobs := r.World.ImagePullJobsOf(r.set.UID)
	if r.currentRevision.name == r.updateRevision.name {
		for _, job := range jobs {
			if job.UnderWay == nil && !job.Terminating && r.mayTry(EndPreDownload) {
				r.Append(decide.Delete(jobRef(job.Namespace, job.Name, string(job.UID)), decide.Why(EndPreDownload, "every Pod is at revision %s", r.updateRevision.name)))
			}
		}
		return
	}
	held := r.World.Revision(r.set.Namespace, r.updateRevision.name)
	if held == nil || held.UID == "" || held.UnderWay != nil || held.Labels.Get(preDownloadIgnored) == "true" || held.Labels.Get(preDownloadCreated) == "true" {
		return
	}
	images, ignored := r.imagesAhead()
	switch {
	case ignored != "":
		r.markRevision(held, preDownloadIgnored, ignored)
		return
	case images == nil:
		return // there is no Pod yet to tell what changes
	}
	ready := 0
	if r.set.Status.UpdateRevision == r.updateRevision.name {
		ready = int(r.set.Status.UpdatedReadyReplicas)
	}
	if ready < r.preDownloadMinimum() {
		return
	}
	missing := false
	for _, container := range r.updateRevision.template.Containers() {
		name := r.updateRevision.name + "-" + container.Name
		if images[container.Name] == "" || slices.ContainsFunc(jobs, func(job *world.ImagePullJob) bool { return job.Name == name && job.UID != "" }) {
			continue
		}
		missing = true
		if r.World.Writing(world.Ref{Group: world.GroupKruise, Resource: world.ResourceImagePullJobs, Namespace: r.set.Namespace, Name: name}) == nil && r.mayTry(PreDownload) {
			r.Append(decide.Create(jobRef(r.set.Namespace, name, ""), r.preDownloadJob(name, images[container.Name]),
				decide.Why(PreDownload, "container %s is to be updated in place to %s", container.Name, images[container.Name])))
		}
	}
	if !missing {
		r.markRevision(held, preDownloadCreated, "its images are being pulled ahead")
	}
}

// imagesAhead returns the images that the update brings, by container, or why they are not worth pulling ahead (R60); nil and
// nothing: that cannot be told yet.
func (r *round) imagesAhead() (images map[string]string, ignored string) {
	switch {
	case r.spec.onDelete || r.spec.policy == v1beta1.RecreateCloneSetPodUpdatePolicy:
		return nil, "Pods are replaced, not updated in place"
	case r.spec.replicas <= fewPods:
		return nil, fmt.Sprintf("%d Pods are soon updated", r.spec.replicas)
	case r.spec.partition == 0 && r.spec.maxUnavailable >= r.spec.replicas:
		return nil, "all Pods are updated at once"
	}
	for i := range r.pods {
		p := &r.pods[i]
		if p.updated {
			continue
		}
		template, known := r.templateOf(p.Pod)
		if !known {
			continue
		}
		change, err := inplace.Between(p.Pod, template, r.updateRevision.template, inplace.GatesOf(r.World))
		if err != nil {
			return nil, "the change cannot be made in place: " + err.Error()
		}
		return change.Images, ""
	}
	return nil, ""
}

// preDownloadMinimum is how many Pods must be updated and ready before. A percentage stands in the annotation only.
func (r *round) preDownloadMinimum() int {
	if strategy := r.set.Spec.UpdateStrategy.RollingUpdate.InPlaceUpdateStrategy; strategy != nil && strategy.ImagePreDownloadMinUpdatedReadyPods != nil {
		return int(*strategy.ImagePreDownloadMinUpdatedReadyPods)
	}
	percent := percentOf(intstr.FromString(r.set.Annotations.Get(v1beta1.ImagePreDownloadMinUpdatedReadyPodsKey)))
	if math.IsNaN(percent) {
		return 0
	}
	return int(math.Ceil(percent * float64(r.spec.replicas) / 100))
}

// preDownloadJob is R61.
func (r *round) preDownloadJob(name, image string) map[string]any {
	parallelism, timeout := int32(1), int32(preDownloadTimeout)
	if strategy := r.set.Spec.UpdateStrategy.RollingUpdate.InPlaceUpdateStrategy; strategy != nil {
		parallelism = ptr.Deref(strategy.ImagePreDownloadParallelism, parallelism)
		timeout = ptr.Deref(strategy.ImagePreDownloadTimeoutSeconds, timeout)
	}
	template := r.updateRevision.template
	labels := stringsOf(metadataOf(template, "labels"))
	labels[historyHashLabel] = shortHash(r.updateRevision.name)
	selector := r.set.Spec.Selector.DeepCopy()
	selector.MatchExpressions = append(selector.MatchExpressions, metav1.LabelSelectorRequirement{
		Key: revisionLabel, Operator: metav1.LabelSelectorOpNotIn, Values: []string{r.updateRevision.name, shortHash(r.updateRevision.name)},
	})
	sandbox := map[string]any{}
	for _, field := range []string{"labels", "annotations"} {
		if values := metadataOf(template, field); len(values) > 0 {
			sandbox[field] = values
		}
	}
	spec := map[string]any{
		"image": image, "parallelism": parallelism, "podSelector": selector, "sandboxConfig": sandbox,
		"pullPolicy":       map[string]any{"timeoutSeconds": timeout, "backoffLimit": preDownloadBackoff},
		"completionPolicy": map[string]any{"type": v1beta1.Always, "ttlSecondsAfterFinished": preDownloadTTL},
	}
	if secrets := secretNames(r.set.Spec.Template.Spec.ImagePullSecrets); len(secrets) > 0 {
		spec["pullSecrets"] = secrets
	}
	return map[string]any{
		"apiVersion": v1beta1.GroupVersion.String(), "kind": "ImagePullJob",
		"metadata": map[string]any{"name": name, "namespace": r.set.Namespace, "labels": labels, "ownerReferences": r.owners()},
		"spec":     spec,
	}
}

func secretNames(references []corev1.LocalObjectReference) []string {
	var names []string
	for _, reference := range references {
		names = append(names, reference.Name)
	}
	return names
}

// markRevision notes on a revision that the question of pulling ahead is settled.
func (r *round) markRevision(held *world.Revision, label, why string) {
	if !r.mayTry(PreDownload) {
		return
	}
	r.Append(decide.PatchMerge(revisionRef(held), "", map[string]any{"metadata": map[string]any{"labels": map[string]any{label: "true"}}},
		decide.Why(PreDownload, "%s", why)))
}

func jobRef(namespace, name, uid string) *shiplogv1.ObjectRef {
	return &shiplogv1.ObjectRef{
		Group: world.GroupKruise, Version: v1beta1.GroupVersion.Version, Resource: world.ResourceImagePullJobs, Namespace: namespace, Name: name, Uid: uid,
	}
}
