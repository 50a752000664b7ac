package rolloutevent_test

import (
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/invopop/jsonschema"

	"shiplog.dev/api/rolloutevent"
)

var rewrite = flag.Bool("rewrite", false, "write the schemas anew")

// TestSchemas: each type has the JSON Schema that follows from the Go type of its data, comments included.
func TestSchemas(t *testing.T) {
	reflector := &jsonschema.Reflector{DoNotReference: true, Anonymous: true, AllowAdditionalProperties: true}
	if err := reflector.AddGoComments("shiplog.dev/api/rolloutevent", "."); err != nil {
		t.Fatal(err)
	}
	files := map[string]bool{"envelope.json": true}
	for eventType, data := range rolloutevent.Data {
		schema := reflector.Reflect(data)
		schema.ID, schema.Title = jsonschema.ID(rolloutevent.Schema(eventType)), eventType
		want, err := json.MarshalIndent(schema, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, '\n')
		name := eventType + ".json"
		files[name] = true
		if *rewrite {
			if err := os.WriteFile(filepath.Join("v1", name), want, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if got, err := fs.ReadFile(rolloutevent.Schemas(), name); err != nil || string(got) != string(want) {
			t.Errorf("v1/%s is not what the Go type says (%v): go test ./api/rolloutevent -rewrite", name, err)
		}
	}
	err := fs.WalkDir(rolloutevent.Schemas(), ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !files[path] {
			t.Errorf("v1/%s is the schema of no type", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
