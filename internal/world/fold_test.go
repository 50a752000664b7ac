package world_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
)

// seeds is how many random histories each property is tried on.
const seeds = 200

// history is a random log: objects of every kind that come, change and go, late and repeated facts, commands with and
// without outcomes, wishes, ticks, vouches and fences.
type history struct {
	random  *rand.Rand
	entries []*shiplogv1.Entry
	version int
	open    []int // positions of commands without an outcome
}

func newHistory(seed uint64, length int) *history {
	h := &history{random: rand.New(rand.NewPCG(seed, 1))}
	for len(h.entries) < length {
		h.step()
	}
	return h
}

func (h *history) step() {
	switch n := h.random.IntN(20); {
	case n < 9:
		h.observe(h.object())
	case n < 11:
		h.delete(h.object())
	case n < 12 && len(h.entries) > 0: // an entry comes again, late
		again := h.entries[h.random.IntN(len(h.entries))]
		if again.GetObjectObserved() != nil || again.GetObjectDeleted() != nil {
			h.entries = append(h.entries, again)
		}
	case n < 15:
		h.command()
	case n < 18 && len(h.open) > 0:
		i := h.random.IntN(len(h.open))
		h.outcome(h.open[i])
		h.open = slices.Delete(h.open, i, i+1)
	case n < 19:
		vouched := &shiplogv1.Vouched{Age: durationpb.New(time.Duration(h.random.IntN(1000)) * time.Millisecond)}
		for _, resource := range world.Watched {
			vouched.Complete = append(vouched.Complete, &shiplogv1.Completeness{Group: resource.Group, Resource: resource.Resource, ResourceVersion: fmt.Sprint(h.version)})
		}
		h.entries = append(h.entries, &shiplogv1.Entry{Kind: &shiplogv1.Entry_Vouched{Vouched: vouched}})
	case h.random.IntN(8) == 0: // etcd is put back: versions begin again lower
		h.version /= 2
		h.entries = append(h.entries, &shiplogv1.Entry{Kind: &shiplogv1.Entry_Rewound{Rewound: &shiplogv1.Rewound{}}})
	default:
		h.entries = append(h.entries, &shiplogv1.Entry{Kind: &shiplogv1.Entry_FenceRaised{FenceRaised: &shiplogv1.FenceRaised{}}})
	}
}

// object picks one of a few objects, so that they meet often.
func (h *history) object() *shiplogv1.ObjectRef {
	n := h.random.IntN(4)
	ref := &shiplogv1.ObjectRef{Version: "v1", Namespace: "default"}
	switch h.random.IntN(10) {
	case 9:
		ref.Resource, ref.Namespace, ref.Name = world.ResourceNodes, "", fmt.Sprintf("node-%d", n%2)
	case 8:
		ref.Group, ref.Version, ref.Resource, ref.Namespace, ref.Name = world.GroupKruise, "v1beta1", world.ResourceNodeImages, "", fmt.Sprintf("node-%d", n%2)
	case 7:
		ref.Group, ref.Version, ref.Resource, ref.Name = world.GroupKruise, "v1beta1", world.ResourceImagePullJobs, fmt.Sprintf("job-%d", n%2)
	case 6:
		ref.Group, ref.Version, ref.Resource, ref.Name = world.GroupKruise, "v1beta1", world.ResourceRestartRequests, fmt.Sprintf("restart-%d", n%2)
	case 0:
		ref.Group, ref.Resource, ref.Name = world.GroupKruise, world.ResourceCloneSets, fmt.Sprintf("set-%d", n%2)
	case 1:
		ref.Group, ref.Resource, ref.Name = world.GroupApps, world.ResourceRevisions, fmt.Sprintf("set-%d-rev%d", n%2, n)
	case 2:
		ref.Resource, ref.Name = world.ResourceServices, fmt.Sprintf("service-%d", n)
	default:
		ref.Resource, ref.Name = world.ResourcePods, fmt.Sprintf("set-%d-%d", n%2, n)
	}
	ref.Uid = fmt.Sprintf("uid-%s-%d", ref.GetName(), h.version/40) // now and then a new object takes the name
	return ref
}

