package world

import (
	"cmp"
	"slices"
	"time"

	"github.com/go-json-experiment/json/v1"
)

// Pod is what rules read of a Pod.
type Pod struct {
	Meta
	Finalizers []string
	Node       string
	Phase      string
	// Gone is when the Pod should have ended, once it is terminating.
	Gone time.Time
	// Claims that it mounts, by name.
	Claims []string
	// QOS is the quality of service class that the Pod was admitted with.
	QOS   string
	Gates []string
	// ObservedGeneration is the generation that the kubelet has seen; 0: it does not say.
	ObservedGeneration int64
	Containers         []Container
	// InitResources are those of init containers that ask for any.
	InitResources []Resources
	Statuses      []ContainerStatus
	// InitStatuses are those of init containers.
	InitStatuses []ContainerStatus
	// RestartPolicy of the Pod's containers.
	RestartPolicy string
	// GraceSeconds is how long its containers get to stop.
	GraceSeconds int64
	Conditions   Conditions
	// Update is the Pod's account of its newest in-place update; nil: it has none that can be read.
	Update *InPlaceUpdate
	// UnderWay is the command that is being carried out on the Pod; nil: none. The Pod is then shown as it will be once the
	// command is applied, and nothing else may be commanded for it.
	UnderWay *UnderWay
	// Before is the Pod without the command under way; nil when there is none or when the command creates the Pod.
	Before *Pod
}

// ContainerStatus is what the kubelet reported of a container.
type ContainerStatus struct {
	Name         string `json:"name"`
	Image        string `json:"image"`
	ImageID      string `json:"imageID"`
	ContainerID  string `json:"containerID"`
	Ready        bool   `json:"ready"`
	RestartCount int32  `json:"restartCount"`
	// Resources that the kubelet has set; nil: it does not say.
	Resources *Resources `json:"resources,omitempty"`
	State     struct {
		Running struct {
			StartedAt time.Time `json:"startedAt"`
		} `json:"running"`
		// Waiting says why the container does not run; nil for one that does, or that ended.
		Waiting *Waiting `json:"waiting,omitempty"`
		// Terminated is how the container ended; nil for one that did not.
		Terminated *Terminated `json:"terminated,omitempty"`
	} `json:"state"`
	// LastState is how the container before this one ended.
	LastState struct {
		Terminated *Terminated `json:"terminated,omitempty"`
	} `json:"lastState"`
}

// Waiting returns why the container does not run, in the kubelet's words; the zero value: it does, or it ended.
func (s *ContainerStatus) Waiting() Waiting {
	if s.State.Waiting == nil {
		return Waiting{}
	}
	return *s.State.Waiting
}

// Waiting says why a container does not run.
type Waiting struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Terminated says how a container ended.
type Terminated struct {
	ExitCode int32  `json:"exitCode"`
	Reason   string `json:"reason"`
}

// Active says whether the Pod counts: not finished and not terminating (cloneset R2).
func (p *Pod) Active() bool {
	return !p.Terminating && p.Phase != "Succeeded" && p.Phase != "Failed"
}

// Condition returns the condition of a type; one that is not present: there is none.
func (p *Pod) Condition(conditionType string) Condition { return p.Conditions.Of(conditionType) }

// Status returns what the kubelet reported of a container, or nil.
func (p *Pod) Status(container string) *ContainerStatus {
	for i := range p.Statuses {
		if p.Statuses[i].Name == container {
			return &p.Statuses[i]
		}
	}
	return nil
}

// HasGate says whether the Pod's spec has a readiness gate.
func (p *Pod) HasGate(conditionType string) bool { return slices.Contains(p.Gates, conditionType) }

// podWire is the wire form of a Pod and of a patch of one.
type podWire struct {
	Metadata struct {
		metadata
		Finalizers []string `json:"finalizers"`
	} `json:"metadata"`
	Spec struct {
		NodeName   string          `json:"nodeName"`
		Restarts   string          `json:"restartPolicy"`
		Grace      int64           `json:"terminationGracePeriodSeconds"`
		Containers []containerWire `json:"containers"`
		Volumes    []struct {
			Claim *struct {
				Name string `json:"claimName"`
			} `json:"persistentVolumeClaim"`
		} `json:"volumes"`
		InitContainers []struct {
			Resources Resources `json:"resources"`
		} `json:"initContainers"`
		ReadinessGates []struct {
			ConditionType string `json:"conditionType"`
		} `json:"readinessGates"`
	} `json:"spec"`
	Status struct {
		Phase              string            `json:"phase"`
		QOSClass           string            `json:"qosClass"`
		ObservedGeneration int64             `json:"observedGeneration"`
		Conditions         []Condition       `json:"conditions"`
		ContainerStatuses  []ContainerStatus `json:"containerStatuses"`
		InitStatuses       []ContainerStatus `json:"initContainerStatuses"`
	} `json:"status"`
}

