package conversion

import (
	"bytes"
	"encoding/json"
	"maps"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"k8s.io/apimachinery/pkg/runtime"
)

// SavedKey is an annotation of ours. Where two spellings in one version mean the same in the other, or a value has no place
// there, the converted object carries it: a JSON merge patch that turns what the plain conversion back would give into what
// it was. It counts only while that still means what the object says.
const SavedKey = "shiplog.dev/conversion"

// parts are what differs between the versions of a kind.
type parts struct {
	keys    map[string]string // labels and annotations, those present
	members map[string]any    // members of the kind's section, those present, as JSON
}

// clone returns a deep copy.
func (p parts) clone() parts {
	return parts{maps.Clone(p.keys), runtime.DeepCopyJSON(p.members)}
}

func (p parts) json() []byte {
	return written(json.Marshal(map[string]any{"keys": p.keys, "members": p.members}))
}

func partsOf(raw []byte) (parts, error) {
	p := parts{map[string]string{}, map[string]any{}}
	var wire struct {
		Keys    map[string]string
		Members map[string]json.RawMessage
	}
	if err := json.Unmarshal(raw, &wire); err != nil {
		return p, err
	}
	maps.Copy(p.keys, wire.Keys)
	for name, member := range wire.Members {
		value, err := decodeTree(member)
		if err != nil {
			return p, err
		}
		p.members[name] = value
	}
	return p, nil
}

// exactly converts, and returns with the result what the way back needs to be exact; "" where the plain way is. The
// argument saved is that of the way here: it decides between spellings that convert back to from, nothing more.
func exactly(from parts, saved string, there, back func(parts) parts) (to parts, save string) {
	to = there(from)
	if saved != "" {
		if merged, err := jsonpatch.MergePatch(to.json(), []byte(saved)); err == nil {
			if exact, err := partsOf(merged); err == nil && bytes.Equal(back(exact).json(), from.json()) {
				return exact, ""
			}
		}
	}
	returned, wanted := back(to).json(), from.json()
	if bytes.Equal(returned, wanted) {
		return to, ""
	}
	difference, err := jsonpatch.CreateMergePatch(returned, wanted)
	if err != nil {
		panic("conversion: compare two objects: " + err.Error()) // both were just encoded
	}
	return to, string(difference)
}
