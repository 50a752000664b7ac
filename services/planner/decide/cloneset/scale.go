package cloneset

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"shiplog.dev/api/kruise/apps/v1beta1"
	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
	"shiplog.dev/services/planner/decide/inplace"
	"shiplog.dev/services/planner/decide/podready"
)

// replacedFor is the annotation in which we keep for which revision an update marked a Pod to be replaced (D13).
const replacedFor = "shiplog.dev/replaced-for"

// scale brings the number of Pods to what is wanted (R26) and says whether it commanded anything.
func (r *round) scale() bool {
	r.removeFinished()
	if r.cancelDelete()+r.keepMarked() > 0 {
		return true
	}
	if r.numbers.up > 0 {
		if r.scaleUp() > 0 {
			return true
		}
		// Nothing may be created now; that must not keep deletions waiting (D3).
	}
	before := len(r.commanded)
	r.deletePrepared()
	r.deleteSpecified()
	if len(r.commanded) == before && r.numbers.up == 0 {
		r.scaleDown()
	}
	if len(r.commanded) == before && r.numbers.update == 0 && r.numbers.deleteReady == 0 {
		r.deleteBroken()
	}
	return len(r.commanded) > before
}

// scaleUp creates what is missing within the limit (R27) and returns how many, the one counted that is under way to find out
// whether creating works again.
func (r *round) scaleUp() int {
	n := r.numbers
	limit, why := n.upLimit, "all may be created now"
	if limit < n.up {
		why = fmt.Sprintf("%d may be created now: %d may be unavailable while scaling, %d are", limit, r.spec.scaleUnavailable, n.unavailable)
	}
	if usable := r.ofUsableRevision(n.up, n.upOld); usable < limit {
		limit, why = usable, fmt.Sprintf("%d of the current revision may be created now, the others wait for their revision", usable)
	}
	if back := r.returning(); n.up-back < limit {
		limit, why = n.up-back, fmt.Sprintf("%d come back under their own names once their Pods are gone", back)
	}
	r.heldScaleUp(limit, why)
	if limit <= 0 || !r.mayTry(ScaleUp) {
		return 0
	}
	if r.Refused(ScaleUp) {
		if slices.ContainsFunc(r.pods, func(p pod) bool { return p.UID == "" }) {
			return 1 // it is under way
		}
		limit, why = 1, "one is created to find out whether that works again"
	}
	// Pods under way are in the world already, so what is missing is really missing.
	wanted := fmt.Sprint(r.spec.replicas)
	if n.surge > 0 {
		wanted = fmt.Sprintf("%d and %d to surge", r.spec.replicas, n.surge)
	}
	for i, id := range r.newInstances(limit) {
		before := len(r.Decision.Commands)
		from := r.updateRevision
		if i < n.upOld {
			from = r.currentRevision
		}
		name, claims := r.set.Name+"-"+id, r.claimsOf(from.name)
		r.createClaims(id, claims, "Pod %s is to be created with it", name)
		object := &shiplogv1.ObjectRef{Version: "v1", Resource: world.ResourcePods, Namespace: r.set.Namespace, Name: name}
		create := decide.Create(object, r.newPod(name, id, from, claims),
			decide.Why(ScaleUp, "%d of %s Pods are missing, %s", n.up, wanted, why))
		r.commanded[name] = true
		r.Append(create)
		r.need(from, r.Decision.Commands[before:]...)
	}
	return limit
}

// ofUsableRevision is how many of the missing Pods can be made now: those whose revision the API server has or is about to have.
func (r *round) ofUsableRevision(up, upOld int) int {
	switch {
	case r.updateRevision.usable():
		return up
	case r.currentRevision.usable():
		return upOld
	}
	return 0
}

// newInstances returns n instance ids that no Pod has, in alphabetical order (R29): those first whose claims are free. New ones
// follow from the CloneSet and the position in the log, so deciding again gives the same.
func (r *round) newInstances(n int) []string {
	ids := r.freeInstances()
	ids = ids[:min(n, len(ids))]
	taken := map[string]bool{}
	for _, claim := range r.World.ClaimsOf(r.set.UID) {
		taken[instanceOf(claim.Labels)] = true
	}
	for try := uint64(0); len(ids) < n; try++ {
		seed := append([]byte(r.set.UID), binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, r.World.Sequence()), try)...)
		sum := sha256.Sum256(seed)
		id := make([]byte, 5)
		for i := range id {
			id[i] = hashAlphabet[int(sum[i])%len(hashAlphabet)]
		}
		_, removed := r.World.Removed(r.set.Namespace, r.set.Name+"-"+string(id))
		if !removed && !taken[string(id)] && !slices.Contains(ids, string(id)) && !r.World.PodNamed(r.set.Namespace, r.set.Name+"-"+string(id)) {
			ids = append(ids, string(id))
		}
	}
	slices.Sort(ids)
	return ids
}

