package narrate

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
	"shiplog.dev/services/planner/decide/cloneset"
)

// Chain is one thing that happened to a Pod, from its cause to its effect.
type Chain struct {
	// Title says what happened, for example "Updated in place".
	Title string `json:"title"`
	Links []Link `json:"links"`

	settled bool
	act     *Step // the newest write
}

// Role is what a link is in its chain.
type Role string

// Roles, in the order in which they follow each other.
const (
	Asked    Role = "asked"    // what somebody wants, and who
	After    Role = "after"    // what the decision waited for, or was provoked by
	Decided  Role = "decided"  // the rule that fired, with its numbers
	Wrote    Role = "wrote"    // the API write, and its outcome
	Then     Role = "then"     // what the Pod did
	Happened Role = "happened" // something that Shiplog had no part in
)

// Link is one cause or effect. It names the step of the account that tells it.
type Link struct {
	Role Role   `json:"role"`
	Text string `json:"text"`
	Step
}

// titles of what a command of a code does to a Pod; others are named by their verb.
var titles = map[string]string{
	cloneset.DrainPod: "Drained", cloneset.PrepareUpdate: "Prepared for its update", cloneset.UpdateInPlace: "Updated in place", cloneset.NextBatch: "Updated further",
	cloneset.ResizePod: "Resized", cloneset.UpdateReCreate: "Marked for replacement", cloneset.KeepPod: "Kept after all", cloneset.PrepareDelete: "Prepared for its deletion",
	cloneset.CancelDelete: "Deletion taken back", cloneset.RefreshPod: "Brought back to normal", cloneset.ReleasePod: "Released",
}

func titleOf(step *Step) string {
	switch {
	case step.Verb == world.Create:
		return "Created"
	case step.Verb == world.Delete:
		return "Deleted"
	case titles[step.Code] != "":
		return titles[step.Code]
	}
	return "Changed: " + step.Code
}

// Story returns what happened to a Pod of the workload.
func (a *Account) Story(pod string) Story {
	story := Story{Workload: a.Workload, Life: a.Find(pod)}
	for _, step := range a.Steps {
		if step.Pod == pod {
			story.Steps = append(story.Steps, step)
		}
	}
	return story
}

// Chains tells what happened to a Pod, from the steps of its story: a chain of causes for each thing, in order.
func Chains(steps []*Step) []Chain {
	var chains []Chain
	var written *Step // the newest write to the Pod
	for _, step := range steps {
		last := len(chains) - 1
		open := last >= 0 && !chains[last].settled
		switch {
		case step.Verb != "":
			if !open || !step.continues(chains[last].act) {
				chains = append(chains, Chain{Title: titleOf(step), Links: step.links()})
				last++
			} else if slices.Contains(prepares, chains[last].act.Code) {
				chains[last].Title = titleOf(step)
			}
			chain := &chains[last]
			chain.Links = append(chain.Links, Link{Decided, step.Code + ": " + step.Why, *step}, Link{Wrote, wrote(step), *step})
			chain.act, chain.settled, written = step, false, step
		case last >= 0 && (step.Ours || step.State == "" || open && step.State != Terminating || step.State == Ready):
			chains[last].Links = append(chains[last].Links, Link{Then, step.What, *step})
		default:
			chain := Chain{Title: happened(step)}
			if written != nil && step.State != Terminating && step.Time.Sub(written.Time) < recently {
				chain.Links = append(chain.Links, Link{After, fmt.Sprintf("%s (%s), %s before", written.What, written.Code, Duration(step.Time.Sub(written.Time))), *written})
			}
			chain.Links = append(chain.Links, Link{Happened, step.What, *step})
			chains = append(chains, chain)
			last++
		}
		if step.State == Ready || step.State == Settling {
			chains[last].settled = true
		}
	}
	return chains
}

// recently is how long after a write to a Pod the write is named where the Pod fails.
const recently = 10 * time.Minute

// prepares are the writes after which the next write to the Pod, whatever it is, belongs to the same chain; goesOn those that
// belong to the chain of the write before them.
var (
	prepares = []string{cloneset.DrainPod, cloneset.PrepareUpdate, cloneset.PrepareDelete}
	goesOn   = []string{cloneset.RefreshPod, cloneset.NextBatch, cloneset.ResizePod}
)

