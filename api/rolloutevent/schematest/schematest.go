// Package schematest checks rollout events against their JSON Schemas, for tests.
package schematest

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"shiplog.dev/api/rolloutevent"
)

// Event checks a CloudEvent as the log holds it: what is around the data, and the data by the schema that the event names.
func Event(t testing.TB, event []byte) {
	t.Helper()
	validate(t, "envelope", event)
	var envelope struct {
		DataSchema string          `json:"dataschema"`
		Data       json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(event, &envelope); err != nil {
		t.Fatalf("%s: %v", event, err)
	}
	validate(t, strings.TrimSuffix(strings.TrimPrefix(envelope.DataSchema, rolloutevent.SchemaBase), ".json"), envelope.Data)
}

// validate checks a value against the schema of a name.
func validate(t testing.TB, name string, value []byte) {
	t.Helper()
	text, err := fs.ReadFile(rolloutevent.Schemas(), name+".json")
	if err != nil {
		t.Fatalf("there is no schema %q: %v", name, err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err == nil {
		err = compiler.AddResource(rolloutevent.Schema(name), schema)
	}
	if err != nil {
		t.Fatalf("schema %s: %v", name, err)
	}
	compiled, err := compiler.Compile(rolloutevent.Schema(name))
	if err != nil {
		t.Fatalf("schema %s: %v", name, err)
	}
	read, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	if err != nil {
		t.Fatalf("%s: %v", value, err)
	}
	if err := compiled.Validate(read); err != nil {
		t.Errorf("%s: %v", value, err)
	}
}
