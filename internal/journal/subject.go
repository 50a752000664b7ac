package journal

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// The subjects of the log, after "shiplog.CLUSTER.". Readers see all of them but wake.
const (
	spaceFact    = "fact"  // fact.GROUP.RESOURCE.NAMESPACE.NAME: objects observed and deleted
	spaceAdmit   = "admit" // admit.GROUP.RESOURCE.NAMESPACE.NAME: who asked for a change
	spaceVouch   = "vouch" // vouch: the watcher's word
	spaceCommand = "cmd"   // cmd.SHARD.GROUP.RESOURCE.NAMESPACE.NAME: writes for the executor
	spaceWish    = "wish"  // wish.GROUP.RESOURCE.NAMESPACE.NAME: commands that only ask for a tick; no executor takes them
	spaceWake    = "wake"  // wake.ID: the note by which the log remembers a wish; goes when the tick comes
	spaceTick    = "tick"  // tick.ID
	spaceOutcome = "out"   // out.GROUP.RESOURCE.NAMESPACE.NAME
	spaceFence   = "fence" // fence.planner
	spaceNode    = "node"  // node.NODE.PART.VERB...: one node and its agent, apart so that a permission can name them
	spaceSeal    = "seal"  // seal.planner
	spaceEvent   = "event" // event.KIND.NAMESPACE.NAME.TYPE: rollout events, as CloudEvents in JSON
	spaceAlarm   = "alarm" // alarm.rewound, alarm.log-lost: what breaks the thread of facts
	// spaceLead is outside the stream: on it standbys ask who leads, and the leader answers.
	spaceLead = "lead"
)

const (
	root         = "shiplog"
	fenceHolder  = "planner"
	alarmRewound = "rewound"
	alarmLogLost = "log-lost"

	coreToken  = "core"
	emptyToken = "_"

	// maxSubject is in bytes. A server takes 4 kB for a protocol line, which holds a reply subject too.
	maxSubject = 2048
)

// What is said of a node, and the verbs of the facts and outcomes. A command's verb is what it does.
const (
	partCommand = "cmd"  // cmd.VERB.TARGET: a call for the agent to make
	partFact    = "fact" // fact.runtime; fact.call.SEQUENCE: how far the agent is with the command of that sequence
	partOutcome = "out"  // out.call.SEQUENCE: what became of it

	verbRuntime = "runtime"
	verbCall    = "call"
)

// Address is what a subject says.
type Address struct {
	// Cluster token, decoded.
	Cluster string
	// Space is the kind of subject: fact, admit, vouch, cmd, wish, wake, tick, out, fence, node, event or alarm.
	Space string
	// Shard of a cmd subject.
	Shard uint32
	// Object holds group, resource, namespace and name, in an event subject the last two; nil where the subject names none.
	Object *shiplogv1.ObjectRef
	// ID of a tick or of the wish that a wake subject remembers, and what an alarm is about.
	ID string
	// Node of a node subject, and its Part: cmd, fact or out. Verb of a command is pull, hook, stop, inspect or cancel, else it is
	// runtime or call. Target is what a command is about, or the sequence of the command that a call is made by.
	Node, Part, Verb, Target string
	// Kind of the workload and Type of an event subject.
	Kind, Type string
}

