package sim

import (
	"bytes"
	"slices"
	"time"

	"shiplog.dev/internal/world"
)

// freshFor is how old the proof that facts are complete may be for something to be taken down (decide.FreshFacts), and
// proofSlack what may pass between the decision and its coming into the log.
const (
	freshFor   = 15 * time.Second
	proofSlack = time.Second
)

// created checks maxSurge and partition when a Pod has been created.
func (c *checks) created(one *command, set *cloneSet, after *object) {
	if now := c.s.api.objects[c.sets[one.owner]]; now == nil || now.uid != one.owner {
		return // whoever wanted it is gone, and the garbage collector takes it
	}
	active := 0
	for _, o := range c.s.podsOf(one.owner) {
		if o.pod.active() && c.s.api.creator(o) <= one.sequence {
			active++
		}
	}
	if active > set.replicas+set.surge {
		c.s.fail("maxSurge", "%d Pods are active after %s", active, c.why(one, set))
	}
	if after.pod.template == set.template {
		current := c.s.api.revisions[hashOf(set.status.CurrentRevision)]
		if updated := c.updated(one, set); current != "" && current != set.template && updated > set.replicas-set.partition+set.surge {
			c.s.fail("partition", "%d Pods are updated after %s", updated, c.why(one, set))
		}
	}
}

// updated counts the active Pods of the template that was decided for, without those that are being deleted or prepared for it.
func (c *checks) updated(one *command, set *cloneSet) int {
	n := 0
	for _, o := range c.s.podsOf(one.owner) {
		if o.pod.active() && !o.pod.preparingDelete() && o.pod.template == set.template && c.broughtBy(o) <= one.sequence && !c.leaving(o.uid, one.sequence) {
			n++
		}
	}
	return n
}

// broughtBy returns the command that brought a Pod to the template that it has.
func (c *checks) broughtBy(o *object) uint64 {
	command := uint64(0)
	for i, state := range c.s.api.history[o.ref] {
		if history := c.s.api.history[o.ref]; state.uid == o.uid && (i == 0 || history[i-1].uid != o.uid || history[i-1].pod.template != state.pod.template) {
			command = state.by.command
		}
	}
	return command
}

// leaving says whether a command at or before a position deletes the Pod, or prepares that, and was not refused by then.
func (c *checks) leaving(uid string, position uint64) bool {
	for _, one := range c.commands {
		if goes := one.GetDelete() != nil || one.GetReason().GetCode() == "PrepareDelete"; goes && one.sequence <= position && one.GetObject().GetUid() == uid && (one.refused == 0 || one.refused > position) {
			return true
		}
	}
	return false
}

// deleted checks maxUnavailable, and that only those are deleted that were named or are too many.
func (c *checks) deleted(one *command, set *cloneSet, before *object) {
	known, _ := c.known(before.ref, one.entry.GetCause())
	named := set.names(before.pod) || known != nil && known.uid == before.uid && set.names(known.pod) || before.pod.preparingDelete()
	if !named && before.pod.active() {
		// Those named do not count, for they will go, unless what goes is broken and of an old revision.
		broken := known != nil && !known.pod.serves() && known.pod.template != set.template
		left := c.creating(one) + c.count(one, deletes, func(p *pod, _ time.Time) bool { return p.active() && (broken || !set.names(p) && !p.preparingDelete()) })
		if left < set.replicas {
			c.s.fail("deletes too many", "%d Pods are left that nobody named, after %s", left, c.why(one, set))
		}
	}
	if before.pod.serves() {
		if left := c.count(one, takesDown, func(p *pod, _ time.Time) bool { return p.serves() }); left < set.replicas-set.unavailable {
			c.s.fail("maxUnavailable", "%d Pods are available after %s", left, c.why(one, set))
		}
	}
}

// patched checks what an update may do to a Pod, and maxUnavailable.
func (c *checks) patched(one *command, set *cloneSet, before, after *object) {
	code := one.GetReason().GetCode()
	updates := code == "DrainPod" || code == "PrepareUpdate" || code == "UpdateInPlace" || code == "UpdateReCreate"
	if code == "PrepareDelete" {
		c.deleted(one, set, before)
		return
	}
	switch {
	case updates && set.paused:
		c.s.fail("paused", "%s", c.why(one, set))
	case updates && set.kind == "OnDelete":
		c.s.fail("OnDelete", "%s", c.why(one, set))
	case code == "UpdateReCreate" && set.kind == "InPlaceOnly", (code == "UpdateInPlace" || code == "DrainPod") && set.kind == "ReCreate":
		c.s.fail("update type", "%s", c.why(one, set))
	}
	if after.pod.template == set.template && before.pod.template != set.template {
		if updated := c.updated(one, set); updated > set.replicas-set.partition {
			c.s.fail("partition", "%d Pods are updated after %s", updated, c.why(one, set))
		}
	}
	if !updates {
		return
	}
	available := func(p *pod, now time.Time) bool { return p.available(set.minReady, now) }
	// minReadySeconds may have passed since the decision.
	if available(before.pod, one.decided) && !available(after.pod, c.s.now) {
		if left := c.count(one, takesDown, available); left < set.replicas-set.unavailable {
			c.s.fail("maxUnavailable", "%d Pods are available after %s", left, c.why(one, set))
		}
	}
}

