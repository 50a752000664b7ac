package scenario

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/utils/dump"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/narrate"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide/inplace"
	"shiplog.dev/services/planner/rollout"
	"shiplog.dev/services/planner/rules"
)

// cluster is a log, the world folded from it, and the little of an API server, a scheduler and a kubelet that scenarios
// need: writes are carried out when the scenario says so, and every change comes back as a fact.
type cluster struct {
	t       *testing.T
	entries []record
	world   *world.World
	tracker *rollout.Tracker
	events  []rollout.Event // not shown yet
	now     time.Time
	version uint64
	objects map[world.Ref]object
	wakes   map[string]*shiplogv1.WakeAt
	stale   bool
	aliases []string // old, new pairs
	envs    map[string]env
	pods    int
	revs    int
}

type record struct {
	sequence uint64
	time     time.Time
	entry    *shiplogv1.Entry
}

// object is the JSON of an object and what was needed to make its reference.
type object struct {
	ref  *shiplogv1.ObjectRef
	tree map[string]any
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{
		t: t, world: world.New(), tracker: rollout.New(), now: time.Date(2026, 1, 15, 8, 0, 0, 0, time.UTC), version: 100,
		objects: map[world.Ref]object{}, wakes: map[string]*shiplogv1.WakeAt{}, envs: map[string]env{},
	}
	c.raiseFence()
	return c
}

// raiseFence begins the reign of a planner with the default gates and those given.
func (c *cluster) raiseFence(gates ...string) {
	on := map[string]bool{inplace.GateEnvFromMetadata: true}
	for _, gate := range gates {
		on[gate] = true
	}
	c.append(&shiplogv1.Entry{Kind: &shiplogv1.Entry_FenceRaised{FenceRaised: &shiplogv1.FenceRaised{Gates: on}}})
}

func (c *cluster) append(entry *shiplogv1.Entry) uint64 {
	sequence := uint64(len(c.entries) + 1)
	c.entries = append(c.entries, record{sequence, c.now, entry})
	c.events = append(c.events, c.tracker.Fold(c.world, decode(c.t, c.entries[sequence-1]))...)
	return sequence
}

func fold(t *testing.T, w *world.World, r record) {
	t.Helper()
	w.Fold(decode(t, r))
}

func decode(t *testing.T, r record) world.Change {
	t.Helper()
	change, err := world.Decode(r.sequence, r.time, r.entry)
	if err != nil {
		t.Fatal(err)
	}
	return change
}

func (c *cluster) vouch() {
	if c.stale {
		return
	}
	vouched := &shiplogv1.Vouched{Age: durationpb.New(0)}
	for _, resource := range world.Watched {
		vouched.Complete = append(vouched.Complete, &shiplogv1.Completeness{Group: resource.Group, Resource: resource.Resource, ResourceVersion: fmt.Sprint(c.version)})
	}
	c.append(&shiplogv1.Entry{Kind: &shiplogv1.Entry_Vouched{Vouched: vouched}})
}

// store writes an object as the API server would and reports the fact.
func (c *cluster) store(o object, cause uint64) {
	c.version++
	metadata := child(o.tree, "metadata")
	metadata["resourceVersion"] = fmt.Sprint(c.version)
	if metadata["uid"] == nil {
		metadata["uid"] = "uid-" + o.ref.GetName()
		metadata["creationTimestamp"] = c.now.Format(time.RFC3339)
	}
	o.ref.Uid = metadata["uid"].(string)
	c.objects[world.RefOf(o.ref)] = o
	c.report(o, cause)
}

func (c *cluster) report(o object, cause uint64) {
	data, err := json.Marshal(o.tree)
	if err != nil {
		c.t.Fatal(err)
	}
	who := "kubectl-edit"
	if cause > 0 {
		who = "shiplog-executor"
	}
	c.append(&shiplogv1.Entry{Cause: cause, Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
		Object: o.ref, ResourceVersion: child(o.tree, "metadata")["resourceVersion"].(string), Json: data,
		LastChange: &shiplogv1.LastChange{Manager: who, Operation: "Update", Time: timestamppb.New(c.now.Truncate(time.Second))},
	}}})
}