// SubjectOf returns the subject that entry has in the log of cluster, whose commands are spread over shards (at least 1).
// It fails for an entry of no known kind and for one whose names are too long for a subject.
func SubjectOf(cluster string, shards uint32, entry *shiplogv1.Entry) (string, error) {
	a := Address{Cluster: cluster}
	switch kind := entry.GetKind().(type) {
	case *shiplogv1.Entry_ObjectObserved:
		a.Space, a.Object = spaceFact, kind.ObjectObserved.GetObject()
	case *shiplogv1.Entry_ObjectDeleted:
		a.Space, a.Object = spaceFact, kind.ObjectDeleted.GetObject()
	case *shiplogv1.Entry_Admitted:
		a.Space, a.Object = spaceAdmit, kind.Admitted.GetObject()
	case *shiplogv1.Entry_Vouched:
		a.Space = spaceVouch
	case *shiplogv1.Entry_Rewound:
		a.Space, a.ID = spaceAlarm, alarmRewound
	case *shiplogv1.Entry_LogLost:
		a.Space, a.ID = spaceAlarm, alarmLogLost
	case *shiplogv1.Entry_Ticked:
		a.Space, a.ID = spaceTick, kind.Ticked.GetId()
	case *shiplogv1.Entry_Command:
		verb, target := Call(kind.Command)
		if node := kind.Command.GetNode(); node != "" || verb != "" {
			if node == "" || verb == "" || target == "" {
				return "", fmt.Errorf("the command %T for node %q is no call, or one of no node or about nothing", kind.Command.GetEffect(), node)
			}
			a.Space, a.Node, a.Part, a.Verb, a.Target = spaceNode, node, partCommand, verb, target
			break
		}
		a.Space, a.Object = spaceCommand, kind.Command.GetObject()
		if _, wish := kind.Command.GetEffect().(*shiplogv1.Command_WakeAt); wish {
			a.Space = spaceWish
		} else {
			a.Shard = shardOf(a.Object, shards)
		}
	case *shiplogv1.Entry_Outcome:
		if node := kind.Outcome.GetNode(); node != "" {
			a.Space, a.Node, a.Part, a.Verb, a.Target = spaceNode, node, partOutcome, verbCall, sequenceToken(entry.GetCause())
			break
		}
		a.Space, a.Object = spaceOutcome, kind.Outcome.GetObject()
	case *shiplogv1.Entry_FenceRaised:
		a.Space = spaceFence
	case *shiplogv1.Entry_Sealed:
		a.Space = spaceSeal
	case *shiplogv1.Entry_NodeObserved:
		a.Space, a.Node, a.Part, a.Verb = spaceNode, kind.NodeObserved.GetNode(), partFact, verbRuntime
	case *shiplogv1.Entry_CallObserved:
		a.Space, a.Node, a.Part, a.Verb, a.Target = spaceNode, kind.CallObserved.GetNode(), partFact, verbCall, sequenceToken(entry.GetCause())
	case *shiplogv1.Entry_RolloutEvent:
		a.Space, a.Object = spaceEvent, kind.RolloutEvent.GetWorkload()
		a.Kind, a.Type = kind.RolloutEvent.GetKind(), kind.RolloutEvent.GetType()
	default:
		return "", errors.New("the entry is of no kind that has a subject")
	}
	if a.Space == spaceNode && a.Node == "" {
		return "", errors.New("the fact of a node names no node")
	}
	subject := a.String()
	if len(subject) > maxSubject {
		return "", fmt.Errorf("%w: its subject would be %d bytes long, the log takes %d", ErrTooLarge, len(subject), maxSubject)
	}
	return subject, nil
}

// Call returns what a command wants the agent of a node to do, and to what: an image, a container by its id, or, to cancel, the
// sequence of another command. Empty: it is no such command.
func Call(command *shiplogv1.Command) (verb, target string) {
	switch effect := command.GetEffect().(type) {
	case *shiplogv1.Command_PullImage:
		return "pull", effect.PullImage.GetImage()
	case *shiplogv1.Command_RunHook:
		return "hook", effect.RunHook.GetContainerId()
	case *shiplogv1.Command_StopContainer:
		return "stop", effect.StopContainer.GetContainerId()
	case *shiplogv1.Command_InspectContainer:
		return "inspect", effect.InspectContainer.GetContainerId()
	case *shiplogv1.Command_CancelCall:
		return "cancel", sequenceToken(effect.CancelCall.GetCommand())
	}
	return "", ""
}

func sequenceToken(sequence uint64) string { return strconv.FormatUint(sequence, 10) }

// shardOf spreads objects by namespace and name, so that all commands for one object, and for objects of one name, meet.
func shardOf(object *shiplogv1.ObjectRef, shards uint32) uint32 {
	if shards < 2 {
		return 0
	}
	h := fnv.New32a()
	h.Write([]byte(object.GetNamespace() + "/" + object.GetName()))
	return h.Sum32() % shards
}

// String returns the subject.
func (a Address) String() string {
	var b strings.Builder
	b.Grow(128)
	b.WriteString(root)
	writeToken(&b, a.Cluster)
	b.WriteByte('.')
	b.WriteString(a.Space)
	switch a.Space {
	case spaceCommand:
		b.WriteByte('.')
		b.WriteString(strconv.FormatUint(uint64(a.Shard), 10))
		writeObject(&b, a.Object)
	case spaceFact, spaceAdmit, spaceWish, spaceOutcome:
		writeObject(&b, a.Object)
	case spaceTick, spaceWake, spaceAlarm:
		writeToken(&b, a.ID)
	case spaceFence, spaceSeal:
		b.WriteString("." + fenceHolder)
	case spaceNode:
		writeToken(&b, a.Node)
		b.WriteString("." + a.Part + "." + a.Verb)
		if a.Verb != verbRuntime {
			writeToken(&b, a.Target)
		}
	case spaceEvent:
		writeToken(&b, a.Kind)
		writeToken(&b, a.Object.GetNamespace())
		writeToken(&b, a.Object.GetName())
		writeToken(&b, a.Type)
	}
	return b.String()
}

// partTokens is how many tokens a node subject has from the node on, by part and verb.
var partTokens = map[string]int{
	"cmd.pull": 4, "cmd.hook": 4, "cmd.stop": 4, "cmd.inspect": 4, "cmd.cancel": 4, "fact.call": 4, "out.call": 4, "fact.runtime": 3,
}

