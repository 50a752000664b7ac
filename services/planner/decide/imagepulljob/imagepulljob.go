// Package imagepulljob holds the rules of ImagePullJob (spec: image-pull 3.4, 3.5): which nodes it asks, how many at once, and
// what it reports. What a node does with the request is in package nodeimage. Pure: it reads a world and returns commands.
package imagepulljob

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"shiplog.dev/api/kruise/apps/v1beta1"
	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/gate"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
	"shiplog.dev/services/planner/decide/nodeimage"
)

// Reason codes of the commands, stable.
const (
	HandOut      = "HandOut"      // asks a node for the image (R20)
	ReportStatus = "ReportStatus" // status differs from the facts
	ReleaseJob   = "ReleaseJob"   // takes a finalizer off that nothing needs any more (R26)
	RemoveJob    = "RemoveJob"    // ended long enough ago (R15)
)

// Codes of what is held back.
const (
	HeldInvalid     = "InvalidSpec"
	HeldGate        = "FeatureGate"
	HeldParallelism = "Parallelism"
	HeldBusy        = "NodeImageBusy"
)

const (
	defaultTimeout = 600
	defaultBackoff = 3
	// maxImages is how many images a NodeImage takes (2.2).
	maxImages = 256
	// statusPause is the least time between two writes of a status that is in motion. Log time.
	statusPause = time.Second
)

// Messages (4).
const (
	messageCompleted = "job has completed"
	messageIdle      = "job is running, no progress"
	messageDeadline  = "job exceeds activeDeadlineSeconds"
)

// Decide returns what to do for one ImagePullJob.
func Decide(w *world.World, ref world.Ref) decide.Decision {
	job := w.ImagePullJob(ref)
	if job == nil {
		return decide.Decision{}
	}
	r := &round{
		Turn: decide.NewTurn(w, ref, &shiplogv1.ObjectRef{
			Group: ref.Group, Version: "v1beta1", Resource: ref.Resource, Namespace: ref.Namespace, Name: ref.Name, Uid: string(job.UID),
		}, job.Generation),
		job: job,
	}
	switch {
	case job.Terminating:
		r.release()
	case job.Status.CompletionTime != nil:
		r.release()
		r.expire()
	case !w.Gate(gate.KruiseDaemon) || !w.Gate(gate.ImagePullJob):
		r.Hold(HeldGate, "the gates", "feature-gate %s is not enabled", gate.ImagePullJob)
	default:
		r.run()
	}
	return r.End()
}

type round struct {
	*decide.Turn
	job *world.ImagePullJob
	// name and tag of the image.
	name, tag string
}

// run hands out and reports.
func (r *round) run() {
	var problem string
	if problem = r.parse(); problem == "" {
		problem = r.job.Malformed
	}
	if problem != "" {
		r.Hold(HeldInvalid, "an edit that mends the field", "%s", problem)
		r.report(v1beta1.ImagePullJobStatus{StartTime: r.started(), Message: problem})
		return
	}
	nodes, problem := r.selected()
	if problem != "" {
		r.Hold(HeldInvalid, "an edit that mends the field", "%s", problem)
	}
	tally := r.tally(nodes)
	deadline := r.job.Spec.CompletionPolicy.ActiveDeadlineSeconds
	over := false
	if deadline != nil && r.job.Status.StartTime != nil {
		over = r.Passed(r.job.Status.StartTime.Add(time.Duration(*deadline)*time.Second), "activeDeadlineSeconds %d pass", *deadline)
	}
	if !over {
		r.handOut(tally)
	}
	r.report(r.status(tally, over, problem))
}

// parse reads the image (R1).
func (r *round) parse() (problem string) {
	named, err := reference.ParseNormalizedNamed(r.job.Spec.Image)
	if err != nil {
		return fmt.Sprintf("invalid image %s: %v", r.job.Spec.Image, err)
	}
	r.name = reference.FamiliarName(named)
	switch named := reference.TagNameOnly(named).(type) {
	case reference.Digested:
		r.tag = named.Digest().String()
	case reference.Tagged:
		r.tag = named.Tag()
	}
	return ""
}

func (r *round) started() *metav1.Time {
	if r.job.Status.StartTime != nil {
		return r.job.Status.StartTime
	}
	return r.stamp()
}

