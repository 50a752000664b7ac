package world

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// Call is the newest command to the agent of a node for one target: an image, or a container.
type Call struct {
	// Command is the sequence of the command, Since when the log took it.
	Command uint64
	Since   time.Time
	Code    string
	// Workload that the command serves, by UID, and Object for which the call is made.
	Workload     types.UID
	Object       Ref
	Node, Target string
	Verb         Verb
	// Container is the name of the container that is stopped, or whose hook runs.
	Container string
	// Attempt counts from 0.
	Attempt uint32
	// Version of the tag that a pull is for.
	Version int64
	// State is how far it is.
	State CallState
	// Running is when the agent began to make the call; zero: it has not said so.
	Running time.Time
	// Bytes of a pull that have come, of those that are to come in all; 0: unknown.
	BytesDone, BytesTotal uint64
	// Ended is when the outcome came, and Outcome is it; zero and nil: there is none yet.
	Ended   time.Time
	Outcome *shiplogv1.Outcome

	// The entries on which it rests, beside the command: the newest fact, the first that said it runs, the outcome.
	fact, running, outcome uint64
}

// CallState is how far a call is.
type CallState int

// How far a call is, in that order.
const (
	CallAsked   CallState = iota // the agent has not said that it has the command
	CallTaken                    // it waits for its turn on the node
	CallRunning                  // it is being made
	CallEnded                    // there is an outcome
)

// Applied says whether the call did what was asked.
func (c *Call) Applied() bool { return c.Outcome.GetResult() == shiplogv1.Outcome_RESULT_APPLIED }

// callKey tells calls apart: one node does not do the same to the same target twice at a time.
type callKey struct {
	node   string
	verb   Verb
	target string
}

func (c *Call) key() callKey { return callKey{c.Node, c.Verb, c.Target} }

// Call returns the newest command to a node for a target, or nil. One that ended is forgotten after a while.
func (w *World) Call(node string, verb Verb, target string) *Call {
	return w.calls[callKey{node, verb, target}]
}

// OpenCalls returns the calls of a node that have no outcome, by sequence.
func (w *World) OpenCalls(node string) []*Call {
	return slices.SortedFunc(maps.Values(w.openCalls[node]), func(a, b *Call) int { return cmp.Compare(a.Command, b.Command) })
}

// EndedCalls returns the calls to a node that a workload made and that ended lately, by sequence.
func (w *World) EndedCalls(node string, verb Verb, workload types.UID) []*Call {
	var out []*Call
	for _, call := range w.callsBy { //shiplog:unordered: sorted below
		if call.Node == node && call.Verb == verb && call.Workload == workload && call.State == CallEnded {
			out = append(out, call)
		}
	}
	slices.SortFunc(out, func(a, b *Call) int { return cmp.Compare(a.Command, b.Command) })
	return out
}

// CallBy returns the call of a command, or nil.
func (w *World) CallBy(command uint64) *Call { return w.callsBy[command] }

func (w *World) startCall(call *Call) {
	if before := w.calls[call.key()]; before != nil {
		w.forgetCall(before)
	}
	w.calls[call.key()], w.callsBy[call.Command] = call, call
	if w.openCalls[call.Node] == nil {
		w.openCalls[call.Node] = map[uint64]*Call{}
	}
	w.openCalls[call.Node][call.Command] = call
	w.touchCall(call)
}

func (w *World) observeCall(change Change, seen *shiplogv1.CallObserved) {
	held := w.callsBy[change.Entry.GetCause()]
	if held == nil || held.State == CallEnded {
		return
	}
	call := *held // who holds it has seen it as it was
	call.fact, call.BytesDone, call.BytesTotal = change.Sequence, seen.GetBytesDone(), seen.GetBytesTotal()
	call.State = CallTaken
	if seen.GetState() == shiplogv1.CallObserved_STATE_RUNNING {
		call.State = CallRunning
		if call.Running = held.Running; call.Running.IsZero() {
			call.Running, call.running = change.Time, change.Sequence
		}
	}
	w.putCall(&call)
}

func (w *World) endCall(change Change, outcome *shiplogv1.Outcome) {
	held := w.callsBy[change.Entry.GetCause()]
	if held == nil || held.State == CallEnded {
		return
	}
	call := *held
	call.State, call.Ended, call.Outcome, call.outcome = CallEnded, change.Time, outcome, change.Sequence
	w.putCall(&call)
	delete(w.openCalls[call.Node], call.Command)
	if len(w.openCalls[call.Node]) == 0 {
		delete(w.openCalls, call.Node)
	}
	w.endedCalls = append(w.endedCalls, endedCall{call.Command, change.Time})
}

func (w *World) putCall(call *Call) {
	w.calls[call.key()], w.callsBy[call.Command] = call, call
	if open := w.openCalls[call.Node]; open[call.Command] != nil {
		open[call.Command] = call
	}
	w.touchCall(call)
}

// touchCall marks what a call concerns: the workload that it serves, and of a pull the jobs that wait for the image.
func (w *World) touchCall(call *Call) {
	w.touchUID(call.Workload)
	if image := w.NodeImage(call.Node); image != nil && call.Verb == Pull {
		w.touchOwners(image)
	}
}

func (w *World) forgetCall(call *Call) {
	delete(w.callsBy, call.Command)
	delete(w.openCalls[call.Node], call.Command)
	if len(w.openCalls[call.Node]) == 0 {
		delete(w.openCalls, call.Node)
	}
	if now := w.calls[call.key()]; now != nil && now.Command == call.Command {
		delete(w.calls, call.key())
	}
}

type endedCall struct {
	command uint64
	time    time.Time
}

// buryCalls forgets calls that ended long ago: by then their effect shows in the objects.
func (w *World) buryCalls() {
	for len(w.endedCalls) > 0 && w.old(w.endedCalls[0].time) {
		if call := w.callsBy[w.endedCalls[0].command]; call != nil {
			w.forgetCall(call)
		}
		w.endedCalls = w.endedCalls[1:]
	}
}
