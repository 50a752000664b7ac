package cloneset

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"strconv"
	"strings"

	"shiplog.dev/api/kruise/apps/v1beta1"
	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
)

// hashAlphabet avoids vowels and look-alikes, so that hashes never spell words.
const hashAlphabet = "bcdfghjklmnpqrstvwxz2456789"

// revision is a template under the name that Pods carry as a label.
type revision struct {
	name     string
	template world.Template
	// stored: the API server has it. Before that no Pod may carry its name: a name that nobody can look up again would take
	// from the Pod the way back, and the way on in place.
	stored bool
	// coming: a command that makes it is under way, or in this decision, and nothing says that it will be refused. Commands for
	// Pods may go along that need it.
	coming bool
}

// usable says whether Pods may be commanded to come to the revision.
func (v revision) usable() bool { return v.stored || v.coming }

// need lets commands wait until the API server has the revision that they bring Pods to.
func (r *round) need(to revision, commands ...*shiplogv1.Command) {
	if to.stored {
		return
	}
	for _, command := range commands {
		command.Needs = revisionNamed(r.set.Namespace, to.name)
	}
}

// findRevisions settles which revision to update to and which the Pods come from (R12 to R14), and asks for what is missing.
func (r *round) findRevisions() {
	r.revisions = r.World.RevisionsOf(r.set.UID)
	if r.set.Status.CollisionCount != nil {
		r.collisions = *r.set.Status.CollisionCount
	}
	highest := int64(0)
	var same *world.Revision // the newest of the same meaning (R16)
	for _, held := range r.revisions {
		highest = max(highest, held.Number)
		if held.Template.Identity == r.set.Template.Identity {
			same = held
		}
	}
	switch {
	case same == nil:
		r.updateRevision = r.createRevision(highest + 1)
	case same.Number < highest && same.UnderWay == nil:
		r.Append(decide.PatchMerge(revisionRef(same), "", map[string]any{"revision": highest + 1},
			decide.Why(RaiseRevision, "revision %s is wanted again, its number rises from %d to %d", same.Name, same.Number, highest+1)))
		fallthrough
	default:
		r.updateRevision = r.known(same)
	}
	r.currentRevision = r.updateRevision
	for _, held := range r.revisions {
		if held.Name == r.set.Status.CurrentRevision {
			r.currentRevision = r.known(held)
		}
	}
}

// known is a revision that the world holds, stored or about to be.
func (r *round) known(held *world.Revision) revision {
	stored := held.UID != ""
	return revision{held.Name, held.Template, stored, !stored && !r.Refused(CreateRevision)}
}

func (r *round) createRevision(number int64) revision {
	tree := maps.Clone(r.set.Template.Tree)
	tree["$patch"] = "replace"
	data, _ := json.Marshal(map[string]any{"spec": map[string]any{"template": tree}})
	prefix := r.set.Name[:min(len(r.set.Name), 223)]
	name := prefix + "-" + Hash(data, r.collisions)
	for taken := r.World.Revision(r.set.Namespace, name); taken != nil; taken = r.World.Revision(r.set.Namespace, name) {
		// Same name, other data: the next collision count gives another name (R12).
		r.collisions++
		name = prefix + "-" + Hash(data, r.collisions)
	}
	labels := map[string]any{}
	maps.Copy(labels, stringsOf(metadataOf(r.set.Template, "labels")))
	labels[historyHashLabel] = shortHash(name)
	annotations := map[string]any{}
	for key, value := range r.set.Annotations.All() {
		annotations[key] = value
	}
	annotations[claimsHashAnnotation] = claimsHash(r.spec.claims)
	if len(r.spec.claims) > 0 {
		templates, _ := json.Marshal(r.spec.claims) // trees that were read from JSON
		annotations[claimsAnnotation] = string(templates)
	}
	made := revision{name: name, template: r.set.Template}
	if r.mayTry(CreateRevision) {
		made.coming = !r.Refused(CreateRevision)
		create := decide.Create(revisionNamed(r.set.Namespace, name), map[string]any{
			"apiVersion": "apps/v1", "kind": "ControllerRevision",
			"metadata": map[string]any{
				"name": name, "namespace": r.set.Namespace, "labels": labels, "annotations": annotations, "ownerReferences": r.owners(),
			},
			"data": json.RawMessage(data), "revision": number,
		}, decide.Why(CreateRevision, "no revision holds the template of generation %d, this is number %d", r.set.Generation, number))
		r.Append(create)
	}
	return made
}

// pruneRevisions drops the oldest revisions that nothing uses beyond the history limit (R18).
func (r *round) pruneRevisions() {
	if len(r.revisions) <= r.spec.historyLimit {
		return // whichever of them are unused
	}
	used := map[string]bool{shortHash(r.updateRevision.name): true, shortHash(r.currentRevision.name): true}
	for _, p := range r.World.PodsOf(r.set.UID) {
		used[shortHash(p.Labels.Get(revisionLabel))] = true
		if p.Before != nil {
			used[shortHash(p.Before.Labels.Get(revisionLabel))] = true
		}
	}
	var unused []*world.Revision
	for _, held := range r.revisions {
		if !used[shortHash(held.Name)] && !held.Terminating {
			unused = append(unused, held)
		}
	}
	excess := len(unused) - r.spec.historyLimit
	for _, held := range unused[:max(excess, 0)] {
		if held.UnderWay == nil && r.mayTry(PruneRevision) {
			r.Append(decide.Delete(revisionRef(held),
				decide.Why(PruneRevision, "%d unused revisions, the limit is %d", len(unused), r.spec.historyLimit)))
		}
	}
}

// Hash is R12, by which a revision is named: FNV-32 over the data and the collision count, in letters that are safe in names.
func Hash(data []byte, collisions int32) string {
	sum := fnv.New32()
	sum.Write(data)
	sum.Write(strconv.AppendInt(nil, int64(collisions), 10))
	out := []byte(fmt.Sprint(sum.Sum32()))
	for i, digit := range out {
		out[i] = hashAlphabet[int(digit)%len(hashAlphabet)]
	}
	return string(out)
}

// shortHash is what follows the last dash of a revision's name.
func shortHash(name string) string { return name[strings.LastIndexByte(name, '-')+1:] }

// labelOf is the label by which a Pod carries a revision (R17).
func (r *round) labelOf(name string) string {
	if r.World.Gate(gateShortHash) {
		return shortHash(name)
	}
	return name
}

// sameRevision compares the label of a Pod, full name or short hash, with a revision's name (R5).
func sameRevision(label, name string) bool {
	return label != "" && (label == name || shortHash(label) == shortHash(name))
}

func (r *round) owners() []any {
	return []any{map[string]any{
		"apiVersion": v1beta1.GroupVersion.String(), "kind": "CloneSet", "name": r.set.Name, "uid": string(r.set.UID),
		"controller": true, "blockOwnerDeletion": true,
	}}
}

func revisionRef(held *world.Revision) *shiplogv1.ObjectRef {
	ref := revisionNamed(held.Namespace, held.Name)
	ref.Uid = string(held.UID)
	return ref
}

func revisionNamed(namespace, name string) *shiplogv1.ObjectRef {
	return &shiplogv1.ObjectRef{Group: world.GroupApps, Version: "v1", Resource: world.ResourceRevisions, Namespace: namespace, Name: name}
}

func metadataOf(template world.Template, field string) map[string]any {
	return childMap(childMap(template.Tree, "metadata"), field)
}

// stringsOf returns a copy of a label or annotation map.
func stringsOf(values map[string]any) map[string]any {
	out := make(map[string]any, len(values))
	maps.Copy(out, values)
	return out
}