func (c *cluster) vanish(ref world.Ref) {
	o := c.objects[ref]
	delete(c.objects, ref)
	c.version++
	c.append(&shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectDeleted{ObjectDeleted: &shiplogv1.ObjectDeleted{
		Object: o.ref, ResourceVersion: fmt.Sprint(c.version),
	}}})
}

// decide lets the rules look at every workload, appends their commands and describes them. As the planner does, it looks again
// once the commands are folded back, for what comes after them without waiting for anything.
func (c *cluster) decide() string {
	c.vouch()
	var out strings.Builder
	for _, ref := range c.world.Workloads() {
		for turn := 0; c.decideOn(ref, &out); turn++ {
			if turn == 3 {
				c.t.Errorf("commands folded back do not settle %s", ref)
				break
			}
		}
	}
	if out.Len() == 0 {
		return "no commands\n"
	}
	return c.alias(out.String())
}

// decideOn decides on one workload and says whether anything was commanded.
func (c *cluster) decideOn(ref world.Ref, out *strings.Builder) bool {
	position := c.world.Sequence()
	decision := rules.Decide(c.world, ref)
	again := rules.Decide(c.world, ref)
	if fmt.Sprint(decision.Commands) != fmt.Sprint(again.Commands) {
		c.t.Errorf("deciding twice on %s gives two answers", ref)
	}
	for i, command := range decision.Commands {
		command.Index = uint32(i)
		c.append(&shiplogv1.Entry{Cause: position, Rollout: decision.Rollout, Kind: &shiplogv1.Entry_Command{Command: command}})
		if wake := command.GetWakeAt(); wake != nil {
			c.wakes[wake.GetId()] = wake
		}
		out.WriteString(c.describe(command))
	}
	if decision.AwaitsVouch && len(decision.Commands) == 0 {
		out.WriteString("awaits a vouch\n")
	}
	return len(decision.Commands) > 0
}

// describe is one line for one command.
func (c *cluster) describe(command *shiplogv1.Command) string {
	ref, what := command.GetObject(), ""
	kind := strings.TrimSuffix(ref.GetResource(), "s")
	switch effect := command.GetEffect().(type) {
	case *shiplogv1.Command_Create:
		what = "create " + kind + " " + ref.GetName()
		if ref.GetResource() == world.ResourcePods {
			var pod corev1.Pod
			if err := json.Unmarshal(effect.Create.GetJson(), &pod); err != nil {
				c.t.Fatal(err)
			}
			c.name(ref.GetName(), fmt.Sprintf("%s-%c", command.GetObject().GetName()[:strings.LastIndexByte(ref.GetName(), '-')], 'a'+c.pods))
			c.pods++
			what += " image=" + pod.Spec.Containers[0].Image
		} else if ref.GetResource() == world.ResourceRevisions {
			c.revs++
			c.name(ref.GetName(), fmt.Sprintf("rev%d", c.revs))
		}
	case *shiplogv1.Command_Patch:
		what = "patch " + kind + " " + ref.GetName()
		if effect.Patch.GetSubresource() != "" {
			what += "/" + effect.Patch.GetSubresource()
		}
	case *shiplogv1.Command_Delete:
		what = "delete " + kind + " " + ref.GetName()
	default:
		what = narrate.Effect(command)
	case *shiplogv1.Command_WakeAt:
		what = "wake at " + effect.WakeAt.GetDue().AsTime().Format(time.TimeOnly)
	}
	if needed := command.GetNeeds(); needed != nil {
		what += " once " + needed.GetName() + " is there"
	}
	return fmt.Sprintf("%s  %s: %s\n", what, command.GetReason().GetCode(), command.GetReason().GetMessage())
}

// name gives a generated name one that people can read and write in scenarios.
func (c *cluster) name(real, alias string) {
	if !slices.Contains(c.aliases, real) {
		c.aliases = append(c.aliases, real, alias)
	}
}

func (c *cluster) alias(text string) string { return strings.NewReplacer(c.aliases...).Replace(text) }

// realAll puts the generated names into a text.
func (c *cluster) realAll(text string) string {
	for i := 0; i < len(c.aliases); i += 2 {
		text = strings.ReplaceAll(text, c.aliases[i+1], c.aliases[i])
	}
	return text
}

