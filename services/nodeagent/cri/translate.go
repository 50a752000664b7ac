package cri

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// What the kubelet writes on the containers that it creates.
const (
	labelPodName      = "io.kubernetes.pod.name"
	labelPodNamespace = "io.kubernetes.pod.namespace"
	labelPodUID       = "io.kubernetes.pod.uid"
	annotationHash    = "io.kubernetes.container.hash"         // hexadecimal
	annotationAttempt = "io.kubernetes.container.restartCount" // decimal
)

func imagesOf(images []*runtimev1.Image) []*shiplogv1.RuntimeImage {
	out := make([]*shiplogv1.RuntimeImage, 0, len(images))
	for _, image := range images {
		out = append(out, &shiplogv1.RuntimeImage{
			Id: image.GetId(), Tags: sorted(image.GetRepoTags()), Digests: sorted(image.GetRepoDigests()), SizeBytes: image.GetSize(),
		})
	}
	slices.SortFunc(out, func(a, b *shiplogv1.RuntimeImage) int { return cmp.Compare(a.Id, b.Id) })
	return out
}

func sorted(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return names
}

// containersOf words containers; details are by id.
func containersOf(containers []*runtimev1.Container, details map[string]detail) []*shiplogv1.RuntimeContainer {
	out := make([]*shiplogv1.RuntimeContainer, 0, len(containers))
	for _, container := range containers {
		labels, annotations := container.GetLabels(), container.GetAnnotations()
		one := &shiplogv1.RuntimeContainer{
			PodNamespace: labels[labelPodNamespace], PodName: labels[labelPodName], PodUid: labels[labelPodUID],
			Name: container.GetMetadata().GetName(), Id: container.GetId(),
			Image:   cmp.Or(container.GetImage().GetUserSpecifiedImage(), details[container.GetId()].image, container.GetImage().GetImage()),
			ImageId: cmp.Or(container.GetImageId(), container.GetImageRef()),
			State:   stateOf(container.GetState()), Attempt: container.GetMetadata().GetAttempt(),
			CreatedAt: timeOf(container.GetCreatedAt()), StartedAt: timeOf(details[container.GetId()].startedAt),
		}
		if attempt, err := strconv.ParseUint(annotations[annotationAttempt], 10, 32); err == nil {
			one.Attempt = uint32(attempt)
		}
		if hash, err := strconv.ParseUint(annotations[annotationHash], 16, 64); err == nil {
			one.PlainHash = hash
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b *shiplogv1.RuntimeContainer) int {
		return cmp.Or(cmp.Compare(a.PodNamespace, b.PodNamespace), cmp.Compare(a.PodName, b.PodName), cmp.Compare(a.Name, b.Name),
			cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Id, b.Id))
	})
	return out
}

func stateOf(state runtimev1.ContainerState) shiplogv1.RuntimeContainer_State {
	switch state {
	case runtimev1.ContainerState_CONTAINER_CREATED:
		return shiplogv1.RuntimeContainer_STATE_CREATED
	case runtimev1.ContainerState_CONTAINER_RUNNING:
		return shiplogv1.RuntimeContainer_STATE_RUNNING
	case runtimev1.ContainerState_CONTAINER_EXITED:
		return shiplogv1.RuntimeContainer_STATE_EXITED
	}
	return shiplogv1.RuntimeContainer_STATE_UNKNOWN
}

// timeOf is absent for 0 and for what no clock says.
func timeOf(nanoseconds int64) *timestamppb.Timestamp {
	if nanoseconds <= 0 {
		return nil
	}
	return timestamppb.New(time.Unix(0, nanoseconds))
}
