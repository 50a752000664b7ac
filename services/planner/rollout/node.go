package rollout

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"shiplog.dev/api/kruise/apps/v1beta1"
	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/api/rolloutevent"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
)

// tellOf adds an event about an object that is no CloneSet.
func (s *step) tellOf(kind string, object *shiplogv1.ObjectRef, generation int64, eventType string, data any) {
	s.events = append(s.events, Event{
		Cause: s.change.Sequence, Time: s.change.Time, Index: uint32(len(s.events)), Rollout: decide.Rollout(types.UID(object.GetUid()), generation),
		Kind: kind, Workload: object, Type: eventType, Data: data,
	})
}

func kruiseRef(resource string, meta *world.Meta) *shiplogv1.ObjectRef {
	return &shiplogv1.ObjectRef{Group: world.GroupKruise, Version: "v1beta1", Resource: resource, Namespace: meta.Namespace, Name: meta.Name, Uid: string(meta.UID)}
}

// nodeImage tells of pulls that ended, by the status of a NodeImage: of a failed one the jobs that wanted it are told too.
func (s *step) nodeImage(before, after *world.NodeImage) {
	if before == nil || before.UID != after.UID {
		return // it was there before the log
	}
	for name, tag := range world.TagsOf(after) {
		status := endedTag(after, name, tag)
		if status == nil || endedTag(before, name, tag) != nil {
			continue
		}
		image, object := world.ImageReference(name, tag.Tag), kruiseRef(world.ResourceNodeImages, &after.Meta)
		if status.Phase == v1beta1.ImagePhaseSucceeded {
			took := time.Duration(0)
			if status.StartTime != nil {
				took = status.CompletionTime.Sub(status.StartTime.Time)
			}
			s.tellOf("NodeImage", object, after.Generation, rolloutevent.TypeImagePulled, rolloutevent.ImagePulled{
				Message: fmt.Sprintf("Image %s is on node %s", image, after.Name), Node: after.Name, Image: image, Seconds: seconds(took),
			})
			continue
		}
		data := rolloutevent.ImagePullFailed{
			Message: fmt.Sprintf("Image %s is not on node %s: %s", image, after.Name, status.Message), Node: after.Name, Image: image, Error: status.Message,
		}
		s.tellOf("NodeImage", object, after.Generation, rolloutevent.TypeImagePullFailed, data)
		for _, owner := range tag.OwnerReferences {
			if ref, known := s.world.Workload(owner.UID); known {
				if job := s.world.ImagePullJob(ref); job != nil {
					s.tellOf("ImagePullJob", kruiseRef(world.ResourceImagePullJobs, &job.Meta), job.Generation, rolloutevent.TypeImagePullFailed, data)
				}
			}
		}
	}
}

// endedTag returns what the status says of a tag's version if that has ended, or nil.
func endedTag(image *world.NodeImage, name string, tag *v1beta1.ImageTagSpec) *v1beta1.ImageTagStatus {
	for i := range image.Status.ImageStatuses[name].Tags {
		if status := &image.Status.ImageStatuses[name].Tags[i]; status.Tag == tag.Tag && status.Version == tag.Version && status.CompletionTime != nil {
			return status
		}
	}
	return nil
}

// restartRequest tells that a request begins, and that it is over.
func (s *step) restartRequest(before, after *world.RestartRequest) {
	object := kruiseRef(world.ResourceRestartRequests, &after.Meta)
	was := v1beta1.ContainerRecreateRequestPhase("")
	if before != nil && before.UID == after.UID {
		was = before.Status.Phase
	} else if after.Status.Phase != "" {
		return // it was there before the log
	}
	if after.Status.Phase == was {
		return
	}
	data := rolloutevent.Restart{Pod: after.Spec.PodName, Succeeded: []string{}, Failed: []string{}}
	for _, state := range after.Status.ContainerRecreateStates {
		switch state.Phase {
		case v1beta1.ContainerRecreateRequestSucceeded:
			data.Succeeded = append(data.Succeeded, state.Name)
		case v1beta1.ContainerRecreateRequestFailed:
			data.Failed = append(data.Failed, state.Name)
		}
	}
	switch after.Status.Phase {
	case v1beta1.ContainerRecreateRequestRecreating:
		var names []string
		for _, container := range after.Spec.Containers {
			names = append(names, container.Name)
		}
		data.Message = fmt.Sprintf("%s of Pod %s shall be restarted", strings.Join(names, ", "), data.Pod)
		s.tellOf("ContainerRecreateRequest", object, after.Generation, rolloutevent.TypeRestartStarted, data)
	case v1beta1.ContainerRecreateRequestCompleted:
		data.Message = fmt.Sprintf("%d of %d containers of Pod %s are restarted", len(data.Succeeded), len(after.Spec.Containers), data.Pod)
		if after.Status.Message != "" {
			data.Message += ": " + after.Status.Message
		}
		s.tellOf("ContainerRecreateRequest", object, after.Generation, rolloutevent.TypeRestartCompleted, data)
	}
}

