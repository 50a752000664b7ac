package world

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Describe returns the whole world as text, the same for the same world: for tests, and for people who compare two worlds.
func (w *World) Describe() string {
	var out strings.Builder
	line := func(kind string, key, value any) {
		data, err := json.Marshal(value)
		if err != nil {
			data = []byte(err.Error())
		}
		fmt.Fprintf(&out, "%s %v %s\n", kind, key, data)
	}
	fmt.Fprintf(&out, "position %d at %s, fence %d\n", w.sequence, w.now.UTC().Format(time.RFC3339Nano), w.fence)
	for _, namespace := range slices.Sorted(maps.Keys(w.pods)) {
		for _, name := range slices.Sorted(maps.Keys(w.pods[namespace])) {
			at, ref := w.pods[namespace][name], Ref{Resource: ResourcePods, Namespace: namespace, Name: name}
			line("pod", ref, at.held)
			if at.shown != at.held {
				line("pod shown", ref, at.shown)
			}
		}
	}
	for _, owner := range slices.Sorted(maps.Keys(w.podsOf)) {
		for _, at := range w.podsOf[owner].slots {
			line("owned by", owner, at.shown.Name)
		}
	}
	for _, ref := range sortedRefs(w.cloneSets) {
		line("cloneset", ref, w.cloneSets[ref])
	}
	for _, ref := range sortedRefs(w.revisions) {
		line("revision", ref, w.revisions[ref])
	}
	for _, ref := range sortedRefs(w.claims) {
		line("claim", ref, w.claims[ref])
	}
	for _, ref := range sortedRefs(w.customs) {
		line("custom", ref, w.customs[ref])
	}
	for _, sequence := range slices.Sorted(maps.Keys(w.callsBy)) {
		line("call", sequence, w.callsBy[sequence])
	}
	for _, name := range slices.Sorted(maps.Keys(w.agents)) {
		line("agent", name, w.agents[name])
	}
	for _, job := range slices.Sorted(maps.Keys(w.results)) {
		for _, node := range slices.Sorted(maps.Keys(w.results[job])) {
			held := w.results[job][node]
			line("pulled for", string(job)+" "+node, []any{held.failed, held.message, held.image, held.job})
		}
	}
	for _, namespace := range slices.Sorted(maps.Keys(w.podJobs)) {
		line("selects Pods", namespace, sortedRefs(w.podJobs[namespace]))
	}
	for _, pod := range sortedRefs(w.restarts) {
		line("restarts of", pod, sortedRefs(w.restarts[pod]))
	}
	for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
		line("node", name, w.nodes[name])
	}
	for _, name := range slices.Sorted(maps.Keys(w.namespaces)) {
		line("namespace", name, w.namespaces[name])
		for _, service := range slices.Sorted(maps.Keys(w.services[name])) {
			line("service", service, w.services[name][service])
		}
		for _, endpoints := range slices.Sorted(maps.Keys(w.slices[name])) {
			line("endpointslice", endpoints, w.slices[name][endpoints])
		}
	}
	for _, ref := range sortedRefs(w.underWay) {
		line("under way", ref, w.underWay[ref])
	}
	for _, key := range slices.SortedFunc(maps.Keys(w.refusals), func(a, b refusalKey) int {
		return strings.Compare(string(a.workload)+a.code, string(b.workload)+b.code)
	}) {
		line("refused", key, w.refusals[key])
	}
	for _, id := range slices.Sorted(maps.Keys(w.wakes)) {
		line("wakes", id, w.wakes[id].wakeTime)
	}
	for _, uid := range slices.Sorted(maps.Keys(w.deletions)) {
		line("deleted", uid, w.deletions[uid].object)
	}
	for _, ref := range sortedRefs(w.removals) {
		line("removed", ref, w.removals[ref])
	}
	for _, ref := range sortedRefs(w.parents) {
		line("child", ref, w.parents[ref])
	}
	line("gates", "", w.gates)
	line("settings", "", w.settings)
	for _, ref := range sortedRefs(w.tombstones) {
		line("gone", ref, w.tombstones[ref].version)
	}
	for _, resource := range Watched {
		line("vouched", resource, w.vouches[resource].asOf)
	}
	return out.String()
}

func sortedRefs[V any](held map[Ref]V) []Ref { return slices.SortedFunc(maps.Keys(held), CompareRefs) }