func (r *round) stamp() *metav1.Time {
	now := metav1.NewTime(r.Now().UTC().Truncate(time.Second))
	return &now
}

// standing is one selected node.
type standing struct {
	image *world.NodeImage
	// asked says whether the node is asked for the image on behalf of this job. owned is the tag then.
	asked, succeeded, failed bool
	owned                    *v1beta1.ImageTagSpec
	message                  string
	missing                  []string
}

// tally is how the selected nodes stand, in the order in which they are asked.
type tally struct {
	nodes                               []standing
	waiting, pulling, succeeded, failed int
	failedNodes, missingSecrets         []string
	failedMessage                       string
}

// tally counts (R18).
func (r *round) tally(nodes []*world.NodeImage) *tally {
	t := &tally{nodes: make([]standing, len(nodes))}
	remembers := r.job.Spec.CompletionPolicy.Type != v1beta1.Never
	for i, image := range nodes {
		s := &t.nodes[i]
		s.image, s.owned = image, r.owned(image)
		failed, message, ended := r.World.PullResult(r.job.UID, image.Name)
		switch {
		case remembers && ended: // D2
			s.asked, s.failed, s.succeeded, s.message = true, failed, !failed, message
		case s.owned != nil:
			outcome := nodeimage.OutcomeOf(r.World, image, r.name, s.owned)
			s.asked, s.message, s.missing = true, outcome.Message, outcome.Missing
			s.failed, s.succeeded = outcome.Ended && outcome.Failed, outcome.Ended && !outcome.Failed
		default:
			s.message = r.barred(image)
			s.failed = s.message != ""
		}
		switch {
		case s.succeeded:
			t.succeeded++
		case s.failed:
			t.failed++
			t.failedNodes = append(t.failedNodes, image.Name)
			if t.failedMessage == "" {
				t.failedMessage = image.Name + ": " + s.message
			}
		case s.asked:
			t.pulling++
		default:
			t.waiting++
		}
		for _, secret := range s.missing {
			if !slices.Contains(t.missingSecrets, secret) {
				t.missingSecrets = append(t.missingSecrets, secret)
			}
		}
	}
	slices.Sort(t.failedNodes)
	slices.Sort(t.missingSecrets)
	return t
}

// owned returns the tag by which a node was asked on behalf of this job, or nil.
func (r *round) owned(image *world.NodeImage) *v1beta1.ImageTagSpec {
	tags := image.Spec.Images[r.name].Tags
	for i := range tags {
		if tags[i].Tag == r.tag && slices.ContainsFunc(tags[i].OwnerReferences, r.owns) {
			return &tags[i]
		}
	}
	return nil
}

func (r *round) owns(owner corev1.ObjectReference) bool { return owner.UID == r.job.UID }

// barred says why a node cannot be asked; empty: it can (D7, D13).
func (r *round) barred(image *world.NodeImage) string {
	if node := r.World.Node(image.Name); node != nil && !node.Ready {
		delay := nodeimage.SettingsOf(r.World).CreationDelay
		if r.Passed(node.ReadySince.Add(delay), "Node %s is not ready for %s", node.Name, delay) {
			return "the Node is not ready"
		}
		return ""
	}
	if _, has := image.Spec.Images[r.name]; !has && len(image.Spec.Images) >= maxImages {
		return fmt.Sprintf("the NodeImage holds %d images already", maxImages)
	}
	if refusal := r.World.Refusal(r.job.UID, HandOut); refusal != nil && refusal.Object == nodeimage.RefOf(image.Name) {
		return refusal.Message
	}
	return ""
}

// parallelism is how many nodes may pull at once.
func (r *round) parallelism() int {
	given := r.job.Spec.Parallelism
	switch {
	case given == nil:
		return 1
	case given.Type == intstr.Int:
		return int(given.IntVal)
	}
	number, _ := strconv.Atoi(given.StrVal) // the schema has seen that it is one
	return number
}

