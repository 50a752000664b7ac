package world

import "github.com/go-json-experiment/json/v1"

// InPlaceUpdate is the annotation in which a Pod keeps its newest in-place update (inplace-update 2.3).
type InPlaceUpdate struct {
	Revision        string `json:"revision"`
	UpdateTimestamp string `json:"updateTimestamp"`
	// LastContainerStatuses are the containers whose image was changed, as they were before.
	LastContainerStatuses ByName[LastStatus] `json:"lastContainerStatuses"`
	// What the update changes.
	UpdateImages          bool `json:"updateImages,omitempty"`
	UpdateEnvFromMetadata bool `json:"updateEnvFromMetadata,omitempty"`
	UpdateResources       bool `json:"updateResources,omitempty"`
	// What later batches change, by container.
	NextContainerImages      map[string]string      `json:"nextContainerImages,omitempty"`
	NextContainerRefMetadata map[string]RefMetadata `json:"nextContainerRefMetadata,omitempty"`
	NextContainerResources   map[string]Resources   `json:"nextContainerResources,omitempty"`
	// PreCheckBeforeNext must hold before the next batch; nil: there is no next one.
	PreCheckBeforeNext *PreCheck `json:"preCheckBeforeNext,omitempty"`
	ContainerBatches   []Batch   `json:"containerBatchesRecord,omitempty"`
	// Own is what we note beyond what OpenKruise knows, by container. It has an annotation of its own.
	Own ByName[OwnStatus] `json:"-"`
}

// Pending says whether there are batches to come.
func (u *InPlaceUpdate) Pending() bool {
	return len(u.NextContainerImages) > 0 || len(u.NextContainerRefMetadata) > 0 || len(u.NextContainerResources) > 0
}

// LastStatus is what a container was before its image changed.
type LastStatus struct {
	ImageID string `json:"imageID,omitempty"`
}

// OwnStatus is what else a container was before its image changed.
type OwnStatus struct {
	ContainerID string `json:"containerID,omitempty"`
	// Overtaken are images that the container should have run since and that were replaced before they were seen running. The
	// kubelet may still start one of them.
	Overtaken []string `json:"overtakenImages,omitempty"`
}

// RefMetadata are labels and annotations that feed the env of a container; nil values are removed.
type RefMetadata struct {
	Labels      map[string]*string `json:"labels,omitempty"`
	Annotations map[string]*string `json:"annotations,omitempty"`
}

// PreCheck names the containers that must be ready before the next batch.
type PreCheck struct {
	ContainersRequiredReady []string `json:"containersRequiredReady"`
}

// Batch records which containers were changed together.
type Batch struct {
	Timestamp  string   `json:"timestamp"`
	Containers []string `json:"containers"`
}

// The annotation, under the key of today and an older one that is read when the other is absent, and the one of our own.
const (
	InPlaceUpdateAnnotation       = "apps.kruise.io/inplace-update-state"
	LegacyInPlaceUpdateAnnotation = "inplace-update-state"
	OwnInPlaceUpdateAnnotation    = "shiplog.dev/inplace-update"
)

func readInPlaceUpdate(annotations Pairs) *InPlaceUpdate {
	text, has := annotations.Lookup(InPlaceUpdateAnnotation)
	if !has {
		if text, has = annotations.Lookup(LegacyInPlaceUpdateAnnotation); !has {
			return nil
		}
	}
	var update InPlaceUpdate
	if json.Unmarshal([]byte(text), &update) != nil {
		return nil
	}
	if own, has := annotations.Lookup(OwnInPlaceUpdateAnnotation); has && json.Unmarshal([]byte(own), &update.Own) != nil {
		update.Own = nil
	}
	update.share()
	return &update
}

// share makes an account that was just decoded hold what others hold too only once.
func (u *InPlaceUpdate) share() {
	u.Revision, u.UpdateTimestamp = shared(u.Revision), shared(u.UpdateTimestamp)
	for i := range u.LastContainerStatuses {
		last := &u.LastContainerStatuses[i].value
		last.ImageID = shared(last.ImageID)
	}
	for i := range u.ContainerBatches {
		batch := &u.ContainerBatches[i]
		batch.Timestamp = shared(batch.Timestamp)
		for j := range batch.Containers {
			batch.Containers[j] = shared(batch.Containers[j])
		}
	}
}
