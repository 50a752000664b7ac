package conversion

import (
	"encoding/json"
	"time"

	"shiplog.dev/api/kruise/apps/v1beta1"
)

const (
	snapshotKey   = v1beta1.ContainerRecreateRequestSyncContainerStatusesKey
	acquiredKey   = v1beta1.ContainerRecreateRequestUnreadyAcquiredKey
	acquiredWords = "Pod has been forced to not-ready for unreadyGracePeriodSeconds drain"
)

// containerRecreateRequest is how ContainerRecreateRequests differ (container-restart 2.4): v1alpha1 tells in annotations what
// v1beta1 tells in its status. On the way up the annotations stay, because a writer of v1alpha1 writes the object and not its
// status, where the API server would drop a value that only stands there.
var containerRecreateRequest = difference{
	annotations: []string{snapshotKey, acquiredKey},
	section:     "status", members: []string{"containerStatusSnapshot", "conditions"}, up: upRestart, down: downRestart,
}

func upRestart(alpha parts) parts {
	beta := alpha.clone()
	if snapshot, is := snapshotOf(alpha.keys[snapshotKey]); is {
		beta.members["containerStatusSnapshot"] = snapshot
	}
	if at, is := acquiredAt(alpha.keys[acquiredKey]); is {
		beta.members["conditions"] = []any{tree{
			"type": v1beta1.PreRecreateGrace, "status": "True", "reason": v1beta1.PreRecreateGrace, "message": acquiredWords,
			"lastTransitionTime": at.UTC().Format(time.RFC3339),
		}}
	}
	return beta
}

func downRestart(beta parts) parts {
	alpha := beta.clone()
	clear(alpha.members)
	if snapshot, is := beta.members["containerStatusSnapshot"].([]any); is {
		if held, is := snapshotOf(beta.keys[snapshotKey]); !is || !same(held, snapshot) {
			text, _ := json.Marshal(snapshot) // it was decoded from JSON
			alpha.keys[snapshotKey] = string(text)
		}
	}
	if at, is := graceSince(beta.members["conditions"]); is {
		if held, is := acquiredAt(beta.keys[acquiredKey]); !is || !held.Equal(at) {
			alpha.keys[acquiredKey] = at.UTC().Format(time.RFC3339)
		}
	}
	return alpha
}

// snapshotOf reads the annotation; false: there is none that can be read, and it is left as it is.
func snapshotOf(text string) ([]any, bool) {
	var typed []v1beta1.ContainerRecreateRequestSyncContainerStatus
	if text == "" || json.Unmarshal([]byte(text), &typed) != nil {
		return nil, false
	}
	value, err := decodeTree(json.RawMessage(text))
	list, is := value.([]any)
	return list, err == nil && is
}

// acquiredAt reads the other one. Kubernetes keeps whole seconds.
func acquiredAt(text string) (time.Time, bool) {
	at, err := time.Parse(time.RFC3339, text)
	return at.Truncate(time.Second), err == nil
}

// graceSince is when the first True condition PreRecreateGrace began.
func graceSince(conditions any) (time.Time, bool) {
	list, _ := conditions.([]any)
	for _, one := range list {
		condition, _ := one.(tree)
		if condition["type"] == v1beta1.PreRecreateGrace && condition["status"] == "True" {
			text, _ := condition["lastTransitionTime"].(string)
			return acquiredAt(text)
		}
	}
	return time.Time{}, false
}

func same(a, b any) bool {
	one, _ := json.Marshal(a)
	two, _ := json.Marshal(b)
	return string(one) == string(two)
}
