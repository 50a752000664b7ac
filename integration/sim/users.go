package sim

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"shiplog.dev/internal/world"
)

// users are the people who create, edit and delete CloneSets, and who delete and label Pods.
type users struct{ s *simulation }

func setRef(name string) world.Ref {
	return world.Ref{Group: world.GroupKruise, Resource: world.ResourceCloneSets, Namespace: "default", Name: name}
}

// heal makes every CloneSet one whose spec can be reached. What a partition leaves on an image that does not start, people
// let go by taking the partition away, and what OnDelete leaves there they delete.
func (u *users) heal() {
	for _, o := range u.s.cloneSets() {
		u.s.api.edit(o, "a user", func(tree map[string]any) {
			spec := child(tree, "spec")
			rolling(spec)["paused"] = false
			for _, entry := range child(child(spec, "template"), "spec")["containers"].([]any) {
				container := entry.(map[string]any)
				if strings.HasPrefix(container["image"].(string), "bad") {
					container["image"] = "v1"
				}
			}
		})
	}
	u.s.after(time.Minute, func() {
		u.onBroken(func(held, _ *object) {
			u.s.api.edit(held, "a user", func(tree map[string]any) {
				rolling(child(tree, "spec"))["partition"] = float64(0)
			})
		})
	})
	u.s.after(2*time.Minute, func() {
		u.onBroken(func(held, pod *object) {
			if held.set.kind == "OnDelete" {
				u.s.api.delete(pod, writer{name: "a user"})
			}
		})
	})
}

// onBroken does something about every Pod whose image does not start.
func (u *users) onBroken(do func(held, pod *object)) {
	for _, o := range u.s.api.list(isPod) {
		if held := u.s.api.objects[u.s.checks.sets[o.pod.owner]]; held != nil && strings.Contains(o.pod.template, "=bad") {
			do(held, o)
		}
	}
}

// edit changes the spec of a CloneSet, if there is one of that name.
func edit(name string, change func(s *simulation, o *object, spec map[string]any, r *rand.Rand)) func(*simulation, *rand.Rand) {
	return func(s *simulation, r *rand.Rand) {
		if held := s.api.objects[setRef(name)]; held != nil {
			s.api.edit(held, "a user", func(tree map[string]any) { change(s, held, child(tree, "spec"), r) })
		}
	}
}

// rolling is where the fields of a rolling update are in a spec.
func rolling(spec map[string]any) map[string]any {
	return child(child(spec, "updateStrategy"), "rollingUpdate")
}

// drawBudgets draws the numbers of an update strategy that admission takes.
func drawBudgets(r *rand.Rand, strategy map[string]any) {
	surge := []any{nil, nil, nil, float64(1), float64(2), "20%", "50%"}[r.IntN(7)]
	unavailable := []any{nil, nil, float64(1), float64(2), "10%", "50%", "100%", float64(0)}[r.IntN(8)]
	if strategy["podUpdatePolicy"] == "InPlaceOnly" {
		surge = nil
	}
	if surge == nil && unavailable == float64(0) {
		unavailable = nil
	}
	strategy["maxSurge"], strategy["maxUnavailable"] = surge, unavailable
	for _, key := range []string{"maxSurge", "maxUnavailable"} {
		if strategy[key] == nil {
			delete(strategy, key)
		}
	}
}

// onDelete is a type; the others are policies of type RollingUpdate.
const onDelete = "OnDelete"

var updateTypes = []string{"ReCreate", "InPlaceIfPossible", "InPlaceIfPossible", "InPlaceIfPossible", "InPlaceOnly", onDelete}

