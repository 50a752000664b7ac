package inplace

import (
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"

	"shiplog.dev/internal/envhash"
	"shiplog.dev/internal/world"
)

// Complete says whether the containers run what the newest update wanted (inplace-update R28). Resources are looked at by
// Resized.
func Complete(pod *world.Pod) bool {
	return graceText(pod) == "" && (pod.Update == nil || !pod.Update.Pending() && Applied(pod))
}

// Applied says whether the containers run what the batches of the newest update have changed so far (inplace-update R22).
func Applied(pod *world.Pod) bool {
	if pod.Update.UpdateEnvFromMetadata && !envRuns(pod, RuntimeOf(pod)) {
		return false
	}
	for name, last := range pod.Update.LastContainerStatuses.All() {
		if !runs(pod, name, last) {
			return imagesRun(pod, RuntimeOf(pod))
		}
	}
	return true
}

// runs says whether a container has left behind what it was before its image changed, and what was overtaken since. A
// runtime may report an image by another name than the spec's, so another content than before is taken for the one wanted; and
// so is the same content in another container, once the kubelet has seen the newest spec (D5).
func runs(pod *world.Pod, container string, last world.LastStatus) bool {
	status, own := pod.Status(container), pod.Update.Own.Get(container)
	switch {
	case status == nil:
		return false
	case sameImage(status.Image, imageOf(pod, container)):
		return true
	case slices.ContainsFunc(own.Overtaken, func(image string) bool { return sameImage(status.Image, image) }):
		return false
	case status.ImageID != last.ImageID:
		return true
	}
	sees := pod.ObservedGeneration > 0 && pod.ObservedGeneration >= pod.Generation
	return sees && own.ContainerID != "" && status.ContainerID != own.ContainerID && !status.State.Running.StartedAt.IsZero()
}

// imagesRun says whether every container of the Pod runs the image and name of its spec, by the kubelet's own hash (R23).
func imagesRun(pod *world.Pod, says *Runtime) bool {
	return says != nil && allOf(pod, says, func(container *world.Container, name string) bool {
		return says.Of(name).Hashes.Plain == plainHash(container)
	})
}

// envRuns says whether every container of the Pod runs with the values that its metadata has now (R22.1, R24).
func envRuns(pod *world.Pod, says *Runtime) bool {
	return says != nil && allOf(pod, says, func(container *world.Container, name string) bool {
		return len(container.Reads) == 0 || says.Of(name).Hashes.Env == envHash(pod, container)
	})
}

func allOf(pod *world.Pod, says *Runtime, agrees func(*world.Container, string) bool) bool {
	for i := range pod.Containers {
		name := pod.Containers[i].Name
		status, said := pod.Status(name), says.Of(name)
		if status == nil || said == nil || said.ContainerID == "" || said.ContainerID != status.ContainerID || !agrees(&pod.Containers[i], name) {
			return false
		}
	}
	return true
}

// plainHash is the kubelet's hash of a container, in the form that it has had since Kubernetes 1.31.
func plainHash(container *world.Container) uint64 {
	return envhash.JSON(map[string]string{"name": container.Name, "image": container.Image})
}

// envHash is the hash over the env entries that read the Pod's metadata, with the values that it has now.
func envHash(pod *world.Pod, container *world.Container) uint64 {
	entries := make([]envhash.Variable, len(container.Reads)) // Reads are sorted by name
	for i, read := range container.Reads {
		value := pod.Labels.Get(read.Key)
		if read.Annotation {
			value = pod.Annotations.Get(read.Key)
		}
		entries[i] = envhash.Variable{Name: read.Name, Value: value}
	}
	return envhash.Of(entries)
}

// StartedAt is when the last of the containers that the newest update changed was started; zero: none was.
func StartedAt(pod *world.Pod) time.Time {
	var last time.Time
	if pod.Update == nil {
		return last
	}
	for i := range pod.Statuses {
		status := &pod.Statuses[i]
		changed := pod.Update.LastContainerStatuses.Has(status.Name)
		if (changed || pod.Update.UpdateEnvFromMetadata && recorded(pod.Update, status.Name)) && status.State.Running.StartedAt.After(last) {
			last = status.State.Running.StartedAt
		}
	}
	return last
}

// recorded says whether a batch has changed a container.
func recorded(update *world.InPlaceUpdate, container string) bool {
	return slices.ContainsFunc(update.ContainerBatches, func(batch world.Batch) bool { return slices.Contains(batch.Containers, container) })
}

// sameImage compares image references as the runtime means them: "nginx" is docker.io/library/nginx:latest (D5).
func sameImage(a, b string) bool {
	if a == b || official(a, b) || official(b, a) {
		return true // the usual cases, without reading the references
	}
	if tagOf(a) != tagOf(b) {
		return false
	}
	left, err := reference.ParseNormalizedNamed(a)
	if err != nil {
		return false
	}
	right, err := reference.ParseNormalizedNamed(b)
	if err != nil {
		return false
	}
	return reference.TagNameOnly(left).String() == reference.TagNameOnly(right).String()
}

// official says whether full is an official image's name with what a runtime adds to it.
func official(full, name string) bool {
	rest, is := strings.CutPrefix(full, "docker.io/library/")
	return is && rest == name && !strings.Contains(name, "/")
}

// tagOf is what follows the name in a reference: its tag, "latest" without one, or its digest.
func tagOf(image string) string {
	name := image[strings.LastIndexByte(image, '/')+1:]
	if _, tag, has := strings.Cut(name, ":"); has {
		return tag
	}
	return "latest"
}
