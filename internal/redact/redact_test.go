package redact

import (
	"fmt"
	"strings"
	"testing"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/services/planner/decide/cloneset"
)

func observed(resource, json string) *shiplogv1.Entry {
	return &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
		Object: &shiplogv1.ObjectRef{Resource: resource, Name: "x"}, Json: []byte(json),
	}}}
}

func TestEntry(t *testing.T) {
	r, err := New([]byte("key"), Annotations)
	if err != nil {
		t.Fatal(err)
	}
	hidden := func(value string) string { return r.placeholder(value) }
	for _, c := range []struct{ name, resource, json, want string }{
		{"env values, wherever they are", "pods", `{"a":{"env":[{"name":"A","value":"hunter2"},{"name":"B","valueFrom":{"x":1}}]}}`,
			`{"a":{"env":[{"name":"A","value":"` + hidden("hunter2") + `"},{"name":"B","valueFrom":{"x":1}}]}}`},
		{"what rules read stays", "pods", `{"env":[{"name":"KRUISE_CONTAINER_PRIORITY","value":"5"}],"n":12345678901234567890}`,
			`{"env":[{"name":"KRUISE_CONTAINER_PRIORITY","value":"5"}],"n":12345678901234567890}`},
		{"annotations by pattern", "pods", `{"annotations":{"example.com/My-Secret-Key":"hunter2","team":"shop"}}`,
			`{"annotations":{"example.com/My-Secret-Key":"` + hidden("hunter2") + `","team":"shop"}}`},
		{"JSON in annotations", "pods", `{"annotations":{"state":"{\"env\":[{\"name\":\"A\",\"value\":\"hunter2\"}]}","plain":"{not json"}}`,
			`{"annotations":{"plain":"{not json","state":"{\"env\":[{\"name\":\"A\",\"value\":\"` + hidden("hunter2") + `\"}]}"}}`},
		{"sentences that quote a value", "pods", `{"message":"cannot use hunter2 here"}`, `{"message":"cannot use ` + hidden("hunter2") + ` here"}`},
		{"patches by path", "pods", `[{"op":"replace","path":"/spec/containers/0/env/1/value","value":"hunter2"}]`,
			`[{"op":"replace","path":"/spec/containers/0/env/1/value","value":"` + hidden("hunter2") + `"}]`},
		{"of a Secret its name", "secrets", `{"metadata":{"name":"x"},"hash":"abc"}`, `{"hash":"` + hidden(`"abc"`) + `","metadata":{"name":"x"}}`},
	} {
		out, err := r.Entry(observed(c.resource, c.json))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(out.GetObjectObserved().GetJson()); got != c.want {
			t.Errorf("%s:\n%s, want\n%s", c.name, got, c.want)
		}
	}
	if out, err := r.Entry(observed("pods", `{"env":`)); err == nil {
		t.Errorf("broken JSON gives %s", out)
	}
}

// A revision is named by the hash of its template: with the template the name changes, in every entry that follows.
func TestRevisionsAreRenamed(t *testing.T) {
	r, err := New([]byte("key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	data := `{"spec":{"template":{"spec":{"containers":[{"env":[{"name":"A","value":"hunter2"}],"name":"main"}]}}}}`
	name := "web-" + cloneset.Hash([]byte(data), 3)
	create := &shiplogv1.Entry{Kind: &shiplogv1.Entry_Command{Command: &shiplogv1.Command{
		Object: &shiplogv1.ObjectRef{Group: "apps", Resource: "controllerrevisions", Name: name},
		Effect: &shiplogv1.Command_Create{Create: &shiplogv1.CreateObject{Json: fmt.Appendf(nil, `{"data":%s,"metadata":{"name":%q}}`, data, name)}},
	}}}
	out, err := r.Entry(create)
	if err != nil {
		t.Fatal(err)
	}
	want := "web-" + cloneset.Hash([]byte(strings.ReplaceAll(data, "hunter2", r.placeholder("hunter2"))), 3)
	if got := out.GetCommand(); got.GetObject().GetName() != want || !strings.Contains(string(got.GetCreate().GetJson()), fmt.Sprintf(`"name":%q`, want)) {
		t.Errorf("%s is created as %v, want %s", name, got, want)
	}
	pod, err := r.Entry(observed("pods", fmt.Sprintf(`{"labels":{"controller-revision-hash":%q}}`, name)))
	if err != nil || !strings.Contains(string(pod.GetObjectObserved().GetJson()), want) {
		t.Errorf("a Pod of it is %v: %v", pod, err)
	}
}

// An event may name a revision before the command that creates it, and is given the new name too.
func TestForeseenRevisionsAreRenamedBefore(t *testing.T) {
	const data = `{"spec":{"template":{"spec":{"containers":[{"env":[{"name":"A","value":"hunter2"}]}]}}}}`
	name := "web-" + cloneset.Hash([]byte(data), 0)
	create := &shiplogv1.Entry{Kind: &shiplogv1.Entry_Command{Command: &shiplogv1.Command{
		Object: &shiplogv1.ObjectRef{Group: "apps", Resource: "controllerrevisions", Name: name},
		Effect: &shiplogv1.Command_Create{Create: &shiplogv1.CreateObject{Json: fmt.Appendf(nil, `{"data":%s,"metadata":{"name":%q}}`, data, name)}},
	}}}
	event := &shiplogv1.Entry{Kind: &shiplogv1.Entry_RolloutEvent{RolloutEvent: &shiplogv1.RolloutEvent{Data: fmt.Appendf(nil, `{"revision":%q}`, name)}}}
	r, err := New([]byte("key"), Annotations)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Foresee(create); err != nil {
		t.Fatal(err)
	}
	told, err := r.Entry(event)
	if err != nil {
		t.Fatal(err)
	}
	created, err := r.Entry(create)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(told.GetRolloutEvent().GetData()), fmt.Sprintf(`{"revision":%q}`, created.GetCommand().GetObject().GetName()); got != want || strings.Contains(got, name) {
		t.Errorf("the event says %s, want %s", got, want)
	}
}

// A person is the same placeholder everywhere, a part of the system stays, and a sentence that holds the same word is not touched.
func TestUsersAreHidden(t *testing.T) {
	r, err := New([]byte("key"), Annotations)
	if err != nil {
		t.Fatal(err)
	}
	user := func(name string) string {
		out, err := r.Entry(&shiplogv1.Entry{Kind: &shiplogv1.Entry_Admitted{Admitted: &shiplogv1.Admitted{User: name, Object: &shiplogv1.ObjectRef{Name: "web"}}}})
		if err != nil {
			t.Fatal(err)
		}
		return out.GetAdmitted().GetUser()
	}
	alice := user("alice@example.com")
	if strings.Contains(alice, "alice") || !strings.HasPrefix(alice, "user-") || user("alice@example.com") != alice || user("bob@example.com") == alice {
		t.Errorf("alice is %s, and then %s; bob is %s", alice, user("alice@example.com"), user("bob@example.com"))
	}
	if robot := user("system:serviceaccount:argocd:controller"); robot != "system:serviceaccount:argocd:controller" {
		t.Errorf("a service account is %s", robot)
	}
	out, err := r.Entry(observed("pods", `{"message":"alice@example.com says so"}`))
	if err != nil || string(out.GetObjectObserved().GetJson()) != `{"message":"alice@example.com says so"}` {
		t.Errorf("a sentence becomes %s: %v", out.GetObjectObserved().GetJson(), err)
	}
}
