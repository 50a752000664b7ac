package world_test

import (
	_ "embed"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
)

// updatedPod is a Pod on a hollow node as an API server shows it after its update in place. What differs from Pod to Pod is in capitals.
//
//go:embed testdata/pod.json
var updatedPod string

// BenchmarkWorldOfPods is what the world takes for each of 10,000 Pods of a CloneSet that were created and updated in place all at once, and how fast
// their entries decode and fold.
func BenchmarkWorldOfPods(b *testing.B) {
	const pods = 10_000
	for b.Loop() {
		lastWorld = nil
		before := heap()
		w := world.New()
		var decode, fold time.Duration
		sequence := uint64(0)
		take := func(entry *shiplogv1.Entry) uint64 {
			sequence++
			began := time.Now()
			change, err := world.Decode(sequence, rolloutBegan.Add(time.Duration(sequence)*time.Millisecond), entry)
			if err != nil {
				b.Fatal(err)
			}
			decoded := time.Now()
			w.Fold(change)
			decode, fold = decode+decoded.Sub(began), fold+time.Since(decoded)
			return sequence
		}
		commands := make([]uint64, pods)
		round := func(command func(pod int) *shiplogv1.Entry, generation int) {
			for pod := range pods {
				commands[pod] = take(command(pod))
			}
			for pod := range pods {
				take(podFact(pod, generation))
				take(applied(commands[pod]))
			}
		}
		round(podCreate, 1)
		round(podUpdate, 2)
		b.ReportMetric(float64(heap()-before)/pods, "B/Pod")
		b.ReportMetric(float64(sequence)/decode.Seconds(), "decoded/s")
		b.ReportMetric(float64(sequence)/fold.Seconds(), "folded/s")
		lastWorld = w
	}
}

// Pods of one owner have one copy of containers that are the same, and no other's.
func TestSiblingsShareContainers(t *testing.T) {
	w := world.New()
	containers := func(sequence uint64, pod int, text string) []world.Container {
		change, err := world.Decode(sequence, rolloutBegan, observed(podRef(pod), strconv.FormatUint(sequence, 10), podJSON(text, pod, 1)))
		if err != nil {
			t.Fatal(err)
		}
		w.Fold(change)
		held, _ := w.Pod(world.RefOf(podRef(pod)))
		return held.Containers
	}
	containers(1, 1, updatedPod)
	one, two := containers(2, 2, updatedPod), containers(3, 3, updatedPod)
	if &one[0] != &two[0] {
		t.Error("two Pods hold a copy each")
	}
	other := containers(4, 2, strings.Replace(updatedPod, `"image": "nginx:1.21"`, `"image": "nginx:1.22"`, 1))
	if other[0].Image != "nginx:1.22" || two[0].Image != "nginx:1.21" {
		t.Errorf("images are %s and %s", other[0].Image, two[0].Image)
	}
}

// lastWorld stays, so that -memprofile shows what is in it: -memprofilerate 512 and go tool pprof -sample_index=inuse_space -lines.
var lastWorld *world.World

var rolloutBegan = time.Date(2026, 11, 22, 18, 15, 0, 0, time.UTC)

// heap is what is in use once the garbage is gone.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what is weakly held goes with the second
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// podRef names one of many Pods.
func podRef(pod int) *shiplogv1.ObjectRef {
	return &shiplogv1.ObjectRef{Version: "v1", Resource: world.ResourcePods, Namespace: "default", Name: "web-" + strconv.Itoa(10_000+pod), Uid: podUID(pod)}
}

func podUID(pod int) string { return fmt.Sprintf("06629a58-757b-4ea1-99ef-%012d", pod) }

// podJSON fills in what differs from Pod to Pod; some hundred Pods come to run, and are changed, in the same second.
func podJSON(text string, pod, generation int) []byte {
	second := rolloutBegan.Add(time.Duration(generation)*time.Minute + time.Duration(pod/300)*time.Second).Format(time.RFC3339)
	return []byte(strings.NewReplacer(
		"NAME", strconv.Itoa(10_000+pod), "UID", podUID(pod), "NODE", "hollow-"+strconv.Itoa(pod%20), "SECOND", second, "VERSION", strconv.Itoa(pod+generation*100_000),
		"OLDCONTAINER", fmt.Sprintf("%064d", pod), "NEWCONTAINER", fmt.Sprintf("%064d", pod+generation*100_000),
	).Replace(text))
}

func podFact(pod, generation int) *shiplogv1.Entry {
	return observed(podRef(pod), strconv.Itoa(pod+generation*100_000), podJSON(updatedPod, pod, generation))
}

func observed(object *shiplogv1.ObjectRef, version string, data []byte) *shiplogv1.Entry {
	return &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{Object: object, ResourceVersion: version, Json: data}}}
}

func podCommand(pod int, code string) *shiplogv1.Command {
	return &shiplogv1.Command{Object: podRef(pod), Reason: &shiplogv1.Reason{Code: code}}
}

func podCreate(pod int) *shiplogv1.Entry {
	command := podCommand(pod, "ScaleUp")
	command.Effect = &shiplogv1.Command_Create{Create: &shiplogv1.CreateObject{Json: podJSON(updatedPod, pod, 0)}}
	return &shiplogv1.Entry{Rollout: "86376938-afdc-41ee-845f-adc013142e7d/1", Kind: &shiplogv1.Entry_Command{Command: command}}
}

func podUpdate(pod int) *shiplogv1.Entry {
	command := podCommand(pod, "UpdateInPlace")
	command.Effect = &shiplogv1.Command_Patch{Patch: &shiplogv1.PatchObject{Type: shiplogv1.PatchObject_TYPE_STRATEGIC_MERGE, Json: podJSON(
		`{"metadata":{"labels":{"controller-revision-hash":"web-7ff695fb44"},"annotations":{"shiplog.dev/inplace-update":"{\"main\":{\"containerID\":\"containerd://OLDCONTAINER\"}}"}},`+
			`"spec":{"containers":[{"image":"nginx:1.21","name":"main"}]}}`, pod, 2)}}
	return &shiplogv1.Entry{Rollout: "86376938-afdc-41ee-845f-adc013142e7d/2", Kind: &shiplogv1.Entry_Command{Command: command}}
}

func applied(command uint64) *shiplogv1.Entry {
	return &shiplogv1.Entry{Cause: command, Kind: &shiplogv1.Entry_Outcome{Outcome: &shiplogv1.Outcome{Result: shiplogv1.Outcome_RESULT_APPLIED}}}
}
