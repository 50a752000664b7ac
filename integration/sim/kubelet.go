package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"shiplog.dev/internal/world"
)

// kubelets are the scheduler, the nodes, their kubelets, the node controller and the garbage collector: everybody but us who
// acts on Pods by itself. They see the truth at once and act after a while.
type kubelets struct {
	s     *simulation
	nodes []string
	lost  map[string]bool
	// failing Pods are not ready until a time, by UID.
	failing map[string]time.Time
	// starting is the image that a kubelet has set out to start, by UID and container.
	starting  map[string]string
	planned   map[string]bool // Pods that are looked at soon, by UID
	sweeping  bool
	slowUntil time.Time
	stuck     time.Time // until then no Pod is scheduled
}

func newKubelets(s *simulation) *kubelets {
	return &kubelets{
		s: s, nodes: []string{"n1", "n2", "n3"}, lost: map[string]bool{}, failing: map[string]time.Time{},
		starting: map[string]string{}, planned: map[string]bool{},
	}
}

var clusterItself = writer{name: "the cluster"}

func (k *kubelets) begin() {
	k.s.api.put(world.Ref{Resource: world.ResourceNamespaces, Name: "default"}, map[string]any{"metadata": map[string]any{"name": "default"}}, clusterItself)
	for _, name := range k.nodes {
		k.setNode(name, true)
	}
}

func (k *kubelets) setNode(name string, ready bool) {
	text := map[bool]string{true: "True", false: "Unknown"}[ready]
	k.s.api.put(world.Ref{Resource: world.ResourceNodes, Name: name}, map[string]any{
		"metadata": k.metadataOf(name), "status": map[string]any{"conditions": []any{map[string]any{"type": "Ready", "status": text}}},
	}, clusterItself)
}

func (k *kubelets) metadataOf(node string) map[string]any {
	if held := k.s.api.objects[world.Ref{Resource: world.ResourceNodes, Name: node}]; held != nil {
		return child(held.tree(), "metadata")
	}
	return map[string]any{"name": node}
}

// heal brings everything back that was lost.
func (k *kubelets) heal() {
	k.failing, k.slowUntil, k.stuck = map[string]time.Time{}, time.Time{}, time.Time{}
	for _, node := range k.nodes {
		k.setLost(node, false)
	}
	k.lookAtAll()
}

func (k *kubelets) lookAtAll() {
	for _, o := range k.s.api.list(isPod) {
		k.look(o, 0)
	}
}

func isPod(ref world.Ref) bool { return ref.Resource == world.ResourcePods }

// setLost takes a node away or brings it back. The node controller shows its Pods as not ready.
func (k *kubelets) setLost(node string, lost bool) {
	if k.lost[node] == lost {
		return
	}
	k.lost[node] = lost
	k.setNode(node, !lost)
	for _, o := range k.s.api.list(isPod) {
		if o.pod.node != node {
			continue
		}
		if lost && o.pod.ready {
			k.s.api.edit(o, "the node controller", func(tree map[string]any) { k.setCondition(tree, "Ready", false) })
		}
		k.look(o, 0)
	}
}

// evict deletes the Pods of a node, as happens to one that is lost for long.
func (k *kubelets) evict(node string) {
	for _, o := range k.s.api.list(isPod) {
		if o.pod.node == node && k.lost[node] {
			k.s.api.delete(o, writer{name: "the node controller"})
		}
	}
}

// change is told of every write.
func (k *kubelets) change(o *object) {
	switch {
	case o.gone && (o.ref.Resource == world.ResourceCloneSets || isPod(o.ref)), !o.gone && k.orphaned(o):
		k.sweepSoon()
	}
	if o.gone && o.pod != nil {
		for _, claim := range o.pod.claims {
			if held := k.s.api.objects[claimRef(claim)]; held != nil && child(held.tree(), "metadata")["deletionTimestamp"] != nil && !k.s.api.mounted(claim) {
				k.s.api.remove(held, clusterItself)
			}
		}
	}
	if o.pod != nil && !o.gone {
		k.look(o, k.pace(50*time.Millisecond, time.Second))
	}
}