// drawCloneSet returns, as an item, the creation of a CloneSet.
func drawCloneSet(r *rand.Rand, name string) Item {
	kind, strategy := "RollingUpdate", map[string]any{"podUpdatePolicy": updateTypes[r.IntN(len(updateTypes))]}
	if strategy["podUpdatePolicy"] == onDelete {
		kind = onDelete
		delete(strategy, "podUpdatePolicy")
	}
	drawBudgets(r, strategy)
	if r.IntN(4) == 0 {
		strategy["partition"] = drawPartition(r)
	}
	containers := []any{map[string]any{"name": "main", "image": "v1"}}
	if r.IntN(3) == 0 {
		containers = append(containers, map[string]any{"name": "side", "image": "s1"})
	}
	spec := map[string]any{
		"replicas": float64(r.IntN(13)), "selector": map[string]any{"matchLabels": map[string]any{"app": name}},
		"template": map[string]any{
			"metadata": map[string]any{"labels": map[string]any{"app": name}}, "spec": map[string]any{"containers": containers},
		},
		"updateStrategy": map[string]any{"type": kind, "rollingUpdate": strategy},
	}
	if r.IntN(3) == 0 {
		spec["minReadySeconds"] = float64(1 + r.IntN(15))
	}
	if r.IntN(3) == 0 {
		spec["revisionHistoryLimit"] = float64(r.IntN(3))
	}
	if r.IntN(4) == 0 {
		spec["scaleStrategy"] = map[string]any{"maxUnavailable": []any{float64(1), float64(2), "30%"}[r.IntN(3)]}
	}
	if r.IntN(6) == 0 {
		spec["progressDeadlineSeconds"] = float64(30 + r.IntN(60))
	}
	chance := func(n int) bool { return r.IntN(n) == 0 }
	if lifecycle := drawLifecycle(chance); chance(3) && len(lifecycle) > 0 {
		spec["lifecycle"] = lifecycle
	}
	if chance(5) {
		strategy["inPlaceUpdateStrategy"] = map[string]any{"gracePeriodSeconds": float64(1 + r.IntN(20))}
	}
	if chance(4) {
		spec["volumeClaimTemplates"] = []any{map[string]any{"metadata": map[string]any{"name": "data"}, "spec": map[string]any{}}}
		child(spec, "scaleStrategy")["enablePVCReuse"] = !chance(2)
	}
	if len(containers) > 1 && chance(2) {
		for i, key := range []string{"p_0", "p_1"} {
			containers[i].(map[string]any)["env"] = []any{map[string]any{"name": "KRUISE_CONTAINER_BARRIER", "valueFrom": map[string]any{"configMapKeyRef": map[string]any{"name": "barrier", "key": key}}}}
		}
	}
	if chance(6) {
		strategy["scatterStrategy"] = []any{map[string]any{"key": "note", "value": "1"}}
	}
	routed := r.IntN(2) == 0
	data, _ := json.Marshal(spec)
	return item(func(s *simulation, _ *rand.Rand) {
		if s.api.objects[setRef(name)] != nil {
			return
		}
		if routed {
			setRouted(s, name, true)
		}
		tree := map[string]any{}
		read(data, &tree)
		s.api.put(setRef(name), map[string]any{
			"apiVersion": "apps.kruise.io/v1beta1", "kind": "CloneSet",
			"metadata": map[string]any{"name": name, "namespace": "default", "generation": float64(1)}, "spec": tree,
		}, writer{name: "a user"})
	}, "CloneSet %s is created, with a Service: %v, %s", name, routed, data)
}

func setRouted(s *simulation, name string, routed bool) {
	held := s.api.objects[serviceRef(name)]
	switch {
	case routed && held == nil:
		s.api.put(serviceRef(name), map[string]any{
			"metadata": map[string]any{"name": name, "namespace": "default"}, "spec": map[string]any{"selector": map[string]any{"app": name}},
		}, writer{name: "a user"})
	case !routed && held != nil:
		s.api.remove(held, writer{name: "a user"})
	}
}

func drawPartition(r *rand.Rand) any {
	return []any{float64(1), float64(3), float64(r.IntN(14)), "30%", "50%", "99%", "100%"}[r.IntN(7)]
}

