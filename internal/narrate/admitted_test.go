package narrate

import (
	"fmt"
	"strings"
	"testing"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
)

// An edit names its user where admission saw who it was, before or after the fact of it; of several who tried to make it, all.
func TestEditsNameTheirUsers(t *testing.T) {
	ref := &shiplogv1.ObjectRef{Group: "apps.kruise.io", Version: "v1beta1", Resource: "clonesets", Namespace: "shop", Name: "web", Uid: "uid"}
	admitted := func(operation, user string, generation int64) *shiplogv1.Entry {
		return &shiplogv1.Entry{Kind: &shiplogv1.Entry_Admitted{Admitted: &shiplogv1.Admitted{Object: ref, Operation: operation, User: user, Generation: generation}}}
	}
	edited := func(generation int64) *shiplogv1.Entry {
		return &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
			Object: ref, ResourceVersion: fmt.Sprint(100 + generation), LastChange: &shiplogv1.LastChange{Manager: "kubectl"},
			Json: fmt.Appendf(nil, `{"metadata":{"name":"web","namespace":"shop","uid":"uid","generation":%d},"spec":{"replicas":%d}}`, generation, generation),
		}}}
	}
	gone := &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectDeleted{ObjectDeleted: &shiplogv1.ObjectDeleted{Object: ref, ResourceVersion: "200"}}}
	account := NewAccount("shop", "web")
	for i, entry := range []*shiplogv1.Entry{
		{Kind: &shiplogv1.Entry_Vouched{Vouched: &shiplogv1.Vouched{}}},
		admitted("CREATE", "alice", 1), edited(1),
		edited(2), admitted("UPDATE", "bob", 2), // the log was slow to take who it was
		admitted("UPDATE", "alice", 3), admitted("UPDATE", "carol", 3), admitted("UPDATE", "alice", 3), edited(3),
		edited(4), // nobody saw it
		admitted("DELETE", "dave", 4), gone,
	} {
		if err := account.Show(journal.Record{Sequence: uint64(i + 1), Time: at(float64(i)), Entry: entry}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, step := range account.Steps {
		text, _, _ := strings.Cut(step.What, ": ")
		got = append(got, text)
	}
	want := []string{
		"cloneset/web is edited by alice with kubectl", "cloneset/web is edited by bob with kubectl", "cloneset/web is edited by alice or carol with kubectl",
		"cloneset/web is edited by kubectl", "cloneset/web is gone, deleted by dave",
	}
	want[0] = "cloneset/web is created by alice with kubectl"
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("told is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
