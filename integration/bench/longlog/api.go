package longlog

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/world"
)

// began is the API server's time at the beginning of a log; it goes on by a second with every turn.
var began = time.Date(2026, 1, 15, 8, 0, 0, 0, time.UTC)

// api is the API server and the cluster behind it.
type api struct {
	r         *run
	version   uint64
	uids      uint64
	objects   map[world.Ref]tree
	workloads []*workload
	pods      map[string]int // Pods that there are, by the UID of their owner
	looked    map[world.Ref]bool
}

type tree = map[string]any

// workload is a CloneSet and what its user does with it.
type workload struct {
	ref      world.Ref
	name     string // unique
	uid      string
	image    int // number of the newest image
	replicas int
	bad      bool // the newest image does not run
}

func newAPI(r *run) *api {
	return &api{r: r, version: 1000, objects: map[world.Ref]tree{}, pods: map[string]int{}, looked: map[world.Ref]bool{}}
}

func (a *api) stamp() string {
	return began.Add(time.Duration(a.r.turn) * time.Second).Format(time.RFC3339)
}

// put stores a new state of an object and returns its fact.
func (a *api) put(ref world.Ref, object tree, by string, cause uint64) *shiplogv1.Entry {
	metadata := child(object, "metadata")
	if metadata["uid"] == nil {
		a.uids++
		metadata["uid"] = fmt.Sprintf("%08x-5eed-4000-8000-%012x", a.r.Seed, a.uids)
		metadata["creationTimestamp"] = a.stamp()
		if owner := ownerOf(object); ref.Resource == world.ResourcePods {
			a.pods[owner]++
		}
	}
	a.version++
	metadata["resourceVersion"] = strconv.FormatUint(a.version, 10)
	a.objects[ref] = object
	data, err := json.Marshal(object)
	if err != nil {
		a.r.failed = err
	}
	if ref.Resource == world.ResourcePods {
		a.look(ref)
	}
	return &shiplogv1.Entry{Writer: writer, WriterVersion: "v0.0.0", Cause: cause, Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
		Object: a.refOf(ref), ResourceVersion: metadata["resourceVersion"].(string), Json: data,
		LastChange: &shiplogv1.LastChange{Manager: by, Operation: "Update", Time: timestamppb.New(began.Add(time.Duration(a.r.turn) * time.Second))},
	}}}
}

func (a *api) refOf(ref world.Ref) *shiplogv1.ObjectRef {
	out := &shiplogv1.ObjectRef{Group: ref.Group, Version: "v1", Resource: ref.Resource, Namespace: ref.Namespace, Name: ref.Name}
	if ref.Group == world.GroupKruise {
		out.Version = "v1beta1"
	}
	if object := a.objects[ref]; object != nil {
		out.Uid, _ = child(object, "metadata")["uid"].(string)
	}
	return out
}

func (a *api) remove(ref world.Ref) *shiplogv1.Entry {
	a.version++
	gone := a.refOf(ref)
	if ref.Resource == world.ResourcePods {
		a.pods[ownerOf(a.objects[ref])]--
	}
	delete(a.objects, ref)
	return &shiplogv1.Entry{Writer: writer, WriterVersion: "v0.0.0", Kind: &shiplogv1.Entry_ObjectDeleted{ObjectDeleted: &shiplogv1.ObjectDeleted{
		Object: gone, ResourceVersion: strconv.FormatUint(a.version, 10),
	}}}
}

// cluster makes nodes and namespaces.
func (a *api) cluster() (entries []*shiplogv1.Entry) {
	for i := range nodes {
		name := fmt.Sprintf("node-%d", i)
		entries = append(entries, a.put(world.Ref{Resource: world.ResourceNodes, Name: name}, tree{
			"apiVersion": "v1", "kind": "Node",
			"metadata": tree{"name": name, "labels": tree{"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": fmt.Sprintf("zone-%d", i%3)}},
			"status":   tree{"conditions": []any{tree{"type": "Ready", "status": "True"}}},
		}, "kubelet", 0))
	}
	for i := range namespaces {
		name := fmt.Sprintf("team-%d", i)
		entries = append(entries, a.put(world.Ref{Resource: world.ResourceNamespaces, Name: name}, tree{
			"apiVersion": "v1", "kind": "Namespace", "metadata": tree{"name": name, "labels": tree{"kubernetes.io/metadata.name": name}},
		}, "kubectl-create", 0))
	}
	return entries
}