func decodePod(data []byte) (*Pod, error) {
	var wire podWire
	if err := json.Unmarshal(data, &wire); err != nil {
		return nil, err
	}
	pod := &Pod{
		Meta: wire.Metadata.meta(), Finalizers: wire.Metadata.Finalizers, Node: wire.Spec.NodeName, Phase: wire.Status.Phase,
		QOS: wire.Status.QOSClass, ObservedGeneration: wire.Status.ObservedGeneration,
		Containers: make([]Container, len(wire.Spec.Containers)), Statuses: wire.Status.ContainerStatuses,
		InitStatuses: wire.Status.InitStatuses, RestartPolicy: wire.Spec.Restarts, GraceSeconds: wire.Spec.Grace, Conditions: keepConditions(wire.Status.Conditions),
	}
	for i := range wire.Spec.Containers {
		pod.Containers[i] = wire.Spec.Containers[i].container()
	}
	if ends := wire.Metadata.DeletionTimestamp; ends != nil {
		pod.Gone = *ends
	}
	for _, volume := range wire.Spec.Volumes {
		if volume.Claim != nil {
			pod.Claims = append(pod.Claims, volume.Claim.Name)
		}
	}
	for _, init := range wire.Spec.InitContainers {
		if !init.Resources.empty() {
			pod.InitResources = append(pod.InitResources, init.Resources)
		}
	}
	pod.Update = readInPlaceUpdate(pod.Annotations)
	for _, gate := range wire.Spec.ReadinessGates {
		pod.Gates = append(pod.Gates, gate.ConditionType)
	}
	pod.share()
	return pod, nil
}

// podPatch is what a patch of ours changes in a Pod: labels, annotations, added finalizers, images and resources of containers by name,
// and conditions by type. Our patches write nothing else.
type podPatch struct {
	labels, annotations pairChanges
	finalizers          []string
	containers          []Container
	conditions          []Condition
}

func decodePodPatch(data []byte) (*podPatch, error) {
	var wire podWire
	if err := json.Unmarshal(data, &wire); err != nil {
		return nil, err
	}
	patch := &podPatch{
		labels: wire.Metadata.Labels, annotations: wire.Metadata.Annotations, finalizers: wire.Metadata.Finalizers, conditions: wire.Status.Conditions,
	}
	for i := range wire.Spec.Containers {
		patch.containers = append(patch.containers, wire.Spec.Containers[i].container())
	}
	return patch, nil
}

// patched returns the Pod as a patch will leave it; the Pod itself is not changed.
func (p *Pod) patched(patch *podPatch) *Pod {
	out := *p
	out.Labels, out.Annotations = p.Labels.changed(patch.labels), p.Annotations.changed(patch.annotations)
	for _, finalizer := range patch.finalizers {
		if !slices.Contains(out.Finalizers, finalizer) {
			out.Finalizers = append(slices.Clone(out.Finalizers), finalizer)
		}
	}
	if len(patch.annotations) > 0 {
		out.Update = readInPlaceUpdate(out.Annotations)
	}
	if len(patch.containers) > 0 {
		out.Containers = slices.Clone(p.Containers)
		for _, change := range patch.containers {
			for i := range out.Containers {
				if out.Containers[i].Name != change.Name {
					continue
				}
				if change.Image != "" {
					out.Containers[i].Image = change.Image
				}
				if !change.Resources.empty() {
					out.Containers[i].Resources = out.Containers[i].Resources.With(change.Resources)
				}
			}
		}
	}
	if len(patch.conditions) > 0 {
		out.Conditions = p.Conditions.changed(patch.conditions)
	}
	return &out
}

// PodsIn returns the Pods of a namespace as rules see them, by name.
func (w *World) PodsIn(namespace string) []*Pod {
	var out []*Pod
	for _, at := range w.pods[namespace] { //shiplog:unordered: sorted below
		if at.shown != nil {
			out = append(out, at.shown)
		}
	}
	slices.SortFunc(out, func(a, b *Pod) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
