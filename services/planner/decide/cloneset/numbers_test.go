package cloneset

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"

	"k8s.io/apimachinery/pkg/util/intstr"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/internal/world"
)

// TestNumbers holds the cases a to k of the spec (cloneset, after R25).
func TestNumbers(t *testing.T) {
	unlimited := func(s spec) spec {
		if s.scaleUnavailable == 0 {
			s.scaleUnavailable = math.MaxInt
		}
		return s
	}
	for _, test := range []struct {
		name string
		spec spec
		in   counts
		want func(numbers) string
		is   string
	}{
		{"a: two Pods start", spec{replicas: 10, maxUnavailable: 2}, counts{pods: 10, old: 10, actingOld: 10}, updating, "update 10, unavailable 2"},
		{"b: surge first", spec{replicas: 10, partition: 3, maxUnavailable: 2, maxSurge: 1}, counts{pods: 10, old: 10, actingOld: 10}, scaling, "up 1 (0 old, limit 1), down 0 (7 old), delete 0"},
		{"c: b with the new Pod", spec{replicas: 10, partition: 3, maxUnavailable: 2, maxSurge: 1}, counts{pods: 11, old: 10, actingOld: 10, actingNew: 1, unavailableNew: 1, unavailableNow: 1}, updating, "update 6, unavailable 3"},
		{"d: surge before deletion", spec{replicas: 5, maxUnavailable: 1, maxSurge: 1}, counts{pods: 5, actingNew: 5, unavailableNew: 1, unavailableNow: 1, specifiedNew: 1}, scaling, "up 1 (0 old, limit 1), down 0 (0 old), delete 0"},
		{"e: no surge needed", spec{replicas: 5, maxUnavailable: 2, maxSurge: 1}, counts{pods: 5, actingNew: 5, unavailableNew: 1, unavailableNow: 1, specifiedNew: 1}, scaling, "up 0 (0 old, limit 0), down 0 (0 old), delete 1"},
		{"f: scale in", spec{replicas: 5, maxUnavailable: 1}, counts{pods: 10, actingNew: 10, unavailableNew: 3, unavailableNow: 3}, scaling, "up 0 (0 old, limit 0), down 5 (0 old), delete 3"},
		{"g: rollback with the gate", spec{replicas: 6, partition: 2, maxUnavailable: 1}, counts{pods: 6, old: 1, actingOld: 1, actingNew: 5, rollsBack: true}, updating, "update -1, unavailable 1"},
		{"g: no rollback without", spec{replicas: 6, partition: 2, maxUnavailable: 1}, counts{pods: 6, old: 1, actingOld: 1, actingNew: 5}, updating, "update 0, unavailable 1"},
		{"h: scale limited", spec{replicas: 8, maxUnavailable: 1, scaleUnavailable: 2}, counts{pods: 5, actingNew: 5, unavailableNew: 1, unavailableNow: 1}, scaling, "up 3 (0 old, limit 1), down 0 (0 old), delete 0"},
		{"j: all of the current revision", spec{replicas: 8, partition: 6, maxUnavailable: 2}, counts{pods: 4, old: 2, actingOld: 2, actingNew: 2}, scaling, "up 4 (4 old, limit 4), down 0 (0 old), delete 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.want(calculate(test.in, unlimited(test.spec))); got != test.is {
				t.Errorf("got %q, want %q", got, test.is)
			}
		})
	}
}

func updating(n numbers) string {
	return fmt.Sprintf("update %d, unavailable %d", n.update, n.updateUnavailable)
}

func scaling(n numbers) string {
	return fmt.Sprintf("up %d (%d old, limit %d), down %d (%d old), delete %d", n.up, n.upOld, n.upLimit, n.down, n.downOld, n.deleteReady)
}

// TestPartition is case k (R23), and decimals (D9).
func TestPartition(t *testing.T) {
	for _, test := range []struct {
		replicas  int32
		partition string
		want      int
	}{
		{5, "0%", 0}, {5, "10%", 1}, {5, "50%", 3}, {5, "99%", 4}, {5, "100%", 5}, {5, "7", 5}, {1, "50%", 1},
		{5, "100.0%", 5}, {1000, "33.3%", 333}, {3, "33.4%", 2},
	} {
		value := intstr.Parse(test.partition)
		set := valid(test.replicas)
		set.Spec.UpdateStrategy.RollingUpdate.Partition = &value
		spec, problem := readSpec(set)
		if problem != "" {
			t.Fatal(problem)
		}
		if spec.partition != test.want {
			t.Errorf("partition %s of %d: got %d, want %d", test.partition, test.replicas, spec.partition, test.want)
		}
	}
}

// TestProblems: what cannot be acted on names its field.
func TestProblems(t *testing.T) {
	for _, test := range []struct {
		spoil func(*v1beta1.CloneSetSpec)
		want  string
	}{
		{func(s *v1beta1.CloneSetSpec) { s.Selector.MatchLabels = nil }, "spec.selector: is empty and would select every Pod"},
		{func(s *v1beta1.CloneSetSpec) { s.Template.Labels = nil }, `spec.template.metadata.labels: do not match spec.selector "app=web"`},
		{func(s *v1beta1.CloneSetSpec) { s.Template.Spec.Containers = nil }, "spec.template.spec.containers: is empty"},
		{func(s *v1beta1.CloneSetSpec) {
			s.UpdateStrategy.RollingUpdate.MaxUnavailable = &intstr.IntOrString{Type: intstr.String, StrVal: "5"}
		}, `spec.updateStrategy.rollingUpdate.maxUnavailable: "5" is neither a count nor a percentage such as 20%`},
	} {
		set := valid(3)
		test.spoil(&set.Spec)
		if _, got := readSpec(set); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
	set := valid(3)
	set.Claims = []map[string]any{{"metadata": map[string]any{}}}
	if _, got := readSpec(set); got != "spec.volumeClaimTemplates[0].metadata.name: is empty" {
		t.Errorf("a claim template without a name reads as %q", got)
	}
	if _, got := readSpec(&world.CloneSet{Malformed: "spec.template: bad"}); got != "spec.template: bad" {
		t.Errorf("a malformed CloneSet reads as %q", got)
	}
}

// TestRevisionHash: another collision count gives another name for the same data (R12).
func TestRevisionHash(t *testing.T) {
	if got, again := Hash([]byte("a"), 0), Hash([]byte("a"), 1); got == again || got == "" {
		t.Errorf("the collision count does not change the hash %q", got)
	}
}

// valid is a CloneSet that can be acted on.
func valid(replicas int32) *world.CloneSet {
	set := &world.CloneSet{}
	data := []byte(`{"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"main","image":"v1"}]}}}`)
	if err := json.Unmarshal(data, &set.Spec); err != nil {
		panic(err)
	}
	set.Spec.Replicas = &replicas
	return set
}
