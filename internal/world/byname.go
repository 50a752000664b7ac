package world

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/v1"

	"shiplog.dev/internal/object"
)

// ByName are a few values, of containers, resources or labels, in the order of their names. They never change. They are no map because a map
// takes 300 bytes however little is in it, and most objects would have several.
type ByName[V any] []named[V]

type named[V any] struct {
	name  string
	value V
}

// Lookup returns the value of a name, and whether there is one.
func (b ByName[V]) Lookup(name string) (value V, has bool) {
	for i := range b { // there are few, and most differ in length
		if b[i].name == name {
			return b[i].value, true
		}
	}
	return value, false
}

// Get returns the value of a name; the zero value: there may be none.
func (b ByName[V]) Get(name string) V {
	value, _ := b.Lookup(name)
	return value
}

// Has says whether a name has a value.
func (b ByName[V]) Has(name string) bool {
	_, has := b.Lookup(name)
	return has
}

// All goes through the values by name.
func (b ByName[V]) All() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for i := range b {
			if !yield(b[i].name, b[i].value) {
				return
			}
		}
	}
}

// With returns the values with that of one name replaced or added.
func (b ByName[V]) With(name string, value V) ByName[V] {
	out := append(make(ByName[V], 0, len(b)+1), b...)
	i, has := out.find(name)
	if has {
		out[i].value = value
		return out
	}
	return slices.Insert(out, i, named[V]{name, value})
}

// find returns where a name stands, or belongs, and whether it stands there.
func (b ByName[V]) find(name string) (int, bool) {
	return slices.BinarySearchFunc(b, name, func(one named[V], name string) int { return strings.Compare(one.name, name) })
}

// MarshalJSON writes an object.
func (b ByName[V]) MarshalJSON() ([]byte, error) {
	if b == nil {
		return []byte("null"), nil
	}
	return json.Marshal(maps.Collect(b.All()))
}

// UnmarshalJSON reads an object, or null.
func (b *ByName[V]) UnmarshalJSON(data []byte) error {
	*b = nil
	if string(data) == "null" {
		return nil
	}
	*b = ByName[V]{}
	_, err := object.Members(data, 0, func(key []byte, start int) (int, error) {
		name, err := unquoted(key)
		if err != nil {
			return 0, err
		}
		end, err := object.Skip(data, start)
		if err != nil {
			return 0, err
		}
		var value V
		err = json.Unmarshal(data[start:end], &value)
		*b = b.With(shared(name), value)
		return end, err
	})
	return err
}
