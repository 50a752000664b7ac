package cloneset

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"shiplog.dev/api/kruise/apps/v1alpha1"
	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
	"shiplog.dev/services/planner/decide/inplace"
)

// deletionCost is the Pod annotation by which people say which Pods are cheap to lose (R35.5).
const deletionCost = "controller.kubernetes.io/pod-deletion-cost"

// scale brings the number of Pods to what is wanted (R26) and says whether it commanded anything.
func (r *round) scale() bool {
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

// scaleUp creates what is missing within the limit (R27) and returns how many.
func (r *round) scaleUp() int {
	n := r.numbers
	limit, why := n.upLimit, "all may be created now"
	if !r.updateRevision.stored {
		limit = min(limit, n.upOld) // the others wait for their revision
	}
	if limit == 0 || !r.mayTry(ScaleUp) {
		return 0
	}
	if limit < n.up {
		why = fmt.Sprintf("%d may be created now: %d may be unavailable while scaling, %d are", limit, r.spec.scaleUnavailable, n.unavailable)
	}
	if r.attempt(ScaleUp) > 0 {
		if slices.ContainsFunc(r.pods, func(p pod) bool { return p.UID == "" }) {
			return 0
		}
		limit, why = 1, "one is created to find out whether that works again"
	}
	// Pods under way are in the world already, so what is missing is really missing.
	wanted := fmt.Sprint(r.spec.replicas)
	if n.surge > 0 {
		wanted = fmt.Sprintf("%d and %d to surge", r.spec.replicas, n.surge)
	}
	for i, id := range r.newInstances(limit) {
		from := r.updateRevision
		if i < n.upOld {
			from = r.currentRevision
		}
		name := r.set.Name + "-" + id
		object := &shiplogv1.ObjectRef{Version: "v1", Resource: world.ResourcePods, Namespace: r.set.Namespace, Name: name}
		create := decide.Create(object, r.newPod(name, id, from),
			decide.Why(ScaleUp, "%d of %s Pods are missing, %s", n.up, wanted, why))
		create.Attempt = r.attempt(ScaleUp)
		r.commanded[name] = true
		r.decision.Append(create)
	}
	return limit
}

// newInstances returns n instance ids that no Pod has, in alphabetical order (R29). They follow from the CloneSet and the
// position in the log, so deciding again gives the same.
func (r *round) newInstances(n int) []string {
	ids := make([]string, 0, n)
	for try := uint64(0); len(ids) < n; try++ {
		seed := append([]byte(r.set.UID), binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, r.world.Sequence()), try)...)
		sum := sha256.Sum256(seed)
		id := make([]byte, 5)
		for i := range id {
			id[i] = hashAlphabet[int(sum[i])%len(hashAlphabet)]
		}
		if !slices.Contains(ids, string(id)) && !r.world.PodNamed(r.set.Namespace, r.set.Name+"-"+string(id)) {
			ids = append(ids, string(id))
		}
	}
	slices.Sort(ids)
	return ids
}

// newPod is the Pod of an instance (R28).
func (r *round) newPod(name, id string, from revision) map[string]any {
	labels := stringsOf(metadataOf(from.template, "labels"))
	labels[revisionLabel] = from.name
	labels[templateLabel] = shortHash(from.name)
	labels[v1alpha1.CloneSetInstanceID] = id
	labels[v1alpha1.LifecycleStateKey] = string(v1alpha1.LifecycleStatePreparingNormal)
	annotations := stringsOf(metadataOf(from.template, "annotations"))
	annotations[v1alpha1.LifecycleTimestampKey] = r.stamp()
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
	gate := map[string]any{"conditionType": inplace.ReadyCondition}
	if !slices.ContainsFunc(gates, func(g any) bool { return world.SameMeaning(g, gate) }) {
		spec["readinessGates"] = append(slices.Clone(gates), gate)
	}
	return map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
}

func (r *round) stamp() string { return r.world.Now().UTC().Format(time.RFC3339) }

// deletePrepared deletes Pods in PreparingDelete that no hook holds any more (R26.3).
func (r *round) deletePrepared() {
	for i := range r.pods {
		if p := &r.pods[i]; p.preparing {
			r.deletePod(p, ScaleDown, "nothing holds it in PreparingDelete any more")
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
		r.decision.AwaitsVouch = true
		return
	}
	command := decide.Delete(decide.PodRef(p.Pod), decide.Why(code, why, args...))
	if !p.availableNow {
		// Its deletion costs no budget because it is unavailable: one that has recovered meanwhile is looked at again.
		command.ResourceVersion = formatVersion(p.Version)
	}
	r.command(p.Pod, command)
}

// cheapest returns the n Pods, new or old ones, that are the least loss, in order (R35). All of them when there are fewer.
func (r *round) cheapest(n int, updated bool) []*pod {
	var candidates []*pod
	for i := range r.pods {
		if r.pods[i].updated == updated {
			candidates = append(candidates, &r.pods[i])
		}
	}
	slices.SortStableFunc(candidates, byLoss)
	return candidates[:min(max(n, 0), len(candidates))]
}

// byLoss is R35 without the ranks of its step 6.
func byLoss(a, b *pod) int {
	return cmp.Or(
		first(a.Node == "", b.Node == ""),
		cmp.Compare(phaseRank(a.Pod), phaseRank(b.Pod)),
		first(!a.availableNow, !b.availableNow),
		first(!a.ready, !b.ready),
		cmp.Compare(costOf(a.Pod), costOf(b.Pod)),
		byTime(readySince(b), readySince(a)),
		cmp.Compare(restarts(b.Pod), restarts(a.Pod)),
		byTime(b.Created, a.Created),
		cmp.Compare(a.Name, b.Name),
	)
}

// first puts what is true first.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func phaseRank(p *world.Pod) int {
	return slices.Index([]string{"Pending", "Unknown", "Running"}, p.Phase)
}

// byTime orders times; a zero time counts as most recent.
func byTime(a, b time.Time) int {
	if a.IsZero() || b.IsZero() {
		return first(!a.IsZero(), !b.IsZero())
	}
	return a.Compare(b)
}

// readySince is when a ready Pod became so; zero for one that is not.
func readySince(p *pod) time.Time {
	if condition := p.Condition("Ready"); p.ready && condition != nil {
		return condition.LastTransitionTime
	}
	return time.Time{}
}

func restarts(p *world.Pod) int32 {
	most := int32(0)
	for _, status := range p.Statuses {
		most = max(most, status.RestartCount)
	}
	return most
}

// costOf reads the deletion cost; "+5", "007" and what is no number are 0.
func costOf(p *world.Pod) int64 {
	text := p.Annotations[deletionCost]
	cost, err := strconv.ParseInt(text, 10, 32)
	if err != nil || strconv.FormatInt(cost, 10) != text {
		return 0
	}
	return cost
}
