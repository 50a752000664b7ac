// Package nodeimage holds the rules of NodeImage (spec: image-pull 3.2, 3.3, 3.7): there is one for each Node, it is kept in
// order, and what it asks for is pulled by the node's agent, attempt by attempt. Pure: it reads a world and returns commands.
package nodeimage

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"shiplog.dev/api/kruise/apps/v1beta1"
	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/gate"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
)

// Reason codes of the commands, stable.
const (
	CreateNodeImage = "CreateNodeImage" // a Node is ready and has none (R3)
	DeleteNodeImage = "DeleteNodeImage" // its Node is gone (R5)
	TidyNodeImage   = "TidyNodeImage"   // labels of the Node, tags that nobody wants any more (R4, R6, R7)
	PullImage       = "PullImage"       // an attempt (R44)
	CancelPull      = "CancelPull"      // nobody wants the pull any more, or it took too long (R41, R47)
	ReportStatus    = "ReportStatus"    // status differs from the facts (R42)
)

// Codes of what is held back.
const (
	HeldNotReady = "NodeNotReady"
	HeldCreation = "NodeImageDelay"
)

const (
	// virtual is a label of Nodes that have no agent.
	virtualLabel, virtualNode = "type", "virtual-kubelet"
	// marker is an annotation of the request, by which a registry's mirror tells our pulls from the kubelet's (R48).
	marker, markerValue = "apps.kruise.io/pulling-image-by", "kruise-daemon"
	// statusPause is the least time between two writes of a status that is in motion. Log time.
	statusPause = time.Second
	// cancelWithin bounds a cancellation.
	cancelWithin = 30 * time.Second
	// retryFirst and retryLongest bound the pause between attempts (R44).
	retryFirst, retryLongest = time.Second, 30 * time.Second
)

// RefOf names the NodeImage of a Node.
func RefOf(node string) world.Ref {
	return world.Ref{Group: world.GroupKruise, Resource: world.ResourceNodeImages, Name: node}
}

// Decide returns what to do for the NodeImage of one Node, which may not exist yet.
func Decide(w *world.World, ref world.Ref) decide.Decision {
	image, node := w.NodeImage(ref.Name), w.Node(ref.Name)
	if !w.Gate(gate.KruiseDaemon) || image == nil && node == nil {
		return decide.Decision{}
	}
	object := &shiplogv1.ObjectRef{Group: ref.Group, Version: "v1beta1", Resource: ref.Resource, Name: ref.Name}
	if image == nil {
		r := &round{Turn: decide.NewTurn(w, ref, object, 0), node: node}
		r.create()
		return r.End()
	}
	object.Uid = string(image.UID)
	r := &round{Turn: decide.NewTurn(w, ref, object, image.Generation), node: node, image: image}
	switch {
	case image.Terminating:
	case (node == nil || node.Terminating) && image.Labels.Get(v1beta1.FakeNodeImageKey) == "":
		r.remove()
	default:
		r.tidy()
		r.pull()
		r.reportStatus()
	}
	return r.End()
}

type round struct {
	*decide.Turn
	node  *world.Node // nil: there is none
	image *world.NodeImage
}

// Awaited says whether a Node is about to get its NodeImage.
func Awaited(w *world.World) bool {
	return slices.ContainsFunc(w.Nodes(), func(node *world.Node) bool { return w.NodeImage(node.Name) == nil && node.Ready && eligible(node) })
}

func eligible(node *world.Node) bool {
	return !node.Terminating && node.Labels.Get(virtualLabel) != virtualNode
}

