package history

import (
	"encoding/json"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/world"
)

// Types of entries, by the words of the log. A wish is a command that only asks for a tick.
var Types = []string{"fact", "deletion", "admission", "node", "call", "vouch", "command", "wish", "outcome", "tick", "fence", "seal", "event", "rewound", "log-lost"}

// TypeOf returns the type of an entry; "unknown" for one that this version does not know.
func TypeOf(entry *shiplogv1.Entry) string {
	switch kind := entry.GetKind().(type) {
	case *shiplogv1.Entry_ObjectObserved:
		return "fact"
	case *shiplogv1.Entry_ObjectDeleted:
		return "deletion"
	case *shiplogv1.Entry_Admitted:
		return "admission"
	case *shiplogv1.Entry_NodeObserved:
		return "node"
	case *shiplogv1.Entry_CallObserved:
		return "call"
	case *shiplogv1.Entry_Vouched:
		return "vouch"
	case *shiplogv1.Entry_Rewound:
		return "rewound"
	case *shiplogv1.Entry_LogLost:
		return "log-lost"
	case *shiplogv1.Entry_Command:
		if kind.Command.GetWakeAt() != nil {
			return "wish"
		}
		return "command"
	case *shiplogv1.Entry_Outcome:
		return "outcome"
	case *shiplogv1.Entry_Ticked:
		return "tick"
	case *shiplogv1.Entry_FenceRaised:
		return "fence"
	case *shiplogv1.Entry_Sealed:
		return "seal"
	case *shiplogv1.Entry_RolloutEvent:
		return "event"
	case nil:
		if entry.GetSkippable() {
			return "position" // what is left of an entry that a bundle was cut from
		}
	}
	return "unknown"
}

// ObjectOf returns the object that an entry is about; false: it is about none.
func ObjectOf(entry *shiplogv1.Entry) (world.Ref, bool) {
	var object *shiplogv1.ObjectRef
	switch kind := entry.GetKind().(type) {
	case *shiplogv1.Entry_ObjectObserved:
		object = kind.ObjectObserved.GetObject()
	case *shiplogv1.Entry_ObjectDeleted:
		object = kind.ObjectDeleted.GetObject()
	case *shiplogv1.Entry_Admitted:
		object = kind.Admitted.GetObject()
	case *shiplogv1.Entry_Command:
		object = kind.Command.GetObject()
	case *shiplogv1.Entry_Outcome:
		object = kind.Outcome.GetObject()
	case *shiplogv1.Entry_NodeObserved:
		return world.Ref{Resource: world.ResourceNodes, Name: kind.NodeObserved.GetNode()}, true
	case *shiplogv1.Entry_CallObserved:
		return world.Ref{Resource: world.ResourceNodes, Name: kind.CallObserved.GetNode()}, true
	case *shiplogv1.Entry_RolloutEvent:
		object = kind.RolloutEvent.GetWorkload()
	}
	return world.RefOf(object), object != nil
}

// ReasonOf returns the code of the reason that an entry carries; empty: none.
func ReasonOf(entry *shiplogv1.Entry) string {
	if command := entry.GetCommand(); command != nil {
		return command.GetReason().GetCode()
	}
	return entry.GetOutcome().GetReason().GetCode()
}

// Selector chooses entries. Fields that are zero choose all.
type Selector struct {
	Namespace string
	// Kinds of the object that the entry is about.
	Kinds []Kind
	Name  string
	// Rollout is "UID/GENERATION" or a workload's UID.
	Rollout string
	// Types and Reasons are alternatives.
	Types, Reasons []string
	// Labels of the entry's object, as the newest fact that was shown to Matches has them.
	Labels labels.Selector

	known map[world.Ref]labels.Set
}

// Matches says whether an entry is chosen. With Labels it must be shown the entries in order.
func (s *Selector) Matches(record journal.Record) bool {
	entry := record.Entry
	ref, about := ObjectOf(entry)
	if s.Labels != nil && !s.Labels.Empty() {
		s.learn(ref, entry)
		if set, known := s.known[ref]; !known || !s.Labels.Matches(set) {
			return false
		}
	}
	switch {
	case len(s.Types) > 0 && !slices.Contains(s.Types, TypeOf(entry)),
		len(s.Reasons) > 0 && !slices.Contains(s.Reasons, ReasonOf(entry)),
		s.Rollout != "" && entry.GetRollout() != s.Rollout && !strings.HasPrefix(entry.GetRollout(), s.Rollout+"/"):
		return false
	}
	if s.Namespace == "" && s.Name == "" && len(s.Kinds) == 0 {
		return true
	}
	return about && (s.Namespace == "" || ref.Namespace == s.Namespace) && (s.Name == "" || ref.Name == s.Name) &&
		(len(s.Kinds) == 0 || slices.ContainsFunc(s.Kinds, func(kind Kind) bool { return kind.Has(ref) }))
}

// Has says whether an object is of the kind.
func (k Kind) Has(ref world.Ref) bool {
	return k.Resource == ref.Resource && (k.Group == "*" || k.Group == ref.Group)
}

func (s *Selector) learn(ref world.Ref, entry *shiplogv1.Entry) {
	observed := entry.GetObjectObserved()
	if observed == nil {
		return
	}
	set := Labels(observed.GetJson())
	if s.known == nil {
		s.known = map[world.Ref]labels.Set{}
	}
	s.known[ref] = set
}

// Labels returns the labels of an object that is given as JSON.
func Labels(object []byte) labels.Set {
	var wire struct {
		Metadata struct {
			Labels map[string]string `json:"labels"`
		} `json:"metadata"`
	}
	_ = json.Unmarshal(object, &wire)
	return wire.Metadata.Labels
}