// createWorkload is what its user applies first.
func (a *api) createWorkload(namespace, name string, replicas int) *shiplogv1.Entry {
	w := &workload{ref: world.Ref{Group: world.GroupKruise, Resource: world.ResourceCloneSets, Namespace: namespace, Name: name}, name: name, replicas: replicas, image: 1}
	a.workloads = append(a.workloads, w)
	fact := a.put(w.ref, tree{
		"apiVersion": "apps.kruise.io/v1beta1", "kind": "CloneSet",
		"metadata": tree{"namespace": namespace, "name": name, "generation": 1.0, "labels": tree{"app": name}},
		"spec": tree{
			"replicas": float64(replicas), "selector": tree{"matchLabels": tree{"app": name}}, "template": template(name),
			"updateStrategy":       tree{"type": "RollingUpdate", "rollingUpdate": tree{"podUpdatePolicy": "InPlaceIfPossible", "maxUnavailable": "20%"}},
			"revisionHistoryLimit": 5.0,
		},
	}, "kubectl-client-side-apply", 0)
	w.uid = child(a.objects[w.ref], "metadata")["uid"].(string)
	return fact
}

func template(name string) tree {
	return tree{
		"metadata": tree{"labels": tree{"app": name, "team": "payments", "tier": "frontend"}},
		"spec": tree{
			"containers": []any{
				container("main", "registry.example.com/payments/"+name+":v1", 8080), container("proxy", "registry.example.com/mesh/proxy:v1.22.3", 15090),
			},
			"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler", "securityContext": tree{},
			"terminationGracePeriodSeconds": 30.0,
		},
	}
}

func container(name, image string, port int) tree {
	return tree{
		"name": name, "image": image, "imagePullPolicy": "IfNotPresent", "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
		"ports":     []any{tree{"containerPort": float64(port), "protocol": "TCP"}},
		"env":       []any{tree{"name": "LOG_LEVEL", "value": "info"}, tree{"name": "BUILD", "value": "1"}},
		"resources": tree{"requests": tree{"cpu": "100m", "memory": "128Mi"}, "limits": tree{"memory": "256Mi"}},
	}
}

// edit is one of the things that users do: mostly another image, sometimes another environment, scaling, a Pod deleted by hand, or an image that does
// not run.
func (a *api) edit(w *workload) []*shiplogv1.Entry {
	switch n := a.r.rand.IntN(100); {
	case n < 60:
		return []*shiplogv1.Entry{a.newImage(w)}
	case n < 80:
		return []*shiplogv1.Entry{a.change(w, func(spec tree) {
			w.image++
			main := containers(child(spec, "template"))[0].(tree)
			main["env"].([]any)[1].(tree)["value"] = strconv.Itoa(w.image)
		})}
	case n < 86:
		more := 1 + a.r.rand.IntN(5)
		if w.replicas > a.r.Pods {
			more = a.r.Pods - w.replicas
		}
		w.replicas += more
		return []*shiplogv1.Entry{a.change(w, func(spec tree) { spec["replicas"] = float64(w.replicas) })}
	case n < 92:
		w.bad = true
		return []*shiplogv1.Entry{a.newImage(w)}
	}
	var pods []world.Ref
	for ref, object := range a.objects {
		if ref.Resource == world.ResourcePods && ownerOf(object) == w.uid {
			pods = append(pods, ref)
		}
	}
	if len(pods) == 0 {
		return nil
	}
	slices.SortFunc(pods, world.CompareRefs)
	ref := pods[a.r.rand.IntN(len(pods))]
	return []*shiplogv1.Entry{a.terminate(ref, "kubectl-delete", 0)}
}

func (a *api) newImage(w *workload) *shiplogv1.Entry {
	return a.change(w, func(spec tree) {
		w.image++
		tag := "v"
		if w.bad {
			tag = "bad"
		}
		containers(child(spec, "template"))[0].(tree)["image"] = fmt.Sprintf("registry.example.com/payments/%s:%s%d", w.ref.Name, tag, w.image)
	})
}

// rollBack takes an image back that does not run, or tries another.
func (a *api) rollBack(w *workload) *shiplogv1.Entry {
	w.bad = false
	return a.newImage(w)
}

func (a *api) change(w *workload, change func(spec tree)) *shiplogv1.Entry {
	object := a.objects[w.ref]
	change(child(object, "spec"))
	metadata := child(object, "metadata")
	metadata["generation"] = metadata["generation"].(float64) + 1
	return a.put(w.ref, object, "argocd-controller", 0)
}

// unsettled says whether the status of a workload is not yet what its spec wants.
func (a *api) unsettled(w *workload) bool {
	object := a.objects[w.ref]
	status := child(object, "status")
	return status["observedGeneration"] != child(object, "metadata")["generation"] || status["updatedAvailableReplicas"] != float64(w.replicas) ||
		status["replicas"] != float64(w.replicas) || a.pods[w.uid] != w.replicas
}