// handOut asks as many nodes as may pull at once, and brings those up to date that were asked (R19, R20).
func (r *round) handOut(t *tally) {
	free := min(r.parallelism()-t.pulling, t.waiting)
	if free < t.waiting {
		r.Hold(HeldParallelism, "a node that ends its pull", "%d nodes pull at once, %d wait for their turn", r.parallelism(), t.waiting-max(free, 0))
	}
	tries := 0
	for i := range t.nodes {
		s := &t.nodes[i]
		node := r.World.Node(s.image.Name)
		switch {
		case s.succeeded || s.failed:
			continue
		case s.asked && s.owned == nil:
			continue
		case !s.asked && (free <= 0 || node != nil && !node.Ready):
			continue
		case s.asked && r.current(s):
			continue
		}
		wanted, why := r.request(s)
		held := s.image.Spec.Images[r.name]
		patch := decide.Difference(images{map[string]*v1beta1.ImageSpec{r.name: &held}}, images{map[string]*v1beta1.ImageSpec{r.name: wanted}})
		if patch == nil {
			continue
		}
		if !s.asked {
			free--
		}
		if s.image.UnderWay != nil && s.image.UnderWay.Workload == r.job.UID {
			continue // it is being asked
		}
		if s.image.UnderWay != nil {
			r.Hold(HeldBusy, "that write", "NodeImage %s is being written", s.image.Name)
			r.WakeBy(r.Now().Add(time.Second), "NodeImage %s is being written by somebody else", s.image.Name)
			continue
		}
		// A node whose request was refused does not hold back the others, unless it is not the only one (D13).
		if refusal := r.World.Refusal(r.job.UID, HandOut); refusal != nil && (refusal.Attempt > 1 || tries > 0) && !r.MayTry(HandOut) {
			return
		}
		tries++
		object := &shiplogv1.ObjectRef{Group: world.GroupKruise, Version: "v1beta1", Resource: world.ResourceNodeImages, Name: s.image.Name, Uid: string(s.image.UID)}
		command := decide.PatchMerge(object, "", map[string]any{"spec": patch}, decide.Why(HandOut, "%s", why))
		command.ResourceVersion = decide.VersionOf(&s.image.Meta)
		r.Append(command)
	}
}

// current says whether a node that was asked is still asked as it should be: request would change nothing.
func (r *round) current(s *standing) bool {
	image := s.image.Spec.Images[r.name]
	for _, name := range r.job.Spec.PullSecrets {
		if !slices.Contains(image.PullSecrets, v1beta1.ReferenceObject{Namespace: r.job.Namespace, Name: name}) {
			return false
		}
	}
	return reflect.DeepEqual(s.owned.PullPolicy, r.policy(s.owned, s.image.Name)) && reflect.DeepEqual(image.SandboxConfig, r.sandbox(image))
}

// images is the part of a NodeImage that a job writes.
type images struct {
	Images map[string]*v1beta1.ImageSpec `json:"images"`
}

// request returns what a node shall be asked of this image, and why.
func (r *round) request(s *standing) (*v1beta1.ImageSpec, string) {
	held := s.image.Spec.Images[r.name]
	image := *held.DeepCopy()
	image.SandboxConfig = r.sandbox(image)
	for _, name := range r.job.Spec.PullSecrets {
		secret := v1beta1.ReferenceObject{Namespace: r.job.Namespace, Name: name}
		if !slices.Contains(image.PullSecrets, secret) {
			image.PullSecrets = append(image.PullSecrets, secret)
		}
	}
	why := fmt.Sprintf("%s is asked for %s, %d nodes may pull at once", s.image.Name, world.ImageReference(r.name, r.tag), r.parallelism())
	at := slices.IndexFunc(image.Tags, func(tag v1beta1.ImageTagSpec) bool { return tag.Tag == r.tag })
	if at < 0 {
		image.Tags = append(image.Tags, v1beta1.ImageTagSpec{Tag: r.tag, Version: r.nextVersion(s.image)})
		at = len(image.Tags) - 1
	} else if s.owned == nil {
		image.Tags[at].Version++
	}
	tag := &image.Tags[at]
	if s.owned == nil {
		tag.OwnerReferences = append(tag.OwnerReferences, corev1.ObjectReference{
			APIVersion: v1beta1.GroupVersion.String(), Kind: "ImagePullJob", Namespace: r.job.Namespace, Name: r.job.Name, UID: r.job.UID,
		})
		tag.CreatedAt, tag.ImagePullPolicy = r.stamp(), r.job.Spec.ImagePullPolicy
		if tag.ImagePullPolicy == "" {
			tag.ImagePullPolicy = v1beta1.PullIfNotPresent
		}
	} else {
		why = fmt.Sprintf("%s is to pull %s under other limits", s.image.Name, world.ImageReference(r.name, r.tag))
	}
	tag.PullPolicy = r.policy(tag, s.image.Name)
	slices.SortStableFunc(image.Tags, func(a, b v1beta1.ImageTagSpec) int { return cmp.Compare(a.Tag, b.Tag) })
	return &image, why
}

