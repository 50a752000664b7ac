package narrate

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"shiplog.dev/internal/world"
)

// Kept is what an account must know to go on where it was, but for the Pods. It can be written as JSON.
type Kept struct {
	Workload   world.Ref
	UID        types.UID
	Deleted    time.Time
	Generation int64
	Limits     []Limit
	Version    uint64
	JSON       []byte
	Edits      []KeptStep
	News       []KeptStep
	Wishes     map[string]string
	Creates    map[string]bool
	Admitted   []Admission
	// Settling Pods, by name: they must be remembered before time goes on.
	Settling []string
}

// Story is what happened to one Pod of a workload.
type Story struct {
	Workload world.Ref
	// Life of the newest Pod of that name; nil: there was none yet, only commands.
	Life  *Life
	Steps []*Step
}

// KeptStory is a Story that can be written as JSON.
type KeptStory struct {
	Workload world.Ref
	Life     *Life
	Version  uint64
	Settles  time.Time
	Failure  string
	Restarts int
	Leaving  bool
	Steps    []KeptStep
	// Causes of commands, each once.
	Causes []KeptStep
}

// KeptStep is a Step that can be written as JSON; what a command wrote is left out.
type KeptStep struct {
	Step
	Ours bool `json:"ours,omitempty"`
	// Because are the causes of a command: positions in KeptStory.Causes.
	Because []KeptLink `json:"because,omitempty"`
}

// KeptLink is a cause: its text is that of the step.
type KeptLink struct {
	Role Role
	At   int
}

// keptNews and keptEdits are how many of these an account goes on with.
const keptNews, keptEdits = 1024, 64

// Keep returns what is needed to go on with the account in another process.
func (a *Account) Keep() Kept {
	out := Kept{
		Workload: a.Workload, UID: a.UID, Deleted: a.Deleted, Generation: a.generation, Version: a.seen.Version, JSON: a.seen.JSON,
		Limits: a.Limits[max(0, len(a.Limits)-1):], Edits: keepSteps(a.edits[max(0, len(a.edits)-keptEdits):]), News: keepSteps(a.news[max(0, len(a.news)-keptNews):]),
		Wishes: a.wishes, Creates: a.creates, Admitted: a.admitted,
	}
	for _, life := range a.settling {
		out.Settling = append(out.Settling, life.Name)
	}
	return out
}

// Resume goes on with an account that was kept.
func Resume(kept Kept) *Account {
	a := NewAccount(kept.Workload.Namespace, kept.Workload.Name)
	a.UID, a.Deleted, a.generation, a.Limits, a.seen = kept.UID, kept.Deleted, kept.Generation, kept.Limits, seen{kept.Version, kept.JSON}
	a.admitted = kept.Admitted
	a.edits, a.news = bringSteps(kept.Edits), bringSteps(kept.News)
	for id, why := range kept.Wishes {
		a.wishes[id] = why
	}
	for name := range kept.Creates {
		a.creates[name] = true
	}
	return a
}

// Remember makes the Pod of a story, and its commands that have no outcome yet, part of the account again.
func (a *Account) Remember(story Story) {
	if story.Life != nil {
		a.live(story.Life)
	}
	for _, step := range story.Steps {
		if step.Verb != "" && step.Verb != world.Wake && step.Outcome == "" {
			a.open[step.Sequence] = step
		}
	}
}

func (a *Account) live(life *Life) {
	a.lives[life.UID], a.newest[life.Name] = life, life
	a.Lives = append(a.Lives, life)
	if life.Gone.IsZero() {
		a.named[life.Name] = life
	}
	if !life.settles.IsZero() {
		a.settling = append(a.settling, life)
	}
}

// Take returns the steps that were told since it was called last, and leaves them to the caller: the account has none of
// them any more.
func (a *Account) Take() []*Step {
	steps := a.Steps
	a.Steps = nil
	return steps
}

// Settling says whether time alone changes something about the workload.
func (a *Account) Settling() bool { return len(a.settling) > 0 }

// Keep returns the story in a form that can be written.
func (s Story) Keep() KeptStory {
	kept := KeptStory{Workload: s.Workload, Steps: keepSteps(s.Steps)}
	at := map[*Step]int{}
	for i, step := range s.Steps {
		for _, cause := range step.because {
			if _, known := at[cause.step]; !known {
				at[cause.step] = len(kept.Causes)
				kept.Causes = append(kept.Causes, keepStep(cause.step))
			}
			kept.Steps[i].Because = append(kept.Steps[i].Because, KeptLink{cause.role, at[cause.step]})
		}
	}
	if life := s.Life; life != nil {
		kept.Life, kept.Version, kept.Settles, kept.Failure, kept.Restarts, kept.Leaving = life, life.version, life.settles, life.failure, life.restarts, life.leaving
	}
	return kept
}

// Bring returns the story as it was before it was kept.
func (k KeptStory) Bring() Story {
	if life := k.Life; life != nil {
		life.version, life.settles, life.failure, life.restarts, life.leaving = k.Version, k.Settles, k.Failure, k.Restarts, k.Leaving
	}
	steps, causes := bringSteps(k.Steps), bringSteps(k.Causes)
	for i, step := range k.Steps {
		for _, link := range step.Because {
			steps[i].because = append(steps[i].because, cause{link.Role, causes[link.At]})
		}
	}
	return Story{k.Workload, k.Life, steps}
}

func keepSteps(steps []*Step) []KeptStep {
	out := make([]KeptStep, len(steps))
	for i, step := range steps {
		out[i] = keepStep(step)
	}
	return out
}

func keepStep(step *Step) KeptStep {
	out := KeptStep{Step: *step, Ours: step.Ours}
	out.command, out.because = nil, nil
	return out
}

func bringSteps(kept []KeptStep) []*Step {
	out := make([]*Step, len(kept))
	for i, one := range kept {
		step := one.Step
		step.Ours = one.Ours
		out[i] = &step
	}
	return out
}
