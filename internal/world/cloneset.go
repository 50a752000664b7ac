package world

import (
	"encoding/json"
	"time"

	"shiplog.dev/api/kruise/apps/v1alpha1"
)

// CloneSet is what rules read of a CloneSet.
type CloneSet struct {
	Meta
	// Seen is when the log took the fact that this state comes from.
	Seen     time.Time
	Spec     v1alpha1.CloneSetSpec
	Status   v1alpha1.CloneSetStatus
	Template Template
	// Claims are the trees of the claim templates.
	Claims []map[string]any
	// Malformed says why Spec and Template cannot be read; empty: they can. The schema of the CRD leaves the template open,
	// so the API server may hold such an object; it must not stop the others.
	Malformed string
	// UnderWay is the command that is being carried out on the CloneSet itself; nil: none.
	UnderWay *UnderWay
}

func decodeCloneSet(data []byte) (*CloneSet, error) {
	var wire struct {
		Metadata metadata        `json:"metadata"`
		Spec     json.RawMessage `json:"spec"`
		Status   json.RawMessage `json:"status"`
	}
	if err := json.Unmarshal(data, &wire); err != nil {
		return nil, err
	}
	set := &CloneSet{Meta: wire.Metadata.meta()}
	var open struct {
		Template json.RawMessage  `json:"template"`
		Claims   []map[string]any `json:"volumeClaimTemplates"`
	}
	if err := json.Unmarshal(wire.Spec, &set.Spec); err != nil {
		set.Malformed = "spec: " + err.Error()
	} else if err := json.Unmarshal(wire.Spec, &open); err != nil {
		set.Malformed = "spec: " + err.Error()
	} else if set.Template, err = ParseTemplate(open.Template); err != nil {
		set.Malformed = "spec.template: " + err.Error()
	}
	set.Claims = open.Claims
	if len(wire.Status) > 0 {
		// A status that cannot be read is written anew.
		if json.Unmarshal(wire.Status, &set.Status) != nil {
			set.Status = v1alpha1.CloneSetStatus{}
		}
	}
	return set, nil
}
