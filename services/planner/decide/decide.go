// Package decide holds what the rules of all kinds share: what a decision is, and how commands are worded. The rules
// themselves are in one package per kind below. Everything here and below is pure: it reads a world and returns commands.
package decide

import (
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/types"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
)

// FreshFacts is how old the proof that facts are complete may be when something is taken down because of them. Log time.
const FreshFacts = 15 * time.Second

// Decision is what a workload's rules answer to one world.
type Decision struct {
	// Commands to append, in order. Any prefix of them is harmless: deciding again gives the rest.
	Commands []*shiplogv1.Command
	// Rollout that the commands serve: "UID/GENERATION".
	Rollout string
	// AwaitsVouch: something would be taken down if the facts were known to be fresh.
	AwaitsVouch bool
	// Held says what the rules would do and do not do yet. Only filled by a kind's Explain: it is for people who ask, and
	// costs time that deciding does not have.
	Held []Hold
	// Standing is how far the workload is; nil unless a kind's Explain could tell.
	Standing *Standing
}

// Standing counts the Pods of a workload, by the facts, and what is wanted of them.
type Standing struct {
	// Revision that Pods are to be updated to.
	Revision string `json:"revision"`
	// Wanted Pods, WantedUpdated of them at the revision, and how many of them may be unavailable.
	Wanted         int `json:"wanted"`
	WantedUpdated  int `json:"wantedUpdated"`
	MaxUnavailable int `json:"maxUnavailable"`
	// Pods that there are.
	Pods             int `json:"pods"`
	Ready            int `json:"ready"`
	Available        int `json:"available"`
	Updated          int `json:"updated"`
	UpdatedAvailable int `json:"updatedAvailable"`
}

// Done says whether everything is as wanted.
func (s *Standing) Done() bool {
	return s.Pods == s.Wanted && s.Available == s.Wanted && s.UpdatedAvailable >= s.WantedUpdated
}

// Hold is one reason for which rules do not act yet.
type Hold struct {
	// Code is stable, for example "Paused"; the codes are constants of the kind that holds.
	Code string `json:"code"`
	// Message is one sentence that holds the numbers.
	Message string `json:"message"`
	// Pods that are held, by name, in the order in which they would be acted on; empty: it is about the workload.
	Pods []string `json:"pods,omitempty"`
	// By are the Pods on which the hold depends, by name.
	By []string `json:"by,omitempty"`
	// Release says what ends the hold.
	Release string `json:"release,omitempty"`
	// Until is when time alone ends it; nil: time does not.
	Until *time.Time `json:"until,omitempty"`
}

// Append adds a command.
func (d *Decision) Append(command *shiplogv1.Command) { d.Commands = append(d.Commands, command) }

// Why words a reason.
func Why(code, format string, args ...any) *shiplogv1.Reason {
	return &shiplogv1.Reason{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Rollout names the rollout of a workload's generation.
func Rollout(uid types.UID, generation int64) string { return fmt.Sprintf("%s/%d", uid, generation) }

// Create words the creation of an object; tree is its whole JSON.
func Create(object *shiplogv1.ObjectRef, tree any, reason *shiplogv1.Reason) *shiplogv1.Command {
	return &shiplogv1.Command{
		Object: object, Reason: reason,
		Effect: &shiplogv1.Command_Create{Create: &shiplogv1.CreateObject{Json: encode(tree)}},
	}
}

// PatchPod words a strategic merge patch of a Pod, or of its status. It holds only for the very state of the Pod that was
// decided on.
func PatchPod(pod *world.Pod, subresource string, patch any, reason *shiplogv1.Reason) *shiplogv1.Command {
	command := patchOf(PodRef(pod), shiplogv1.PatchObject_TYPE_STRATEGIC_MERGE, subresource, patch, reason)
	command.ResourceVersion = fmt.Sprint(pod.Version)
	return command
}

// PatchMerge words a JSON merge patch of an object, or of a subresource.
func PatchMerge(object *shiplogv1.ObjectRef, subresource string, patch any, reason *shiplogv1.Reason) *shiplogv1.Command {
	return patchOf(object, shiplogv1.PatchObject_TYPE_MERGE, subresource, patch, reason)
}

func patchOf(object *shiplogv1.ObjectRef, kind shiplogv1.PatchObject_Type, subresource string, patch any, reason *shiplogv1.Reason) *shiplogv1.Command {
	return &shiplogv1.Command{
		Object: object, Reason: reason,
		Effect: &shiplogv1.Command_Patch{Patch: &shiplogv1.PatchObject{Type: kind, Subresource: subresource, Json: encode(patch)}},
	}
}

// Delete words the deletion of exactly this object (by UID).
func Delete(object *shiplogv1.ObjectRef, reason *shiplogv1.Reason) *shiplogv1.Command {
	return &shiplogv1.Command{Object: object, Reason: reason, Effect: &shiplogv1.Command_Delete{Delete: &shiplogv1.DeleteObject{}}}
}

// WakeAt words the wish for a tick at a time; a later wish of the same id replaces an earlier one.
func WakeAt(workload *shiplogv1.ObjectRef, id string, due time.Time, reason *shiplogv1.Reason) *shiplogv1.Command {
	return &shiplogv1.Command{
		Object: workload, Reason: reason,
		Effect: &shiplogv1.Command_WakeAt{WakeAt: &shiplogv1.WakeAt{Id: id, Due: timestamppb.New(due)}},
	}
}

// PodRef names a Pod, UID included.
func PodRef(pod *world.Pod) *shiplogv1.ObjectRef {
	return &shiplogv1.ObjectRef{Version: "v1", Resource: world.ResourcePods, Namespace: pod.Namespace, Name: pod.Name, Uid: string(pod.UID)}
}

// Backoff is when an effect that was refused may be tried again: 1 s after the first time, doubling up to 5 minutes.
func Backoff(refusal *world.Refusal, now time.Time) time.Time {
	const longest = 5 * time.Minute
	wait := longest
	if refusal.Attempt < 9 {
		wait = min(time.Second<<(refusal.Attempt-1), longest)
	}
	return Rested(refusal.Time, wait, now)
}

// Rested is when a pause after something that the log told of is over. What lies ahead was told before the log's clock was put back:
// its pause is over.
func Rested(since time.Time, pause time.Duration, now time.Time) time.Time {
	if since.After(now) {
		return now
	}
	return since.Add(pause)
}

// encode writes JSON with sorted keys. Rules build their trees from values that JSON can hold, so it cannot fail.
func encode(tree any) []byte {
	data, err := json.Marshal(tree)
	if err != nil {
		panic(fmt.Sprintf("decide: a command cannot be written: %v", err))
	}
	return data
}
