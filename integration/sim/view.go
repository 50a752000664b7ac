package sim

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"shiplog.dev/internal/world"
)

// pod is what the simulation and its checks see in a Pod. It is read from the JSON here, not by the fold, so that an error
// of the fold shows.
type pod struct {
	name, owner, node, phase string
	labels                   map[string]string
	terminating              bool
	ready                    bool
	readySince               time.Time
	gateShut                 bool
	state                    string // lifecycle
	specified                bool   // labelled for deletion
	template                 string // of the revision that it carries
	claims                   []string
	images, running          map[string]string
}

// cloneSet is what the checks see in a CloneSet, worked out on its own.
type cloneSet struct {
	name                                     string
	replicas, partition, unavailable, surge  int
	scaleUnavailable, minReady, historyLimit int
	paused                                   bool
	kind, template                           string
	podsToDelete                             []string
	hooked                                   bool
	generation                               int64
	status                                   statusView
}

type statusView struct {
	ObservedGeneration                                                                                                                   int64
	Replicas, ReadyReplicas, AvailableReplicas, UpdatedReplicas, UpdatedReadyReplicas, UpdatedAvailableReplicas, ExpectedUpdatedReplicas int
	UpdateRevision, CurrentRevision                                                                                                      string
	Conditions                                                                                                                           []struct{ Type, Status, Message string }
}

type containerView struct {
	Name, Image string
	Env         []struct{ Name, Value string }
}

type templateView struct {
	Metadata struct{ Labels map[string]string }
	Spec     struct{ Containers []containerView }
}

// essence is what distinguishes the templates that the simulation draws.
func (t templateView) essence() string {
	var out strings.Builder
	for _, c := range t.Spec.Containers {
		fmt.Fprintf(&out, "%s=%s %v ", c.Name, c.Image, c.Env)
	}
	return out.String() + "note=" + t.Metadata.Labels["note"]
}

func (o *object) parse(a *api) {
	switch o.ref.Resource {
	case world.ResourcePods:
		o.pod = readPod(o.raw)
		if template, stored := a.revisions[hashOf(o.pod.labels[revisionLabel])]; stored {
			o.pod.template = template
		}
	case world.ResourceRevisions:
		var wire struct {
			Data struct {
				Spec struct{ Template templateView }
			}
		}
		read(o.raw, &wire)
		a.revisions[hashOf(o.ref.Name)] = wire.Data.Spec.Template.essence()
	case world.ResourceCloneSets:
		o.set = readCloneSet(o.raw)
	}
}

func read(raw []byte, into any) {
	if err := json.Unmarshal(raw, into); err != nil {
		panic(fmt.Sprintf("%v in %s", err, raw)) // it came from put
	}
}

func readPod(raw []byte) *pod {
	var wire struct {
		templateView
		Metadata struct {
			Name              string
			Labels            map[string]string
			DeletionTimestamp *time.Time
			OwnerReferences   []struct {
				UID        string
				Controller bool
			}
		}
		Spec struct {
			NodeName   string
			Containers []containerView
			Volumes    []struct {
				PersistentVolumeClaim *struct{ ClaimName string }
			}
		}
		Status struct {
			Phase             string
			ContainerStatuses []struct{ Name, Image string }
			Conditions        []struct {
				Type, Status       string
				LastTransitionTime time.Time
			}
		}
	}
	read(raw, &wire)
	out := &pod{
		name: wire.Metadata.Name, node: wire.Spec.NodeName, phase: wire.Status.Phase, labels: wire.Metadata.Labels,
		terminating: wire.Metadata.DeletionTimestamp != nil, state: wire.Metadata.Labels["lifecycle.apps.kruise.io/state"],
		images: map[string]string{}, running: map[string]string{},
	}
	_, out.specified = wire.Metadata.Labels["apps.kruise.io/specified-delete"]
	for _, owner := range wire.Metadata.OwnerReferences {
		if owner.Controller {
			out.owner = owner.UID
		}
	}
	for _, volume := range wire.Spec.Volumes {
		if volume.PersistentVolumeClaim != nil {
			out.claims = append(out.claims, volume.PersistentVolumeClaim.ClaimName)
		}
	}
	var t templateView
	t.Metadata.Labels, t.Spec.Containers = wire.Metadata.Labels, wire.Spec.Containers
	out.template = t.essence()
	for _, c := range wire.Spec.Containers {
		out.images[c.Name] = c.Image
	}
	for _, c := range wire.Status.ContainerStatuses {
		out.running[c.Name] = c.Image
	}
	for _, c := range wire.Status.Conditions {
		switch c.Type {
		case "Ready":
			out.ready, out.readySince = c.Status == "True", c.LastTransitionTime
		case "InPlaceUpdateReady":
			out.gateShut = c.Status != "True"
		}
	}
	return out
}