// create makes the NodeImage of a Node that has been ready for a while (R3).
func (r *round) create() {
	if !eligible(r.node) || !r.node.Ready || r.World.Writing(r.Ref) != nil {
		return
	}
	delay := SettingsOf(r.World).CreationDelay
	if at := r.node.ReadySince.Add(delay); !r.Passed(at, "Node %s has been ready for %s", r.node.Name, delay) {
		r.Hold(HeldCreation, "time", "Node %s is ready since %s, its images wait for %s", r.node.Name, r.node.ReadySince.UTC().Format(time.TimeOnly), delay)
		return
	}
	if !r.MayTry(CreateNodeImage) {
		return
	}
	metadata := map[string]any{"name": r.Ref.Name}
	if r.node.Labels.Len() > 0 {
		metadata["labels"] = r.node.Labels
	}
	tree := map[string]any{"apiVersion": v1beta1.GroupVersion.String(), "kind": "NodeImage", "metadata": metadata, "spec": map[string]any{}}
	r.Append(decide.Create(r.Object, tree, decide.Why(CreateNodeImage, "Node %s is ready for at least %s", r.node.Name, delay)))
}

// remove deletes the NodeImage of a Node that is gone (R5).
func (r *round) remove() {
	if r.image.UnderWay == nil && r.Fresh() && r.MayTry(DeleteNodeImage) {
		r.Append(decide.Delete(r.Object, decide.Why(DeleteNodeImage, "there is no Node %s any more", r.Ref.Name)))
	}
}

// tidy brings labels and spec in order (R4, R6, R7).
func (r *round) tidy() {
	wanted, why := r.tidied()
	labels := r.image.Labels
	if r.node != nil && !labels.Equal(r.node.Labels) {
		labels = r.node.Labels
		why = append(why, "the labels are those of the Node")
	}
	type part struct {
		Metadata struct {
			Labels world.Pairs `json:"labels"`
		} `json:"metadata"`
		Spec v1beta1.NodeImageSpec `json:"spec"`
	}
	var before, after part
	before.Metadata.Labels, before.Spec = r.image.Labels, r.image.Spec
	after.Metadata.Labels, after.Spec = labels, wanted
	patch := decide.Difference(before, after)
	if patch == nil || r.image.UnderWay != nil || !r.MayTry(TidyNodeImage) {
		return
	}
	command := decide.PatchMerge(r.Object, "", patch, decide.Why(TidyNodeImage, "%s", strings.Join(why, "; ")))
	command.ResourceVersion = decide.VersionOf(&r.image.Meta)
	r.Append(command)
}

// tidied returns the spec without what nobody wants any more, and what changes.
func (r *round) tidied() (v1beta1.NodeImageSpec, []string) {
	var why []string
	spec := v1beta1.NodeImageSpec{}
	for _, name := range slices.Sorted(maps.Keys(r.image.Spec.Images)) {
		image := r.image.Spec.Images[name]
		var tags []v1beta1.ImageTagSpec
		for _, tag := range image.Tags {
			label := world.ImageReference(name, tag.Tag)
			kept := slices.DeleteFunc(slices.Clone(tag.OwnerReferences), func(owner owner) bool { return r.gone(owner) })
			switch {
			case len(kept) == 0 && len(tag.OwnerReferences) > 0: // R6b
				why = append(why, "no job wants "+label+" any more")
				continue
			case len(kept) < len(tag.OwnerReferences):
				why = append(why, "a job that wanted "+label+" is gone")
			}
			if r.expired(name, &tag, kept) { // R6c
				why = append(why, label+" was kept for as long as its jobs asked")
				continue
			}
			tag.OwnerReferences = kept
			if tag.CreatedAt == nil { // R6a: admission would have set it
				now := metav1.NewTime(r.Now().Truncate(time.Second))
				tag.CreatedAt = &now
				why = append(why, label+" is asked for from now on")
			}
			tags = append(tags, tag)
		}
		if len(tags) == 0 {
			continue // R7
		}
		slices.SortStableFunc(tags, func(a, b v1beta1.ImageTagSpec) int { return cmp.Compare(a.Tag, b.Tag) })
		image.Tags = tags
		if spec.Images == nil {
			spec.Images = map[string]v1beta1.ImageSpec{}
		}
		spec.Images[name] = image
	}
	return spec, why
}

// gone says whether an owner is a job that is no more.
func (r *round) gone(owner owner) bool {
	if group, _, _ := strings.Cut(owner.APIVersion, "/"); group != world.GroupKruise || owner.Kind != "ImagePullJob" {
		return false
	}
	return JobOf(r.World, owner.UID) == nil
}

