package cloneset

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/dump"

	"shiplog.dev/api/kruise/apps/v1beta1"
	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
)

// Annotations by which a revision keeps its claim templates: their hash (R15), and, our own, the templates themselves (D10).
const (
	claimsHashAnnotation = "kruise.io/cloneset-volumeclaimtemplate-hash"
	claimsAnnotation     = "shiplog.dev/volume-claim-templates"
)

// instance is what a Pod and its claims have in common; empty: the object belongs to no instance (D18).
func instanceOf(labels world.Pairs) string { return labels.Get(v1beta1.CloneSetInstanceID) }

// cleanClaims settles the claims of Pods that are going or gone (R31). What a Pod that we deleted leaves behind goes with it.
// What somebody else deleted leaves its claims to the next new Pod, unless they are not to be reused: then they go with the
// Pod too. It also makes claims that an active Pod lacks.
func (r *round) cleanClaims() {
	claims := r.World.ClaimsOf(r.set.UID)
	if len(claims) == 0 && len(r.spec.claims) == 0 {
		return
	}
	holders := map[string]*world.Pod{} // by instance, active ones first
	for _, p := range r.World.PodsOf(r.set.UID) {
		if id := instanceOf(p.Labels); id != "" && (holders[id] == nil || p.Active() || leaving(p)) {
			holders[id] = p
		}
	}
	for _, claim := range claims {
		id := instanceOf(claim.Labels)
		if id == "" || claim.Terminating || claim.UnderWay != nil {
			continue
		}
		holder := holders[id]
		switch {
		case r.abandoned(id):
			r.deleteClaim(claim, "the Pod of instance %s was deleted", id)
		case r.spec.reuseClaims:
		case holder == nil:
			r.deleteClaim(claim, "instance %s has no Pod, and claims are not reused", id)
		case !holder.Active() && !leaving(holder) && r.mayTry(CleanClaim):
			r.Append(decide.PatchMerge(claimRef(claim), "", map[string]any{"metadata": map[string]any{"ownerReferences": []any{map[string]any{
				"apiVersion": "v1", "kind": "Pod", "name": holder.Name, "uid": string(holder.UID), "controller": true, "blockOwnerDeletion": true,
			}}}}, decide.Why(CleanClaim, "Pod %s ends, and claims are not reused: the claim goes with it", holder.Name)))
		}
	}
	for i := range r.pods {
		p := &r.pods[i]
		if p.UID == "" || p.UnderWay != nil || p.preparing || p.specified {
			continue
		}
		id := instanceOf(p.Labels)
		templates := slices.DeleteFunc(slices.Clone(r.claimsOf(p.Labels.Get(revisionLabel))), func(template map[string]any) bool {
			return !slices.Contains(p.Claims, r.claimNamed(template, id))
		})
		r.createClaims(id, templates, "Pod %s lacks it", p.Name)
	}
}

// returning counts the instances that come back under their own name: their Pod goes, not by our doing, and leaves claims to
// the next one. A Pod that does not go in time, as on a node that is lost, is waited for no longer (D4).
func (r *round) returning() int {
	const patience = 30 * time.Second
	if !r.spec.reuseClaims {
		return 0
	}
	count := 0
	for _, p := range r.World.PodsOf(r.set.UID) {
		if p.Active() || leaving(p) || !r.leavesClaims(p) {
			continue
		}
		if until := p.Gone.Add(patience); p.Terminating && !p.Gone.IsZero() {
			if !until.After(r.Now()) {
				continue
			}
			r.WakeBy(until, "Pod %s is to go by %s, its claims wait for the next Pod", p.Name, until.UTC().Format(time.TimeOnly))
		}
		count++
	}
	return count
}

// leavesClaims says whether the next Pod is to have the claims of one that is ending.
func (r *round) leavesClaims(p *world.Pod) bool {
	id := instanceOf(p.Labels)
	return r.spec.reuseClaims && id != "" && !r.abandoned(id) && slices.ContainsFunc(r.World.ClaimsOf(r.set.UID), func(claim *world.Claim) bool {
		return instanceOf(claim.Labels) == id && !claim.Terminating
	})
}

func (r *round) claimNamed(template map[string]any, id string) string {
	return claimName(template) + "-" + r.set.Name + "-" + id
}

// abandoned says whether the Pod of an instance was lately deleted by a command of ours that takes its claims along.
func (r *round) abandoned(id string) bool {
	removal, is := r.World.Removed(r.set.Namespace, r.set.Name+"-"+id)
	return is && removal.Workload == r.set.UID && removal.Code != RemoveFinished
}

func (r *round) deleteClaim(claim *world.Claim, why string, args ...any) {
	if r.mayTry(CleanClaim) {
		r.Append(decide.Delete(claimRef(claim), decide.Why(CleanClaim, why, args...)))
	}
}