func (c *cluster) real(alias string) string {
	for i := 1; i < len(c.aliases); i += 2 {
		if c.aliases[i] == alias {
			return c.aliases[i-1]
		}
	}
	return alias
}

// pending returns the writes without outcome, oldest first, calls the calls to node agents.
func (c *cluster) pending() []record { return c.open(func(node string) bool { return node == "" }) }

func (c *cluster) calls() []record { return c.open(func(node string) bool { return node != "" }) }

func (c *cluster) open(counts func(node string) bool) []record {
	done := map[uint64]bool{}
	var out []record
	for _, r := range c.entries {
		if r.entry.GetOutcome() != nil {
			done[r.entry.GetCause()] = true
		}
	}
	for _, r := range c.entries {
		if command := r.entry.GetCommand(); command != nil && command.GetWakeAt() == nil && !done[r.sequence] && counts(command.GetNode()) {
			out = append(out, r)
		}
	}
	return out
}

// apply carries out one command and reports its outcome.
func (c *cluster) apply(r record) {
	command := r.entry.GetCommand()
	ref := world.RefOf(command.GetObject())
	held, exists := c.objects[ref]
	if uid := command.GetObject().GetUid(); exists && uid != "" && child(held.tree, "metadata")["uid"] != uid {
		exists = false
	}
	if needed := command.GetNeeds(); needed != nil {
		if _, there := c.objects[world.RefOf(needed)]; !there {
			c.outcome(r, shiplogv1.Outcome_RESULT_REFUSED, "Lacking", "what the command needs is not there")
			return
		}
	}
	if want := command.GetResourceVersion(); exists && want != "" && want != child(held.tree, "metadata")["resourceVersion"] {
		c.report(held, r.sequence)
		c.outcome(r, shiplogv1.Outcome_RESULT_REFUSED, "Conflict", "the object has been modified")
		return
	}
	switch effect := command.GetEffect().(type) {
	case *shiplogv1.Command_Create:
		tree := map[string]any{}
		if err := json.Unmarshal(effect.Create.GetJson(), &tree); err != nil {
			c.t.Fatal(err)
		}
		if ref.Resource == world.ResourcePods {
			tree["status"] = map[string]any{"phase": "Pending"}
		}
		c.store(object{command.GetObject(), tree}, r.sequence)
	case *shiplogv1.Command_Patch:
		if !exists {
			c.outcome(r, shiplogv1.Outcome_RESULT_REFUSED, "NotFound", "not found")
			return
		}
		c.store(object{held.ref, c.patch(held.tree, effect.Patch, ref.Resource)}, r.sequence)
	case *shiplogv1.Command_Delete:
		if exists && ref.Resource == world.ResourcePods {
			child(held.tree, "metadata")["deletionTimestamp"] = c.now.Format(time.RFC3339)
			c.store(held, r.sequence)
		} else if exists {
			c.vanish(ref)
		}
	}
	c.outcome(r, shiplogv1.Outcome_RESULT_APPLIED, "", "")
}

