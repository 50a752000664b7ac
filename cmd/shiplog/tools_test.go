package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/journal/embedded"
)

// stopped returns the state directory of an instance that has ended, with a log of one Pod's fact, one command and a deletion.
func stopped(t *testing.T) string {
	t.Helper()
	directory := t.TempDir()
	log, err := journal.Open(t.Context(), journal.Options{Server: &embedded.Server{Directory: filepath.Join(directory, "log")}})
	if err != nil {
		t.Fatal(err)
	}
	ref := &shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: "shop", Name: "web-a", Uid: "uid-a"}
	observed := &shiplogv1.Entry{Writer: "watcher/test", Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
		Object: ref, ResourceVersion: "7", Json: []byte(`{"metadata":{"name":"web-a","namespace":"shop","uid":"uid-a","labels":{"app":"web"}},"spec":{"nodeName":"n1"}}`),
	}}}
	if _, err := log.Append(t.Context(), observed); err != nil {
		t.Fatal(err)
	}
	command := &shiplogv1.Entry{Writer: "planner/test", Cause: 1, Rollout: "uid/1", Kind: &shiplogv1.Entry_Command{Command: &shiplogv1.Command{
		Object: ref, Reason: &shiplogv1.Reason{Code: "UpdateInPlace", Message: "1 of 4 may be unavailable, 0 are"},
		Effect: &shiplogv1.Command_Patch{Patch: &shiplogv1.PatchObject{Json: []byte(`{"spec":{"x":"<y>"}}`)}},
	}}}
	if _, err := log.AppendCommands(t.Context(), 0, command); err != nil {
		t.Fatal(err)
	}
	gone := &shiplogv1.Entry{Writer: "watcher/test", Kind: &shiplogv1.Entry_ObjectDeleted{ObjectDeleted: &shiplogv1.ObjectDeleted{Object: ref, ResourceVersion: "9"}}}
	if _, err := log.Append(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	return directory
}

func run(t *testing.T, arguments ...string) (string, error) {
	t.Helper()
	command := root()
	var out bytes.Buffer
	command.SetOut(&out)
	command.SetErr(&out)
	command.SetArgs(arguments)
	err := command.ExecuteContext(t.Context())
	return out.String(), err
}

// isNothing says whether an error means that the log does not know what was asked for.
func isNothing(err error) bool { return errors.As(err, &nothing{}) }

func TestTools(t *testing.T) {
	time.Local = time.UTC
	directory := stopped(t)
	for _, c := range []struct{ arguments, wants string }{
		{"tail", "fact      shop pod/web-a at version 7"},
		{"tail", "command   patch pod/web-a  UpdateInPlace: 1 of 4 may be unavailable, 0 are"},
		{"tail --type deletion", "deletion  shop pod/web-a is gone"},
		{"tail po web-a -n shop -l app=web --since 2 --until 2", "UpdateInPlace"},
		{"tail -n other", ""},
		{"state pod/web-a -n shop --at 1", "# as of position 1"},
		{"state pod/web-a -n shop --at 1", "nodeName: n1"},
		{"state pods -A --at 2", "NAMESPACE"},
		{"state -n shop -o json --at 1", `"kind": "List"`},
		{"diff -n shop --from 1 --to 3", "pods shop/web-a is removed"},
	} {
		out, err := run(t, append(strings.Fields(c.arguments), "--log", directory)...)
		if err != nil || !strings.Contains(out, c.wants) || c.wants == "" && out != "" {
			t.Errorf("shiplog %s: %v, and %q is not in\n%s", c.arguments, err, c.wants, out)
		}
	}
}

// For pipes, objects are JSON in the JSON.
func TestTailJSON(t *testing.T) {
	out, err := run(t, "tail", "--log", stopped(t), "-o", "json", "--type", "fact,command")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines:\n%s", len(lines), out)
	}
	var fact struct {
		Sequence              uint64
		Type, Namespace, Name string
		Entry                 struct {
			ObjectObserved struct {
				JSON struct{ Spec struct{ NodeName string } }
			}
		}
	}
	if err := json.Unmarshal([]byte(lines[0]), &fact); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(fact); got != "{1 fact shop web-a {{{{n1}}}}}" {
		t.Errorf("read %s from\n%s", got, lines[0])
	}
	if !strings.Contains(lines[1], `"json":{"spec":{"x":"<y>"}}`) || !strings.Contains(lines[1], `"reason":"UpdateInPlace"`) {
		t.Errorf("the command is\n%s", lines[1])
	}
}

// What the log does not know is told from what failed.
func TestNothing(t *testing.T) {
	directory := stopped(t)
	for _, arguments := range []string{"why pod/other -n shop", "why cloneset/web -n shop", "timeline cloneset/web", "state pod/other -n shop", "why pod/web-a -n shop"} {
		out, err := run(t, append(strings.Fields(arguments), "--log", directory)...)
		if !isNothing(err) {
			t.Errorf("shiplog %s: %v\n%s", arguments, err, out)
		}
	}
}

func TestNameOfPlugin(t *testing.T) {
	program := os.Args[0]
	t.Cleanup(func() { os.Args[0] = program })
	os.Args[0] = "/usr/local/bin/kubectl-shiplog"
	out, err := run(t, "why", "--help")
	if err != nil || !strings.Contains(out, "kubectl shiplog why KIND/NAME") {
		t.Errorf("%v:\n%s", err, out)
	}
}

func TestCompletion(t *testing.T) {
	out, err := run(t, "__complete", "why", "--log", stopped(t), "-n", "shop", "pod/w")
	if err != nil || !strings.HasPrefix(out, "pod/web-a\n") {
		t.Errorf("%v:\n%s", err, out)
	}
}
