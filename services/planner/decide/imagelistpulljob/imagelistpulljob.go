// Package imagelistpulljob holds the rules of ImageListPullJob (spec: image-pull 3.6): one ImagePullJob for each image of the
// list, and what became of them. Pure: it reads a world and returns commands.
package imagelistpulljob

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"

	"shiplog.dev/api/kruise/apps/v1beta1"
	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/gate"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
)

// Reason codes of the commands, stable.
const (
	CreateJob    = "CreateImagePullJob" // an image has none (R34)
	DeleteJob    = "DeleteImagePullJob" // its image, or its template, is no longer that of the list (R34)
	LabelList    = "LabelList"          // the template's hash (R32)
	ReportStatus = "ReportStatus"       // status differs from the facts (R35)
	RemoveList   = "RemoveList"         // ended long enough ago (R36)
)

const (
	hashLabel = "controller-revision-hash"
	// statusPause is the least time between two writes of a status that is in motion. Log time.
	statusPause = time.Second
	// failedMessage of an image names its job (R35).
	failedMessage = "Please check for details which nodes failed by 'kubectl get ImagePullJob %s'."
)

// Decide returns what to do for one ImageListPullJob.
func Decide(w *world.World, ref world.Ref) decide.Decision {
	list := w.ImageListPullJob(ref)
	if list == nil || list.Terminating || !w.Gate(gate.KruiseDaemon) || !w.Gate(gate.ImagePullJob) {
		return decide.Decision{}
	}
	r := &round{
		Turn: decide.NewTurn(w, ref, &shiplogv1.ObjectRef{
			Group: ref.Group, Version: "v1beta1", Resource: ref.Resource, Namespace: ref.Namespace, Name: ref.Name, Uid: string(list.UID),
		}, list.Generation),
		list: list, hash: hashOf(list.Spec.ImagePullJobTemplate),
	}
	switch {
	case list.Status.CompletionTime != nil: // R37
		r.expire()
	case list.Malformed != "":
		r.Hold("InvalidSpec", "an edit that mends the field", "%s", list.Malformed)
	default:
		r.keepJobs()
		r.reportStatus()
		r.label()
	}
	return r.End()
}

type round struct {
	*decide.Turn
	list *world.ImageListPullJob
	hash string
}

// hashOf is R32.
func hashOf(template v1beta1.ImagePullJobTemplate) string {
	data, _ := json.Marshal(template) // it was decoded from JSON
	sum := fnv.New32a()
	sum.Write(data)
	return rand.SafeEncodeString(strconv.FormatUint(uint64(sum.Sum32()), 10))
}

// keepJobs creates and deletes jobs until each image has one of the present template (R34).
func (r *round) keepJobs() {
	have := map[string]bool{}
	for _, job := range r.World.ImagePullJobsOf(r.list.UID) {
		why := ""
		switch {
		case job.Terminating:
			continue
		case !slices.Contains(r.list.Spec.Images, job.Spec.Image):
			why = "the list no longer has its image"
		case !r.current(job):
			why = "the list has another template now"
		case have[job.Spec.Image]:
			why = "its image has another job"
		}
		have[job.Spec.Image] = have[job.Spec.Image] || why == ""
		if why != "" && job.UID != "" && job.UnderWay == nil && r.MayTry(DeleteJob) {
			r.Append(decide.Delete(r.ref(job.Name, string(job.UID)), decide.Why(DeleteJob, "%s", why)))
		}
	}
	for _, image := range r.list.Spec.Images {
		name := r.nameOf(image)
		if have[image] || r.World.Writing(world.Ref{Group: r.Ref.Group, Resource: world.ResourceImagePullJobs, Namespace: r.Ref.Namespace, Name: name}) != nil {
			continue
		}
		if !r.MayTry(CreateJob) {
			return
		}
		r.Append(decide.Create(r.ref(name, ""), r.job(name, image), decide.Why(CreateJob, "%s has no job yet", image)))
		if r.World.Refusal(r.list.UID, CreateJob) != nil {
			return // one at a time, as long as they are refused
		}
	}
}

// current says whether a job is of the list's present template. One without a hash is if it says the same.
func (r *round) current(job *world.ImagePullJob) bool {
	if hash, has := job.Labels.Lookup(hashLabel); has {
		return hash == r.hash
	}
	return decide.Difference(job.Spec.ImagePullJobTemplate, r.list.Spec.ImagePullJobTemplate) == nil
}