func (h *history) json(ref *shiplogv1.ObjectRef) []byte {
	owner := ref.GetName()[:min(len("set-0"), len(ref.GetName()))]
	meta := fmt.Sprintf(`{"name":%q,"namespace":%q,"uid":%q,"labels":{"pool":"%d"}}`, ref.GetName(), ref.GetNamespace(), ref.GetUid(), h.random.IntN(2))
	switch ref.GetResource() {
	case world.ResourceNodes:
		return []byte(`{"metadata":` + meta + `}`)
	case world.ResourceNodeImages:
		ended := []string{"", `,"completionTime":"2026-01-15T08:00:00Z"`}[h.random.IntN(2)]
		return []byte(fmt.Sprintf(`{"metadata":%s,"spec":{"images":{"app":{"tags":[{"tag":"1","version":%d,"ownerReferences":[{"uid":"uid-job-%d-0"}]}]}}},
			"status":{"desired":1,"imageStatuses":{"app":{"tags":[{"tag":"1","version":%d,"phase":"Succeeded"%s}]}}}}`, meta, h.random.IntN(2), h.random.IntN(2), h.random.IntN(2), ended))
	case world.ResourceImagePullJobs:
		status := []string{`{"desired":1}`, `{"desired":1,"completionTime":"2026-01-15T08:00:00Z"}`}[h.random.IntN(2)]
		spec := []string{`{"image":"app:1"}`, `{"image":"app:1","podSelector":{"matchLabels":{"app":"set-0"}}}`, `{"image":"app:1","completionPolicy":{"type":"Never"}}`}[h.random.IntN(3)]
		return []byte(`{"metadata":` + meta + `,"spec":` + spec + `,"status":` + status + `}`)
	case world.ResourceRestartRequests:
		return []byte(fmt.Sprintf(`{"metadata":%s,"spec":{"podName":"set-0-%d"}}`, meta, h.random.IntN(4)))
	}
	data, err := json.Marshal(map[string]any{
		"metadata": map[string]any{
			"name": ref.GetName(), "namespace": "default", "uid": ref.GetUid(), "resourceVersion": fmt.Sprint(h.version), "labels": map[string]any{"app": owner},
			"ownerReferences": []any{map[string]any{"apiVersion": "apps.kruise.io/v1alpha1", "kind": "CloneSet", "name": owner, "uid": "uid-" + owner + "-0", "controller": true}},
		},
		"spec": map[string]any{"selector": map[string]any{}, "template": map[string]any{}, "containers": []any{map[string]any{"name": "main", "image": fmt.Sprint("v", h.random.IntN(3))}}},
	})
	if err != nil {
		panic(err)
	}
	return data
}

func (h *history) observe(ref *shiplogv1.ObjectRef) {
	h.version++
	data := h.json(ref)
	if ref.GetResource() == world.ResourceServices {
		data = []byte(fmt.Sprintf(`{"metadata":{"name":%q,"namespace":"default","uid":%q},"spec":{"selector":{"app":"set-0"}}}`, ref.GetName(), ref.GetUid()))
	}
	h.entries = append(h.entries, &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
		Object: ref, ResourceVersion: fmt.Sprint(h.version), Json: data,
	}}})
}

func (h *history) delete(ref *shiplogv1.ObjectRef) {
	h.version++
	h.entries = append(h.entries, &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectDeleted{ObjectDeleted: &shiplogv1.ObjectDeleted{
		Object: ref, ResourceVersion: fmt.Sprint(h.version),
	}}})
}

// call is a command to a node's agent, and perhaps a word of it.
func (h *history) call() {
	node := fmt.Sprintf("node-%d", h.random.IntN(2))
	command := &shiplogv1.Command{
		Node: node, Object: &shiplogv1.ObjectRef{Group: world.GroupKruise, Resource: world.ResourceNodeImages, Name: node}, Reason: &shiplogv1.Reason{Code: "PullImage"},
		Effect: &shiplogv1.Command_PullImage{PullImage: &shiplogv1.PullImage{Image: "app:1", Version: int64(h.random.IntN(2))}},
	}
	if h.random.IntN(2) == 0 {
		command.Effect = &shiplogv1.Command_StopContainer{StopContainer: &shiplogv1.StopContainer{ContainerId: fmt.Sprint("c", h.random.IntN(3)), Container: "main"}}
	}
	h.entries = append(h.entries, &shiplogv1.Entry{Rollout: fmt.Sprintf("uid-%s-0/1", node), Kind: &shiplogv1.Entry_Command{Command: command}})
	h.open = append(h.open, len(h.entries))
	for range h.random.IntN(3) {
		h.entries = append(h.entries, &shiplogv1.Entry{Cause: uint64(h.open[h.random.IntN(len(h.open))]), Kind: &shiplogv1.Entry_CallObserved{CallObserved: &shiplogv1.CallObserved{
			Node: node, State: shiplogv1.CallObserved_State(1 + h.random.IntN(2)), BytesDone: uint64(h.random.IntN(9)),
		}}})
	}
}