// createClaims makes the claims of an instance that do not exist by name (R30).
func (r *round) createClaims(id string, templates []map[string]any, why string, args ...any) {
	for _, template := range templates {
		name := r.claimNamed(template, id)
		if id == "" || r.World.Claim(r.set.Namespace, name) != nil || !r.mayTry(ScaleUp) {
			continue
		}
		metadata := maps.Clone(childMap(template, "metadata"))
		labels := stringsOf(childMap(metadata, "labels"))
		for key, value := range r.set.Spec.Selector.MatchLabels { //shiplog:unordered: writes one key of a map per turn
			labels[key] = value
		}
		labels[v1beta1.CloneSetInstanceID] = id
		metadata["name"], metadata["namespace"], metadata["labels"], metadata["ownerReferences"] = name, r.set.Namespace, labels, r.owners()
		object := &shiplogv1.ObjectRef{Version: "v1", Resource: world.ResourceClaims, Namespace: r.set.Namespace, Name: name}
		r.Append(decide.Create(object, map[string]any{
			"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": template["spec"],
		}, decide.Why(ScaleUp, why, args...)))
	}
}

// mounted puts the claims of an instance among the volumes of its Pod; each replaces a volume of the same name (R30).
func (r *round) mounted(volumes []any, templates []map[string]any, id string) []any {
	if len(templates) == 0 {
		return volumes
	}
	var out []any
	for _, template := range templates {
		out = append(out, map[string]any{
			"name":                  claimName(template),
			"persistentVolumeClaim": map[string]any{"claimName": r.claimNamed(template, id)},
		})
	}
	for _, volume := range volumes {
		tree, _ := volume.(map[string]any)
		if !slices.ContainsFunc(templates, func(template map[string]any) bool { return claimName(template) == tree["name"] }) {
			out = append(out, volume)
		}
	}
	return out
}

// freeInstances returns the instances that own claims and have no Pod in any phase, in order: new Pods take them first (R29, D4).
func (r *round) freeInstances() []string {
	if !r.spec.reuseClaims {
		return nil
	}
	taken := map[string]bool{}
	for _, p := range r.World.PodsOf(r.set.UID) {
		taken[instanceOf(p.Labels)] = true
	}
	var free []string
	for _, claim := range r.World.ClaimsOf(r.set.UID) {
		id := instanceOf(claim.Labels)
		if id != "" && !taken[id] && !claim.Terminating && claim.UnderWay == nil && !r.abandoned(id) && !r.World.PodNamed(r.set.Namespace, r.set.Name+"-"+id) {
			taken[id] = true
			free = append(free, id)
		}
	}
	slices.Sort(free)
	return free
}

// claimsOf returns the claim templates for Pods of a revision: those that it was made with, when it is not the newest (D10).
func (r *round) claimsOf(label string) []map[string]any {
	if sameRevision(label, r.updateRevision.name) {
		return r.spec.claims
	}
	for _, held := range r.revisions {
		if !sameRevision(label, held.Name) {
			continue
		}
		var templates []map[string]any
		if text, kept := held.Annotations.Lookup(claimsAnnotation); kept && json.Unmarshal([]byte(text), &templates) == nil {
			return templates
		}
	}
	return r.spec.claims
}

// claimsHash is R15.
func claimsHash(templates []map[string]any) string {
	if len(templates) == 0 {
		return ""
	}
	type essence struct {
		Metadata struct {
			Name              string  `json:"name"`
			CreationTimestamp *string `json:"creationTimestamp"`
		} `json:"metadata"`
		Spec   corev1.PersistentVolumeClaimSpec `json:"spec"`
		Status struct{}                         `json:"status"`
	}
	list := make([]essence, len(templates))
	for i, template := range templates {
		data, _ := json.Marshal(template["spec"]) // a tree that was read from JSON
		_ = json.Unmarshal(data, &list[i].Spec)   // readSpec has read it before
		list[i].Metadata.Name = claimName(template)
	}
	slices.SortFunc(list, func(a, b essence) int { return strings.Compare(a.Metadata.Name, b.Metadata.Name) })
	data, _ := json.Marshal(list)
	sum := fnv.New32a()
	sum.Write([]byte(dump.ForHash(data)))
	return fmt.Sprint(sum.Sum32())
}

func claimName(template map[string]any) string {
	name, _ := childMap(template, "metadata")["name"].(string)
	return name
}

func childMap(tree map[string]any, key string) map[string]any {
	child, _ := tree[key].(map[string]any)
	return child
}

func claimRef(claim *world.Claim) *shiplogv1.ObjectRef {
	return &shiplogv1.ObjectRef{Version: "v1", Resource: world.ResourceClaims, Namespace: claim.Namespace, Name: claim.Name, Uid: string(claim.UID)}
}

// leaving says whether a delete of an active Pod is under way; it may still be refused.
func leaving(p *world.Pod) bool { return !p.Active() && p.Before != nil && p.Before.Active() }
