package sim

import (
	"bytes"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/narrate"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide/cloneset"
	"shiplog.dev/services/planner/rollout"
)

func narrateCommand(one *command) string { return narrate.Command(one.Command) }

// settled checks, at the end, that everything is as the specs say, that the status tells the truth, and that nothing is
// commanded any more.
func (c *checks) settled() {
	if quiet := c.s.now.Sub(c.quietAt); quiet < quietFor {
		last := c.records[len(c.records)-1]
		for i := len(c.records) - 1; i >= 0 && c.records[i].Entry.GetCommand() == nil; i-- {
			last = c.records[i-1]
		}
		c.s.fail("silence", "the last command came %s before the end: %d %s", quiet, last.Sequence, narrate.Entry(last.Entry))
		return
	}
	for _, o := range c.s.cloneSets() {
		c.settledSet(o)
	}
	for _, o := range c.s.api.list(isPod) {
		if _, exists := c.s.api.objects[c.sets[o.pod.owner]]; !exists {
			c.s.fail("settled", "Pod %s has lost its owner", o.ref.Name)
		}
	}
}

func (c *checks) settledSet(o *object) {
	set, want := o.set, o.set.status
	var got statusView
	wrong := func(what string, args ...any) { c.s.fail("settled", "%s: %s", set.name, fmt.Sprintf(what, args...)) }
	for _, pod := range c.s.podsOf(o.uid) {
		p := pod.pod
		switch {
		case p.terminating:
			wrong("Pod %s does not end", p.name)
		case !p.active():
			continue
		case !p.available(set.minReady, c.s.now):
			wrong("Pod %s is not available%s", p.name, describe(pod))
		case set.names(p):
			wrong("Pod %s is named for deletion and is there", p.name)
		}
		for _, claim := range p.claims {
			if held := c.s.api.objects[claimRef(claim)]; held == nil || ownerOf(held) != o.uid {
				wrong("claim %s of Pod %s is not there, or not the CloneSet's", claim, p.name)
			}
		}
		got.Replicas++
		if p.template == set.template {
			got.UpdatedReplicas++
		}
	}
	if got.Replicas != set.replicas {
		wrong("%d Pods of %d", got.Replicas, set.replicas)
	}
	if expected := set.replicas - set.partition; set.kind != "OnDelete" && got.UpdatedReplicas < expected {
		wrong("%d Pods are updated, expected %d", got.UpdatedReplicas, expected)
	}
	if len(set.podsToDelete) > 0 {
		wrong("podsToDelete still names %v", set.podsToDelete)
	}
	got.ObservedGeneration, got.ExpectedUpdatedReplicas = set.generation, set.replicas-set.partition
	got.ReadyReplicas, got.AvailableReplicas = got.Replicas, got.Replicas
	got.UpdatedReadyReplicas, got.UpdatedAvailableReplicas = got.UpdatedReplicas, got.UpdatedReplicas
	conditions := want.Conditions
	got.UpdateRevision, got.CurrentRevision, want.Conditions = want.UpdateRevision, want.CurrentRevision, nil
	if got.UpdatedReplicas == set.replicas {
		got.CurrentRevision = got.UpdateRevision
	}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		wrong("the status is %+v, the truth is %+v", want, got)
	}
	for _, condition := range conditions {
		if slices.Contains([]string{"FailedScale", "FailedUpdate", "Stalled", "Reconciling"}, condition.Type) {
			wrong("condition %s is %s: %s", condition.Type, condition.Status, condition.Message)
		}
	}
	revisions := 0
	for _, revision := range c.s.api.list(func(ref world.Ref) bool { return ref.Resource == world.ResourceRevisions }) {
		if ownerOf(revision) == o.uid {
			revisions++
		}
	}
	if carried := c.revisionsCarried(o); revisions > carried+set.historyLimit {
		wrong("%d revisions, %d are used and %d may be kept", revisions, carried, set.historyLimit)
	}
}

// revisionsCarried counts the revisions in use.
func (c *checks) revisionsCarried(o *object) int {
	used := map[string]bool{o.set.status.UpdateRevision: true, o.set.status.CurrentRevision: true}
	for _, pod := range c.s.podsOf(o.uid) {
		used[pod.pod.labels[revisionLabel]] = true
	}
	hashes := map[string]bool{}
	for name := range used {
		hashes[hashOf(name)] = true
	}
	return len(hashes)
}

