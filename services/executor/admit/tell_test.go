package admit

import (
	"context"
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// The log is told who makes, changes or deletes a workload, of changes of the spec only, and of none that is refused or only tried.
func TestWhoIsAdmittedIsTold(t *testing.T) {
	object := func(generation string) json.RawMessage {
		return json.RawMessage(`{"metadata":{"name":"web","uid":"u","generation":` + generation + `},"spec":{}}`)
	}
	for _, c := range []struct {
		name    string
		request request
		refused bool
		want    string
	}{
		{"a new one", request{operation: "CREATE", object: object("1")}, false, "alice CREATE u 1"},
		{"a changed spec", request{operation: "UPDATE", object: object("5"), old: object("4")}, false, "alice UPDATE u 5"},
		{"only metadata", request{operation: "UPDATE", object: object("4"), old: object("4")}, false, ""},
		{"a deletion", request{operation: "DELETE", old: object("4")}, false, "alice DELETE u 4"},
		{"refused", request{operation: "CREATE", object: object("1")}, true, ""},
		{"a dry run", request{operation: "CREATE", object: object("1"), dryRun: true}, false, ""},
	} {
		got := ""
		tell := func(a *shiplogv1.Admitted) {
			if o := a.GetObject(); o.GetResource() != "clonesets" || o.GetNamespace() != "n" || o.GetName() != "web" {
				t.Errorf("%s: told of %s", c.name, prototext.Format(a))
			}
			got = a.GetUser() + " " + a.GetOperation() + " " + a.GetObject().GetUid() + " " + string(rune('0'+a.GetGeneration()))
		}
		judge := func(context.Context, request) (verdict, error) {
			if c.refused {
				return refuse(403, "Forbidden", "no"), nil
			}
			return verdict{}, nil
		}
		c.request.user, c.request.namespace, c.request.version = "alice", "n", "v1beta1"
		if _, err := telling("clonesets", tell, judge)(t.Context(), c.request); err != nil {
			t.Fatal(err)
		}
		if got != c.want {
			t.Errorf("%s: told is %q, want %q", c.name, got, c.want)
		}
	}
}
