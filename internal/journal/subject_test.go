package journal

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

func TestSubjects(t *testing.T) {
	t.Parallel()
	object := &shiplogv1.ObjectRef{Group: "apps.kruise.io", Resource: "clonesets", Namespace: "a", Name: "b.c"}
	with := func(kind any) *shiplogv1.Entry {
		switch k := kind.(type) {
		case *shiplogv1.ObjectObserved:
			return &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: k}}
		case *shiplogv1.Command:
			return &shiplogv1.Entry{Kind: &shiplogv1.Entry_Command{Command: k}}
		case *shiplogv1.Ticked:
			return &shiplogv1.Entry{Kind: &shiplogv1.Entry_Ticked{Ticked: k}}
		}
		return nil
	}
	for want, entry := range map[string]*shiplogv1.Entry{
		"shiplog.local.fact.apps%2Ekruise%2Eio.clonesets.a.b%2Ec":  with(&shiplogv1.ObjectObserved{Object: object}),
		"shiplog.local.fact.core.nodes._.n":                        with(&shiplogv1.ObjectObserved{Object: &shiplogv1.ObjectRef{Resource: "nodes", Name: "n"}}),
		"shiplog.local.fact.%63ore.nodes.%5F.%25":                  with(&shiplogv1.ObjectObserved{Object: &shiplogv1.ObjectRef{Group: "core", Resource: "nodes", Namespace: "_", Name: "%"}}),
		"shiplog.local.cmd.0.apps%2Ekruise%2Eio.clonesets.a.b%2Ec": with(&shiplogv1.Command{Object: object}),
		"shiplog.local.wish.apps%2Ekruise%2Eio.clonesets.a.b%2Ec": with(&shiplogv1.Command{Object: object, Effect: &shiplogv1.Command_WakeAt{
			WakeAt: &shiplogv1.WakeAt{Due: timestamppb.Now()}}}),
		"shiplog.local.out.core.pods.default.a":       outcome("a", 1, 0),
		"shiplog.local.tick.a%2Fb":                    with(&shiplogv1.Ticked{Id: "a/b"}),
		"shiplog.local.vouch":                         vouch(),
		"shiplog.local.fence.planner":                 {Kind: &shiplogv1.Entry_FenceRaised{}},
		"shiplog.local.node.n%2E1.fact.runtime":       nodeFact("n.1", "containerd"),
		"shiplog.local.node.n%2E1.cmd.pull.a%2Fb%3A1": pull("n.1", "a/b:1"),
		"shiplog.local.node.n.cmd.stop.c1": with(&shiplogv1.Command{Object: object, Node: "n",
			Effect: &shiplogv1.Command_StopContainer{StopContainer: &shiplogv1.StopContainer{ContainerId: "c1"}}}),
		"shiplog.local.node.n.cmd.hook.c1": with(&shiplogv1.Command{Object: object, Node: "n",
			Effect: &shiplogv1.Command_RunHook{RunHook: &shiplogv1.RunHook{ContainerId: "c1"}}}),
		"shiplog.local.node.n.cmd.inspect.c1": with(&shiplogv1.Command{Object: object, Node: "n",
			Effect: &shiplogv1.Command_InspectContainer{InspectContainer: &shiplogv1.InspectContainer{ContainerId: "c1"}}}),
		"shiplog.local.node.n.cmd.cancel.12": with(&shiplogv1.Command{Object: object, Node: "n",
			Effect: &shiplogv1.Command_CancelCall{CancelCall: &shiplogv1.CancelCall{Command: 12}}}),
		"shiplog.local.node.n.fact.call.12":                      called("n", 12, shiplogv1.CallObserved_STATE_TAKEN),
		"shiplog.local.node.n.out.call.12":                       callOutcome("n", 12, "Failed"),
		"shiplog.local.event.CloneSet.default.b%2Ec.pod-updated": rolloutEvent("b.c", 1, 0),
	} {
		got, err := SubjectOf("local", 1, entry)
		if err != nil || got != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
		if at, err := ParseSubject(got); err != nil || at.String() != got {
			t.Errorf("%q reads back as %q, %v", got, at, err)
		}
	}
	for what, entry := range map[string]*shiplogv1.Entry{"no kind": {}, "no node": nodeFact("", "containerd")} {
		if s, err := SubjectOf("local", 1, entry); err == nil {
			t.Errorf("an entry of %s has subject %q", what, s)
		}
	}
	for _, bad := range []string{"", "shiplog", "shiplog.local", "other.local.vouch", "shiplog.local.vouch.x", "shiplog.local.fence.other", "shiplog.local.tick",
		"shiplog.local.cmd", "shiplog.local.cmd.x.a.b.c.d", "shiplog.local.cmd.01.a.b.c.d", "shiplog.local.fact.a.b.c", "shiplog.local.fact.a.b.c.d.e",
		"shiplog.local.fact.a.b.c.", "shiplog.local.fact.a.b.c.%", "shiplog.local.fact.a.b.c.%zz", "shiplog.local.fact.a.b.c.x_y", "shiplog.local.event.x",
		"shiplog.local.node.n.cmd.pull", "shiplog.local.node.n.say.word", "shiplog.local.node.n.out.runtime", "shiplog.local.node.n", "shiplog.local.node.n.fact", "shiplog.local.node.n.cmd.runtime", "shiplog.local.node.n.fact.runtime.x",
		"shiplog.local.node.%.fact.runtime"} {
		if a, err := ParseSubject(bad); err == nil {
			t.Errorf("%q parses as %+v", bad, a)
		}
	}
}