// expired says whether a tag has been there for as long after its end as was asked (R6c). One that a job still counts on
// stays (D2).
func (r *round) expired(name string, tag *v1beta1.ImageTagSpec, owners []owner) bool {
	held := statusOf(r.image, name, tag.Tag, tag.Version)
	if tag.PullPolicy == nil || tag.PullPolicy.TTLSecondsAfterFinished == nil || held == nil || held.CompletionTime == nil {
		return false
	}
	for _, owner := range owners {
		if job := JobOf(r.World, owner.UID); job != nil && job.Status.CompletionTime == nil && job.Spec.CompletionPolicy.Type != v1beta1.Never {
			return false
		}
	}
	at := held.CompletionTime.Add(time.Duration(*tag.PullPolicy.TTLSecondsAfterFinished) * time.Second)
	return r.Passed(at, "%s has been there for %d s", world.ImageReference(name, tag.Tag), *tag.PullPolicy.TTLSecondsAfterFinished)
}

// pull commands the attempts that are due, and cancels what nobody wants.
func (r *round) pull() {
	wanted := map[string]bool{}
	for name, tag := range world.TagsOf(r.image) {
		target := world.ImageReference(name, tag.Tag)
		wanted[target] = true
		call := r.World.Call(r.Ref.Name, world.Pull, target)
		open := call != nil && call.State != world.CallEnded
		if open && call.Version != tag.Version {
			r.cancel(call, "another pull of it was asked for")
			continue
		}
		stage := stageOf(r.World, r.image, name, tag)
		switch {
		case open && stage.ended():
			r.cancel(call, stage.message)
		case open || stage.ended():
		case !r.nodeReady():
			r.Hold(HeldNotReady, "the Node being ready", "Node %s is not ready", r.Ref.Name)
		case r.Passed(stage.retry, "attempt %d at %s follows", stage.attempt+1, target):
			r.attempt(name, tag, stage)
		}
		for _, at := range stage.deadlines {
			r.Passed(at, "the pull of %s may have come too late", target)
		}
	}
	for _, call := range r.World.OpenCalls(r.Ref.Name) {
		if call.Verb == world.Pull && !wanted[call.Target] {
			r.cancel(call, "it is no longer wanted")
		}
	}
}

func (r *round) nodeReady() bool { return r.node == nil || r.node.Ready }

// attempt commands one attempt at a pull.
func (r *round) attempt(name string, tag *v1beta1.ImageTagSpec, stage stage) {
	image := r.image.Spec.Images[name]
	limits := limitsOf(tag)
	run := limits.timeout
	for _, at := range stage.deadlines {
		run = min(run, max(at.Sub(r.Now()), time.Second))
	}
	target := world.ImageReference(name, tag.Tag)
	command := decide.Call(r.Ref.Name, r.Object, decide.Why(PullImage, "%s is wanted%s, attempt %d of %d", target, r.wantedBy(tag), stage.attempt+1, limits.attempts),
		SettingsOf(r.World).ResponseTime, run)
	command.Attempt = uint32(stage.attempt)
	effect := &shiplogv1.PullImage{
		Image: target, Version: tag.Version, Always: tag.ImagePullPolicy == v1beta1.PullAlways, Annotations: map[string]string{marker: markerValue},
	}
	if sandbox := image.SandboxConfig; sandbox != nil {
		effect.Labels = sandbox.Labels
		maps.Copy(effect.Annotations, sandbox.Annotations)
	}
	for _, secret := range image.PullSecrets {
		if r.maySee(tag, secret) {
			effect.PullSecrets = append(effect.PullSecrets, &shiplogv1.SecretRef{Namespace: secret.Namespace, Name: secret.Name})
		}
	}
	command.Effect = &shiplogv1.Command_PullImage{PullImage: effect}
	r.Append(command)
}

