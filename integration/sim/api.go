package sim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"shiplog.dev/internal/world"
)

// api is the API server's store: the objects as they are, and every state that each of them had.
type api struct {
	s       *simulation
	version uint64
	uids    int
	objects map[world.Ref]*object
	history map[world.Ref][]*object
	// revisions are the templates that revisions ever held, by hash.
	revisions map[string]string
}

// object is one state of one object. It is not changed.
type object struct {
	ref     world.Ref
	uid     string
	version uint64
	at      time.Time
	raw     []byte
	gone    bool // this state is that the object is gone
	by      writer

	pod *pod      // of a Pod
	set *cloneSet // of a CloneSet
}

// writer is who wrote: a command, or somebody else.
type writer struct {
	name    string
	command uint64
}

func newAPI(s *simulation) *api {
	return &api{s: s, version: 1000, objects: map[world.Ref]*object{}, history: map[world.Ref][]*object{}, revisions: map[string]string{}}
}

// list returns the objects of some kind, by name.
func (a *api) list(wanted func(world.Ref) bool) []*object {
	var out []*object
	for ref, o := range a.objects {
		if wanted(ref) {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(x, y *object) int {
		return cmp.Or(cmp.Compare(x.ref.Resource, y.ref.Resource), cmp.Compare(x.ref.Name, y.ref.Name))
	})
	return out
}

// tree returns a copy of the object that may be changed.
func (o *object) tree() map[string]any {
	out := map[string]any{}
	if err := json.Unmarshal(o.raw, &out); err != nil {
		panic(err) // it was written by put
	}
	return out
}

// put stores a new state, unless nothing changed, and returns the object as it is then.
func (a *api) put(ref world.Ref, tree map[string]any, by writer) *object {
	before := a.objects[ref]
	metadata := child(tree, "metadata")
	if before == nil {
		a.uids++
		metadata["uid"] = fmt.Sprintf("uid-%d", a.uids)
		metadata["creationTimestamp"] = a.stamp()
	} else if same, _ := json.Marshal(tree); string(same) == string(before.raw) {
		return before
	}
	a.version++
	metadata["resourceVersion"] = strconv.FormatUint(a.version, 10)
	raw, err := json.Marshal(tree)
	if err != nil {
		panic(err) // trees come from JSON
	}
	after := &object{ref: ref, uid: metadata["uid"].(string), version: a.version, at: a.s.now, raw: raw, by: by}
	after.parse(a)
	a.objects[ref] = after
	a.changed(before, after)
	return after
}

// remove takes an object out of the store.
func (a *api) remove(o *object, by writer) {
	a.version++
	delete(a.objects, o.ref)
	a.changed(o, &object{ref: o.ref, uid: o.uid, version: a.version, at: a.s.now, raw: o.raw, gone: true, by: by})
}

func (a *api) changed(before, after *object) {
	a.history[after.ref] = append(a.history[after.ref], after)
	switch {
	case after.gone:
		a.s.tell("api", "%s is gone, by %s", after.ref, after.by.name)
	case before == nil:
		a.s.tell("api", "%s is created at %d, by %s", after.ref, after.version, after.by.name)
	default:
		a.s.tell("api", "%s changes to %d, by %s%s", after.ref, after.version, after.by.name, describe(after))
	}
	a.s.watcher.change(after)
	a.s.kubelets.change(after)
	a.s.hooks.change(after)
	a.s.checks.write(before, after)
}

// delete does what the API server does when asked to: a Pod on a node gets time, everything else goes at once.
func (a *api) delete(o *object, by writer) *object {
	if o.ref.Resource == world.ResourceClaims && a.mounted(o.ref.Name) {
		tree := o.tree() // Kubernetes protects claims that a Pod mounts
		child(tree, "metadata")["deletionTimestamp"] = a.stamp()
		return a.put(o.ref, tree, by)
	}
	if o.pod == nil || o.pod.node == "" || o.pod.finished() {
		a.remove(o, by)
		return nil
	}
	if o.pod.terminating {
		return o
	}
	tree := o.tree()
	child(tree, "metadata")["deletionTimestamp"] = a.stamp()
	child(tree, "metadata")["deletionGracePeriodSeconds"] = 30
	return a.put(o.ref, tree, by)
}

// mounted says whether a Pod that is there mounts a claim.
func (a *api) mounted(claim string) bool {
	return slices.ContainsFunc(a.list(isPod), func(o *object) bool { return slices.Contains(o.pod.claims, claim) })
}

// edit changes an object as its user or its kubelet would; a changed spec raises the generation.
func (a *api) edit(o *object, by string, change func(tree map[string]any)) *object {
	tree := o.tree()
	change(tree)
	return a.put(o.ref, generation(o, tree), writer{name: by})
}

// creator returns the command that created an object, 0 if none did.
func (a *api) creator(o *object) uint64 {
	for _, state := range a.history[o.ref] {
		if state.uid == o.uid {
			return state.by.command
		}
	}
	return 0
}

// generation raises the generation of what has one when its spec differs from before.
func generation(before *object, tree map[string]any) map[string]any {
	if before.ref.Resource != world.ResourceCloneSets && before.ref.Resource != world.ResourcePods {
		return tree
	}
	old, _ := json.Marshal(before.tree()["spec"])
	if now, _ := json.Marshal(tree["spec"]); string(now) != string(old) {
		metadata := child(tree, "metadata")
		held, _ := metadata["generation"].(float64)
		metadata["generation"] = held + 1
	}
	return tree
}

func (a *api) stamp() string { return a.s.now.UTC().Format(time.RFC3339) }

func child(tree map[string]any, key string) map[string]any {
	value, is := tree[key].(map[string]any)
	if !is {
		value = map[string]any{}
		tree[key] = value
	}
	return value
}
