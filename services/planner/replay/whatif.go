package replay

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/narrate"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide/cloneset"
)

// Step is what the rules answer to the world at one position, for one workload. As one line of JSON it is the protocol between
// programs: shiplog decide prints one for each position at which something about a workload changed and the rules command
// something, in order, and another version of the program prints its own (docs/log.md).
type Step struct {
	Position uint64    `json:"position"`
	Time     time.Time `json:"time"`
	// Workload as "NAMESPACE/NAME"; one that is no CloneSet with its resource in front.
	Workload string `json:"workload"`
	// Available Pods, and how many of the Wanted ones may be unavailable.
	Available      int      `json:"available"`
	Wanted         int      `json:"wanted"`
	MaxUnavailable int      `json:"maxUnavailable"`
	Actions        []Action `json:"actions"`
}

// Action is one command of a step, wishes for ticks left out.
type Action struct {
	Verb   world.Verb `json:"verb"`
	Object string     `json:"object"`
	Code   string     `json:"reason"`
	Why    string     `json:"why"`
	Effect string     `json:"effect"`
	// Content is a digest of what is written.
	Content string `json:"content"`
	// TakesDown names the Pod that served and that this takes down; empty: it takes none down.
	TakesDown string `json:"takesDown,omitempty"`
}

// Decisions folds a log and decides at every position at which something about a workload changed, whether or not a planner
// did so at the time, but not between a decision of the log and the last of its commands: what a planner commands it folds before it
// decides again. gates replace those that fences of the log name; nil: they stay. A recorded log goes on as it was
// recorded: a decision that differs has no consequences in what follows.
type Decisions struct {
	World *world.World

	causes    Causes
	folded    map[types.UID]uint64
	gates     map[string]bool
	exactFrom uint64
	first     uint64
	dirty     map[world.Ref]bool
	said      map[world.Ref]string
}

// NewDecisions returns a fold that decides. Positions before first, and before exactFrom, are only folded.
func NewDecisions(causes Causes, first, exactFrom uint64, gates map[string]bool) *Decisions {
	return &Decisions{World: world.New(), causes: causes, folded: map[types.UID]uint64{}, gates: gates, first: first, exactFrom: exactFrom, dirty: map[world.Ref]bool{}, said: map[world.Ref]string{}}
}

// Show takes the next entry and returns the steps that differ from the last ones of their workloads, by workload.
func (d *Decisions) Show(record journal.Record) ([]Step, error) {
	if fence := record.Entry.GetFenceRaised(); fence != nil && d.gates != nil {
		gates := maps.Clone(fence.GetGates())
		if gates == nil {
			gates = map[string]bool{}
		}
		maps.Copy(gates, d.gates)
		record.Entry = &shiplogv1.Entry{Writer: record.Entry.GetWriter(), Kind: &shiplogv1.Entry_FenceRaised{FenceRaised: &shiplogv1.FenceRaised{Gates: gates}}}
	}
	change, err := world.Decode(record.Sequence, record.Time, record.Entry)
	if err != nil {
		return nil, err
	}
	d.World.Fold(change)
	defer func() {
		for uid, last := range d.causes[record.Sequence] {
			d.folded[uid] = max(d.folded[uid], last)
		}
	}()
	for _, ref := range d.World.Touched() {
		d.dirty[ref] = true
	}
	if record.Sequence < d.first || record.Sequence < d.exactFrom || d.World.Fence() == 0 {
		return nil, nil
	}
	if record.Entry.GetVouched() != nil {
		for _, ref := range d.World.Workloads() {
			d.dirty[ref] = true // what waited for fresh facts
		}
	}
	var out []Step
	for _, ref := range slices.SortedFunc(maps.Keys(d.dirty), world.CompareRefs) {
		if record.Sequence < d.folded[d.World.WorkloadUID(ref)] || !d.World.Trusted(ref) {
			continue
		}
		delete(d.dirty, ref)
		step, err := d.decide(ref, record)
		if err != nil {
			return nil, err
		}
		if step == nil {
			delete(d.said, ref)
			continue
		}
		said, err := json.Marshal(step.Actions)
		if err != nil {
			return nil, err
		}
		if string(said) == d.said[ref] {
			continue
		}
		d.said[ref] = string(said)
		out = append(out, *step)
	}
	return out, nil
}

func (d *Decisions) decide(ref world.Ref, record journal.Record) (*Step, error) {
	if d.World.WorkloadUID(ref) == "" {
		return nil, nil
	}
	decision, err := Decide(d.World, ref)
	if err != nil {
		return nil, err
	}
	step := &Step{Position: record.Sequence, Time: record.Time, Workload: ref.String()}
	serving := map[types.UID]string{}
	if set := d.World.CloneSet(ref); set != nil {
		step.Workload = ref.Namespace + "/" + ref.Name
		limits, _ := cloneset.LimitsOf(set)
		step.Wanted, step.MaxUnavailable = limits.Replicas, limits.MaxUnavailable
		for _, pod := range d.World.PodsOf(set.UID) {
			if serves(pod, limits.MinReadySeconds, d.World.Now()) {
				serving[pod.UID] = pod.Name
			}
		}
		step.Available = len(serving)
	}
	for _, command := range decision.Commands {
		if command.GetWakeAt() != nil {
			continue
		}
		action := Action{Object: world.RefOf(command.GetObject()).String(), Content: contentOf(command), Code: command.GetReason().GetCode(), Why: command.GetReason().GetMessage(), Effect: narrate.Effect(command)}
		switch {
		case command.GetCreate() != nil:
			action.Verb = world.Create
		case command.GetDelete() != nil:
			action.Verb = world.Delete
		default:
			action.Verb = world.Patch
		}
		if down(command) {
			action.TakesDown = serving[types.UID(command.GetObject().GetUid())]
		}
		step.Actions = append(step.Actions, action)
	}
	if len(step.Actions) == 0 {
		return nil, nil
	}
	return step, nil
}