func (h *history) command() {
	if h.random.IntN(4) == 0 {
		h.call()
		return
	}
	ref := h.object()
	command := &shiplogv1.Command{Object: ref, Reason: &shiplogv1.Reason{Code: fmt.Sprint("Code", h.random.IntN(2))}, Attempt: uint32(h.random.IntN(3))}
	switch h.random.IntN(4) {
	case 0:
		command.Effect = &shiplogv1.Command_Create{Create: &shiplogv1.CreateObject{Json: h.json(ref)}}
	case 1:
		command.Effect = &shiplogv1.Command_Patch{Patch: &shiplogv1.PatchObject{Json: []byte(`{"metadata":{"labels":{"app":"patched","old":null}},"spec":{"containers":[{"name":"main","image":"v9"}]}}`)}}
	case 2:
		command.Effect = &shiplogv1.Command_Delete{Delete: &shiplogv1.DeleteObject{}}
	default:
		id := fmt.Sprint("wake", h.random.IntN(2))
		due := timestamppb.New(start.Add(time.Duration(h.random.IntN(100)) * time.Second))
		command.Effect = &shiplogv1.Command_WakeAt{WakeAt: &shiplogv1.WakeAt{Id: id, Due: due}}
		if h.random.IntN(2) == 0 {
			defer func() {
				h.entries = append(h.entries, &shiplogv1.Entry{Kind: &shiplogv1.Entry_Ticked{Ticked: &shiplogv1.Ticked{Id: id, Due: due}}})
			}()
		}
	}
	h.entries = append(h.entries, &shiplogv1.Entry{Rollout: "uid-set-0-0/1", Kind: &shiplogv1.Entry_Command{Command: command}})
	h.open = append(h.open, len(h.entries))
}

func (h *history) outcome(command int) {
	results := []shiplogv1.Outcome_Result{shiplogv1.Outcome_RESULT_APPLIED, shiplogv1.Outcome_RESULT_REFUSED}
	h.entries = append(h.entries, &shiplogv1.Entry{Cause: uint64(command), Kind: &shiplogv1.Entry_Outcome{Outcome: &shiplogv1.Outcome{
		Node: h.entries[command-1].GetCommand().GetNode(), Result: results[h.random.IntN(2)], Reason: &shiplogv1.Reason{Code: "Forbidden", Message: "no"},
	}}})
}

var start = time.Date(2026, 1, 15, 8, 0, 0, 0, time.UTC)

// fold takes an entry as the n-th of a log in which one comes every ten seconds.
func fold(t *testing.T, w *world.World, n int, entry *shiplogv1.Entry) {
	t.Helper()
	change, err := world.Decode(uint64(n), start.Add(time.Duration(n)*10*time.Second), entry)
	if err != nil {
		t.Fatal(err)
	}
	w.Fold(change)
}

// TestFoldTwice: an entry that is delivered again changes nothing.
func TestFoldTwice(t *testing.T) {
	for seed := range uint64(seeds) {
		once, twice := world.New(), world.New()
		for i, entry := range newHistory(seed, 300).entries {
			fold(t, once, i+1, entry)
			fold(t, twice, i+1, entry)
			fold(t, twice, i+1, entry)
		}
		same(t, seed, "delivered twice", once.Describe(), twice.Describe())
	}
}

// TestFoldFromLive: the entries that the world rests on at any position, and what follows them, give the same world as all.
func TestFoldFromLive(t *testing.T) {
	for seed := range uint64(seeds) {
		h := newHistory(seed, 300)
		at := h.random.IntN(len(h.entries)) + 1
		whole, compacted := world.New(), world.New()
		for i, entry := range h.entries[:at] {
			fold(t, whole, i+1, entry)
		}
		for _, sequence := range whole.Live() {
			fold(t, compacted, int(sequence), h.entries[sequence-1])
		}
		same(t, seed, fmt.Sprintf("compacted at %d", at), whole.Describe(), compacted.Describe())
		for i, entry := range h.entries[at:] {
			fold(t, whole, at+i+1, entry)
			fold(t, compacted, at+i+1, entry)
		}
		same(t, seed, fmt.Sprintf("gone on from %d", at), whole.Describe(), compacted.Describe())
	}
}

