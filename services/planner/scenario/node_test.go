package scenario

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/types/known/durationpb"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
)

// node is a Node with labels.
func (c *cluster) node(d *datadriven.TestData) {
	name, labels := d.CmdArgs[0].Key, map[string]any{}
	tree := map[string]any{"metadata": map[string]any{"name": name, "labels": labels}}
	for _, argument := range d.CmdArgs[1:] {
		if argument.Key != "ready" {
			labels[argument.Key] = argument.Vals[0]
			continue
		}
		status := map[string]string{"true": "True", "false": "False"}[argument.Vals[0]]
		tree["status"] = map[string]any{"conditions": []any{map[string]any{
			"type": "Ready", "status": status, "lastTransitionTime": c.now.UTC().Truncate(time.Second).Format(time.RFC3339),
		}}}
	}
	c.store(object{&shiplogv1.ObjectRef{Version: "v1", Resource: "nodes", Name: name}, tree}, 0)
}

// ref names an object of a kind that scenarios name.
func (c *cluster) ref(kind, name string) world.Ref {
	switch kind {
	case "nodeimage":
		return world.Ref{Group: world.GroupKruise, Resource: world.ResourceNodeImages, Name: name}
	case "node":
		return world.Ref{Resource: world.ResourceNodes, Name: name}
	case "pod":
		return podRef(c.real(name))
	}
	resource := map[string]string{
		"imagepulljob": world.ResourceImagePullJobs, "imagelistpulljob": world.ResourceImageListPullJobs, "restart": world.ResourceRestartRequests,
		"cloneset": world.ResourceCloneSets,
	}[kind]
	return world.Ref{Group: world.GroupKruise, Resource: resource, Namespace: "default", Name: c.real(name)}
}

// custom creates or edits an object by a merge patch.
func (c *cluster) custom(d *datadriven.TestData) {
	ref := c.ref(d.Cmd, d.CmdArgs[0].Key)
	held, exists := c.objects[ref]
	if !exists {
		metadata := map[string]any{"name": ref.Name, "generation": float64(0)}
		if ref.Namespace != "" {
			metadata["namespace"] = ref.Namespace
		}
		held = object{
			&shiplogv1.ObjectRef{Group: ref.Group, Version: "v1beta1", Resource: ref.Resource, Namespace: ref.Namespace, Name: ref.Name},
			map[string]any{"metadata": metadata, "spec": map[string]any{}},
		}
	}
	before, _ := json.Marshal(held.tree)
	after, err := jsonpatch.MergePatch(before, []byte(c.realAll(d.Input)))
	if err != nil {
		d.Fatalf(c.t, "%v", err)
	}
	held.tree = map[string]any{}
	if err := json.Unmarshal(after, &held.tree); err != nil {
		d.Fatalf(c.t, "%v", err)
	}
	metadata := child(held.tree, "metadata")
	generation, _ := metadata["generation"].(float64)
	metadata["generation"] = generation + 1
	c.store(held, 0)
}

// call is a word of a node's agent about the oldest call to it whose target begins as given.
func (c *cluster) call(d *datadriven.TestData) {
	node, target, word := d.CmdArgs[0].Key, c.realAll(d.CmdArgs[1].Key), d.CmdArgs[2].Key
	for _, r := range c.calls() {
		command := r.entry.GetCommand()
		of := c.world.CallBy(r.sequence)
		if command.GetNode() != node || of == nil || !strings.HasPrefix(of.Target, target) {
			continue
		}
		argument := func(key string) string { return strings.Join(c.argument(d, key), ",") }
		number := func(key string) uint64 {
			n, _ := strconv.ParseUint(argument(key), 10, 64)
			return n
		}
		if word == "taken" || word == "running" {
			seen := &shiplogv1.CallObserved{Node: node, Target: of.Target, State: shiplogv1.CallObserved_STATE_TAKEN, BytesDone: number("done"), BytesTotal: number("total")}
			if word == "running" {
				seen.State = shiplogv1.CallObserved_STATE_RUNNING
			}
			c.append(&shiplogv1.Entry{Cause: r.sequence, Kind: &shiplogv1.Entry_CallObserved{CallObserved: seen}})
			return
		}
		took, _ := time.ParseDuration(argument("took"))
		outcome := &shiplogv1.Outcome{
			Result: shiplogv1.Outcome_RESULT_APPLIED, Object: command.GetObject(), Attempt: command.GetAttempt(), Node: node, Target: of.Target, Took: durationpb.New(took),
		}
		switch {
		case command.GetPullImage() != nil:
			pulled := &shiplogv1.PulledImage{ImageId: argument("id")}
			for _, secret := range c.argument(d, "missing") {
				namespace, name, _ := strings.Cut(secret, "/")
				pulled.MissingSecrets = append(pulled.MissingSecrets, &shiplogv1.SecretRef{Namespace: namespace, Name: name})
			}
			outcome.Found = &shiplogv1.Outcome_PulledImage{PulledImage: pulled}
		case command.GetInspectContainer() != nil:
			outcome.Found = &shiplogv1.Outcome_InspectedContainer{InspectedContainer: &shiplogv1.InspectedContainer{PlainHash: number("plain"), EnvironmentHash: number("env")}}
		}
		if word == "refused" {
			outcome.Result = shiplogv1.Outcome_RESULT_REFUSED
			outcome.Reason = &shiplogv1.Reason{Code: argument("code"), Message: d.Input}
		}
		c.append(&shiplogv1.Entry{Cause: r.sequence, Rollout: r.entry.GetRollout(), Kind: &shiplogv1.Entry_Outcome{Outcome: outcome}})
		return
	}
	d.Fatalf(c.t, "node %s has no call for %s", node, target)
}

// restarts is the kubelet's word that a container runs again, or that it ended.
func (c *cluster) restarts(d *datadriven.TestData) {
	o := c.objects[podRef(c.real(d.CmdArgs[0].Key))]
	ready := strings.Join(c.argument(d, "ready"), "") != "false"
	for _, held := range child(o.tree, "status")["containerStatuses"].([]any) {
		status := held.(map[string]any)
		if status["name"] != d.CmdArgs[1].Key {
			continue
		}
		if ended := c.argument(d, "ended"); ended != nil {
			code, _ := strconv.Atoi(ended[0])
			status["state"], status["ready"] = map[string]any{"terminated": map[string]any{"exitCode": float64(code)}}, false
			continue
		}
		count, _ := status["restartCount"].(float64)
		if n, is := status["restartCount"].(int32); is {
			count = float64(n)
		}
		status["restartCount"], status["ready"] = count+1, ready
		status["containerID"] = strings.TrimRight(status["containerID"].(string), "0123456789") + strconv.Itoa(int(count)+1)
		status["state"] = map[string]any{"running": map[string]any{"startedAt": c.now.UTC().Truncate(time.Second).Format(time.RFC3339)}}
	}
	c.store(o, 0)
}
