// Package stopping words how a container is brought to its end by the agent of its node: first what it wants done, then the stop,
// within one grace period (spec: container-restart R17). It does not decide which container, nor what follows. Pure.
package stopping

import (
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"shiplog.dev/api/kruise/apps/v1beta1"
	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
)

// Reason codes of the commands, stable.
const (
	RunHook       = "RunHook"
	StopContainer = "StopContainer"
)

const (
	// takeWithin is how long the agent may take to begin with a call (container-restart R22).
	takeWithin = time.Minute
	// slack is what a stop may take beyond its grace period: two tries of the agent to end a container that was killed, of five
	// seconds each (container-restart R17 has one).
	slack = 10 * time.Second
	// DefaultGrace and leastGrace bound what a container gets to stop.
	DefaultGrace, leastGrace = 30 * time.Second, 2 * time.Second
	// noAgent is the code of an outcome that the executor writes because no agent did.
	noAgent = "NoAgent"
)

// Container that is to stop.
type Container struct {
	// Name in the Pod's spec, and the runtime's identity without scheme.
	Name, ID string
	// PreStop is what it wants done before; nil: nothing. Ports are those by whose names it may call a port.
	PreStop *v1beta1.ContainerRecreateRequestHandler
	Ports   []corev1.ContainerPort
	// Grace is for both together.
	Grace time.Duration
}

// Progress is how far a container is on its way to its end.
type Progress int

// How far.
const (
	UnderWay Progress = iota
	Stopped
	// Silent: the agent of the node does not answer.
	Silent
	// Failed: the runtime could not stop it.
	Failed
)

// Next returns the next command for a container that a workload wants stopped, nil while nothing is to be commanded; how far
// it is; and of Failed and Stopped the call that ended it.
func Next(w *world.World, pod *world.Pod, workload types.UID, c Container) (*shiplogv1.Command, Progress, *world.Call) {
	grace := c.Grace
	if hook := hookOf(&c); hook != nil && grace > 0 {
		call := CallOf(w, pod, workload, world.Hook, c.ID)
		switch {
		case call == nil:
			command := decide.Call(pod.Node, decide.PodRef(pod), decide.Why(RunHook, "container %s runs its preStop hook for at most %s", c.Name, grace), takeWithin, grace)
			command.Effect = &shiplogv1.Command_RunHook{RunHook: hook}
			return command, UnderWay, nil
		case call.State != world.CallEnded:
			return nil, UnderWay, nil
		case call.Outcome.GetReason().GetCode() == noAgent:
			return nil, Silent, call
		}
		grace -= call.Outcome.GetTook().AsDuration().Truncate(time.Second) // a hook that failed does not keep the container (R20)
	}
	call := CallOf(w, pod, workload, world.Stop, c.ID)
	switch {
	case call == nil:
		grace = max(grace, leastGrace)
		command := decide.Call(pod.Node, decide.PodRef(pod), decide.Why(StopContainer, "container %s gets %s to stop", c.Name, grace), takeWithin, grace+slack)
		command.Effect = &shiplogv1.Command_StopContainer{StopContainer: &shiplogv1.StopContainer{ContainerId: c.ID, Container: c.Name, Grace: durationpb.New(grace)}}
		return command, UnderWay, nil
	case call.State != world.CallEnded:
		return nil, UnderWay, nil
	case call.Outcome.GetReason().GetCode() == noAgent:
		return nil, Silent, call
	case call.Applied():
		return nil, Stopped, call
	}
	return nil, Failed, call
}

// CallOf returns the newest call that a workload made for a container, or nil.
func CallOf(w *world.World, pod *world.Pod, workload types.UID, verb world.Verb, id string) *world.Call {
	if call := w.Call(pod.Node, verb, id); call != nil && call.Workload == workload {
		return call
	}
	return nil
}

// BareID is a container's identity without the scheme that Pod status puts in front.
func BareID(id string) string {
	if _, bare, has := strings.Cut(id, "://"); has {
		return bare
	}
	return id
}

// hookOf words the preStop hook; nil: there is none.
func hookOf(c *Container) *shiplogv1.RunHook {
	hook := c.PreStop
	if hook == nil {
		return nil
	}
	out := &shiplogv1.RunHook{ContainerId: c.ID, Container: c.Name}
	switch {
	case hook.Exec != nil:
		out.Handler = &shiplogv1.RunHook_Exec{Exec: &shiplogv1.ExecHook{Command: hook.Exec.Command}}
	case hook.HTTPGet != nil:
		get := &shiplogv1.HttpHook{
			Scheme: strings.ToLower(string(hook.HTTPGet.Scheme)), Host: hook.HTTPGet.Host, Port: c.port(hook.HTTPGet.Port), Path: hook.HTTPGet.Path,
		}
		if get.Scheme == "" {
			get.Scheme = "http"
		}
		for _, header := range hook.HTTPGet.HTTPHeaders {
			get.Headers = append(get.Headers, &shiplogv1.HttpHeader{Name: header.Name, Value: header.Value})
		}
		out.Handler = &shiplogv1.RunHook_Http{Http: get}
	case hook.TCPSocket != nil:
		out.Handler = &shiplogv1.RunHook_Tcp{Tcp: &shiplogv1.TcpHook{Host: hook.TCPSocket.Host, Port: c.port(hook.TCPSocket.Port)}}
	case hook.Sleep != nil:
		out.Handler = &shiplogv1.RunHook_Sleep{Sleep: durationpb.New(time.Duration(hook.Sleep.Seconds) * time.Second)}
	default:
		return nil
	}
	return out
}

// port is the number of a port, found by name among those of the container; 0: there is none, and the hook fails.
func (c *Container) port(port intstr.IntOrString) uint32 {
	if port.Type == intstr.Int {
		return uint32(max(port.IntVal, 0))
	}
	for _, one := range c.Ports {
		if one.Name == port.StrVal {
			return uint32(max(one.ContainerPort, 0))
		}
	}
	number, _ := strconv.ParseUint(port.StrVal, 10, 16)
	return uint32(number)
}