// call tells that the agent of a node begins to bring a container to its end, and that a hook failed. before is the call as it
// was before the entry; nil: there was none.
func (s *step) call(before, after *world.Call) {
	if after == nil || after.Verb != world.Stop && after.Verb != world.Hook {
		return
	}
	held, _ := s.world.Pod(after.Object)
	if held == nil {
		return
	}
	object := decide.PodRef(held)
	began := after.State >= world.CallRunning && (before == nil || before.State < world.CallRunning)
	hooked := s.world.Call(after.Node, world.Hook, after.Target)
	if began && (after.Verb == world.Hook || hooked == nil || hooked.Workload != after.Workload) && (after.State == world.CallRunning || after.Applied()) {
		s.tellOf("Pod", object, held.Generation, rolloutevent.TypeContainerStopping, rolloutevent.ContainerStopping{
			Message:   fmt.Sprintf("Container %s of Pod %s is being stopped", after.Container, held.Name),
			Container: after.Container, By: s.nameOf(after.Workload),
		})
	}
	if after.Verb == world.Hook && after.State == world.CallEnded && !after.Applied() {
		why := after.Outcome.GetReason().GetMessage()
		s.tellOf("Pod", object, held.Generation, rolloutevent.TypeHookFailed, rolloutevent.HookFailed{
			Message:   fmt.Sprintf("The preStop hook of container %s of Pod %s failed: %s", after.Container, held.Name, why),
			Container: after.Container, Error: strings.ReplaceAll(why, after.Target, after.Container),
		})
	}
}

// nameOf names a workload by kind and name; empty: there is none of this UID.
func (s *step) nameOf(uid types.UID) string {
	ref, known := s.world.Workload(uid)
	if !known {
		return ""
	}
	kind := map[string]string{world.ResourceRestartRequests: "ContainerRecreateRequest", world.ResourceCloneSets: "CloneSet"}[ref.Resource]
	return kind + "/" + ref.Name
}

// pullJob tells that a workload has got, or has lost, an ImagePullJob, or was refused one.
func (s *step) pullJob(under *world.UnderWay, outcome *shiplogv1.Outcome) {
	owner, known := s.world.Workload(under.Workload)
	if !known || owner.Resource != world.ResourceImageListPullJobs && owner.Resource != world.ResourceCloneSets {
		return
	}
	data := rolloutevent.PullJob{Job: under.Object.Name}
	eventType := rolloutevent.TypePullJobCreated
	switch refused := outcome.GetResult() == shiplogv1.Outcome_RESULT_REFUSED && world.Final(outcome.GetReason().GetCode()); {
	case refused && under.Verb() == world.Create:
		eventType, data.Error = rolloutevent.TypePullJobRefused, outcome.GetReason().GetMessage()
		data.Message = fmt.Sprintf("ImagePullJob %s could not be created: %s", data.Job, data.Error)
	case outcome.GetResult() != shiplogv1.Outcome_RESULT_APPLIED:
		return
	case under.Verb() == world.Create:
		data.Message = fmt.Sprintf("ImagePullJob %s is created", data.Job)
		if job := s.world.ImagePullJob(under.Object); job != nil {
			data.Image = job.Spec.Image
			data.Message += " for " + data.Image
		}
	case under.Verb() == world.Delete:
		eventType, data.Message = rolloutevent.TypePullJobDeleted, fmt.Sprintf("ImagePullJob %s is deleted", data.Job)
	default:
		return
	}
	if list := s.world.ImageListPullJob(owner); list != nil {
		s.tellOf("ImageListPullJob", kruiseRef(owner.Resource, &list.Meta), list.Generation, eventType, data)
	} else if set := s.world.CloneSet(owner); set != nil {
		s.tell(set, eventType, data)
	}
}
