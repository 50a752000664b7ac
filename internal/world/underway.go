package world

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// UnderWay is a command of the log that has no outcome yet.
type UnderWay struct {
	Sequence uint64
	// Since is when the log took the command.
	Since time.Time
	Code  string
	// Workload that the command serves, by UID.
	Workload types.UID
	Object   Ref

	verb     Verb
	attempt  uint32
	created  any       // what a create will bring; nil for kinds that the world does not hold
	patch    *podPatch // what the patch of a Pod will change
	uid      types.UID
	wakeID   string
	wakeTime time.Time
}

// Verb of the command.
func (u *UnderWay) Verb() Verb { return u.verb }

// Attempt counts from 0 how often in a row the same effect was refused before.
func (u *UnderWay) Attempt() uint32 { return u.attempt }

// Verb of a command.
type Verb string

// The verbs.
const (
	Create Verb = "create"
	Patch  Verb = "patch"
	Delete Verb = "delete"
	Wake   Verb = "wake"

	// To a node's agent.
	Pull    Verb = "pull"
	Hook    Verb = "hook"
	Stop    Verb = "stop"
	Inspect Verb = "inspect"
	Cancel  Verb = "cancel"
)

// Refusal is the newest no that a workload's commands got, for one reason code.
type Refusal struct {
	Time time.Time
	// Attempt counts the refusals in a row, from 1.
	Attempt uint32
	// Code and Message are the API server's.
	Code, Message string
	Object        Ref

	command, outcome uint64
}

func decodeCommand(sequence uint64, at time.Time, entry *shiplogv1.Entry, command *shiplogv1.Command) (*UnderWay, error) {
	under := &UnderWay{
		Sequence: sequence, Since: at, Code: command.GetReason().GetCode(), Object: RefOf(command.GetObject()),
		Workload: WorkloadOf(entry.GetRollout()), attempt: command.GetAttempt(), uid: types.UID(command.GetObject().GetUid()),
	}
	var err error
	switch effect := command.GetEffect().(type) {
	case *shiplogv1.Command_Create:
		under.verb = Create
		under.created, err = decodeObject(under.Object, command.GetObject().GetVersion(), effect.Create.GetJson())
	case *shiplogv1.Command_Patch:
		under.verb = Patch
		if under.Object.Resource == ResourcePods {
			under.patch, err = decodePodPatch(effect.Patch.GetJson())
		}
	case *shiplogv1.Command_Delete:
		under.verb = Delete
	case *shiplogv1.Command_WakeAt:
		under.verb, under.wakeID, under.wakeTime = Wake, effect.WakeAt.GetId(), effect.WakeAt.GetDue().AsTime()
	default:
		err = errors.New("command without an effect")
	}
	return under, err
}

func decodeCall(sequence uint64, at time.Time, entry *shiplogv1.Entry, command *shiplogv1.Command) (*Call, error) {
	call := &Call{
		Command: sequence, Since: at, Code: command.GetReason().GetCode(), Workload: WorkloadOf(entry.GetRollout()),
		Object: RefOf(command.GetObject()), Node: command.GetNode(), Attempt: command.GetAttempt(),
	}
	switch effect := command.GetEffect().(type) {
	case *shiplogv1.Command_PullImage:
		call.Verb, call.Target, call.Version = Pull, effect.PullImage.GetImage(), effect.PullImage.GetVersion()
	case *shiplogv1.Command_RunHook:
		call.Verb, call.Target, call.Container = Hook, effect.RunHook.GetContainerId(), effect.RunHook.GetContainer()
	case *shiplogv1.Command_StopContainer:
		call.Verb, call.Target, call.Container = Stop, effect.StopContainer.GetContainerId(), effect.StopContainer.GetContainer()
	case *shiplogv1.Command_InspectContainer:
		call.Verb, call.Target = Inspect, effect.InspectContainer.GetContainerId()
	case *shiplogv1.Command_CancelCall:
		call.Verb, call.Target = Cancel, strconv.FormatUint(effect.CancelCall.GetCommand(), 10)
	default:
		return nil, errors.New("command to a node without a call")
	}
	return call, nil
}

// WorkloadOf returns the workload's UID of an entry's rollout.
func WorkloadOf(rollout string) types.UID {
	uid, _, _ := strings.Cut(rollout, "/")
	return types.UID(uid)
}

// slot is one Pod: the newest fact, the command under way, and the two together.
type slot struct {
	held  *Pod
	under *UnderWay
	// deleted is set once a delete of the held Pod was applied, until a fact shows it: Kubernetes never takes that back.
	deleted types.UID
	shown   *Pod
}

// show works out what rules see of the Pod.
func (s *slot) show() {
	s.shown = s.held
	switch {
	case s.under == nil:
	case s.under.verb == Create:
		if s.held == nil {
			if pod, is := s.under.created.(*Pod); is {
				shown := *pod
				shown.UnderWay = s.under
				s.shown = &shown
			}
			return
		}
		shown := *s.held
		shown.UnderWay = s.under
		s.shown = &shown
	case s.held == nil:
	case s.under.verb == Patch:
		s.shown = s.held.patched(s.under.patch)
		s.shown.UnderWay, s.shown.Before = s.under, s.held
	case s.under.verb == Delete:
		shown := *s.held
		shown.UnderWay, shown.Before = s.under, s.held
		shown.Terminating = shown.Terminating || s.under.uid == s.held.UID
		s.shown = &shown
	}
	if s.held != nil && s.deleted == s.held.UID && s.deleted != "" && !s.shown.Terminating {
		shown := *s.shown
		shown.Terminating = true
		s.shown = &shown
	}
}
