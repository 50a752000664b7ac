// Package conversion turns objects of apps.kruise.io from one version into another, without loss: there and back gives the
// object that one began with, fields that no schema knows included. It works on JSON, touches only what differs between
// versions, and is pure.
package conversion

import (
	"encoding/json"
	"fmt"
	"strings"

	"shiplog.dev/api/kruise/apps/v1alpha1"
	"shiplog.dev/api/kruise/apps/v1beta1"
)

// Convert returns the object in the given version, for example "apps.kruise.io/v1beta1", and leaves its argument alone. In
// metadata at most labels and annotations differ (api-surface R5). A bad value in a label or annotation is no error: it
// stays what it is. Errors: the object is no JSON object, of another kind or version than those of this package, or its
// labels or annotations are not strings.
func Convert(object []byte, version string) ([]byte, error) {
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(object, &whole); err != nil {
		return nil, fmt.Errorf("decode the object: %w", err)
	}
	var is struct{ APIVersion, Kind string }
	if err := json.Unmarshal(object, &is); err != nil {
		return nil, fmt.Errorf("decode the object's kind: %w", err)
	}
	if is.Kind != "CloneSet" {
		return nil, fmt.Errorf("convert %q: not a kind that has several versions", is.Kind)
	}
	if is.APIVersion == version {
		return object, nil
	}
	var err error
	switch alpha, beta := v1alpha1.GroupVersion.String(), v1beta1.GroupVersion.String(); {
	case is.APIVersion == alpha && version == beta:
		err = rewrite(whole, upCloneSet, downCloneSet)
	case is.APIVersion == beta && version == alpha:
		err = rewrite(whole, downCloneSet, upCloneSet)
	default:
		err = fmt.Errorf("from %q to %q is no way between versions", is.APIVersion, version)
	}
	if err != nil {
		return nil, fmt.Errorf("convert a %s: %w", is.Kind, err)
	}
	whole["apiVersion"], _ = json.Marshal(version)
	return json.Marshal(whole)
}

// CloneSetUp returns a CloneSet of v1alpha1 in v1beta1, for who knows what it is although it may not say so. Errors are
// those of Convert.
func CloneSetUp(object []byte) ([]byte, error) {
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(object, &whole); err != nil {
		return nil, fmt.Errorf("decode the object: %w", err)
	}
	if err := rewrite(whole, upCloneSet, downCloneSet); err != nil {
		return nil, fmt.Errorf("convert a CloneSet: %w", err)
	}
	whole["apiVersion"], _ = json.Marshal(v1beta1.GroupVersion.String())
	return json.Marshal(whole)
}

// rewrite converts the parts of a CloneSet that differ between versions, in place.
func rewrite(whole map[string]json.RawMessage, there, back func(parts) parts) error {
	metadata, spec, labels, annotations := map[string]json.RawMessage{}, map[string]json.RawMessage{}, map[string]string{}, map[string]string{}
	for _, part := range []struct {
		of   map[string]json.RawMessage
		name string
		into any
	}{{whole, "metadata", &metadata}, {whole, "spec", &spec}, {metadata, "labels", &labels}, {metadata, "annotations", &annotations}} {
		if raw, has := part.of[part.name]; has && string(raw) != "null" {
			if err := json.Unmarshal(raw, part.into); err != nil {
				return fmt.Errorf("decode %s: %w", part.name, err)
			}
		}
	}

	from := parts{keys: map[string]string{}}
	for _, key := range movedKeys {
		if value, has := mapOf(key, labels, annotations)[key]; has {
			from.keys[key] = value
		}
	}
	var err error
	if from.scaleStrategy, err = decodeTree(spec["scaleStrategy"]); err != nil {
		return fmt.Errorf("decode spec.scaleStrategy: %w", err)
	}
	if from.updateStrategy, err = decodeTree(spec["updateStrategy"]); err != nil {
		return fmt.Errorf("decode spec.updateStrategy: %w", err)
	}
	saved := annotations[SavedKey]
	delete(annotations, SavedKey)

	to, save := exactly(from, saved, there, back)

	for _, key := range movedKeys {
		at := mapOf(key, labels, annotations)
		delete(at, key)
		if value, has := to.keys[key]; has {
			at[key] = value
		}
	}
	if save != "" {
		annotations[SavedKey] = save
	}
	put(metadata, "labels", labels, len(labels) == 0)
	put(metadata, "annotations", annotations, len(annotations) == 0)
	put(spec, "scaleStrategy", to.scaleStrategy, to.scaleStrategy == nil)
	put(spec, "updateStrategy", to.updateStrategy, to.updateStrategy == nil)
	put(whole, "metadata", metadata, len(metadata) == 0)
	put(whole, "spec", spec, len(spec) == 0)
	return nil
}

// put sets a member to a value that came out of JSON, or takes the member away.
func put(into map[string]json.RawMessage, name string, value any, absent bool) {
	if absent {
		delete(into, name)
		return
	}
	raw, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("conversion: encode %s: %v", name, err)) // it was decoded from JSON
	}
	into[name] = raw
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