// nextVersion is the version of a new tag: greater than any that the node may still remember (R20c).
func (r *round) nextVersion(image *world.NodeImage) int64 {
	next := int64(0)
	for _, status := range image.Status.ImageStatuses[r.name].Tags {
		if status.Tag == r.tag {
			next = max(next, status.Version+1)
		}
	}
	return next
}

// sandbox is the job's own, unless it has none and another job that is not over wants its own (D6).
func (r *round) sandbox(image v1beta1.ImageSpec) *v1beta1.SandboxConfig {
	if r.job.Spec.SandboxConfig != nil {
		return r.job.Spec.SandboxConfig
	}
	for _, tag := range image.Tags {
		for _, owner := range tag.OwnerReferences {
			if job := nodeimage.JobOf(r.World, owner.UID); job != nil && job.UID != r.job.UID && job.Status.CompletionTime == nil && job.Spec.SandboxConfig != nil {
				return image.SandboxConfig
			}
		}
	}
	return nil
}

// policy is what the jobs that want a tag allow it together: the most of each (R21, D5).
func (r *round) policy(tag *v1beta1.ImageTagSpec, node string) *v1beta1.ImageTagPullPolicy {
	var out *v1beta1.ImageTagPullPolicy
	for _, owner := range tag.OwnerReferences {
		job := nodeimage.JobOf(r.World, owner.UID)
		if job == nil || job.Status.CompletionTime != nil && job.UID != r.job.UID {
			continue
		}
		one := r.policyOf(job, node)
		if out == nil {
			out = &one
			continue
		}
		out.TimeoutSeconds = most(out.TimeoutSeconds, one.TimeoutSeconds)
		out.BackoffLimit = most(out.BackoffLimit, one.BackoffLimit)
		out.TTLSecondsAfterFinished = most(out.TTLSecondsAfterFinished, one.TTLSecondsAfterFinished)
		if out.ActiveDeadlineSeconds != nil {
			out.ActiveDeadlineSeconds = most(out.ActiveDeadlineSeconds, one.ActiveDeadlineSeconds)
		}
	}
	return out
}

// policyOf is what one job allows (R21, D12).
func (r *round) policyOf(job *world.ImagePullJob, node string) v1beta1.ImageTagPullPolicy {
	timeout, backoff := int32(defaultTimeout), int32(defaultBackoff)
	if given := job.Spec.PullPolicy; given != nil {
		timeout, backoff = ptr.Deref(given.TimeoutSeconds, timeout), ptr.Deref(given.BackoffLimit, backoff)
	}
	out := v1beta1.ImageTagPullPolicy{TimeoutSeconds: &timeout, BackoffLimit: &backoff}
	completion := job.Spec.CompletionPolicy
	spread := int32(spreadOf(string(job.UID) + node))
	if completion.Type == v1beta1.Never {
		ttl, active := 86400-600+spread*4, max(1800, int64(timeout)*int64(backoff+1))
		out.TTLSecondsAfterFinished, out.ActiveDeadlineSeconds = &ttl, &active
		return out
	}
	base := int64(timeout) * int64(backoff)
	switch {
	case completion.TTLSecondsAfterFinished != nil:
		base = int64(*completion.TTLSecondsAfterFinished)
	case completion.ActiveDeadlineSeconds != nil:
		base = *completion.ActiveDeadlineSeconds
	}
	ttl := int32(min(base+int64(nodeimage.SettingsOf(r.World).Keep/time.Second), 1<<30)) + spread
	out.TTLSecondsAfterFinished, out.ActiveDeadlineSeconds = &ttl, completion.ActiveDeadlineSeconds
	return out
}

