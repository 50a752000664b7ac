package world

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
)

// Template is a Pod template as a tree of JSON values, so that fields this program does not know survive.
type Template struct {
	// Tree must not be changed.
	Tree map[string]any
	// Identity is equal for templates that mean the same: absent, null and {} are one (cloneset R16).
	Identity string
}

// ParseTemplate reads a Pod template. The error says what is wrong with the JSON.
func ParseTemplate(data []byte) (Template, error) {
	var tree map[string]any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(&tree); err != nil {
		return Template{}, fmt.Errorf("read Pod template: %w", err)
	}
	return newTemplate(tree), nil
}

func newTemplate(tree map[string]any) Template {
	essence, _ := withoutEmpty(tree)
	// encoding/json writes map keys sorted, and a tree that was read from JSON cannot fail to be written.
	canonical, _ := json.Marshal(essence)
	sum := sha256.Sum256(canonical)
	return Template{Tree: tree, Identity: string(sum[:])}
}

// withoutEmpty returns the value without nulls and empty maps, and whether anything is left.
func withoutEmpty(value any) (any, bool) {
	switch value := value.(type) {
	case nil:
		return nil, false
	case map[string]any:
		out := make(map[string]any, len(value))
		for key, child := range value { //shiplog:unordered: writes one key of a map per turn
			if kept, some := withoutEmpty(child); some {
				out[key] = kept
			}
		}
		return out, len(out) > 0
	case []any:
		out := make([]any, len(value))
		for i, child := range value {
			out[i], _ = withoutEmpty(child)
		}
		return out, true
	default:
		return value, true
	}
}

// Revision is what rules read of a ControllerRevision that holds a Pod template.
type Revision struct {
	Meta
	Number int64
	// Template is the zero value when the revision holds no Pod template.
	Template Template
	// UnderWay is the command that is being carried out on the revision; nil: none.
	UnderWay *UnderWay
}

func decodeRevision(data []byte) (*Revision, error) {
	var wire struct {
		Metadata metadata `json:"metadata"`
		Revision int64    `json:"revision"`
		Data     struct {
			Spec struct {
				Template map[string]any `json:"template"`
			} `json:"spec"`
		} `json:"data"`
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(&wire); err != nil {
		return nil, err
	}
	revision := &Revision{Meta: wire.Metadata.meta(), Number: wire.Revision}
	if tree := wire.Data.Spec.Template; tree != nil {
		delete(tree, "$patch")
		revision.Template = newTemplate(tree)
	}
	return revision, nil
}

// SameMeaning compares two JSON values: absent, null and {} are one (cloneset R16).
func SameMeaning(a, b any) bool {
	left, _ := withoutEmpty(a)
	right, _ := withoutEmpty(b)
	one, _ := json.Marshal(left)
	two, _ := json.Marshal(right)
	return bytes.Equal(one, two) || (isEmpty(left) && isEmpty(right))
}

func isEmpty(value any) bool {
	tree, is := value.(map[string]any)
	return value == nil || is && len(tree) == 0
}

// Containers of the template, as far as rules read them.
func (t Template) Containers() []Container {
	spec, _ := t.Tree["spec"].(map[string]any)
	list, _ := spec["containers"].([]any)
	out := make([]Container, len(list))
	for i := range list {
		out[i] = ReadContainer(list[i])
	}
	return out
}
