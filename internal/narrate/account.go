package narrate

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
)

// Step is one thing that happened to a workload.
type Step struct {
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	// Rollout is the generation that the step belongs to.
	Rollout int64 `json:"generation"`
	// What happened, in words: an edit, a command, a change of a Pod.
	What string `json:"what"`
	// Code and Why are the reason of a command.
	Code string `json:"reason,omitempty"`
	Why  string `json:"why,omitempty"`
	// Outcome of a command and the position of its entry; empty while it is under way.
	Outcome         string `json:"outcome,omitempty"`
	OutcomeSequence uint64 `json:"outcomeSequence,omitempty"`
}

// Account tells what happened to one CloneSet, from the entries it is shown in order.
type Account struct {
	namespace, name string
	uid             types.UID
	generation      int64
	steps           []Step
	commands        map[uint64]int // index of the step, by sequence of the command
	pods            map[string]podState
}

type podState struct {
	uid      types.UID
	restarts int32
	ready    bool
	leaving  bool
}

// NewAccount starts the account of a CloneSet.
func NewAccount(namespace, name string) *Account {
	return &Account{namespace: namespace, name: name, commands: map[uint64]int{}, pods: map[string]podState{}}
}

// Steps returns what has happened so far, in order.
func (a *Account) Steps() []Step { return a.steps }

// Show takes the next entry. An error means that the entry cannot be understood.
func (a *Account) Show(sequence uint64, at time.Time, entry *shiplogv1.Entry) error {
	add := func(step Step) {
		step.Sequence, step.Time, step.Rollout = sequence, at, a.generation
		a.steps = append(a.steps, step)
	}
	switch kind := entry.GetKind().(type) {
	case *shiplogv1.Entry_ObjectObserved:
		change, err := world.Decode(sequence, at, entry)
		if err != nil {
			return err
		}
		switch object := change.Object().(type) {
		case *world.CloneSet:
			a.edited(object, add)
		case *world.Pod:
			a.changed(object, add)
		}
	case *shiplogv1.Entry_ObjectDeleted:
		if ref := kind.ObjectDeleted.GetObject(); ref.GetResource() == world.ResourcePods && ref.GetNamespace() == a.namespace {
			if _, ours := a.pods[ref.GetName()]; ours {
				delete(a.pods, ref.GetName())
				add(Step{What: "pod/" + ref.GetName() + " is gone"})
			}
		}
	case *shiplogv1.Entry_Command:
		if a.uid == "" || world.WorkloadOf(entry.GetRollout()) != a.uid {
			return nil
		}
		if kind.Command.GetWakeAt() == nil {
			a.commands[sequence] = len(a.steps)
		}
		add(Step{What: Effect(kind.Command), Code: kind.Command.GetReason().GetCode(), Why: kind.Command.GetReason().GetMessage()})
	case *shiplogv1.Entry_Outcome:
		if i, ours := a.commands[entry.GetCause()]; ours && a.steps[i].Outcome == "" {
			a.steps[i].Outcome, a.steps[i].OutcomeSequence = Outcome(kind.Outcome), sequence
		}
	}
	return nil
}

func (a *Account) edited(set *world.CloneSet, add func(Step)) {
	if set.Namespace != a.namespace || set.Name != a.name || (set.UID == a.uid && set.Generation <= a.generation) {
		return
	}
	a.uid, a.generation = set.UID, set.Generation
	var images []string
	for _, container := range set.Spec.Template.Spec.Containers {
		images = append(images, container.Image)
	}
	replicas := int32(1)
	if set.Spec.Replicas != nil {
		replicas = *set.Spec.Replicas
	}
	add(Step{What: fmt.Sprintf("cloneset/%s is edited: generation %d, replicas %d, %s", set.Name, set.Generation, replicas, strings.Join(images, ", "))})
}

func (a *Account) changed(pod *world.Pod, add func(Step)) {
	if pod.Owner.UID != a.uid || a.uid == "" {
		return
	}
	before, known := a.pods[pod.Name]
	now := podState{uid: pod.UID, leaving: pod.Terminating}
	for _, status := range pod.Statuses {
		now.restarts += status.RestartCount
	}
	if ready := pod.Condition("Ready"); ready != nil {
		now.ready = ready.Status == "True"
	}
	a.pods[pod.Name] = now
	name := "pod/" + pod.Name
	switch {
	case !known:
		add(Step{What: name + " exists"})
	case now.leaving && !before.leaving:
		add(Step{What: name + " is terminating"})
	case now.restarts > before.restarts && now.ready == before.ready:
		add(Step{What: fmt.Sprintf("%s restarted a container", name)})
	case now.ready && !before.ready && now.restarts > before.restarts:
		add(Step{What: fmt.Sprintf("%s restarted a container and is ready", name)})
	case now.ready && !before.ready:
		add(Step{What: name + " is ready"})
	case !now.ready && before.ready:
		add(Step{What: name + " is not ready"})
	}
}
