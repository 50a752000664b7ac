package world_test

import (
	"testing"
	"time"

	"shiplog.dev/internal/world"
)

func TestConditions(t *testing.T) {
	change, err := world.Decode(1, rolloutBegan, observed(podRef(1), "1", []byte(`{"status":{"conditions":[
		{"type":"Ready","status":"False","reason":"ContainersNotReady","message":"main","lastTransitionTime":"2026-11-22T19:15:44+01:00"},
		{"type":"KruisePodReady","status":"True","lastTransitionTime":null}]}}`)))
	if err != nil {
		t.Fatal(err)
	}
	pod := change.Object().(*world.Pod)
	want := world.Condition{
		Saying:             world.Saying{Type: "Ready", Status: "False", Reason: "ContainersNotReady", Message: "main"},
		LastTransitionTime: time.Date(2026, 11, 22, 18, 15, 44, 0, time.UTC),
	}
	if got := pod.Condition("Ready"); got != want || !got.Present() {
		t.Errorf("Ready is %+v, want %+v", got, want)
	}
	if got := pod.Condition("KruisePodReady"); got.Status != "True" || !got.LastTransitionTime.IsZero() {
		t.Errorf("a condition that does not say since when is %+v", got)
	}
	if got := pod.Condition("Initialized"); got.Present() || got != (world.Condition{}) {
		t.Errorf("a condition that is not there is %+v", got)
	}
}
