// Package replay holds a log against the rules: that folding it and deciding where the planner decided gives the commands that
// it holds, that it keeps the invariants of a log, and how other rules would have decided. It reads entries that its caller
// shows it, and writes nothing.
package replay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/narrate"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
	"shiplog.dev/services/planner/rollout"
	"shiplog.dev/services/planner/rules"
)

// Difference is a place at which the rules do not decide what the log holds.
type Difference struct {
	// Sequence of the command in the log; 0: the log has none.
	Sequence uint64 `json:"sequence,omitempty"`
	// Cause is the position that was decided at, Time its time.
	Cause    uint64    `json:"cause"`
	Time     time.Time `json:"time"`
	Workload string    `json:"workload"`
	// Recorded and Decided are the commands of both sides, as sentences; empty: there is none.
	Recorded string `json:"recorded,omitempty"`
	Decided  string `json:"decided,omitempty"`
	// Details are the lines in which the two differ, "-" before what the log has and "+" before what the rules say.
	Details []string `json:"details,omitempty"`
}

// Error words a difference, both sides shown.
func (d *Difference) Error() string {
	side := func(what string) string {
		if what == "" {
			return "nothing"
		}
		return what
	}
	at := fmt.Sprintf("at position %d (%s), for %s", d.Cause, d.Time.UTC().Format(time.RFC3339Nano), d.Workload)
	text := fmt.Sprintf("%s the log and the rules differ:\n  recorded  %s", at, side(d.Recorded))
	if d.Sequence != 0 {
		text += fmt.Sprintf(" (%d)", d.Sequence)
	}
	text += "\n  decided   " + side(d.Decided)
	for _, line := range d.Details {
		text += "\n    " + line
	}
	return text
}

// decided is what the rules answer at a position, less what the log has been seen to hold of it.
type decided struct {
	cause    uint64
	time     time.Time
	fence    uint64
	workload string
	rollout  string
	left     []*shiplogv1.Command
}

// Causes are the positions at which commands were decided, and for which workloads, with the position of the last one. It is collected in a first pass, because
// a command stands behind the position at which it was decided.
type Causes map[uint64]map[types.UID]uint64

// Note takes an entry of the first pass.
func (c Causes) Note(record journal.Record) {
	if record.Entry.GetCommand() == nil {
		return
	}
	cause := record.Entry.GetCause()
	if c[cause] == nil {
		c[cause] = map[types.UID]uint64{}
	}
	c[cause][world.WorkloadOf(record.Entry.GetRollout())] = record.Sequence
}

// Replay folds a log, decides at every position at which commands of it were decided, and tells its rollout events again.
type Replay struct {
	World *world.World
	// Proven counts the commands that the rules decided again, Skipped those that were decided before the log is exact.
	Proven, Skipped int

	telling
	causes    Causes
	exactFrom uint64
	pending   map[types.UID]*decided
}

// New returns a replay. exactFrom is the position from which on folding gives the world as it was.
func New(causes Causes, exactFrom uint64) *Replay {
	return &Replay{World: world.New(), telling: telling{tracker: rollout.New()}, causes: causes, exactFrom: exactFrom, pending: map[types.UID]*decided{}}
}

// Show takes the next entry, what counted before the log's first included. A *Difference is the error that the rules decide
// otherwise; other errors mean that the entry cannot be understood. After any of them the replay is over.
func (r *Replay) Show(record journal.Record) error {
	change, err := world.Decode(record.Sequence, record.Time, record.Entry)
	if err != nil {
		return err
	}
	if record.Entry.GetCommand() != nil {
		if err := r.compare(record); err != nil {
			return err
		}
	}
	if record.Entry.GetRolloutEvent() != nil {
		if err := r.telling.compare(record, r.exactFrom); err != nil {
			return err
		}
	}
	r.owe(r.tracker.Fold(r.World, change), r.exactFrom)
	return r.decide(record)
}

// decide lets the rules answer for the workloads that were decided on at this position.
func (r *Replay) decide(record journal.Record) error {
	due := r.causes[record.Sequence]
	if len(due) == 0 || record.Sequence < r.exactFrom {
		return nil
	}
	for _, uid := range slices.Sorted(maps.Keys(due)) {
		ref, known := r.World.Workload(uid)
		if !known || r.World.WorkloadUID(ref) != uid {
			continue
		}
		if err := r.complete(uid); err != nil {
			return err
		}
		if !r.World.Trusted(ref) {
			continue // nothing may be decided: whatever the log has is a difference
		}
		decision, err := Decide(r.World, ref)
		if err != nil {
			return err
		}
		r.pending[uid] = &decided{record.Sequence, record.Time, r.World.Fence(), ref.String(), decision.Rollout, decision.Commands}
	}
	return nil
}

// Decide lets the rules answer; a rule that breaks is an error.
func Decide(w *world.World, ref world.Ref) (decision decide.Decision, err error) {
	defer func() {
		if broken := recover(); broken != nil {
			err = fmt.Errorf("decide on %s at position %d: %v", ref, w.Sequence(), broken)
		}
	}()
	return rules.Decide(w, ref), nil
}

// Explain is Decide and says besides what the rules hold back.
func Explain(w *world.World, ref world.Ref) (decision decide.Decision, err error) {
	defer func() {
		if broken := recover(); broken != nil {
			err = fmt.Errorf("ask the rules about %s at position %d: %v", ref, w.Sequence(), broken)
		}
	}()
	return rules.Explain(w, ref), nil
}

