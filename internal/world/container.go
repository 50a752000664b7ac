package world

import (
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/v1"
	corev1 "k8s.io/api/core/v1"

	"shiplog.dev/api/kruise/apps/v1beta1"
)

// Container is the part of a container's spec that rules read.
type Container struct {
	Name  string
	Image string
	// Priority by which containers are started and updated in batches, higher ones first (inplace-update R13); nil: none.
	Priority *int
	// Reads are the env entries that take their value from the Pod's labels and annotations, by name.
	Reads []EnvSource
	// PreStop is what the container wants done before it stops, and Ports those that it may call by name: only of one that
	// has Reads, for it may have to be restarted for them.
	PreStop *v1beta1.ContainerRecreateRequestHandler
	Ports   []corev1.ContainerPort
	// Resources of cpu and memory; the zero value: none.
	Resources Resources
	// RestartsFor are the resources whose change restarts the container.
	RestartsFor []string
}

// EnvSource is an env entry that takes its value from the Pod's metadata.
type EnvSource struct {
	Name string
	// Annotation: Key is that of an annotation, not of a label.
	Annotation bool
	Key        string
}

// Resources of a container, by name. The amounts are as the API server writes them.
type Resources struct {
	Limits   ByName[Amount] `json:"limits,omitempty"`
	Requests ByName[Amount] `json:"requests,omitempty"`
}

func (r Resources) empty() bool { return len(r.Limits) == 0 && len(r.Requests) == 0 }

// With returns the resources with some amounts replaced or added.
func (r Resources) With(change Resources) Resources {
	for name, amount := range change.Limits.All() {
		r.Limits = r.Limits.With(name, amount)
	}
	for name, amount := range change.Requests.All() {
		r.Requests = r.Requests.With(name, amount)
	}
	return r
}

// Amount is a quantity as text, for example "500m". Manifests may hold it as a number.
type Amount string

// UnmarshalJSON takes a string or a number.
func (a *Amount) UnmarshalJSON(data []byte) error {
	var text string
	if len(data) > 0 && data[0] == '"' {
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
	} else {
		var number json.Number
		if err := json.Unmarshal(data, &number); err != nil {
			return err
		}
		text = number.String()
	}
	*a = Amount(text)
	return nil
}

// barrierEnv is the env entry by whose ConfigMap key launch priority is kept in a Pod.
const barrierEnv = "KRUISE_CONTAINER_BARRIER"

// containerWire is the wire form of a container.
type containerWire struct {
	Name  string `json:"name"`
	Image string `json:"image"`
	Env   []struct {
		Name      string `json:"name"`
		Value     string `json:"value"`
		ValueFrom *struct {
			FieldRef *struct {
				FieldPath string `json:"fieldPath"`
			} `json:"fieldRef"`
			ConfigMapKeyRef *struct {
				Key string `json:"key"`
			} `json:"configMapKeyRef"`
		} `json:"valueFrom"`
	} `json:"env"`
	Lifecycle struct {
		PreStop *v1beta1.ContainerRecreateRequestHandler `json:"preStop"`
	} `json:"lifecycle"`
	Ports        []corev1.ContainerPort `json:"ports"`
	Resources    Resources              `json:"resources"`
	ResizePolicy []struct {
		ResourceName  string `json:"resourceName"`
		RestartPolicy string `json:"restartPolicy"`
	} `json:"resizePolicy"`
}

// ReadContainer reads a container from a template's tree. What cannot be read is left out.
func ReadContainer(tree any) Container {
	var wire containerWire
	if data, err := json.Marshal(tree); err == nil {
		_ = json.Unmarshal(data, &wire) // the API server has checked the template, or refuses its Pods
	}
	return wire.container()
}

func (w *containerWire) container() Container {
	out := Container{Name: w.Name, Image: w.Image, Resources: w.Resources}
	for _, variable := range w.Env {
		from := variable.ValueFrom
		switch {
		case from == nil:
		case from.ConfigMapKeyRef != nil && variable.Name == barrierEnv:
			// The key is p_PRIORITY; one that does not parse is 0, and one without a number no priority at all (D12).
			if text, is := strings.CutPrefix(from.ConfigMapKeyRef.Key, "p_"); is {
				priority, _ := strconv.Atoi(text)
				out.Priority = &priority
			}
		case from.FieldRef != nil && variable.Value == "":
			source := EnvSource{Name: variable.Name}
			key, is := strings.CutPrefix(from.FieldRef.FieldPath, "metadata.labels['")
			if !is {
				key, is = strings.CutPrefix(from.FieldRef.FieldPath, "metadata.annotations['")
				source.Annotation = true
			}
			// SidecarSet keeps versions in these two; they change for reasons of its own (inplace-update R5).
			if is && variable.Name != "SIDECARSET_VERSION" && variable.Name != "SIDECARSET_VERSION_ALT" {
				source.Key = strings.TrimSuffix(key, "']")
				out.Reads = append(out.Reads, source)
			}
		}
	}
	if len(out.Reads) > 0 {
		out.PreStop, out.Ports = w.Lifecycle.PreStop, w.Ports
	}
	slices.SortStableFunc(out.Reads, func(a, b EnvSource) int { return strings.Compare(a.Name, b.Name) })
	for _, policy := range w.ResizePolicy {
		if policy.RestartPolicy == "RestartContainer" {
			out.RestartsFor = append(out.RestartsFor, policy.ResourceName)
		}
	}
	return out
}