// TestFoldOrder: facts of unrelated objects may come in any order, as long as each object's own order is kept.
func TestFoldOrder(t *testing.T) {
	// What a job remembers of nodes is about the order between its facts and theirs.
	positions := regexp.MustCompile(`position \d+|"Sequence":\d+|"Seen":"[^"]*"|pulled for .*\n`)
	for seed := range uint64(seeds) {
		h := newHistory(seed, 300)
		var facts []*shiplogv1.Entry
		for _, entry := range h.entries {
			if entry.GetObjectObserved() != nil || entry.GetObjectDeleted() != nil {
				facts = append(facts, entry)
			}
		}
		// Deal the facts into one queue per object, then draw from the queues at random. Tombstones must outlive it all.
		queues := map[world.Ref][]*shiplogv1.Entry{}
		var refs []world.Ref
		for _, fact := range facts {
			ref := world.RefOf(fact.GetObjectObserved().GetObject())
			if fact.GetObjectDeleted() != nil {
				ref = world.RefOf(fact.GetObjectDeleted().GetObject())
			}
			if queues[ref] == nil {
				refs = append(refs, ref)
			}
			queues[ref] = append(queues[ref], fact)
		}
		one, other := world.New(), world.New()
		quick := func(w *world.World, n int, entry *shiplogv1.Entry) {
			change, err := world.Decode(uint64(n), start, entry)
			if err != nil {
				t.Fatal(err)
			}
			w.Fold(change)
		}
		for i, fact := range facts {
			quick(one, i+1, fact)
		}
		for n := 1; len(refs) > 0; n++ {
			i := h.random.IntN(len(refs))
			ref := refs[i]
			quick(other, n, queues[ref][0])
			if queues[ref] = queues[ref][1:]; len(queues[ref]) == 0 {
				refs = slices.Delete(refs, i, i+1)
			}
		}
		same(t, seed, "in another order", positions.ReplaceAllString(one.Describe(), ""), positions.ReplaceAllString(other.Describe(), ""))
	}
}

// same compares two descriptions and shows the lines in which they differ.
func same(t *testing.T, seed uint64, how, want, got string) {
	t.Helper()
	if want == got {
		return
	}
	left, right := strings.Split(want, "\n"), strings.Split(got, "\n")
	var out strings.Builder
	for _, line := range left {
		if !slices.Contains(right, line) {
			out.WriteString("want " + line + "\n")
		}
	}
	for _, line := range right {
		if !slices.Contains(left, line) {
			out.WriteString("got  " + line + "\n")
		}
	}
	t.Fatalf("seed %d, %s: another world\n%s", seed, how, out.String())
}

// FuzzDecode: what is in a message never makes the fold panic; it is folded or refused.
func FuzzDecode(f *testing.F) {
	for _, entry := range newHistory(1, 40).entries {
		f.Add(entry.GetObjectObserved().GetJson(), entry.GetObjectObserved().GetObject().GetResource())
	}
	f.Fuzz(func(t *testing.T, data []byte, resource string) {
		group := map[string]string{world.ResourceCloneSets: world.GroupKruise, world.ResourceRevisions: world.GroupApps, world.ResourceEndpointSlices: world.GroupDiscovery}[resource]
		change, err := world.Decode(1, start, &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
			Object: &shiplogv1.ObjectRef{Group: group, Resource: resource, Namespace: "default", Name: "x"}, ResourceVersion: "1", Json: data,
		}}})
		if err == nil {
			w := world.New()
			w.Fold(change)
			_ = w.Describe()
		}
	})
}

// TestAnotherOfTheSameName: the outcome of a command for an object that is gone frees the object of the same name that came
// after it, and wakes its rules. Found by the simulation.
func TestAnotherOfTheSameName(t *testing.T) {
	ref := &shiplogv1.ObjectRef{Group: world.GroupKruise, Version: "v1alpha1", Resource: world.ResourceCloneSets, Namespace: "default", Name: "web"}
	set := func(uid, version string) *shiplogv1.Entry {
		return &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
			Object: ref, ResourceVersion: version, Json: []byte(`{"metadata":{"name":"web","namespace":"default","uid":"` + uid + `"},"spec":{"template":{}}}`),
		}}}
	}
	entries := []*shiplogv1.Entry{
		set("one", "1"),
		{Rollout: "one/1", Kind: &shiplogv1.Entry_Command{Command: &shiplogv1.Command{Object: ref, Effect: &shiplogv1.Command_Patch{Patch: &shiplogv1.PatchObject{Json: []byte(`{}`)}}}}},
		{Kind: &shiplogv1.Entry_ObjectDeleted{ObjectDeleted: &shiplogv1.ObjectDeleted{Object: ref, ResourceVersion: "2"}}},
		set("two", "3"),
		{Cause: 2, Kind: &shiplogv1.Entry_Outcome{Outcome: &shiplogv1.Outcome{Object: ref, Result: shiplogv1.Outcome_RESULT_REFUSED, Reason: &shiplogv1.Reason{Code: "Conflict"}}}},
	}
	w := world.New()
	for i, entry := range entries {
		if i == len(entries)-1 {
			w.Touched()
		}
		change, err := world.Decode(uint64(i+1), time.Unix(int64(i), 0), entry)
		if err != nil {
			t.Fatal(err)
		}
		w.Fold(change)
	}
	if touched := w.Touched(); len(touched) != 1 || touched[0] != world.RefOf(ref) {
		t.Errorf("the outcome wakes %v, want the CloneSet of today", touched)
	}
	if w.CloneSet(world.RefOf(ref)).UnderWay != nil {
		t.Error("the CloneSet is still taken for being written")
	}
}