// newPod is the Pod of an instance (R28).
func (r *round) newPod(name, id string, from revision, claims []map[string]any) map[string]any {
	labels := stringsOf(metadataOf(from.template, "labels"))
	labels[revisionLabel] = r.labelOf(from.name)
	labels[templateLabel] = shortHash(from.name)
	labels[v1beta1.CloneSetInstanceID] = id
	labels[v1beta1.LifecycleStateKey] = string(v1beta1.LifecycleStatePreparingNormal)
	annotations := stringsOf(metadataOf(from.template, "annotations"))
	annotations[v1beta1.LifecycleTimestampKey] = r.stamp()
	metadata := map[string]any{
		"name": name, "generateName": r.set.Name + "-", "namespace": r.set.Namespace,
		"labels": labels, "annotations": annotations, "ownerReferences": r.owners(),
	}
	if template, _ := from.template.Tree["metadata"].(map[string]any); template["finalizers"] != nil {
		metadata["finalizers"] = template["finalizers"]
	}
	spec, _ := from.template.Tree["spec"].(map[string]any)
	spec = maps.Clone(spec)
	gates, _ := spec["readinessGates"].([]any)
	for _, kind := range []string{inplace.ReadyCondition, podready.Gate} {
		gate := map[string]any{"conditionType": kind}
		if !slices.ContainsFunc(gates, func(g any) bool { return world.SameMeaning(g, gate) }) {
			gates = append(slices.Clone(gates), gate)
		}
	}
	spec["readinessGates"] = gates
	if volumes, _ := spec["volumes"].([]any); len(claims) > 0 {
		spec["volumes"] = r.mounted(volumes, claims, id)
	}
	return map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
}

func (r *round) stamp() string { return r.Now().UTC().Format(time.RFC3339) }

// removeFinished deletes Pods that have ended, once as many as wanted are there without them (D5). One that has claims goes
// first: the Pod that replaces it has its name. Its claims stay.
func (r *round) removeFinished() {
	for _, p := range r.finished {
		if len(r.facts) < r.spec.replicas && !r.leavesClaims(p) {
			continue
		}
		if p.UID != "" && r.idle(p) && r.mayTry(RemoveFinished) && r.mayTakeDown() {
			r.command(p, decide.Delete(decide.PodRef(p), decide.Why(RemoveFinished, "it has %s, and %d Pods are there without it", strings.ToLower(p.Phase), len(r.facts))))
		}
	}
}

// cancelDelete takes back the deletion of Pods that a hook still holds and that are needed again (R26.1).
func (r *round) cancelDelete() int {
	for _, hook := range []*v1beta1.LifecycleHook{r.spec.inPlaceUpdate(), r.spec.preDelete()} {
		if hook != nil && hook.MarkPodNotReady {
			return 0
		}
	}
	going := 0
	for i := range r.pods {
		if p := &r.pods[i]; p.specified || p.preparing {
			going++
		}
	}
	needed, cancelled := r.spec.replicas-len(r.pods)+going, 0
	for i := range r.pods {
		p := &r.pods[i]
		if needed <= 0 || !p.preparing || p.specified || leaving(p.Pod) {
			continue
		}
		needed--
		if r.idle(p.Pod) && r.mayTry(CancelDelete) {
			cancelled++
			r.command(p.Pod, decide.PatchPod(p.Pod, "status", r.enter(p.Pod, v1beta1.LifecycleStatePreparingNormal),
				decide.Why(CancelDelete, "%d Pods are wanted, and %d of %d would be left", r.spec.replicas, len(r.pods)-going, len(r.pods))))
		}
	}
	return cancelled
}