// continues says whether a write belongs to the chain of the one before it.
func (s *Step) continues(before *Step) bool {
	return before != nil && before.Verb != world.Delete && (slices.Contains(goesOn, s.Code) || slices.Contains(prepares, before.Code))
}

// At is when what the chain tells was decided, or happened.
func (c *Chain) At() time.Time {
	for _, link := range c.Links {
		if link.Role == Decided || link.Role == Happened {
			return link.Time
		}
	}
	return c.Links[0].Time
}

func happened(step *Step) string {
	switch step.State {
	case Terminating:
		return "Deleted, not by Shiplog"
	case Failing:
		return "Failed by itself"
	case NotReady:
		return "Stopped being ready by itself"
	case Ready, Settling:
		return "Became ready by itself"
	case Starting:
		return "Appeared, not by Shiplog"
	}
	return "Changed by itself"
}

func wrote(step *Step) string {
	outcome := step.Outcome
	if outcome == "" {
		outcome = "no outcome yet"
	}
	return step.What + ": " + outcome
}

// causes are what led to a decision: the edit that it serves, and what happened last before it.
func (a *Account) causes(step *Step) []cause {
	var out []cause
	asked := uint64(0)
	for _, edit := range slices.Backward(a.edits) {
		if edit.Sequence <= step.Cause {
			asked = edit.Sequence
			out = append(out, cause{Asked, edit})
			break
		}
	}
	for k, before := range slices.Backward(a.news) {
		if before.Sequence <= asked {
			break
		}
		// A tick that made a Pod available says less than the Pod.
		if before.Sequence <= step.Cause && (!before.Tick || k == 0 || a.news[k-1].Sequence != before.Sequence) {
			out = append(out, cause{After, before})
			break
		}
	}
	return out
}

func (s *Step) links() []Link {
	var out []Link
	for _, cause := range s.because {
		out = append(out, Link{cause.role, cause.step.What, *cause.step})
	}
	return out
}

// Find returns the life of a Pod, the newest of that name; nil: the account knows none.
func (a *Account) Find(pod string) *Life { return a.newest[pod] }

// Asked returns the newest edit that was not ours; nil: the account has none.
func (a *Account) Asked() *Step {
	if len(a.edits) == 0 {
		return nil
	}
	return a.edits[len(a.edits)-1]
}

// Open returns the commands that have no outcome, wishes left out.
func (a *Account) Open() []*Step {
	var out []*Step
	for _, step := range a.Steps {
		if step.Verb != "" && step.Verb != world.Wake && step.Outcome == "" {
			out = append(out, step)
		}
	}
	return out
}

// Unwell returns the Pods that are there and not available, in the order in which they came.
func (a *Account) Unwell() []*Life {
	var out []*Life
	for _, life := range a.Lives {
		if life.Gone.IsZero() && life.Now().State != Ready {
			out = append(out, life)
		}
	}
	return out
}

// Merge joins holds that differ only in their Pods and times, so that a hundred Pods that wait for the same are one line.
// Until becomes the latest.
func Merge(held []decide.Hold) []decide.Hold {
	var out []decide.Hold
	for _, one := range held {
		same := func(other decide.Hold) bool {
			return other.Code == one.Code && other.Release == one.Release && other.Message == one.Message
		}
		at := slices.IndexFunc(out, same)
		if at < 0 {
			one.Pods, one.By = slices.Clone(one.Pods), slices.Clone(one.By)
			out = append(out, one)
			continue
		}
		joined := &out[at]
		joined.Pods = joinNames(joined.Pods, one.Pods)
		joined.By = joinNames(joined.By, one.By)
		if one.Until != nil && (joined.Until == nil || one.Until.After(*joined.Until)) {
			joined.Until = one.Until
		}
	}
	return out
}

func joinNames(a, b []string) []string {
	for _, name := range b {
		if !slices.Contains(a, name) {
			a = append(a, name)
		}
	}
	return a
}

// Names words a list of names, the first few of a long one.
func Names(names []string) string {
	const most = 5
	if len(names) <= most+1 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
