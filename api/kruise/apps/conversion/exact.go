package conversion

import (
	"bytes"
	"encoding/json"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
)

// SavedKey is an annotation of ours. Where two spellings in one version mean the same in the other, or a value has no place
// there, the converted object carries it: a JSON merge patch that turns what the plain conversion back would give into what
// it was. It counts only while that still means what the object says.
const SavedKey = "shiplog.dev/conversion"

// parts are what differs between the versions of a CloneSet.
type parts struct {
	keys                          map[string]string // of movedKeys, those present
	scaleStrategy, updateStrategy any               // JSON; nil: absent
}

func (p parts) json() []byte {
	raw, err := json.Marshal(map[string]any{"keys": p.keys, "scaleStrategy": p.scaleStrategy, "updateStrategy": p.updateStrategy})
	if err != nil {
		panic("conversion: encode what was decoded from JSON: " + err.Error())
	}
	return raw
}

func partsOf(raw []byte) (parts, error) {
	var wire struct {
		Keys           map[string]string
		ScaleStrategy  json.RawMessage
		UpdateStrategy json.RawMessage
	}
	if err := json.Unmarshal(raw, &wire); err != nil {
		return parts{}, err
	}
	p := parts{keys: wire.Keys}
	if p.keys == nil {
		p.keys = map[string]string{}
	}
	var err error
	if p.scaleStrategy, err = decodeTree(wire.ScaleStrategy); err != nil {
		return parts{}, err
	}
	p.updateStrategy, err = decodeTree(wire.UpdateStrategy)
	return p, err
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