func (c *cluster) patch(tree map[string]any, patch *shiplogv1.PatchObject, resource string) map[string]any {
	before, _ := json.Marshal(tree)
	var after []byte
	var err error
	if patch.GetType() == shiplogv1.PatchObject_TYPE_STRATEGIC_MERGE {
		after, err = strategicpatch.StrategicMergePatch(before, patch.GetJson(), corev1.Pod{})
	} else {
		after, err = jsonpatch.MergePatch(before, patch.GetJson())
	}
	if err != nil {
		c.t.Fatalf("patch %s: %v", resource, err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(after, &out); err != nil {
		c.t.Fatal(err)
	}
	return out
}

func (c *cluster) outcome(r record, result shiplogv1.Outcome_Result, code, message string) {
	command := r.entry.GetCommand()
	c.append(&shiplogv1.Entry{Cause: r.sequence, Rollout: r.entry.GetRollout(), Kind: &shiplogv1.Entry_Outcome{Outcome: &shiplogv1.Outcome{
		Result: result, Object: command.GetObject(), Attempt: command.GetAttempt(), Reason: &shiplogv1.Reason{Code: code, Message: message},
	}}})
}

// kubelet brings every Pod but those excepted to where a scheduler and a kubelet would take it: scheduled, its containers
// running the images of the spec, ready when its gates are; terminating Pods go.
func (c *cluster) kubelet(except []string) {
	for _, ref := range slices.SortedFunc(maps.Keys(c.objects), func(a, b world.Ref) int { return strings.Compare(a.Name, b.Name) }) {
		if ref.Resource != world.ResourcePods || slices.Contains(except, ref.Name) {
			continue
		}
		o := c.objects[ref]
		if child(o.tree, "metadata")["deletionTimestamp"] != nil {
			c.vanish(ref)
			continue
		}
		before, _ := json.Marshal(o.tree)
		var pod corev1.Pod
		if err := json.Unmarshal(before, &pod); err != nil {
			c.t.Fatal(err)
		}
		status := child(o.tree, "status")
		if spec := child(o.tree, "spec"); spec["nodeName"] == nil {
			spec["nodeName"] = "n1"
		}
		status["phase"] = "Running"
		var statuses []any
		for i, container := range pod.Spec.Containers {
			restarts, started := int32(0), c.now.Format(time.RFC3339)
			if i < len(pod.Status.ContainerStatuses) {
				restarts = pod.Status.ContainerStatuses[i].RestartCount
				if pod.Status.ContainerStatuses[i].Image != container.Image {
					restarts++
				} else {
					started = pod.Status.ContainerStatuses[i].State.Running.StartedAt.Format(time.RFC3339)
				}
			}
			key := ref.Name + "/" + container.Name
			if c.envs[key].restarts != restarts || c.envs[key].hash == nil {
				c.envs[key] = env{restarts, envOf(&pod, &container)} // a container reads its env when it starts
			}
			one := map[string]any{
				"name": container.Name, "image": container.Image, "imageID": "id-of-" + container.Image, "ready": true, "restartCount": restarts,
				"containerID": fmt.Sprintf("%s-%d", key, restarts), "state": map[string]any{"running": map[string]any{"startedAt": started}},
			}
			if len(container.Resources.Requests) > 0 && !resizePending(&pod) {
				one["resources"] = child(o.tree, "spec")["containers"].([]any)[i].(map[string]any)["resources"]
			} else if i < len(pod.Status.ContainerStatuses) && pod.Status.ContainerStatuses[i].Resources != nil {
				one["resources"] = child(o.tree, "status")["containerStatuses"].([]any)[i].(map[string]any)["resources"]
			}
			statuses = append(statuses, one)
		}
		status["containerStatuses"] = statuses
		c.setConditions(status, pod, true)
		if after, _ := json.Marshal(o.tree); string(after) != string(before) {
			c.store(o, 0)
		}
	}
}

// env is what a container read from its Pod's metadata when it was started for the given time.
type env struct {
	restarts int32
	hash     *uint64
}

func resizePending(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodResizePending })
}

// envOf is the hash over the env of a container that comes from metadata, as inplace-update R24 has it; 0: there is none.
func envOf(pod *corev1.Pod, container *corev1.Container) *uint64 {
	var variables []corev1.EnvVar
	for _, one := range container.Env {
		if one.ValueFrom == nil || one.ValueFrom.FieldRef == nil {
			continue
		}
		for kind, values := range map[string]map[string]string{"labels": pod.Labels, "annotations": pod.Annotations} {
			if key, is := strings.CutPrefix(one.ValueFrom.FieldRef.FieldPath, "metadata."+kind+"['"); is {
				variables = append(variables, corev1.EnvVar{Name: one.Name, Value: values[strings.TrimSuffix(key, "']")]})
			}
		}
	}
	sum := uint64(0)
	if variables != nil {
		slices.SortFunc(variables, func(a, b corev1.EnvVar) int { return strings.Compare(a.Name, b.Name) })
		sum = deepHash(variables)
	}
	return &sum
}

func deepHash(value any) uint64 {
	data, _ := json.Marshal(value)
	sum := fnv.New32a()
	fmt.Fprintf(sum, "%v", dump.ForHash(data))
	return uint64(sum.Sum32())
}