// replays folds the log again, decides at the cause of every command, and compares; compares the rollout events that follow with
// those that the log holds; and folds the live entries alone.
func (c *checks) replays() {
	w, tracker := world.New(), rollout.New()
	var told []*shiplogv1.Entry
	changes := make([]world.Change, len(c.records))
	recorded := map[uint64]map[string]*answer{} // by cause and workload
	open := map[string]*answer{}                // the last for each workload
	for i, record := range c.records {
		change, err := world.Decode(record.Sequence, record.Time, record.Entry)
		if err != nil {
			c.s.fail("replay", "%v", err)
			return
		}
		changes[i] = change
		if record.Entry.GetFenceRaised() != nil {
			for _, last := range open {
				last.cut = true
			}
		}
		command, rollout := record.Entry.GetCommand(), record.Entry.GetRollout()
		if command == nil {
			continue
		}
		at := recorded[record.Entry.GetCause()]
		if at == nil {
			at = map[string]*answer{}
			recorded[record.Entry.GetCause()] = at
		}
		if at[rollout] == nil {
			at[rollout] = &answer{}
		}
		at[rollout].commands = append(at[rollout].commands, command)
		open[rollout] = at[rollout]
	}
	every := max(len(changes)/8, 1)
	for i, change := range changes {
		for _, event := range tracker.Fold(w, change) {
			told = append(told, event.Entry())
		}
		c.decidesAgain(w, recorded[change.Sequence])
		if i%every == every-1 || i == len(changes)-1 {
			c.foldsFromLive(w, tracker)
		}
		if c.s.failure != nil {
			return
		}
	}
	c.tells(told)
}

// tells compares the rollout events of the log with those that follow from folding it: the same, in order, each once and none
// forgotten.
func (c *checks) tells(want []*shiplogv1.Entry) {
	for _, record := range c.records {
		if record.Entry.GetRolloutEvent() == nil {
			continue
		}
		got := proto.Clone(record.Entry).(*shiplogv1.Entry)
		got.Writer, got.WriterVersion = "", ""
		if len(want) == 0 || !proto.Equal(got, want[0]) {
			c.s.fail("rollout events", "entry %d is %v, what follows from the log is %v", record.Sequence, got, want[:min(len(want), 1)])
			return
		}
		want = want[1:]
	}
	if len(want) > 0 {
		c.s.fail("rollout events", "%d events are missing in the log, the first is %v", len(want), want[0])
	}
}

// answer is what the log holds of what was decided for one rollout at one position. It is cut if a fence stands behind it: then
// the end may have got lost.
type answer struct {
	commands []*shiplogv1.Command
	cut      bool
}

func (c *checks) decidesAgain(w *world.World, recorded map[string]*answer) {
	if len(recorded) == 0 {
		return
	}
	for _, ref := range w.Workloads() {
		decision := cloneset.Decide(w, ref)
		held, decided := recorded[decision.Rollout]
		if !decided {
			continue
		}
		delete(recorded, decision.Rollout)
		commands := decision.Commands
		if held.cut && len(held.commands) < len(commands) {
			commands = commands[:len(held.commands)]
		}
		if len(held.commands) != len(commands) {
			c.s.fail("replay", "at %d %d commands were given, replay gives %d", w.Sequence(), len(held.commands), len(commands))
			return
		}
		for i, command := range commands {
			command.Index = held.commands[i].GetIndex()
			again, _ := proto.MarshalOptions{Deterministic: true}.Marshal(command)
			before, _ := proto.MarshalOptions{Deterministic: true}.Marshal(held.commands[i])
			if !bytes.Equal(again, before) {
				c.s.fail("replay", "at %d was commanded %s, replay gives %s", w.Sequence(), narrate.Command(held.commands[i]), narrate.Command(command))
				return
			}
		}
	}
	for rollout := range recorded {
		c.s.fail("replay", "at %d something was commanded for %s, replay commands nothing", w.Sequence(), rollout)
	}
}

// foldsFromLive folds the live entries alone, as one does who begins with a compacted view, and compares.
func (c *checks) foldsFromLive(w *world.World, tracker *rollout.Tracker) {
	again, fresh := world.New(), rollout.New()
	live := w.Live()
	if tracker.Settled() {
		live = append(live, tracker.Live()...)
		slices.Sort(live)
		live = slices.Compact(live)
	}
	for _, sequence := range live {
		record := c.records[sequence-1]
		// Worlds share what they decode, so each needs a decoding of its own.
		change, err := world.Decode(record.Sequence, record.Time, record.Entry)
		if err != nil {
			c.s.fail("replay", "%v", err)
			return
		}
		fresh.Fold(again, change)
	}
	if want, got := w.Describe(), again.Describe(); want != got {
		c.s.fail("live entries", "at %d the live entries give another world:\n%s", w.Sequence(), difference(want, got))
	}
	if want, got := tracker.Describe(), fresh.Describe(); tracker.Settled() && want != got {
		c.s.fail("live entries", "at %d the live entries give another memory of rollouts:\n%s", w.Sequence(), difference(want, got))
	}
}

// difference shows the lines in which two texts differ.
func difference(want, got string) string {
	var out bytes.Buffer
	left, right := bytes.Split([]byte(want), []byte("\n")), bytes.Split([]byte(got), []byte("\n"))
	for _, line := range left {
		if !slices.ContainsFunc(right, func(other []byte) bool { return bytes.Equal(line, other) }) {
			fmt.Fprintf(&out, "- %s\n", line)
		}
	}
	for _, line := range right {
		if !slices.ContainsFunc(left, func(other []byte) bool { return bytes.Equal(line, other) }) {
			fmt.Fprintf(&out, "+ %s\n", line)
		}
	}
	return out.String()
}