func TestShards(t *testing.T) {
	t.Parallel()
	count := map[uint32]int{}
	for i := range 1000 {
		o := pod(strings.Repeat("x", i%50) + string(rune('a'+i%26)))
		s := shardOf(o, 4)
		if s != shardOf(proto.Clone(o).(*shiplogv1.ObjectRef), 4) {
			t.Fatal("a shard changed")
		}
		count[s]++
	}
	if len(count) != 4 || shardOf(pod("a"), 0) != 0 {
		t.Errorf("shards %v", count)
	}
}

// FuzzSubject: for any strings a subject is valid, reads back, and belongs to one object only.
func FuzzSubject(f *testing.F) {
	f.Add("", "", "", "", "core", "", "", "")
	f.Add("apps.kruise.io", "clonesets", "a.b", "c", "apps", "kruise.io", "a", "b.c")
	f.Add("_", "%", "*", ">", "%5F", "%25", " ", "\x00\xff")
	f.Fuzz(func(t *testing.T, g1, r1, s1, n1, g2, r2, s2, n2 string) {
		one := Address{Cluster: n2, Space: spaceCommand, Shard: uint32(len(g1)), Object: &shiplogv1.ObjectRef{Group: g1, Resource: r1, Namespace: s1, Name: n1}}
		two := Address{Cluster: n2, Space: spaceCommand, Shard: uint32(len(g1)), Object: &shiplogv1.ObjectRef{Group: g2, Resource: r2, Namespace: s2, Name: n2}}
		for _, a := range []Address{one, two} {
			subject := a.String()
			for _, token := range strings.Split(subject, ".") {
				if token == "" {
					t.Fatalf("%q holds an empty token", subject)
				}
			}
			if i := strings.IndexFunc(subject, func(r rune) bool { return r <= ' ' || r > '~' || r == '*' || r == '>' }); i >= 0 {
				t.Fatalf("%q holds what NATS forbids at %d", subject, i)
			}
			back, err := ParseSubject(subject)
			if err != nil || back.Cluster != a.Cluster || back.Shard != a.Shard || back.Object.Group != a.Object.Group ||
				back.Object.Resource != a.Object.Resource || back.Object.Namespace != a.Object.Namespace || back.Object.Name != a.Object.Name {
				t.Fatalf("%q reads back as %+v, %v", subject, back, err)
			}
		}
		same := g1 == g2 && r1 == r2 && s1 == s2 && n1 == n2
		if (one.String() == two.String()) != same {
			t.Fatalf("%q and %q, same object: %v", one, two, same)
		}
		if tick := (Address{Cluster: g1, Space: spaceTick, ID: n1}); true {
			if back, err := ParseSubject(tick.String()); err != nil || back.ID != n1 || back.Cluster != g1 {
				t.Fatalf("%q reads back as %+v, %v", tick, back, err)
			}
		}
		event := Address{Cluster: g1, Space: spaceEvent, Kind: r1, Type: r2, Object: &shiplogv1.ObjectRef{Namespace: s1, Name: n1}}
		if back, err := ParseSubject(event.String()); err != nil || back.Kind != r1 || back.Type != r2 || back.Object.Namespace != s1 || back.Object.Name != n1 {
			t.Fatalf("%q reads back as %+v, %v", event, back, err)
		}
		node := Address{Cluster: g1, Space: spaceNode, Node: n1, Part: partCommand, Verb: "pull", Target: r1}
		other := Address{Cluster: g1, Space: spaceNode, Node: n2, Part: partCommand, Verb: "pull", Target: r1}
		if back, err := ParseSubject(node.String()); err != nil || back != node {
			t.Fatalf("%q reads back as %+v, %v", node, back, err)
		}
		if (node.String() == other.String()) != (n1 == n2) {
			t.Fatalf("%q and %q, same node: %v", node, other, n1 == n2)
		}
	})
}