// creating counts the Pods that commands before this one are about to create; rules take those as there (decision 2).
func (c *checks) creating(one *command) int {
	n := 0
	for _, other := range c.commands {
		if other.sequence < one.sequence && other.owner == one.owner && other.GetCreate() != nil && !other.done && other.effects == 0 &&
			other.GetObject().GetResource() == world.ResourcePods {
			n++
		}
	}
	return n
}

// count counts the Pods of which something holds as far as could be known: it holds now; or it held in what the log knew
// when the command was decided, or when a command before this one created the Pod. Pods that commands before this one take
// down do not count, whether or not these have had their effect; those of later commands do, for these are judged when their
// turn comes.
func (c *checks) count(one *command, ends func(*command) bool, holds func(*pod, time.Time) bool) int {
	n := 0
	for ref, history := range c.s.api.history {
		if !isPod(ref) {
			continue
		}
		known, version := c.known(ref, one.entry.GetCause())
		if now := c.s.api.objects[ref]; now != nil && now.pod.owner == one.owner && holds(now.pod, c.s.now) {
			if !c.aboutTo(ends, now.uid, one) {
				n++
			}
			continue
		}
		if known == nil {
			known, version = c.createdBefore(one, history)
		}
		if known == nil || known.pod.owner != one.owner || !holds(known.pod, one.decided) || c.aboutTo(ends, known.uid, one) {
			continue
		}
		ours := false
		for _, later := range history {
			if by := c.commands[later.by.command]; by != nil && by.sequence <= one.sequence && later.version > version && later.uid == known.uid {
				ours = ours || ends(by)
			}
		}
		if !ours {
			n++
		}
	}
	return n
}

// createdBefore returns the Pod as the last command before this one that created it did.
func (c *checks) createdBefore(one *command, history []*object) (created *object, version uint64) {
	for _, state := range history {
		if by := c.commands[state.by.command]; by != nil && by.sequence < one.sequence && by.GetCreate() != nil {
			created, version = state, state.version
		}
	}
	return created, version
}

// aboutTo says whether a command before this one is about to do something to a Pod.
func (c *checks) aboutTo(do func(*command) bool, uid string, one *command) bool {
	for _, other := range c.commands {
		if other.sequence < one.sequence && !other.done && other.effects == 0 && other.GetObject().GetUid() == uid && do(other) {
			return true
		}
	}
	return false
}

func deletes(one *command) bool { return one.GetDelete() != nil }

// takesDown says whether a command can make an available Pod unavailable. A patch of its metadata cannot.
func takesDown(one *command) bool {
	if one.GetObject().GetResource() != world.ResourcePods {
		return false
	}
	code := one.GetReason().GetCode()
	return one.GetDelete() != nil || code == "DrainPod" || code == "PrepareUpdate" || code == "PrepareDelete" || code == "UpdateInPlace" && bytes.Contains(one.GetPatch().GetJson(), []byte(`"spec"`))
}

// decidedOnFreshFacts checks that what takes a Pod down was decided on a log that held all that had happened to the
// CloneSet and its Pods until a while before.
func (c *checks) decidedOnFreshFacts(one *command) {
	if !takesDown(one) {
		return
	}
	horizon := one.decidedAt.Add(-freshFor - proofSlack)
	for ref, history := range c.s.api.history {
		if ref != c.sets[one.owner] && !isPod(ref) {
			continue
		}
		due := uint64(0)
		for _, o := range history {
			if o.at.Before(horizon) && (o.uid == one.owner || o.pod != nil && o.pod.owner == one.owner) {
				due = o.version
			}
		}
		if _, version := c.known(ref, one.entry.GetCause()); version < due {
			c.s.fail("stale facts", "%s had version %d before %s, the log knew %d, when at %d was decided: %s", ref, due,
				horizon.Format(time.TimeOnly), version, one.entry.GetCause(), narrateCommand(one))
		}
	}
}

// marked says whether a command before this one marks the Pod for replacement; it counts as named for deletion from then on.
func (c *checks) marked(uid string, one *command) bool {
	for _, other := range c.commands {
		if other.sequence < one.sequence && (other.refused == 0 || other.refused > one.sequence) && other.GetObject().GetUid() == uid && other.GetReason().GetCode() == "UpdateReCreate" {
			return true
		}
	}
	return false
}

// withinScaleLimit checks scaleStrategy.maxUnavailable when Pods are to be created, by what the log knew.
func (c *checks) withinScaleLimit(one *command) {
	if one.GetCreate() == nil || one.GetObject().GetResource() != world.ResourcePods {
		return
	}
	set := c.setAt(one)
	if set == nil {
		return
	}
	unavailable := 0
	for ref := range c.s.api.history {
		if !isPod(ref) {
			continue
		}
		if known, _ := c.known(ref, one.entry.GetCause()); known != nil && known.pod.owner == one.owner && known.pod.active() &&
			!set.names(known.pod) && !known.pod.available(set.minReady, one.decided) && !c.leaving(known.uid, one.sequence) && !c.marked(known.uid, one) {
			unavailable++
		}
	}
	for _, other := range c.commands {
		known, version := c.known(world.RefOf(other.GetObject()), one.entry.GetCause())
		if other.GetCreate() != nil && other.GetObject().GetResource() == world.ResourcePods && other.owner == one.owner &&
			!other.done && known == nil && version == 0 && !slices.Contains(set.podsToDelete, other.GetObject().GetName()) {
			unavailable++
		}
	}
	if unavailable > set.scaleUnavailable {
		c.s.fail("scaleStrategy.maxUnavailable", "%d Pods are not available, %d may be, after %s", unavailable, set.scaleUnavailable, c.why(one, set))
	}
}
