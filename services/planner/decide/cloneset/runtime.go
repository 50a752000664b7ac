package cloneset

import (
	"encoding/json"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/gate"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
	"shiplog.dev/services/planner/decide/inplace"
	"shiplog.dev/services/planner/decide/stopping"
)

const (
	// An inspection is answered at once or not at all.
	inspectTakes, inspectRuns = time.Minute, 10 * time.Second
	// settles is how long after the metadata changed a kubelet may still start a container with what was there before. One that
	// started later and is not as wanted is not restarted again and again.
	settles = 30 * time.Second
)

// runtime keeps the account of what really runs in the Pods whose containers have environment from metadata, and restarts those
// whose environment is of yesterday (pod-probe part B, inplace-update R24). Of other Pods nobody asks, so for them nothing is
// written down; an account that somebody else began is kept up.
func (r *round) runtime() {
	if !r.World.Gate(gate.KruiseDaemon) || !r.World.Gate(inplace.GateEnvFromMetadata) {
		return
	}
	for i := range r.pods {
		p := r.pods[i].Pod
		if p.UID == "" || !p.Active() || !r.World.HasAgent(p.Node) || !p.Annotations.Has(inplace.RuntimeAnnotation) && !inplace.ReadsMetadata(p) {
			continue
		}
		if r.inspect(p) {
			r.restart(p)
		}
	}
}

// inspect brings the account of a Pod up to date and says whether it is.
func (r *round) inspect(p *world.Pod) bool {
	unknown, account := inplace.ToInspect(p)
	complete := true
	for _, status := range unknown {
		id := stopping.BareID(status.ContainerID)
		call := r.World.Call(p.Node, world.Inspect, id)
		switch {
		case call == nil:
			command := decide.Call(p.Node, decide.PodRef(p), decide.Why(InspectContainer, "container %s is another one than is written down", status.Name), inspectTakes, inspectRuns)
			effect := &shiplogv1.InspectContainer{ContainerId: id}
			for _, container := range p.Containers {
				if container.Name == status.Name {
					for _, read := range container.Reads {
						effect.Environment = append(effect.Environment, read.Name)
					}
				}
			}
			command.Effect = &shiplogv1.Command_InspectContainer{InspectContainer: effect}
			r.Append(command)
			complete = false
		case call.State != world.CallEnded || !call.Applied():
			complete = false
		default:
			found := call.Outcome.GetInspectedContainer()
			account.Containers = append(account.Containers, inplace.RuntimeContainer{
				Name: status.Name, ContainerID: status.ContainerID, RestartCount: int32(found.GetRestartCount()),
				Hashes: inplace.RuntimeHashes{Plain: found.GetPlainHash(), Env: found.GetEnvironmentHash()},
			})
		}
	}
	if len(unknown) == 0 {
		return true
	}
	if !complete || !r.idle(p) || !r.mayTry(RecordRuntime) {
		return false
	}
	account.Sort(p)
	text, _ := json.Marshal(account) // strings and numbers can be written
	r.command(p, decide.PatchPod(p, "status", map[string]any{"metadata": map[string]any{"annotations": map[string]any{inplace.RuntimeAnnotation: string(text)}}},
		decide.Why(RecordRuntime, "%d containers are others than are written down", len(unknown))))
	return false
}

// restart stops the containers of a Pod whose environment is not what its metadata says, while the Pod is drained for an update
// of it; the kubelet starts them with what it says now (pod-probe B8).
func (r *round) restart(p *world.Pod) {
	gate := p.Condition(inplace.ReadyCondition)
	if p.Update == nil || !p.Update.UpdateEnvFromMetadata || gate.Status != "False" || p.UnderWay != nil {
		return
	}
	for _, container := range inplace.ToRestart(p) {
		status := p.Status(container.Name)
		if began, err := time.Parse(time.RFC3339, p.Update.UpdateTimestamp); err == nil && status.State.Running.StartedAt.After(began.Add(settles)) {
			r.problem = "Pod " + p.Name + ": container " + container.Name + " was restarted, and its environment still is not what the Pod's metadata says"
			continue
		}
		command, progress, call := stopping.Next(r.World, p, r.set.UID, stopping.Container{
			Name: container.Name, ID: stopping.BareID(status.ContainerID), PreStop: container.PreStop, Ports: container.Ports,
			Grace: time.Duration(p.GraceSeconds) * time.Second,
		})
		if progress == stopping.Failed || progress == stopping.Silent {
			r.problem = "Pod " + p.Name + ": container " + container.Name + " cannot be restarted: " + call.Outcome.GetReason().GetMessage()
		}
		if command != nil && r.mayTakeDown() {
			r.Append(command)
		}
	}
}
