// Package conversion turns objects of apps.kruise.io from one version into another, without loss: there and back gives the
// object that one began with, fields that no schema knows included. It works on JSON, touches only what differs between
// versions, and is pure.
package conversion

import (
	"encoding/json"
	"fmt"
	"strings"

	quick "github.com/go-json-experiment/json/v1"

	"shiplog.dev/api/kruise/apps/v1alpha1"
	"shiplog.dev/api/kruise/apps/v1beta1"
)

// Convert returns the object in the given version, for example "apps.kruise.io/v1beta1", and leaves its argument alone. In
// metadata at most labels and annotations differ (api-surface R5). A bad value in a label or annotation is no error: it
// stays what it is. Errors: the object is no JSON object, of another kind or version than those of this package, or its
// labels or annotations are not strings.
func Convert(object []byte, version string) ([]byte, error) {
	var is struct{ APIVersion, Kind string }
	if err := quick.Unmarshal(object, &is); err != nil {
		return nil, fmt.Errorf("decode the object's kind: %w", err)
	}
	difference, known := kinds[is.Kind]
	if !known {
		return nil, fmt.Errorf("convert %q: not a kind that has several versions", is.Kind)
	}
	if is.APIVersion == version {
		return object, nil
	}
	var whole map[string]json.RawMessage
	err := quick.Unmarshal(object, &whole)
	if err != nil {
		return nil, fmt.Errorf("decode the object: %w", err)
	}
	switch alpha, beta := v1alpha1.GroupVersion.String(), v1beta1.GroupVersion.String(); {
	case is.APIVersion == alpha && version == beta:
		err = difference.rewrite(whole, difference.up, difference.down)
	case is.APIVersion == beta && version == alpha:
		err = difference.rewrite(whole, difference.down, difference.up)
	default:
		err = fmt.Errorf("from %q to %q is no way between versions", is.APIVersion, version)
	}
	if err != nil {
		return nil, fmt.Errorf("convert a %s: %w", is.Kind, err)
	}
	whole["apiVersion"], _ = json.Marshal(version)
	return quick.Marshal(whole)
}

// Up returns an object of v1alpha1 in v1beta1, for who knows its kind although it may not say so. Errors are those of Convert.
func Up(kind string, object []byte) ([]byte, error) {
	var whole map[string]json.RawMessage
	if err := quick.Unmarshal(object, &whole); err != nil {
		return nil, fmt.Errorf("decode the object: %w", err)
	}
	difference := kinds[kind]
	if err := difference.rewrite(whole, difference.up, difference.down); err != nil {
		return nil, fmt.Errorf("convert a %s: %w", kind, err)
	}
	whole["apiVersion"], _ = json.Marshal(v1beta1.GroupVersion.String())
	return quick.Marshal(whole)
}

// kinds that differ between versions. Those whose versions are equal need no conversion.
var kinds = map[string]difference{"CloneSet": cloneSet, "ContainerRecreateRequest": containerRecreateRequest}

// difference is what differs between the versions of a kind, and how it is converted.
type difference struct {
	labels, annotations []string // by key
	section             string   // "spec" or "status"
	members             []string // of the section
	up, down            func(parts) parts
}

// rewrite converts the parts of an object that differ between versions, in place.
func (d difference) rewrite(whole map[string]json.RawMessage, there, back func(parts) parts) error {
	metadata, section, labels, annotations := map[string]json.RawMessage{}, map[string]json.RawMessage{}, map[string]string{}, map[string]string{}
	for _, part := range []struct {
		of   map[string]json.RawMessage
		name string
		into any
	}{{whole, "metadata", &metadata}, {whole, d.section, &section}, {metadata, "labels", &labels}, {metadata, "annotations", &annotations}} {
		if raw, has := part.of[part.name]; has && string(raw) != "null" {
			if err := quick.Unmarshal(raw, part.into); err != nil {
				return fmt.Errorf("decode %s: %w", part.name, err)
			}
		}
	}

	from := parts{keys: map[string]string{}, members: map[string]any{}}
	moved := func(do func(key string, in map[string]string)) {
		for _, key := range d.labels {
			do(key, labels)
		}
		for _, key := range d.annotations {
			do(key, annotations)
		}
	}
	moved(func(key string, in map[string]string) {
		if value, has := in[key]; has {
			from.keys[key] = value
		}
	})
	for _, name := range d.members {
		value, err := decodeTree(section[name])
		if err != nil {
			return fmt.Errorf("decode %s.%s: %w", d.section, name, err)
		}
		if value != nil {
			from.members[name] = value
		}
	}
	saved := annotations[SavedKey]
	delete(annotations, SavedKey)

	to, save := exactly(from, saved, there, back)

	moved(func(key string, in map[string]string) {
		delete(in, key)
		if value, has := to.keys[key]; has {
			in[key] = value
		}
	})
	if save != "" {
		annotations[SavedKey] = save
	}
	put(metadata, "labels", join(labels))
	put(metadata, "annotations", join(annotations))
	for _, name := range d.members {
		put(section, name, encodeTree(to.members[name]))
	}
	put(whole, "metadata", join(metadata))
	put(whole, d.section, join(section))
	return nil
}

// put sets a member, or takes it away where it is nil.
func put(into map[string]json.RawMessage, name string, value json.RawMessage) {
	if value == nil {
		delete(into, name)
		return
	}
	into[name] = value
}

// join writes an object whose members are JSON or strings; nil when it has none.
func join[V json.RawMessage | string](members map[string]V) json.RawMessage {
	if len(members) == 0 {
		return nil
	}
	return written(quick.Marshal(members))
}

// encodeTree writes what decodeTree has read; nil for nil.
func encodeTree(value any) json.RawMessage {
	if value == nil {
		return nil
	}
	return written(json.Marshal(value))
}

func written(raw []byte, err error) json.RawMessage {
	if err != nil {
		panic("conversion: encode what was decoded from JSON: " + err.Error())
	}
	return raw
}

// decodeTree reads JSON and keeps its numbers as they are written; nil for what is absent or null.
func decodeTree(raw json.RawMessage) (any, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.UseNumber()
	var value any
	err := decoder.Decode(&value)
	return value, err
}
