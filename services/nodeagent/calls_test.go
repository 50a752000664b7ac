package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal"
)

// command appends a command for the node, as a planner would, and returns its sequence.
func command(t *testing.T, log journal.Journal, command *shiplogv1.Command) uint64 {
	t.Helper()
	command.Node, command.Object = "node-1", &shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: "default", Name: "p", Uid: "u"}
	sequence, err := log.AppendCommands(t.Context(), 0, &shiplogv1.Entry{Writer: "planner/test", Rollout: "r/1", Kind: &shiplogv1.Entry_Command{Command: command}})
	if err != nil {
		t.Fatal(err)
	}
	return sequence
}

func pullOf(image string) *shiplogv1.Command {
	return &shiplogv1.Command{Effect: &shiplogv1.Command_PullImage{PullImage: &shiplogv1.PullImage{Image: image}}, RunWithin: durationpb.New(time.Minute)}
}

func stopOf(container string, grace time.Duration) *shiplogv1.Command {
	return &shiplogv1.Command{Effect: &shiplogv1.Command_StopContainer{StopContainer: &shiplogv1.StopContainer{
		ContainerId: container, Grace: durationpb.New(grace)}}, RunWithin: durationpb.New(time.Minute)}
}

// ended waits for the outcome of a command.
func ended(t *testing.T, log journal.Journal, command uint64) *shiplogv1.Outcome {
	t.Helper()
	var outcome *shiplogv1.Outcome
	testbed.Eventually(t, time.Minute, func() error {
		_, found, err := log.LastOfCall(t.Context(), "node-1", command)
		if err == nil && found == nil {
			err = errors.New("no outcome")
		}
		if err == nil {
			outcome = found.Entry.GetOutcome()
			if found.Entry.Cause != command || found.Entry.Rollout != "r/1" || outcome.GetObject().GetUid() != "u" || outcome.Node != "node-1" {
				t.Errorf("outcome %v", found.Entry)
			}
		}
		return err
	})
	return outcome
}

// applied waits for an outcome, which must not be a refusal.
func applied(t *testing.T, log journal.Journal, command uint64) *shiplogv1.Outcome {
	t.Helper()
	outcome := ended(t, log, command)
	if outcome.Result != shiplogv1.Outcome_RESULT_APPLIED {
		t.Fatalf("outcome %v", outcome)
	}
	return outcome
}

// wantRefused waits for the refusal of a command, with a code and part of a message.
func wantRefused(t *testing.T, log journal.Journal, command uint64, code, message string) {
	t.Helper()
	outcome := ended(t, log, command)
	if outcome.Result != shiplogv1.Outcome_RESULT_REFUSED || outcome.GetReason().GetCode() != code || !strings.Contains(outcome.GetReason().GetMessage(), message) {
		t.Errorf("outcome %v, want %s: %s", outcome, code, message)
	}
}

// image-pull R46: an image that is there is not pulled, unless it always is.
func pulls(t *testing.T, m machine) {
	log := journal.NewMemory(time.Now)
	start(t, m, log, quick)
	// A tag of its own: containerd keeps what other tests pulled.
	image := fmt.Sprintf("pulled:v%d", time.Now().UnixNano())
	first := applied(t, log, command(t, log, pullOf(image)))
	if found := first.GetPulledImage(); found.GetImageId() == "" || found.GetPresent() || first.Target != image {
		t.Errorf("outcome %v", first)
	}
	second := applied(t, log, command(t, log, pullOf(image)))
	if found := second.GetPulledImage(); !found.GetPresent() || found.GetImageId() != first.GetPulledImage().GetImageId() {
		t.Errorf("outcome %v, before %v", second, first)
	}
	always := pullOf(image)
	always.GetPullImage().Always = true
	if found := applied(t, log, command(t, log, always)).GetPulledImage(); found.GetPresent() {
		t.Errorf("found %v", found)
	}
	wantRefused(t, log, command(t, log, pullOf("pulled:missing")), "PullFailed", "pulled:missing")
}

func stops(t *testing.T, m machine) {
	log := journal.NewMemory(time.Now)
	start(t, m, log, quick)
	m.run(t, "stopped")
	id := wantRunning(t, log, "stopped").Id
	applied(t, log, command(t, log, stopOf(id, 2*time.Second)))
	applied(t, log, command(t, log, stopOf(id, 2*time.Second)))
	applied(t, log, command(t, log, stopOf(strings.Repeat("0", 64), 2*time.Second)))
	wantStopped(t, log, "stopped", id)
	m.remove(t, "stopped")
	wantGone(t, log, "stopped")
}

// TestStopsLate: a container that a busy machine ends seconds after it was killed is stopped, not failed.
func TestStopsLate(t *testing.T) {
	t.Parallel()
	f := startFake(t, "v2.1.0")
	f.late = 6 * time.Second
	log := journal.NewMemory(time.Now)
	start(t, f, log, quick)
	f.run(t, "late", "sleep", "60")
	id := wantRunning(t, log, "late").Id
	applied(t, log, command(t, log, stopOf(id, time.Second)))
	wantStopped(t, log, "late", id)
}

// unaware is a context whose time is over and that has not noticed: its timer is late.
type unaware struct{ context.Context }

func (unaware) Deadline() (time.Time, bool) { return time.Now().Add(-time.Millisecond), true }

// TestTheRuntimeNoticesFirst: a runtime that ends a call in time does not make it a failure of another kind.
func TestTheRuntimeNoticesFirst(t *testing.T) {
	t.Parallel()
	one := &call{}
	if got := one.ended(unaware{t.Context()}, "stopping it", failed, context.DeadlineExceeded).GetReason().GetCode(); got != timedOut {
		t.Errorf("it ends as %s", got)
	}
	if got := one.ended(t.Context(), "stopping it", failed, context.DeadlineExceeded).GetReason().GetCode(); got != failed {
		t.Errorf("without an end, it ends as %s", got)
	}
}
