package world

import (
	"encoding/json"
	"time"

	"shiplog.dev/api/kruise/apps/conversion"
	"shiplog.dev/api/kruise/apps/v1alpha1"
	"shiplog.dev/api/kruise/apps/v1beta1"
)

// CloneSet is what rules read of a CloneSet, in v1beta1 whatever version the fact was in.
type CloneSet struct {
	Meta
	// Seen is when the log took the fact that this state comes from.
	Seen     time.Time
	Spec     v1beta1.CloneSetSpec
	Status   v1beta1.CloneSetStatus
	Template Template
	// Claims are the trees of the claim templates.
	Claims []map[string]any
	// Malformed says why Spec and Template cannot be read; empty: they can. The schema of the CRD leaves the template open,
	// so the API server may hold such an object; it must not stop the others.
	Malformed string
	// UnderWay is the command that is being carried out on the CloneSet itself; nil: none.
	UnderWay *UnderWay
}

func decodeCloneSet(version string, data []byte) (*CloneSet, error) {
	if version == v1alpha1.GroupVersion.Version {
		converted, err := conversion.Up("CloneSet", data)
		if err != nil {
			return nil, err
		}
		data = converted
	}
	var wire struct {
		Metadata metadata        `json:"metadata"`
		Spec     json.RawMessage `json:"spec"`
		Status   json.RawMessage `json:"status"`
	}
	if err := json.Unmarshal(data, &wire); err != nil {
		return nil, err
	}
	set := &CloneSet{Meta: wire.Metadata.meta()}
	set.Annotations = set.Annotations.Without(conversion.SavedKey) // it is about another version
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
			set.Status = v1beta1.CloneSetStatus{}
		}
	}
	return set, nil
}