// nameOf is the name of the job of an image: the same whenever it is asked.
func (r *round) nameOf(image string) string {
	sum := fnv.New32a()
	fmt.Fprintf(sum, "%s\x00%s\x00%s", r.list.UID, r.hash, image)
	return r.list.Name[:min(len(r.list.Name), 240)] + "-" + rand.SafeEncodeString(strconv.FormatUint(uint64(sum.Sum32()), 10))
}

func (r *round) ref(name, uid string) *shiplogv1.ObjectRef {
	return &shiplogv1.ObjectRef{
		Group: r.Ref.Group, Version: "v1beta1", Resource: world.ResourceImagePullJobs, Namespace: r.Ref.Namespace, Name: name, Uid: uid,
	}
}

// job is the job of an image (R33).
func (r *round) job(name, image string) map[string]any {
	return map[string]any{
		"apiVersion": v1beta1.GroupVersion.String(), "kind": "ImagePullJob",
		"metadata": map[string]any{
			"name": name, "namespace": r.list.Namespace, "labels": map[string]any{hashLabel: r.hash},
			"ownerReferences": []any{map[string]any{
				"apiVersion": v1beta1.GroupVersion.String(), "kind": "ImageListPullJob", "name": r.list.Name, "uid": string(r.list.UID),
				"controller": true, "blockOwnerDeletion": true,
			}},
		},
		"spec": v1beta1.ImagePullJobSpec{Image: image, ImagePullJobTemplate: r.list.Spec.ImagePullJobTemplate},
	}
}

// reportStatus writes what became of the jobs (R35, R36).
func (r *round) reportStatus() {
	now := metav1.NewTime(r.Now().UTC().Truncate(time.Second))
	status := v1beta1.ImageListPullJobStatus{StartTime: r.list.Status.StartTime, Desired: int32(len(r.list.Spec.Images))}
	if status.StartTime == nil {
		status.StartTime = &now
	}
	for _, job := range r.World.ImagePullJobsOf(r.list.UID) {
		held := &job.Status
		if held.StartTime == nil || !r.current(job) || !slices.Contains(r.list.Spec.Images, job.Spec.Image) {
			continue
		}
		if held.Active > 0 {
			status.Active++
		}
		// A job of nodes that come and go never says that it has ended; one that ends says so.
		if held.CompletionTime != nil || job.Spec.CompletionPolicy.Type == v1beta1.Never && held.Desired == held.Failed+held.Succeeded {
			status.Completed++
			if held.Desired == held.Succeeded {
				status.Succeeded++
			}
		}
		if held.Failed > 0 {
			status.FailedImageStatuses = append(status.FailedImageStatuses, &v1beta1.FailedImageStatus{
				ImagePullJob: job.Name, Name: job.Spec.Image, Message: fmt.Sprintf(failedMessage, job.Name),
			})
		}
	}
	if r.list.Spec.CompletionPolicy.Type != v1beta1.Never && status.Completed == status.Desired {
		status.CompletionTime = &now
	}
	patch := decide.StatusChange(r.list.HasStatus, r.list.Status, status)
	if patch == nil || r.list.UnderWay != nil || !r.MayTry(ReportStatus) {
		return
	}
	if r.list.Status.StartTime != nil && !r.Passed(decide.Rested(r.list.Seen, statusPause, r.Now()), "the status changes and was written less than %s ago", statusPause) {
		return
	}
	command := decide.PatchMerge(r.Object, "status", patch, decide.Why(ReportStatus, "%d images: %d active, %d completed, %d succeeded",
		status.Desired, status.Active, status.Completed, status.Succeeded))
	command.ResourceVersion = decide.VersionOf(&r.list.Meta)
	r.Append(command)
}

// label writes the template's hash on the list (R32).
func (r *round) label() {
	if r.list.Labels.Get(hashLabel) == r.hash || r.list.UnderWay != nil || r.Writes() || !r.MayTry(LabelList) {
		return
	}
	command := decide.PatchMerge(r.Object, "", map[string]any{"metadata": map[string]any{"labels": map[string]any{hashLabel: r.hash}}},
		decide.Why(LabelList, "the hash of its template is %s", r.hash))
	r.Append(command)
}

// expire deletes a list that ended long enough ago, and its jobs with it (R36).
func (r *round) expire() {
	ttl := r.list.Spec.CompletionPolicy.TTLSecondsAfterFinished
	if ttl == nil || r.list.UnderWay != nil {
		return
	}
	if r.Passed(r.list.Status.CompletionTime.Add(time.Duration(*ttl)*time.Second), "ttlSecondsAfterFinished %d pass", *ttl) && r.MayTry(RemoveList) {
		r.Append(decide.Delete(r.Object, decide.Why(RemoveList, "it ended %d s ago", *ttl)))
	}
}