// drawEdit returns, as an item, something that a user does to a CloneSet.
func drawEdit(r *rand.Rand, name string) Item {
	set := func(what string, change func(s *simulation, o *object, spec map[string]any, r *rand.Rand)) Item {
		return item(edit(name, change), "%s: %s", name, what)
	}
	container := func(spec map[string]any, i int) map[string]any {
		containers := child(child(spec, "template"), "spec")["containers"].([]any)
		return containers[min(i, len(containers)-1)].(map[string]any)
	}
	switch r.IntN(20) {
	case 0, 1, 2, 3, 4:
		image, i := []string{"v1", "v2", "v3", "v4", "v2-again", "bad"}[r.IntN(6)], r.IntN(4)/3
		return set(fmt.Sprintf("image %d becomes %s", i, image), func(_ *simulation, _ *object, spec map[string]any, _ *rand.Rand) { container(spec, i)["image"] = image })
	case 5, 6, 7:
		n := r.IntN(13)
		return set(fmt.Sprintf("replicas %d", n), func(_ *simulation, _ *object, spec map[string]any, _ *rand.Rand) { spec["replicas"] = float64(n) })
	case 8, 9:
		paused := r.IntN(2) == 0
		return set(fmt.Sprintf("paused %v", paused), func(_ *simulation, _ *object, spec map[string]any, _ *rand.Rand) {
			rolling(spec)["paused"] = paused
		})
	case 10, 11:
		partition := drawPartition(r)
		if r.IntN(2) == 0 {
			partition = float64(0)
		}
		return set(fmt.Sprintf("partition %v", partition), func(_ *simulation, _ *object, spec map[string]any, _ *rand.Rand) {
			rolling(spec)["partition"] = partition
		})
	case 12, 13, 14:
		n, lower := 1+r.IntN(3), r.IntN(2) == 0
		return set(fmt.Sprintf("%d Pods are named in podsToDelete, replicas lowered: %v", n, lower), func(s *simulation, o *object, spec map[string]any, r *rand.Rand) {
			namePods(s, o, spec, n, lower, r)
		})
	case 15:
		note := fmt.Sprint(r.IntN(3))
		return set("the template's label note becomes "+note, func(_ *simulation, _ *object, spec map[string]any, _ *rand.Rand) {
			child(child(child(spec, "template"), "metadata"), "labels")["note"] = note
		})
	case 16:
		value := fmt.Sprint(r.IntN(3))
		return set("env becomes "+value+", unless the type is InPlaceOnly", func(_ *simulation, _ *object, spec map[string]any, _ *rand.Rand) {
			if rolling(spec)["podUpdatePolicy"] == "InPlaceOnly" {
				return
			}
			container(spec, 0)["env"] = []any{map[string]any{"name": "A", "value": value}}
		})
	case 17:
		strategy := map[string]any{}
		drawBudgets(r, strategy)
		data, _ := json.Marshal(strategy)
		return set("budgets become "+string(data)+", without surge if InPlaceOnly", func(_ *simulation, _ *object, spec map[string]any, _ *rand.Rand) {
			held := rolling(spec)
			for _, key := range []string{"maxSurge", "maxUnavailable"} {
				delete(held, key)
				if value, has := strategy[key]; has && held["podUpdatePolicy"] != "InPlaceOnly" {
					held[key] = value
				}
			}
		})
	case 18:
		routed := r.IntN(2) == 0
		return item(func(s *simulation, _ *rand.Rand) { setRouted(s, name, routed) }, "a Service routes to %s: %v", name, routed)
	}
	again, after := r.IntN(2) == 0, seconds(r, 1, 20)
	create := drawCloneSet(r, name)
	return item(func(s *simulation, r *rand.Rand) {
		if held := s.api.objects[setRef(name)]; held != nil {
			s.api.delete(held, writer{name: "a user"})
		}
		if again {
			s.after(after, func() { create.do(s, r) })
		}
	}, "CloneSet %s is deleted; anew after %s: %v", name, after, again)
}

// namePods adds active Pods to podsToDelete, as admission would allow.
func namePods(s *simulation, o *object, spec map[string]any, n int, lower bool, r *rand.Rand) {
	var active []any
	for _, pod := range s.podsOf(o.uid) {
		if pod.pod.active() {
			active = append(active, pod.pod.name)
		}
	}
	r.Shuffle(len(active), func(i, j int) { active[i], active[j] = active[j], active[i] })
	active = active[:min(n, len(active))]
	s.tell("plan", "they are %v", active)
	child(spec, "scaleStrategy")["podsToDelete"] = active
	if lower {
		spec["replicas"] = max(spec["replicas"].(float64)-float64(len(active)), 0)
	}
}