func (k *kubelets) pace(least, most time.Duration) time.Duration {
	if k.s.now.Before(k.slowUntil) {
		most *= 10
	}
	return k.s.between(least, most)
}

func (k *kubelets) orphaned(o *object) bool {
	if !dependent(o.ref) {
		return false
	}
	owner := ownerOf(o)
	if slices.ContainsFunc(k.s.api.list(isPod), func(pod *object) bool { return pod.uid == owner }) {
		return false
	}
	return owner != "" && !slices.ContainsFunc(k.s.cloneSets(), func(set *object) bool { return set.uid == owner })
}

// dependent objects go when their owner has gone.
func dependent(ref world.Ref) bool {
	return isPod(ref) || ref.Resource == world.ResourceRevisions || ref.Resource == world.ResourceClaims
}

func claimRef(name string) world.Ref {
	return world.Ref{Resource: world.ResourceClaims, Namespace: "default", Name: name}
}

func ownerOf(o *object) string {
	if o.pod != nil {
		return o.pod.owner
	}
	var wire struct {
		Metadata struct{ OwnerReferences []struct{ UID string } }
	}
	read(o.raw, &wire)
	if len(wire.Metadata.OwnerReferences) == 0 {
		return ""
	}
	return wire.Metadata.OwnerReferences[0].UID
}

// sweepSoon deletes, after a while, what has lost its owner.
func (k *kubelets) sweepSoon() {
	if k.sweeping {
		return
	}
	k.sweeping = true
	k.s.after(k.s.between(100*time.Millisecond, 3*time.Second), func() {
		k.sweeping = false
		for _, o := range k.s.api.list(dependent) {
			if k.orphaned(o) {
				k.s.api.delete(o, writer{name: "the garbage collector"})
			}
		}
	})
}

// look plans a look at a Pod. Each look takes one step at most, and the write that it makes leads to the next.
func (k *kubelets) look(o *object, pause time.Duration) {
	if k.planned[o.uid] {
		return
	}
	k.planned[o.uid] = true
	k.s.after(pause, func() {
		delete(k.planned, o.uid)
		if now := k.s.api.objects[o.ref]; now != nil && now.uid == o.uid {
			k.step(now)
		}
	})
}

func (k *kubelets) step(o *object) {
	p := o.pod
	switch {
	case p.terminating && k.lost[p.node], p.finished() && !p.terminating, p.node != "" && k.lost[p.node]:
		return
	case p.terminating:
		k.s.after(k.pace(100*time.Millisecond, 4*time.Second), func() {
			if now := k.s.api.objects[o.ref]; now != nil && now.uid == o.uid && !k.lost[p.node] && child(now.tree(), "metadata")["finalizers"] == nil {
				k.s.api.remove(now, clusterItself)
			}
		})
	case p.node == "":
		k.schedule(o)
	default:
		k.sync(o)
	}
}

func (k *kubelets) schedule(o *object) {
	ready := slices.DeleteFunc(slices.Clone(k.nodes), func(node string) bool { return k.lost[node] })
	unbound := slices.ContainsFunc(o.pod.claims, func(claim string) bool { return k.s.api.objects[claimRef(claim)] == nil })
	if len(ready) == 0 || unbound || k.s.now.Before(k.stuck) {
		k.look(o, 2*time.Second)
		return
	}
	node := ready[k.s.rand.IntN(len(ready))]
	k.s.api.edit(o, "the scheduler", func(tree map[string]any) { child(tree, "spec")["nodeName"] = node })
}

