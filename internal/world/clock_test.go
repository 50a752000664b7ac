package world_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
)

// TestClockPutBack: after the log's clock was put back by a minute, time goes on from there, a vouch of before counts no more, one of
// after does, and who waits for a tick asks for it anew. Found by the campaign.
func TestClockPutBack(t *testing.T) {
	set := &shiplogv1.ObjectRef{Group: world.GroupKruise, Version: "v1beta1", Resource: world.ResourceCloneSets, Namespace: "default", Name: "web", Uid: "uid"}
	vouch := &shiplogv1.Vouched{Age: durationpb.New(0)}
	for _, watched := range world.Watched {
		vouch.Complete = append(vouch.Complete, &shiplogv1.Completeness{Group: watched.Group, Resource: watched.Resource, ResourceVersion: "1"})
	}
	vouched := &shiplogv1.Entry{Kind: &shiplogv1.Entry_Vouched{Vouched: vouch}}
	noon := time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)
	w := world.New()
	sequence := uint64(0)
	at := func(after time.Duration, entry *shiplogv1.Entry) {
		t.Helper()
		sequence++
		change, err := world.Decode(sequence, noon.Add(after), entry)
		if err != nil {
			t.Fatal(err)
		}
		w.Fold(change)
	}
	ref := world.RefOf(set)
	want := func(what string, trusted bool, now time.Duration) {
		t.Helper()
		if got := w.Trusted(ref); got != trusted {
			t.Errorf("%s: trusted is %v, want %v", what, got, trusted)
		}
		if got := w.Now().Sub(noon); got != now {
			t.Errorf("%s: it is noon and %s, want %s", what, got, now)
		}
	}
	observed := &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
		Object: set, ResourceVersion: "1", Json: []byte(`{"metadata":{"name":"web","namespace":"default","uid":"uid"},"spec":{"template":{}}}`),
	}}}
	at(0, observed)
	at(time.Second, vouched)
	at(time.Second, &shiplogv1.Entry{Rollout: "uid/1", Kind: &shiplogv1.Entry_Command{Command: &shiplogv1.Command{
		Object: set, Effect: &shiplogv1.Command_WakeAt{WakeAt: &shiplogv1.WakeAt{Id: "tick", Due: timestamppb.New(noon.Add(5 * time.Second))}},
	}}})
	want("before", true, time.Second)
	at(500*time.Millisecond, &shiplogv1.Entry{Kind: &shiplogv1.Entry_Ticked{Ticked: &shiplogv1.Ticked{Id: "another", Due: timestamppb.New(noon)}}})
	want("a little jitter", true, 500*time.Millisecond)
	w.Touched()
	at(-time.Minute, &shiplogv1.Entry{Kind: &shiplogv1.Entry_Ticked{Ticked: &shiplogv1.Ticked{Id: "another", Due: timestamppb.New(noon)}}})
	want("put back", false, -time.Minute)
	if touched := w.Touched(); len(touched) != 1 || touched[0] != ref {
		t.Errorf("put back: %v is looked at again, want the CloneSet that waits for a tick", touched)
	}
	at(-50*time.Second, vouched)
	want("vouched again", true, -50*time.Second)
	if age := w.FactsAge(ref); age != 0 {
		t.Errorf("vouched again: facts are %s old", age)
	}
	at(10*time.Second, observed)
	want("put right", true, 10*time.Second)
	if age := w.FactsAge(ref); age != time.Minute {
		t.Errorf("put right: facts are %s old, want as much as the clock says", age)
	}
}