// maySee says whether the pull of a tag may use a Secret: one that a job which wants this tag names, not one that was named for
// another tag of the same image.
func (r *round) maySee(tag *v1beta1.ImageTagSpec, secret v1beta1.ReferenceObject) bool {
	if len(tag.OwnerReferences) == 0 || secret.Mode != "" { // written by hand, or a copy made by OpenKruise
		return true
	}
	return slices.ContainsFunc(tag.OwnerReferences, func(owner owner) bool {
		job := JobOf(r.World, owner.UID)
		return job != nil && job.Namespace == secret.Namespace && slices.Contains(job.Spec.PullSecrets, secret.Name)
	})
}

func (r *round) wantedBy(tag *v1beta1.ImageTagSpec) string {
	switch owners := tag.OwnerReferences; len(owners) {
	case 0:
		return ""
	case 1:
		return " by " + owners[0].Namespace + "/" + owners[0].Name
	default:
		return " by " + owners[0].Namespace + "/" + owners[0].Name + " and others"
	}
}

// cancel lets the agent give up a pull, once.
func (r *round) cancel(call *world.Call, why string) {
	if r.World.Call(call.Node, world.Cancel, strconv.FormatUint(call.Command, 10)) != nil {
		return
	}
	command := decide.Call(r.Ref.Name, r.Object, decide.Why(CancelPull, "the pull of %s is given up: %s", call.Target, why), cancelWithin, cancelWithin)
	command.Effect = &shiplogv1.Command_CancelCall{CancelCall: &shiplogv1.CancelCall{Command: call.Command}}
	r.Append(command)
}

// reportStatus writes what became of the images: at once when all has ended, else at most once in statusPause.
func (r *round) reportStatus() {
	status := v1beta1.NodeImageStatus{FirstSyncStatus: r.image.Status.FirstSyncStatus}
	for name, tag := range world.TagsOf(r.image) {
		status.Desired++
		one := stageOf(r.World, r.image, name, tag).status(tag)
		if one == nil {
			continue
		}
		if status.ImageStatuses == nil {
			status.ImageStatuses = map[string]v1beta1.ImageStatus{}
		}
		status.ImageStatuses[name] = v1beta1.ImageStatus{Tags: append(status.ImageStatuses[name].Tags, *one)}
		switch one.Phase {
		case v1beta1.ImagePhaseSucceeded:
			status.Succeeded++
		case v1beta1.ImagePhaseFailed:
			status.Failed++
		case v1beta1.ImagePhasePulling:
			status.Pulling++
		default:
			status.Waiting++
		}
	}
	ended := status.Succeeded+status.Failed == status.Desired
	if ended && status.Desired > 0 && status.FirstSyncStatus == nil { // D8
		status.FirstSyncStatus = &v1beta1.SyncStatus{SyncAt: metav1.NewTime(r.Now().Truncate(time.Second)), Status: v1beta1.SyncStatusSucceeded}
		if status.Failed > 0 {
			status.FirstSyncStatus.Status, status.FirstSyncStatus.Message = v1beta1.SyncStatusFailed, "some images could not be pulled"
		}
	}
	patch := decide.StatusChange(r.image.HasStatus, r.image.Status, status)
	if status.Desired == 0 && !r.image.HasStatus {
		return // nothing was ever asked for
	}
	if patch == nil || r.image.UnderWay != nil || r.Writes() || !r.MayTry(ReportStatus) {
		return
	}
	moving := r.image.Status.Pulling+r.image.Status.Waiting > 0
	if !ended || moving {
		if !r.Passed(decide.Rested(r.image.Seen, statusPause, r.Now()), "the status changes and was written less than %s ago", statusPause) {
			return
		}
	}
	command := decide.PatchMerge(r.Object, "status", patch, decide.Why(ReportStatus, "%d images: %d pulled, %d failed, %d being pulled, %d waiting",
		status.Desired, status.Succeeded, status.Failed, status.Pulling, status.Waiting))
	command.ResourceVersion = decide.VersionOf(&r.image.Meta)
	r.Append(command)
}

// JobOf returns the ImagePullJob of a UID, or nil.
func JobOf(w *world.World, uid types.UID) *world.ImagePullJob {
	ref, known := w.Workload(uid)
	if !known {
		return nil
	}
	return w.ImagePullJob(ref)
}