// contentOf is a digest of what a command writes.
func contentOf(command *shiplogv1.Command) string {
	sum := sha256.Sum256([]byte(strings.Join(lines(command)[2:], "\n")))
	return hex.EncodeToString(sum[:6])
}

// Deviation is a command that one side gives and the other does not, or gives at another time.
type Deviation struct {
	Workload string `json:"workload"`
	Object   string `json:"object"`
	Verb     string `json:"verb"`
	Code     string `json:"reason"`
	Effect   string `json:"effect"`
	// Recorded and Other are where each side gives it first; absent: it never does.
	Recorded *Given `json:"recorded,omitempty"`
	Other    *Given `json:"other,omitempty"`
}

// Given says where a side gives a command first, and why.
type Given struct {
	Position uint64    `json:"position"`
	Time     time.Time `json:"time"`
	Why      string    `json:"why"`
	Content  string    `json:"content"`
}

// Comparison holds two sides of decisions over the same log against each other.
type Comparison struct {
	// Deviations in the order of where the first side to do so gives the command.
	Deviations []Deviation `json:"deviations"`
	// Lowest is, by workload, what would be left serving right after a step: the fewest, on each side.
	Lowest map[string]*Lowest `json:"lowest"`

	given map[key]*Deviation
}

// Lowest is the fewest Pods that a side's steps leave serving.
type Lowest struct {
	Recorded, Other       int
	RecordedAt, OtherAt   uint64
	hasRecorded, hasOther bool
}

// MarshalJSON leaves out the side that takes nothing down.
func (l *Lowest) MarshalJSON() ([]byte, error) {
	out := map[string]any{}
	if l.hasRecorded {
		out["recorded"], out["recordedAt"] = l.Recorded, l.RecordedAt
	}
	if l.hasOther {
		out["other"], out["otherAt"] = l.Other, l.OtherAt
	}
	return json.Marshal(out)
}

// String words it.
func (l *Lowest) String() string {
	side := func(has bool, n int, at uint64) string {
		if !has {
			return "takes no Pod down"
		}
		return fmt.Sprintf("%d serve after the step at %d", n, at)
	}
	return fmt.Sprintf("recorded: %s; other: %s", side(l.hasRecorded, l.Recorded, l.RecordedAt), side(l.hasOther, l.Other, l.OtherAt))
}

type key struct{ workload, object, verb, code, effect string }

// Compare begins a comparison.
func Compare() *Comparison {
	return &Comparison{Deviations: []Deviation{}, Lowest: map[string]*Lowest{}, given: map[key]*Deviation{}}
}

// Recorded takes the next step of the recorded side.
func (c *Comparison) Recorded(step Step) { c.take(step, false) }

// Other takes the next step of the other side.
func (c *Comparison) Other(step Step) { c.take(step, true) }

func (c *Comparison) take(step Step, other bool) {
	left := step.Available
	for _, action := range step.Actions {
		at := key{step.Workload, action.Object, string(action.Verb), action.Code, action.Effect}
		held := c.given[at]
		if held == nil {
			held = &Deviation{Workload: at.workload, Object: at.object, Verb: at.verb, Code: at.code, Effect: at.effect}
			c.given[at] = held
		}
		given := &Given{step.Position, step.Time, action.Why, action.Content}
		switch {
		case other && held.Other == nil:
			held.Other = given
		case !other && held.Recorded == nil:
			held.Recorded = given
		}
		if action.TakesDown != "" {
			left--
		}
	}
	if left == step.Available {
		return
	}
	lowest := c.Lowest[step.Workload]
	if lowest == nil {
		lowest = &Lowest{}
		c.Lowest[step.Workload] = lowest
	}
	switch {
	case other && (!lowest.hasOther || left < lowest.Other):
		lowest.Other, lowest.OtherAt, lowest.hasOther = left, step.Position, true
	case !other && (!lowest.hasRecorded || left < lowest.Recorded):
		lowest.Recorded, lowest.RecordedAt, lowest.hasRecorded = left, step.Position, true
	}
}

// End keeps what the two sides do not do at the same position, or not with the same content.
func (c *Comparison) End() {
	for _, held := range c.given {
		if held.Recorded == nil || held.Other == nil || held.Recorded.Position != held.Other.Position || held.Recorded.Content != held.Other.Content {
			c.Deviations = append(c.Deviations, *held)
		}
	}
	slices.SortFunc(c.Deviations, func(a, b Deviation) int {
		return cmp.Or(cmp.Compare(a.first(), b.first()), cmp.Compare(a.Workload, b.Workload), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Code, b.Code))
	})
}

func (d *Deviation) first() uint64 {
	switch {
	case d.Recorded == nil:
		return d.Other.Position
	case d.Other == nil:
		return d.Recorded.Position
	}
	return min(d.Recorded.Position, d.Other.Position)
}