// ParseSubject is the inverse of Address.String.
func ParseSubject(subject string) (Address, error) {
	var a Address
	fail := func(why string) (Address, error) {
		return Address{}, fmt.Errorf("subject %q: %s", subject, why)
	}
	tokens := splitSubject(subject)
	if len(tokens) < 3 || tokens[0] != root {
		return fail("not one of the log")
	}
	var err error
	if a.Cluster, err = decodeToken(tokens[1]); err != nil {
		return fail(err.Error())
	}
	a.Space = tokens[2]
	rest := tokens[3:]
	switch a.Space {
	case spaceVouch:
		if len(rest) != 0 {
			return fail("more tokens than a vouch has")
		}
		return a, nil
	case spaceFence, spaceSeal:
		if len(rest) != 1 || rest[0] != fenceHolder {
			return fail("not the planner's")
		}
		return a, nil
	case spaceNode:
		if len(rest) < 3 || len(rest) != partTokens[strings.Join(rest[1:3], ".")] {
			return fail("neither a call of a node, nor what is said of one or of a node's runtime")
		}
		a.Part, a.Verb = rest[1], rest[2]
		for i, into := range []*string{&a.Node, &a.Target} {
			if at := 3 * i; at < len(rest) {
				if *into, err = decodeToken(rest[at]); err != nil {
					return fail(err.Error())
				}
			}
		}
		return a, nil
	case spaceEvent:
		if len(rest) != 4 {
			return fail("kind, namespace, name and type expected")
		}
		a.Object = new(shiplogv1.ObjectRef)
		for i, into := range []*string{&a.Kind, &a.Object.Namespace, &a.Object.Name, &a.Type} {
			if *into, err = decodeToken(rest[i]); err != nil {
				return fail(err.Error())
			}
		}
		return a, nil
	case spaceTick, spaceWake, spaceAlarm:
		if len(rest) != 1 {
			return fail("one identity expected")
		}
		if a.ID, err = decodeToken(rest[0]); err != nil {
			return fail(err.Error())
		}
		return a, nil
	case spaceCommand:
		if len(rest) == 0 {
			return fail("a shard expected")
		}
		shard, err := strconv.ParseUint(rest[0], 10, 32)
		if err != nil || strconv.FormatUint(shard, 10) != rest[0] {
			return fail("the shard is no number")
		}
		a.Shard = uint32(shard)
		rest = rest[1:]
	case spaceFact, spaceAdmit, spaceWish, spaceOutcome:
	default:
		return fail("of no known kind")
	}
	if len(rest) != 4 {
		return fail("group, resource, namespace and name expected")
	}
	var names [4]string
	for i, token := range rest {
		if i == 0 && token == coreToken {
			continue // the core group is the empty one
		}
		if names[i], err = decodeToken(token); err != nil {
			return fail(err.Error())
		}
	}
	a.Object = &shiplogv1.ObjectRef{Group: names[0], Resource: names[1], Namespace: names[2], Name: names[3]}
	return a, nil
}

func splitSubject(subject string) []string { return strings.Split(subject, ".") }

func writeObject(b *strings.Builder, object *shiplogv1.ObjectRef) {
	switch group := object.GetGroup(); group {
	case "":
		b.WriteString("." + coreToken)
	case coreToken: // a group of that very name must not become the core group
		fmt.Fprintf(b, ".%%%02X%s", coreToken[0], coreToken[1:])
	default:
		writeToken(b, group)
	}
	writeToken(b, object.GetResource())
	writeToken(b, object.GetNamespace())
	writeToken(b, object.GetName())
}

// writeToken appends a dot and s as one token: bytes outside [A-Za-z0-9-] become %XX, the empty string becomes "_".
func writeToken(b *strings.Builder, s string) {
	const digits = "0123456789ABCDEF"
	b.WriteByte('.')
	if s == "" {
		b.WriteString(emptyToken)
		return
	}
	for i := range len(s) {
		if c := s[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
}

func encodeToken(s string) string {
	var b strings.Builder
	writeToken(&b, s)
	return b.String()[1:]
}

func decodeToken(token string) (string, error) {
	if token == emptyToken {
		return "", nil
	}
	if token == "" {
		return "", errors.New("an empty token")
	}
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		c := token[i]
		if plain(c) {
			b.WriteByte(c)
			continue
		}
		if c != '%' || i+2 >= len(token) {
			return "", fmt.Errorf("token %q is not encoded", token)
		}
		v, err := strconv.ParseUint(token[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("token %q is not encoded", token)
		}
		b.WriteByte(byte(v))
		i += 2
	}
	return b.String(), nil
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-'
}