// compare holds a command of the log against what was decided at its cause.
func (r *Replay) compare(record journal.Record) error {
	command, cause := record.Entry.GetCommand(), record.Entry.GetCause()
	if cause < r.exactFrom || r.World.Sequence() < r.exactFrom {
		r.Skipped++
		return nil
	}
	uid := world.WorkloadOf(record.Entry.GetRollout())
	at := r.pending[uid]
	if at == nil || at.cause != cause || len(at.left) == 0 {
		difference := &Difference{Sequence: record.Sequence, Cause: cause, Time: record.Time, Workload: record.Entry.GetRollout(), Recorded: narrate.Command(command)}
		if at != nil {
			difference.Workload = at.workload
		}
		return difference
	}
	next := at.left[0]
	at.left = at.left[1:]
	next.Index = command.GetIndex()
	if details := differences(command, next); len(details) > 0 || at.rollout != record.Entry.GetRollout() {
		return &Difference{record.Sequence, cause, at.time, at.workload, narrate.Command(command), narrate.Command(next), details}
	}
	r.Proven++
	return nil
}

// complete says whether the log holds everything that was decided at the last position. A planner that lost its fence did not
// get to append the rest.
func (r *Replay) complete(uid types.UID) error {
	at := r.pending[uid]
	if at == nil || len(at.left) == 0 || r.World.Fence() != at.fence {
		return nil
	}
	return &Difference{Cause: at.cause, Time: at.time, Workload: at.workload, Decided: narrate.Command(at.left[0])}
}

// End takes note that the log ends here. Commands that were decided at the last position may be missing: the log may have been
// cut between them.
func (r *Replay) End() error {
	for _, uid := range sorted(r.pending) {
		if at := r.pending[uid]; at.cause+uint64(len(at.left)) < r.World.Sequence() {
			if err := r.complete(uid); err != nil {
				return err
			}
		}
	}
	return nil
}

func sorted(pending map[types.UID]*decided) []types.UID {
	var out []types.UID
	for uid := range pending {
		out = append(out, uid)
	}
	slices.Sort(out)
	return out
}

// differences are the lines in which two commands differ; none if they mean the same. JSON is compared by what it says, for
// redaction writes it anew.
func differences(recorded, decided *shiplogv1.Command) []string {
	if proto.Equal(recorded, decided) {
		return nil
	}
	return unequal(lines(recorded), lines(decided))
}

// unequal are the lines in which two sides differ; none if they are the same.
func unequal(left, right []string) []string {
	if slices.Equal(left, right) {
		return nil
	}
	var out []string
	for _, line := range left {
		if !slices.Contains(right, line) {
			out = append(out, "- "+line)
		}
	}
	for _, line := range right {
		if !slices.Contains(left, line) {
			out = append(out, "+ "+line)
		}
	}
	if len(out) == 0 {
		out = append(out, "the same lines stand in another order")
	}
	const most = 40
	if len(out) > most {
		out = append(out[:most], fmt.Sprintf("and %d more lines", len(out)-most))
	}
	return out
}

// lines writes a command so that two of them can be compared.
func lines(command *shiplogv1.Command) []string {
	rest := proto.CloneOf(command)
	var object []byte
	switch effect := rest.GetEffect().(type) {
	case *shiplogv1.Command_Create:
		object, effect.Create.Json = effect.Create.GetJson(), nil
	case *shiplogv1.Command_Patch:
		object, effect.Patch.Json = effect.Patch.GetJson(), nil
	}
	ref := rest.GetObject()
	out := []string{
		narrate.Command(rest), fmt.Sprintf("uid %q version %q attempt %d", ref.GetUid(), rest.GetResourceVersion(), rest.GetAttempt()),
	}
	if wish := rest.GetWakeAt(); wish != nil {
		out = append(out, fmt.Sprintf("tick %s at %s", wish.GetId(), wish.GetDue().AsTime().Format(time.RFC3339Nano)))
	}
	if patch := rest.GetPatch(); patch != nil {
		out = append(out, fmt.Sprintf("%s of %q", patch.GetType(), patch.GetSubresource()))
	}
	if len(object) == 0 {
		return out
	}
	return append(out, jsonLines(object)...)
}

// jsonLines writes JSON line by line, by what it says.
func jsonLines(object []byte) []string {
	decoder := json.NewDecoder(bytes.NewReader(object))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return []string{string(object)}
	}
	pretty, _ := json.MarshalIndent(tree, "", "  ")
	// Equal lines at different places of the tree must not pass for one another, so each carries where it stands.
	return located(string(pretty))
}

// located puts before each line of indented JSON the keys that lead to it.
func located(pretty string) []string {
	var out, keys []string
	for line := range strings.SplitSeq(pretty, "\n") {
		text := strings.TrimLeft(line, " ")
		depth := (len(line) - len(text)) / 2
		keys = keys[:min(depth, len(keys))]
		key, rest, has := strings.Cut(strings.TrimSuffix(text, ","), ": ")
		if !has || !strings.HasPrefix(key, `"`) {
			key, rest = "", strings.TrimSuffix(text, ",")
		}
		keys = append(keys, strings.Trim(key, `"`))
		if rest != "{" && rest != "[" && rest != "}" && rest != "]" {
			out = append(out, strings.Join(keys[1:], ".")+": "+rest)
		}
	}
	return out
}