// keepMarked takes the mark off Pods that an update wanted replaced and that may stay now: the template came back to theirs,
// or the partition keeps them (D13).
func (r *round) keepMarked() int {
	// Old Pods that stay old: an old Pod that somebody else wants deleted is replaced by an old one.
	left, kept := 0, 0
	for i := range r.pods {
		if !r.pods[i].Annotations.Has(replacedFor) && !r.pods[i].updated && !r.pods[i].preparing {
			left++
		}
	}
	for i := range r.pods {
		p := &r.pods[i]
		target, ours := p.Annotations.Lookup(replacedFor)
		// It may be of the revision that is wanted and have to go all the same (inplace-update D6), or be on its way back (R24).
		if p.updated && (target == r.updateRevision.name || target == r.currentRevision.name && r.updates.update < 0) {
			continue
		}
		if !ours || !p.specified || p.preparing || r.spec.specifiedDelete[p.Name] || !r.idle(p.Pod) || !p.updated && left >= r.spec.partition {
			continue
		}
		why := "its template is wanted again"
		if !p.updated {
			left++
			why = fmt.Sprintf("the partition keeps %d old Pods", r.spec.partition)
		}
		if r.mayTry(KeepPod) {
			kept++
			r.command(p.Pod, decide.PatchPod(p.Pod, "", map[string]any{"metadata": map[string]any{
				"labels": map[string]any{v1beta1.SpecifiedDeleteKey: nil}, "annotations": map[string]any{replacedFor: nil},
			}}, decide.Why(KeepPod, "%s", why)))
		}
	}
	return kept
}

// deletePrepared deletes Pods in PreparingDelete that no hook holds any more (R26.3).
func (r *round) deletePrepared() {
	for i := range r.pods {
		if p := &r.pods[i]; p.preparing && !hooked(p.Pod, r.spec.preDelete()) {
			r.deletePod(p, ScaleDown, "nothing holds it in PreparingDelete any more")
		} else if p.preparing {
			r.heldByHook(p, r.spec.preDelete())
		}
	}
}

// deleteSpecified deletes the Pods that were named, as far as the budget allows (R26.4).
func (r *round) deleteSpecified() {
	ready := r.numbers.deleteReady
	for i := range r.pods {
		p := &r.pods[i]
		if !p.specified || p.preparing {
			continue
		}
		why := "marked for deletion"
		if r.spec.specifiedDelete[p.Name] {
			why = "named in podsToDelete"
		}
		if !p.availableNow {
			r.deletePod(p, SpecifiedDelete, "%s, and not available anyway", why)
		} else if ready > 0 {
			ready--
			r.deletePod(p, SpecifiedDelete, "%s, %d available Pods may be deleted now", why, r.numbers.deleteReady)
		} else {
			r.heldDeletion(p, why)
		}
	}
}

// scaleDown deletes Pods that are too many (R26.5).
func (r *round) scaleDown() {
	n := r.numbers
	if n.down == 0 || slices.ContainsFunc(r.pods, func(p pod) bool { return p.specified || p.preparing }) {
		return
	}
	chosen := append(r.cheapest(n.downOld, false), r.cheapest(n.down-n.downOld, true)...)
	if n.downOld >= n.down {
		chosen = r.cheapest(n.down, false)
	}
	ready := n.deleteReady
	for _, p := range chosen {
		if !p.availableNow {
			r.deletePod(p, ScaleDown, "%d Pods are too many, this one is not available", n.down)
		} else if ready > 0 {
			ready--
			r.deletePod(p, ScaleDown, "%d Pods are too many, %d available ones may be deleted now", n.down, n.deleteReady)
		} else {
			r.heldDeletion(p, fmt.Sprintf("%d Pods are too many", n.down))
		}
	}
}

// deleteBroken deletes old Pods that are not available and that nothing else would ever touch: as many new Pods as wanted are
// there, and those of them that are named for deletion wait for the places in the budget that the broken ones take up.
func (r *round) deleteBroken() {
	for i, p := range r.cheapest(r.numbers.surplusOld, false) {
		if !p.availableNow && !p.specified && !p.preparing {
			r.deletePod(p, ScaleDown, "%d old Pods are too many, this one is not available", r.numbers.surplusOld-i)
		}
	}
}

func (r *round) deletePod(p *pod, code, why string, args ...any) {
	if !r.idle(p.Pod) || !r.mayTry(code) {
		return
	}
	if !r.fresh {
		r.Decision.AwaitsVouch = true
		r.heldByVouch([]*pod{p})
		return
	}
	if !p.preparing && hooked(p.Pod, r.spec.preDelete()) {
		if r.mayTry(PrepareDelete) { // R33
			r.command(p.Pod, decide.PatchPod(p.Pod, "status", r.enter(p.Pod, v1beta1.LifecycleStatePreparingDelete), decide.Why(PrepareDelete, why, args...)))
		}
		return
	}
	command := decide.Delete(decide.PodRef(p.Pod), decide.Why(code, why, args...))
	if !p.availableNow {
		// Its deletion costs no budget because it is unavailable: one that has recovered meanwhile is looked at again.
		command.ResourceVersion = decide.VersionOf(&p.Meta)
	}
	r.command(p.Pod, command)
}