// revisionLabel is the label by which a Pod carries its revision.
const revisionLabel = "controller-revision-hash"

// hashOf is what a revision's name and its short form have in common.
func hashOf(revision string) string { return revision[strings.LastIndexByte(revision, '-')+1:] }

func (p *pod) finished() bool { return p.phase == "Failed" || p.phase == "Succeeded" }

func (p *pod) preparingDelete() bool { return p.state == "PreparingDelete" }

// active is R2.
func (p *pod) active() bool { return !p.terminating && !p.finished() }

// serves says whether the Pod is available now (R4 with 0): ready, in its normal state, and running what its spec names.
func (p *pod) serves() bool {
	if !p.active() || p.phase != "Running" || !p.ready || p.gateShut || p.state != "" && p.state != "Normal" {
		return false
	}
	for name, image := range p.images {
		if p.running[name] != image {
			return false
		}
	}
	return true
}

// available is R4 with minReadySeconds.
func (p *pod) available(minReady int, now time.Time) bool {
	return p.serves() && (minReady == 0 || !p.readySince.Add(time.Duration(minReady)*time.Second).After(now))
}

func readCloneSet(raw []byte) *cloneSet {
	var wire struct {
		Metadata struct {
			Name       string
			Generation int64
		}
		Spec struct {
			Replicas             int
			MinReadySeconds      int
			RevisionHistoryLimit *int
			Template             templateView
			Lifecycle            map[string]any
			ScaleStrategy        struct {
				PodsToDelete   []string
				MaxUnavailable any
			}
			UpdateStrategy struct {
				Type          string
				RollingUpdate struct {
					PodUpdatePolicy                     string
					Partition, MaxUnavailable, MaxSurge any
					Paused                              bool
				}
			}
		}
		Status statusView
	}
	read(raw, &wire)
	spec := wire.Spec
	rolling := spec.UpdateStrategy.RollingUpdate
	out := &cloneSet{
		name: wire.Metadata.Name, generation: wire.Metadata.Generation, replicas: spec.Replicas, minReady: spec.MinReadySeconds,
		historyLimit: 10, paused: rolling.Paused, kind: rolling.PodUpdatePolicy, template: spec.Template.essence(),
		podsToDelete: spec.ScaleStrategy.PodsToDelete, status: wire.Status, scaleUnavailable: math.MaxInt, hooked: len(spec.Lifecycle) > 0,
	}
	if spec.RevisionHistoryLimit != nil {
		out.historyLimit = *spec.RevisionHistoryLimit
	}
	if spec.UpdateStrategy.Type == onDelete {
		out.kind = onDelete
	} else if out.kind == "" {
		out.kind = "ReCreate"
	}
	surge := share(rolling.MaxSurge, out.replicas, "0", true)
	if !out.paused {
		out.surge = surge
	}
	out.unavailable = share(rolling.MaxUnavailable, out.replicas, "20%", out.surge == 0)
	if value := spec.ScaleStrategy.MaxUnavailable; value != nil {
		out.scaleUnavailable = share(value, out.replicas, "", true)
	}
	out.partition = min(share(rolling.Partition, out.replicas, "0", true), out.replicas)
	if text, is := rolling.Partition.(string); is && text != "100%" && out.replicas > 1 && out.partition == out.replicas {
		out.partition--
	}
	return out
}

// share is a count or a percentage of total.
func share(value any, total int, unset string, up bool) int {
	text := unset
	switch value := value.(type) {
	case float64:
		return int(value)
	case string:
		text = value
	}
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(number)
	if err != nil {
		panic(err) // the simulation draws no others
	}
	switch {
	case !percent:
		return n
	case up:
		return (n*total + 99) / 100
	}
	return n * total / 100
}

func (c *cloneSet) names(pod *pod) bool {
	return pod.specified || slices.Contains(c.podsToDelete, pod.name)
}

// describe words an object's state for the trace.
func describe(o *object) string {
	switch {
	case o.pod != nil:
		p := o.pod
		words := []string{p.phase}
		for name, image := range p.images {
			if p.running[name] != image {
				words = append(words, name+" is not "+image)
			}
		}
		slices.Sort(words[1:])
		add := func(is bool, word string) {
			if is {
				words = append(words, word)
			}
		}
		add(p.ready, "ready")
		add(p.gateShut, "gate shut")
		add(p.specified, "specified")
		add(p.terminating, "terminating")
		add(p.state != "", p.state)
		return ": " + strings.Join(words, ", ")
	case o.set != nil:
		c := o.set
		return fmt.Sprintf(": R %d P %d U %d S %d %s paused=%v %s", c.replicas, c.partition, c.unavailable, c.surge, c.kind, c.paused, c.template)
	}
	return ""
}
