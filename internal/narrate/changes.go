package narrate

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Difference is one field in which two states of an object differ.
type Difference struct {
	// Path of the field, elements of lists by their name, for example "spec.template.spec.containers[nginx].image".
	Path string `json:"path"`
	// From and To are nil where the field is absent.
	From any `json:"from,omitempty"`
	To   any `json:"to,omitempty"`
}

// String words the difference, values shortened.
func (d Difference) String() string {
	switch {
	case d.From == nil:
		return fmt.Sprintf("%s is set to %s", d.Path, short(d.To))
	case d.To == nil:
		return fmt.Sprintf("%s is removed, was %s", d.Path, short(d.From))
	}
	return fmt.Sprintf("%s: %s → %s", d.Path, short(d.From), short(d.To))
}

// maxValue is how much of a value is shown in a line, in characters.
const maxValue = 80

func short(value any) string {
	text, is := value.(string)
	if !is {
		data, err := json.Marshal(value)
		if err != nil {
			data = fmt.Append(nil, value)
		}
		text = string(data)
	}
	if runes := []rune(text); len(runes) > maxValue {
		return string(runes[:maxValue-1]) + "…"
	}
	return text
}

// bookkeeping are fields that change with every write and say nothing by themselves.
var bookkeeping = []string{"metadata.resourceVersion", "metadata.generation", "metadata.managedFields",
	"metadata.annotations[kubectl.kubernetes.io/last-applied-configuration]"}

// Differences compares two states of an object, given as JSON; an empty state has no fields. Bookkeeping is left out, and so is
// the status unless it is asked for.
func Differences(before, after []byte, status bool) ([]Difference, error) {
	var a, b map[string]any
	for _, side := range []struct {
		data []byte
		into *map[string]any
	}{{before, &a}, {after, &b}} {
		if len(side.data) == 0 {
			continue
		}
		if err := json.Unmarshal(side.data, side.into); err != nil {
			return nil, fmt.Errorf("compare two states of an object: %w", err)
		}
		if !status {
			delete(*side.into, "status")
		}
	}
	var out []Difference
	compare("", a, b, &out)
	return slices.DeleteFunc(out, func(d Difference) bool { return slices.Contains(bookkeeping, d.Path) }), nil
}

func compare(path string, before, after any, out *[]Difference) {
	if reflect.DeepEqual(before, after) {
		return
	}
	a, aMap := before.(map[string]any)
	b, bMap := after.(map[string]any)
	if aMap && bMap {
		for _, key := range union(a, b) {
			compare(join(path, key), a[key], b[key], out)
		}
		return
	}
	oldList, newList := named(before), named(after)
	if oldList != nil && newList != nil {
		for _, key := range union(oldList, newList) {
			compare(path+"["+key+"]", oldList[key], newList[key], out)
		}
		return
	}
	*out = append(*out, Difference{Path: path, From: before, To: after})
}

func union(a, b map[string]any) []string {
	keys := maps.Clone(a)
	if keys == nil {
		keys = map[string]any{}
	}
	maps.Copy(keys, b)
	return slices.Sorted(maps.Keys(keys))
}

// join appends a key to a path, in brackets where it has dots of its own.
func join(path, key string) string {
	switch {
	case strings.ContainsAny(key, "./[]"):
		return path + "[" + key + "]"
	case path == "":
		return key
	}
	return path + "." + key
}

// named returns the elements of a list of objects by what tells them apart; nil when they cannot be told apart so.
func named(value any) map[string]any {
	list, is := value.([]any)
	if !is || len(list) == 0 {
		return nil
	}
	for _, key := range []string{"name", "type", "conditionType", "uid"} {
		out := map[string]any{}
		for _, element := range list {
			object, _ := element.(map[string]any)
			name, _ := object[key].(string)
			if name == "" || out[name] != nil {
				out = nil
				break
			}
			out[name] = element
		}
		if out != nil {
			return out
		}
	}
	return nil
}
