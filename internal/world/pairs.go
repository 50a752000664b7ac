package world

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json/v1"

	"shiplog.dev/api/kruise/apps/v1beta1"
	"shiplog.dev/internal/object"
)

// Pairs are labels or annotations: texts by key, in the order of their keys. They never change; the zero value has none. Selectors of
// k8s.io/apimachinery match them as they are.
type Pairs struct{ ByName[string] }

// Len is how many there are.
func (p Pairs) Len() int { return len(p.ByName) }

// Equal says whether both are the same.
func (p Pairs) Equal(other Pairs) bool { return slices.Equal(p.ByName, other.ByName) }

// Within says whether others have every pair of these.
func (p Pairs) Within(others Pairs) bool {
	for key, value := range p.All() {
		if actual, has := others.Lookup(key); !has || actual != value {
			return false
		}
	}
	return true
}

// Without returns the pairs of all other keys.
func (p Pairs) Without(key string) Pairs {
	return p.changed(pairChanges{{named: named[string]{name: key}, removed: true}})
}

// pairChanges are Pairs as they are on the wire, and so are those of a patch, in which a null removes.
type pairChanges []pairChange

type pairChange struct {
	named[string]
	removed bool
}

// UnmarshalJSON reads an object of texts and nulls, or null.
func (c *pairChanges) UnmarshalJSON(data []byte) error {
	*c = nil
	if string(data) == "null" {
		return nil
	}
	_, err := object.Members(data, 0, func(key []byte, start int) (int, error) {
		end, err := object.Skip(data, start)
		if err != nil {
			return 0, err
		}
		change, err := readPairChange(key, data[start:end])
		*c = append(*c, change)
		return end, err
	})
	return err
}

// ofOnePod are the keys whose values no two Pods have in common.
var ofOnePod = []string{v1beta1.CloneSetInstanceID, OwnInPlaceUpdateAnnotation}

// readPairChange reads a member of an object, of which the key comes without its quotes.
func readPairChange(key, value []byte) (change pairChange, err error) {
	if change.name, err = unquoted(key); err != nil {
		return pairChange{}, err
	}
	change.name = shared(change.name)
	switch {
	case string(value) == "null":
		change.removed = true
		return change, nil
	case value[0] != '"':
		return pairChange{}, fmt.Errorf("%s: %s is no text", change.name, value)
	}
	change.value, err = unquoted(value[1 : len(value)-1])
	if !slices.Contains(ofOnePod, change.name) {
		change.value = shared(change.value)
	}
	return change, err
}

// unquoted reads what is between the quotes of a JSON string.
func unquoted(inner []byte) (text string, err error) {
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner), nil
	}
	err = json.Unmarshal(slices.Concat([]byte{'"'}, inner, []byte{'"'}), &text)
	return text, err
}

// changed returns the pairs with some replaced, added or removed.
func (p Pairs) changed(by pairChanges) Pairs {
	if len(by) == 0 {
		return p
	}
	sorted := append(make(ByName[string], 0, len(p.ByName)+len(by)), p.ByName...)
	for _, change := range by {
		at, has := sorted.find(change.name)
		switch {
		case change.removed && has:
			sorted = slices.Delete(sorted, at, at+1)
		case change.removed:
		case has:
			sorted[at].value = change.value
		default:
			sorted = slices.Insert(sorted, at, change.named)
		}
	}
	return Pairs{sorted}
}
