package cloneset_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide/cloneset"
)

// BenchmarkDecide is what one decision on a CloneSet of 10,000 Pods takes in the middle of an update in place that nothing is in the way of:
// a third of the Pods is updated, the others' commands are under way, and nothing is to be commanded.
func BenchmarkDecide(b *testing.B) {
	const pods = 10_000
	text, err := os.ReadFile("../../../../internal/world/testdata/pod.json")
	if err != nil {
		b.Fatal(err)
	}
	c := &cluster{b: b, world: world.New()}
	ref := world.Ref{Group: world.GroupKruise, Resource: world.ResourceCloneSets, Namespace: "default", Name: "web"}
	c.take(&shiplogv1.Entry{Kind: &shiplogv1.Entry_FenceRaised{FenceRaised: &shiplogv1.FenceRaised{}}})
	c.vouch()
	var revisions [2]string
	for i, image := range []string{"nginx:1.20", "nginx:1.21"} {
		c.show(ref, "v1beta1", fmt.Sprintf(`{"metadata":{"name":"web","namespace":"default","uid":"86376938-afdc-41ee-845f-adc013142e7d","generation":%d},
			"spec":{"replicas":%d,"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"main","image":%q}]}},
			"updateStrategy":{"rollingUpdate":{"podUpdatePolicy":"InPlaceIfPossible","maxUnavailable":"100%%"}}},
			"status":{"observedGeneration":%d}}`, i+1, pods, image, i+1))
		create := cloneset.Decide(c.world, ref).Commands[0]
		revisions[i] = create.GetObject().GetName()
		var object map[string]any
		if err := json.Unmarshal(create.GetCreate().GetJson(), &object); err != nil {
			b.Fatal(err)
		}
		object["metadata"].(map[string]any)["uid"] = revisions[i]
		data, _ := json.Marshal(object)
		c.show(world.RefOf(create.GetObject()), "v1", string(data))
	}
	for pod := range pods {
		name, image, revision := "web-"+strconv.Itoa(10_000+pod), "nginx:1.20", revisions[0]
		if pod%3 == 0 {
			image, revision = "nginx:1.21", revisions[1]
		}
		c.show(world.Ref{Resource: world.ResourcePods, Namespace: "default", Name: name}, "v1", strings.NewReplacer(
			"web-NAME", name, "UID", name, "NODE", "hollow-"+strconv.Itoa(pod%20), "SECOND", c.now().Format(time.RFC3339), "VERSION", "1",
			"OLDCONTAINER", "old-"+name, "NEWCONTAINER", "new-"+name, "nginx:1.21", image, "web-7ff695fb44", revision,
		).Replace(string(text)))
	}
	c.vouch()
	first := cloneset.Decide(c.world, ref)
	for _, command := range first.Commands {
		c.take(&shiplogv1.Entry{Rollout: first.Rollout, Kind: &shiplogv1.Entry_Command{Command: command}})
	}
	if again := cloneset.Decide(c.world, ref); len(first.Commands) < pods/2 || len(again.Commands) > 0 {
		b.Fatalf("%d commands at first, then %v", len(first.Commands), again.Commands)
	}
	for b.Loop() {
		cloneset.Decide(c.world, ref)
	}
}

// cluster writes the log of a benchmark.
type cluster struct {
	b        *testing.B
	world    *world.World
	sequence uint64
}

var began = time.Date(2026, 11, 22, 18, 15, 0, 0, time.UTC)

func (c *cluster) now() time.Time { return began.Add(time.Duration(c.sequence) * time.Millisecond) }

func (c *cluster) take(entry *shiplogv1.Entry) {
	c.b.Helper()
	c.sequence++
	change, err := world.Decode(c.sequence, c.now(), entry)
	if err != nil {
		c.b.Fatal(err)
	}
	c.world.Fold(change)
}

func (c *cluster) show(ref world.Ref, version, data string) {
	c.b.Helper()
	c.take(&shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
		Object:          &shiplogv1.ObjectRef{Group: ref.Group, Version: version, Resource: ref.Resource, Namespace: ref.Namespace, Name: ref.Name},
		ResourceVersion: strconv.FormatUint(c.sequence+1, 10), Json: []byte(data),
	}}})
}

func (c *cluster) vouch() {
	c.b.Helper()
	vouched := &shiplogv1.Vouched{}
	for _, watched := range world.Watched {
		vouched.Complete = append(vouched.Complete, &shiplogv1.Completeness{Group: watched.Group, Resource: watched.Resource})
	}
	c.take(&shiplogv1.Entry{Kind: &shiplogv1.Entry_Vouched{Vouched: vouched}})
}