// agents report what runs in every Pod (inplace-update R34). With restart they first restart the containers whose env is not
// what the metadata says now, in Pods that may not be ready (R35).
func (c *cluster) agents(restart bool) {
	for _, ref := range slices.SortedFunc(maps.Keys(c.objects), world.CompareRefs) {
		if ref.Resource != world.ResourcePods {
			continue
		}
		o := c.objects[ref]
		data, _ := json.Marshal(o.tree)
		var pod corev1.Pod
		if err := json.Unmarshal(data, &pod); err != nil {
			c.t.Fatal(err)
		}
		shut := slices.ContainsFunc(pod.Status.Conditions, func(held corev1.PodCondition) bool {
			return string(held.Type) == inplace.ReadyCondition && held.Status == corev1.ConditionFalse
		})
		var containers []any
		for i, status := range pod.Status.ContainerStatuses {
			key, container := ref.Name+"/"+status.Name, &pod.Spec.Containers[i]
			running := c.envs[key]
			if wanted := envOf(&pod, container); restart && shut && *running.hash != *wanted {
				running = env{status.RestartCount + 1, wanted}
				c.envs[key] = running
				tree := child(o.tree, "status")["containerStatuses"].([]any)[i].(map[string]any)
				tree["restartCount"], tree["containerID"] = running.restarts, fmt.Sprintf("%s-%d", key, running.restarts)
				tree["state"] = map[string]any{"running": map[string]any{"startedAt": c.now.Format(time.RFC3339)}}
			}
			hashes := map[string]any{"plainHash": deepHash(map[string]string{"image": status.Image, "name": status.Name})}
			if *running.hash != 0 {
				hashes["extractedEnvFromMetadataHash"] = *running.hash
			}
			containers = append(containers, map[string]any{
				"name": status.Name, "containerID": fmt.Sprintf("%s-%d", key, running.restarts), "restartCount": running.restarts, "hashes": hashes,
			})
		}
		if containers != nil {
			meta, _ := json.Marshal(map[string]any{"containers": containers})
			child(child(o.tree, "metadata"), "annotations")[inplace.RuntimeAnnotation] = string(meta)
			c.store(o, 0)
		}
	}
}

// setConditions sets what the kubelet owns: ContainersReady, and Ready, which also asks the gates.
func (c *cluster) setConditions(status map[string]any, pod corev1.Pod, containersReady bool) {
	ready := containersReady
	for _, gate := range pod.Spec.ReadinessGates {
		open := slices.ContainsFunc(pod.Status.Conditions, func(held corev1.PodCondition) bool {
			return held.Type == gate.ConditionType && held.Status == corev1.ConditionTrue
		})
		ready = ready && open
	}
	conditions, _ := status["conditions"].([]any)
	for kind, is := range map[string]bool{"ContainersReady": containersReady, "Ready": ready} {
		text := map[bool]string{true: "True", false: "False"}[is]
		at := slices.IndexFunc(conditions, func(held any) bool { return held.(map[string]any)["type"] == kind })
		if at >= 0 && conditions[at].(map[string]any)["status"] == text {
			continue
		}
		condition := map[string]any{"type": kind, "status": text, "lastTransitionTime": c.now.Format(time.RFC3339)}
		if at >= 0 {
			conditions[at] = condition
		} else {
			conditions = append(conditions, condition)
		}
	}
	slices.SortFunc(conditions, func(a, b any) int {
		return strings.Compare(a.(map[string]any)["type"].(string), b.(map[string]any)["type"].(string))
	})
	status["conditions"] = conditions
}

// tick lets time pass and delivers the ticks that fall due.
func (c *cluster) tick(by time.Duration) bool {
	c.now = c.now.Add(by)
	rang := false
	for _, id := range slices.Sorted(maps.Keys(c.wakes)) {
		if wake := c.wakes[id]; !wake.GetDue().AsTime().After(c.now) {
			delete(c.wakes, id)
			c.append(&shiplogv1.Entry{Kind: &shiplogv1.Entry_Ticked{Ticked: &shiplogv1.Ticked{Id: id, Due: timestamppb.New(wake.GetDue().AsTime())}}})
			rang = true
		}
	}
	return rang
}

func child(tree map[string]any, key string) map[string]any {
	value, is := tree[key].(map[string]any)
	if !is {
		value = map[string]any{}
		tree[key] = value
	}
	return value
}