// TestOvertaken: of two workloads that write one object at the same time, the first one looks again, though its command's outcome is not
// waited for any more. Found by TestSecretsStayOut: an image job waited for ever.
func TestOvertaken(t *testing.T) {
	job := func(name string) *shiplogv1.ObjectRef {
		return &shiplogv1.ObjectRef{Group: world.GroupKruise, Version: "v1beta1", Resource: world.ResourceImagePullJobs, Namespace: "default", Name: name}
	}
	node := &shiplogv1.ObjectRef{Group: world.GroupKruise, Version: "v1beta1", Resource: world.ResourceNodeImages, Name: "n1"}
	observed := func(ref *shiplogv1.ObjectRef, version, json string) *shiplogv1.Entry {
		return &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{Object: ref, ResourceVersion: version, Json: []byte(json)}}}
	}
	asks := func(rollout string) *shiplogv1.Entry {
		return &shiplogv1.Entry{Rollout: rollout, Kind: &shiplogv1.Entry_Command{Command: &shiplogv1.Command{
			Object: node, Effect: &shiplogv1.Command_Patch{Patch: &shiplogv1.PatchObject{Json: []byte(`{}`)}},
		}}}
	}
	w := world.New()
	for i, entry := range []*shiplogv1.Entry{
		observed(node, "1", `{"metadata":{"name":"n1","uid":"n"},"spec":{}}`),
		observed(job("a"), "2", `{"metadata":{"name":"a","namespace":"default","uid":"a"},"spec":{"image":"app:1"}}`),
		observed(job("b"), "3", `{"metadata":{"name":"b","namespace":"default","uid":"b"},"spec":{"image":"app:1"}}`),
		asks("a/1"), asks("b/1"),
	} {
		if i == 4 {
			w.Touched()
		}
		fold(t, w, i+1, entry)
	}
	if touched := w.Touched(); !slices.Contains(touched, world.RefOf(job("a"))) {
		t.Errorf("overtaken by b's command: %v is looked at again, want a too", touched)
	}
}

// TestTickOfAnotherWish: a log that was cut off may hold the note of a wish and not the wish. Its tick stands for that of the wish that is
// known, whose note it has replaced: whoever waits looks, and wishes again.
func TestTickOfAnotherWish(t *testing.T) {
	set := &shiplogv1.ObjectRef{Group: world.GroupKruise, Version: "v1beta1", Resource: world.ResourceCloneSets, Namespace: "default", Name: "web", Uid: "uid"}
	due := time.Unix(3600, 0)
	w := world.New()
	for i, entry := range []*shiplogv1.Entry{
		{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
			Object: set, ResourceVersion: "1", Json: []byte(`{"metadata":{"name":"web","namespace":"default","uid":"uid"},"spec":{"template":{}}}`),
		}}},
		{Rollout: "uid/1", Kind: &shiplogv1.Entry_Command{Command: &shiplogv1.Command{
			Object: set, Effect: &shiplogv1.Command_WakeAt{WakeAt: &shiplogv1.WakeAt{Id: "tick", Due: timestamppb.New(due)}},
		}}},
		{Kind: &shiplogv1.Entry_Ticked{Ticked: &shiplogv1.Ticked{Id: "tick", Due: timestamppb.New(due.Add(-time.Minute))}}},
	} {
		w.Touched()
		change, err := world.Decode(uint64(i+1), time.Unix(int64(i), 0), entry)
		if err != nil {
			t.Fatal(err)
		}
		w.Fold(change)
	}
	if touched := w.Touched(); len(touched) != 1 || touched[0] != world.RefOf(set) {
		t.Errorf("the tick wakes %v, want the CloneSet", touched)
	}
	if at, waits := w.WakeTime("tick"); waits {
		t.Errorf("a tick is awaited at %s, whose note has gone", at)
	}
}