// carryOut does what a command says, and returns the fact of what resulted, and the outcome.
func (a *api) carryOut(record journal.Record) []*shiplogv1.Entry {
	command := record.Entry.GetCommand()
	ref := world.RefOf(command.GetObject())
	held := a.objects[ref]
	outcome := &shiplogv1.Outcome{
		Result: shiplogv1.Outcome_RESULT_APPLIED, Object: a.refOf(ref), Attempt: command.GetAttempt(), Requests: 1,
		Took: durationpb.New(time.Duration(4+a.r.rand.IntN(30)) * time.Millisecond),
	}
	var fact *shiplogv1.Entry
	refuse := func(code, message string) {
		outcome.Result, outcome.Reason = shiplogv1.Outcome_RESULT_REFUSED, &shiplogv1.Reason{Code: code, Message: message}
	}
	switch effect := command.GetEffect().(type) {
	case *shiplogv1.Command_Create:
		var object tree
		if err := json.Unmarshal(effect.Create.GetJson(), &object); err != nil {
			a.r.failed = err
			return nil
		}
		if ref.Resource == world.ResourcePods {
			admit(object)
		}
		fact = a.put(ref, object, "shiplog-executor", record.Sequence)
	case *shiplogv1.Command_Patch:
		version := child(held, "metadata")["resourceVersion"]
		switch {
		case held == nil:
			refuse("NotFound", ref.String()+" is not there")
		case command.GetResourceVersion() != "" && command.GetResourceVersion() != version:
			refuse("Conflict", "the object has been modified")
		default:
			fact = a.patch(ref, held, effect.Patch, record.Sequence)
		}
	case *shiplogv1.Command_Delete:
		switch {
		case held == nil:
			refuse("NotFound", ref.String()+" is not there")
		case ref.Resource == world.ResourcePods:
			fact = a.terminate(ref, "shiplog-executor", record.Sequence)
		default:
			fact = a.remove(ref)
		}
	}
	if outcome.Result == shiplogv1.Outcome_RESULT_APPLIED {
		outcome.Object, outcome.ResourceVersion = a.refOf(ref), strconv.FormatUint(a.version, 10)
		if gone := fact.GetObjectDeleted(); gone != nil {
			outcome.Object = gone.GetObject()
		}
	}
	told := &shiplogv1.Entry{Writer: writer, WriterVersion: "v0.0.0", Cause: record.Sequence, Rollout: record.Entry.GetRollout(), Kind: &shiplogv1.Entry_Outcome{Outcome: outcome}}
	if fact == nil {
		return []*shiplogv1.Entry{told}
	}
	return []*shiplogv1.Entry{fact, told}
}

func (a *api) patch(ref world.Ref, held tree, patch *shiplogv1.PatchObject, cause uint64) *shiplogv1.Entry {
	before, err := json.Marshal(held)
	var after []byte
	if err == nil && patch.GetType() == shiplogv1.PatchObject_TYPE_STRATEGIC_MERGE {
		after, err = strategicpatch.StrategicMergePatch(before, patch.GetJson(), corev1.Pod{})
	} else if err == nil {
		after, err = jsonpatch.MergePatch(before, patch.GetJson())
	}
	var object tree
	if err == nil {
		err = json.Unmarshal(after, &object)
	}
	if err != nil {
		a.r.failed = fmt.Errorf("patch %s: %w", ref, err)
		return nil
	}
	if metadata := child(object, "metadata"); patch.GetSubresource() == "" && metadata["generation"] != nil && strings.Contains(string(patch.GetJson()), `"spec"`) {
		metadata["generation"] = metadata["generation"].(float64) + 1
	}
	return a.put(ref, object, "shiplog-executor", cause)
}

func (a *api) terminate(ref world.Ref, by string, cause uint64) *shiplogv1.Entry {
	object := a.objects[ref]
	metadata := child(object, "metadata")
	metadata["deletionTimestamp"], metadata["deletionGracePeriodSeconds"] = a.stamp(), 30.0
	return a.put(ref, object, by, cause)
}

func ownerOf(object tree) string {
	owners, _ := child(object, "metadata")["ownerReferences"].([]any)
	if len(owners) == 0 {
		return ""
	}
	uid, _ := owners[0].(tree)["uid"].(string)
	return uid
}

func containers(template tree) []any {
	list, _ := child(template, "spec")["containers"].([]any)
	return list
}

func child(object tree, key string) tree {
	held, is := object[key].(tree)
	if !is {
		held = tree{}
		if object != nil {
			object[key] = held
		}
	}
	return held
}