// status works out the status (R23, R24).
func (r *round) status(t *tally, over bool, problem string) v1beta1.ImagePullJobStatus {
	status := v1beta1.ImagePullJobStatus{
		StartTime: r.started(), Desired: int32(len(t.nodes)), Active: int32(t.pulling), Succeeded: int32(t.succeeded), Failed: int32(t.failed), FailedNodes: t.failedNodes,
	}
	always := r.job.Spec.CompletionPolicy.Type != v1beta1.Never
	switch {
	case problem != "":
		status.Message = problem
		return status
	case len(t.nodes) == 0 && nodeimage.Awaited(r.World): // they may be what the job is about
		status.Message = messageIdle
	case always && t.succeeded+t.failed == len(t.nodes):
		status.CompletionTime, status.Message = r.stamp(), messageCompleted
	case over && always:
		status.CompletionTime, status.Message = r.stamp(), messageDeadline
		for i := range t.nodes {
			if s := &t.nodes[i]; !s.succeeded && !s.failed {
				status.FailedNodes = append(status.FailedNodes, s.image.Name)
			}
		}
		slices.Sort(status.FailedNodes) // D14
		status.Active, status.Failed = 0, int32(len(status.FailedNodes))
	case len(t.nodes) == 0:
		status.Message = messageIdle
	default:
		status.Message = fmt.Sprintf("job is running, progress %.1f%%", 100*float64(t.succeeded+t.failed)/float64(len(t.nodes)))
	}
	if len(t.missingSecrets) > 0 { // D9
		status.Message += "; missing Secrets: " + strings.Join(t.missingSecrets, ", ")
	}
	if t.failedMessage != "" {
		status.Message += "; " + t.failedMessage
	}
	return status
}

// report writes the status when it differs: at once when the job begins, then at most once in statusPause.
func (r *round) report(status v1beta1.ImagePullJobStatus) {
	patch := decide.StatusChange(r.job.HasStatus, r.job.Status, status)
	if patch == nil || r.job.UnderWay != nil || !r.MayTry(ReportStatus) {
		return
	}
	if r.job.Status.StartTime != nil && !r.Passed(decide.Rested(r.job.Seen, statusPause, r.Now()), "the status changes and was written less than %s ago", statusPause) {
		return
	}
	command := decide.PatchMerge(r.Object, "status", patch, decide.Why(ReportStatus, "%d nodes: %d pull, %d succeeded, %d failed",
		status.Desired, status.Active, status.Succeeded, status.Failed))
	command.ResourceVersion = decide.VersionOf(&r.job.Meta)
	r.Append(command)
}

// release takes the finalizer off (R26). Ours copies no Secrets, so nothing has to be taken back; a finalizer is there from
// OpenKruise.
func (r *round) release() {
	if !slices.Contains(r.job.Finalizers, v1beta1.ImagePullJobFinalizer) || r.job.UnderWay != nil || !r.MayTry(ReleaseJob) {
		return
	}
	kept := slices.DeleteFunc(slices.Clone(r.job.Finalizers), func(f string) bool { return f == v1beta1.ImagePullJobFinalizer })
	command := decide.PatchMerge(r.Object, "", map[string]any{"metadata": map[string]any{"finalizers": kept}}, decide.Why(ReleaseJob, "the job is over, nothing has to be taken back"))
	command.ResourceVersion = decide.VersionOf(&r.job.Meta)
	r.Append(command)
}

// expire deletes a job that ended long enough ago (R15). One of a list stays as long as the list is not complete, which would
// make it again (D3).
func (r *round) expire() {
	ttl := r.job.Spec.CompletionPolicy.TTLSecondsAfterFinished
	if ttl == nil || r.Writes() || r.job.UnderWay != nil {
		return
	}
	since := r.job.Status.CompletionTime.Time
	if ref, known := r.World.Workload(r.job.Owner.UID()); known && ref.Resource == world.ResourceImageListPullJobs {
		list := r.World.ImageListPullJob(ref)
		if list.Status.CompletionTime == nil {
			return
		}
		since = list.Status.CompletionTime.Time
	}
	if r.Passed(since.Add(time.Duration(*ttl)*time.Second), "ttlSecondsAfterFinished %d pass", *ttl) && r.MayTry(RemoveJob) {
		r.Append(decide.Delete(r.Object, decide.Why(RemoveJob, "it ended %d s ago", *ttl)))
	}
}

// most returns the greater of two limits that are set; nil: neither is.
func most[T int32 | int64](a, b *T) *T {
	if a == nil || b != nil && *b > *a {
		return b
	}
	return a
}