// sync brings the first container that is not as it should be one step further, then the Pod's conditions.
func (k *kubelets) sync(o *object) {
	tree := o.tree()
	status := child(tree, "status")
	statuses, _ := status["containerStatuses"].([]any)
	containers := child(tree, "spec")["containers"].([]any)
	failing := k.s.now.Before(k.failing[o.uid])
	pause, allReady := time.Duration(-1), true
	for i, entry := range containers {
		container := entry.(map[string]any)
		name, image := container["name"].(string), container["image"].(string)
		if i >= len(statuses) {
			statuses = append(statuses, map[string]any{"name": name, "image": image, "imageID": imageID(image), "ready": false, "restartCount": float64(0)})
			status["phase"], pause, allReady = "Running", k.pace(100*time.Millisecond, 2*time.Second), false
			break
		}
		held := statuses[i].(map[string]any)
		key := o.uid + "/" + name
		if held["image"] != image && pause < 0 {
			switch next, set := k.starting[key]; {
			case !set: // it notices, and stops the container
				k.starting[key] = image
				held["ready"] = false
				pause = k.pace(50*time.Millisecond, 2*time.Second)
			default: // it starts what it set out to start, even when that is no longer wanted
				delete(k.starting, key)
				restarts, _ := held["restartCount"].(float64)
				outdated := next != image && !strings.HasPrefix(next, "bad") && k.s.chance(0.5) // ready before the newer image is noticed
				held["image"], held["imageID"], held["ready"], held["restartCount"] = next, imageID(next), outdated, restarts+1
				pause = k.pace(50*time.Millisecond, 2*time.Second)
			}
		} else if held["image"] == image {
			delete(k.starting, key)
			held["ready"] = !failing && !strings.HasPrefix(image, "bad")
		}
		allReady = allReady && held["ready"] == true
	}
	status["containerStatuses"] = statuses
	gates, _ := child(tree, "spec")["readinessGates"].([]any)
	open := true
	for _, gate := range gates {
		open = open && conditionIs(status, gate.(map[string]any)["conditionType"].(string))
	}
	k.setCondition(tree, "ContainersReady", allReady)
	k.setCondition(tree, "Ready", allReady && open)
	k.s.api.put(o.ref, tree, writer{name: "the kubelet"})
	if now := k.s.api.objects[o.ref]; pause >= 0 && now.version == o.version {
		k.look(now, pause)
	}
	if failing {
		k.s.after(k.failing[o.uid].Sub(k.s.now), func() { k.look(o, 0) })
	}
}

// imageID gives some tags the same content.
func imageID(image string) string { return "sha256:" + strings.TrimSuffix(image, "-again") }

func conditionIs(status map[string]any, kind string) bool {
	conditions, _ := status["conditions"].([]any)
	return slices.ContainsFunc(conditions, func(held any) bool {
		condition := held.(map[string]any)
		return condition["type"] == kind && condition["status"] == "True"
	})
}

func (k *kubelets) setCondition(tree map[string]any, kind string, is bool) {
	status := child(tree, "status")
	conditions, _ := status["conditions"].([]any)
	text := map[bool]string{true: "True", false: "False"}[is]
	next := map[string]any{"type": kind, "status": text, "lastTransitionTime": k.s.api.stamp()}
	at := slices.IndexFunc(conditions, func(held any) bool { return held.(map[string]any)["type"] == kind })
	switch {
	case at < 0:
		conditions = append(conditions, next)
	case conditions[at].(map[string]any)["status"] != text:
		conditions[at] = next
	}
	status["conditions"] = conditions
}

// fail makes a Pod not ready for a while.
func (k *kubelets) fail(o *object, d time.Duration) {
	k.failing[o.uid] = k.s.now.Add(d)
	k.look(o, 0)
}

// finish ends a Pod for good.
func (k *kubelets) finish(o *object) {
	if o.pod.active() {
		k.s.api.edit(o, "the kubelet", func(tree map[string]any) {
			child(tree, "status")["phase"] = "Failed"
			k.setCondition(tree, "Ready", false)
			k.setCondition(tree, "ContainersReady", false)
		})
	}
}

func nodeName(n int) string { return fmt.Sprintf("n%d", n+1) }
