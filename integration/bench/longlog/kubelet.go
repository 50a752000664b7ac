package longlog

import (
	"crypto/sha256"
	"fmt"
	"strings"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
)

const nodes = 20

// admit adds to a Pod what an API server adds: a token to mount, tolerations, defaults.
func admit(pod tree) {
	spec := child(pod, "spec")
	mount := tree{"mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "name": "kube-api-access", "readOnly": true}
	for _, container := range containers(pod) {
		container.(tree)["volumeMounts"] = []any{mount}
	}
	spec["volumes"] = []any{tree{"name": "kube-api-access", "projected": tree{"defaultMode": 420.0, "sources": []any{
		tree{"serviceAccountToken": tree{"expirationSeconds": 3607.0, "path": "token"}},
		tree{"configMap": tree{"items": []any{tree{"key": "ca.crt", "path": "ca.crt"}}, "name": "kube-root-ca.crt"}},
		tree{"downwardAPI": tree{"items": []any{tree{"fieldRef": tree{"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace"}}}},
	}}}}
	toleration := func(key string) tree {
		return tree{"effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": 300.0}
	}
	spec["tolerations"] = []any{toleration("node.kubernetes.io/not-ready"), toleration("node.kubernetes.io/unreachable")}
	spec["enableServiceLinks"], spec["serviceAccount"], spec["serviceAccountName"] = true, "default", "default"
	spec["preemptionPolicy"], spec["priority"] = "PreemptLowerPriority", 0.0
	child(pod, "metadata")["generation"] = 1.0
	status := child(pod, "status")
	status["phase"], status["qosClass"] = "Pending", "Burstable"
}

// look lets scheduler and kubelet act on a Pod soon.
func (a *api) look(ref world.Ref) {
	if a.looked[ref] {
		return
	}
	a.looked[ref] = true
	a.r.later(1, 4, func() []*shiplogv1.Entry {
		delete(a.looked, ref)
		return a.act(ref)
	})
}

// act makes the next change that a Pod's scheduler or kubelet makes.
func (a *api) act(ref world.Ref) []*shiplogv1.Entry {
	pod := a.objects[ref]
	if pod == nil {
		return nil
	}
	metadata, spec, status := child(pod, "metadata"), child(pod, "spec"), child(pod, "status")
	switch {
	case metadata["deletionTimestamp"] != nil:
		return []*shiplogv1.Entry{a.remove(ref)}
	case spec["nodeName"] == nil:
		spec["nodeName"] = fmt.Sprintf("node-%d", a.r.rand.IntN(nodes))
		a.condition(status, "PodScheduled", true)
		return []*shiplogv1.Entry{a.put(ref, pod, "kube-scheduler", 0)}
	}
	statuses, _ := status["containerStatuses"].([]any)
	changed := status["observedGeneration"] != metadata["generation"]
	status["observedGeneration"] = metadata["generation"]
	if statuses == nil {
		for _, container := range containers(pod) {
			statuses = append(statuses, tree{"name": container.(tree)["name"], "restartCount": -1.0})
		}
		status["phase"], status["startTime"], status["hostIP"] = "Running", a.stamp(), "10.0.0.7"
		status["podIP"] = fmt.Sprintf("10.%d.%d.%d", a.r.rand.IntN(250), a.r.rand.IntN(250), a.r.rand.IntN(250))
		a.condition(status, "Initialized", true)
	}
	status["containerStatuses"] = statuses
	runs := true
	for i, container := range containers(pod) {
		image := container.(tree)["image"].(string)
		held := statuses[i].(tree)
		bad := strings.Contains(image, ":bad")
		if held["image"] != image {
			a.uids++
			held["image"], held["imageID"] = image, fmt.Sprintf("%s@sha256:%x", image[:strings.LastIndexByte(image, ':')], sha256.Sum256([]byte(image)))
			held["containerID"] = fmt.Sprintf("containerd://%x", sha256.Sum256([]byte(fmt.Sprint(a.r.Seed, a.uids))))
			held["restartCount"] = held["restartCount"].(float64) + 1
			held["ready"], held["started"], held["state"] = !bad, !bad, tree{"running": tree{"startedAt": a.stamp()}}
			if bad {
				held["state"] = tree{"waiting": tree{"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
			}
			changed = true
		}
		runs = runs && !bad
	}
	changed = a.condition(status, "ContainersReady", runs) || changed
	if gates, _ := spec["readinessGates"].([]any); runs {
		for _, gate := range gates {
			runs = runs && conditionOf(status, gate.(tree)["conditionType"].(string))["status"] == "True"
		}
	}
	if changed = a.condition(status, "Ready", runs) || changed; !changed {
		return nil
	}
	return []*shiplogv1.Entry{a.put(ref, pod, "kubelet", 0)}
}

func conditionOf(status tree, name string) tree {
	conditions, _ := status["conditions"].([]any)
	for _, condition := range conditions {
		if condition.(tree)["type"] == name {
			return condition.(tree)
		}
	}
	return nil
}

// condition sets a condition and says whether that changed anything.
func (a *api) condition(status tree, name string, holds bool) bool {
	text := map[bool]string{true: "True", false: "False"}[holds]
	held := conditionOf(status, name)
	if held == nil {
		held = tree{"type": name, "lastProbeTime": nil}
		conditions, _ := status["conditions"].([]any)
		status["conditions"] = append(conditions, held)
	}
	if held["status"] == text {
		return false
	}
	held["status"], held["lastTransitionTime"] = text, a.stamp()
	return true
}
