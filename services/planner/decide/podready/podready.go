// Package podready words the conditions by which a Pod is kept from being ready: the gate KruisePodReady, which several parties
// may hold shut at once, each under a name of its own (cloneset R55, container-restart R25), and what follows for Ready. It
// decides nothing. Pure.
package podready

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"shiplog.dev/internal/world"
)

// Gate is the readiness gate, and the condition that opens it.
const Gate = "KruisePodReady"

// Holder is one party's wish that a Pod be not ready.
type Holder struct {
	UserAgent string `json:"userAgent"`
	Key       string `json:"key"`
}

// Wish says whether a holder is to hold the gate shut.
type Wish struct {
	Holder
	Holds bool
}

// Mark returns the conditions to write so that holders hold the gate shut or not as wished, whoever else does; nil: it is so, or the
// Pod has no such gate.
func Mark(p *world.Pod, now time.Time, wishes ...Wish) []any {
	if !p.HasGate(Gate) {
		return nil
	}
	held := p.Condition(Gate)
	var before []Holder
	if held.Message != "[]" { // as nearly always
		_ = json.Unmarshal([]byte(held.Message), &before) // what is no list holds nobody's wish
	}
	keys := []Holder{}
	for _, holder := range before {
		if !slices.ContainsFunc(wishes, func(wish Wish) bool { return wish.Holder == holder }) {
			keys = append(keys, holder)
		}
	}
	for _, wish := range wishes {
		if wish.Holds {
			keys = append(keys, wish.Holder)
		}
	}
	slices.SortFunc(keys, func(a, b Holder) int {
		return cmp.Or(cmp.Compare(a.UserAgent, b.UserAgent), cmp.Compare(a.Key, b.Key))
	})
	status := "True"
	if len(keys) > 0 {
		status = "False"
	}
	if held.Status == status && len(keys) == len(before) && !slices.ContainsFunc(keys, func(k Holder) bool { return !slices.Contains(before, k) }) {
		return nil
	}
	message, _ := json.Marshal(keys) // strings can be written
	conditions := []any{Condition(Gate, status, "", string(message), now)}
	if status == "False" {
		conditions = append(conditions, NotReady(p, Gate, now)...)
	}
	return conditions
}

// NotReady returns the condition Ready as the kubelet will have it once a gate is shut, so that traffic stops now
// (inplace-update R9); nothing when the Pod is not ready anyway.
func NotReady(p *world.Pod, shut string, now time.Time) []any {
	ready, containers := p.Condition("Ready"), p.Condition("ContainersReady")
	if !ready.Present() || containers.Status != "True" {
		return nil
	}
	var causes []string
	for _, gate := range p.Gates {
		held := p.Condition(gate)
		switch {
		case gate == shut:
			causes = append(causes, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but False", gate))
		case !held.Present():
			causes = append(causes, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate))
		case held.Status != "True":
			causes = append(causes, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %s", gate, held.Status))
		}
	}
	return []any{Condition("Ready", "False", "ReadinessGatesNotReady", strings.Join(causes, ", "), now)}
}

// Condition words a condition of a Pod for a strategic merge patch.
func Condition(kind, status, reason, message string, now time.Time) map[string]any {
	return map[string]any{
		"type": kind, "status": status, "reason": orNull(reason), "message": orNull(message),
		"lastTransitionTime": now.UTC().Format(time.RFC3339), "lastProbeTime": nil,
	}
}

// orNull is null for nothing, so that a merge takes away what was there.
func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}
