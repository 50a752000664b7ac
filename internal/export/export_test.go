package export

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/bundle"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/journal/embedded"
)

// recorded returns a log in which Pods of two namespaces are seen, and something is commanded of one of "shop" at position 4,
// where a Pod of "other" was seen.
func recorded(t *testing.T) *history.Log {
	t.Helper()
	directory := t.TempDir()
	log, err := journal.Open(t.Context(), journal.Options{Server: &embedded.Server{Directory: filepath.Join(directory, "log")}})
	if err != nil {
		t.Fatal(err)
	}
	pod := func(namespace, name, version string) *shiplogv1.Entry {
		ref := &shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: namespace, Name: name, Uid: "uid-" + name}
		return &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
			Object: ref, ResourceVersion: version, Json: fmt.Appendf(nil, `{"metadata":{"name":%q,"namespace":%q,"uid":%q}}`, name, namespace, "uid-"+name),
		}}}
	}
	if _, err := log.Append(t.Context(), pod("shop", "a", "1"), pod("shop", "a", "2"), pod("shop", "b", "3"), pod("other", "c", "4"), pod("other", "c", "5")); err != nil {
		t.Fatal(err)
	}
	command := &shiplogv1.Entry{Writer: "planner", Cause: 4, Rollout: "uid/1", Kind: &shiplogv1.Entry_Command{Command: &shiplogv1.Command{
		Object: pod("shop", "a", "").GetObjectObserved().GetObject(), Effect: &shiplogv1.Command_Delete{Delete: &shiplogv1.DeleteObject{}},
	}}}
	if _, err := log.AppendCommands(t.Context(), 0, command); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	read, err := history.Open(t.Context(), directory, "local")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { read.Close() })
	return read
}

func write(t *testing.T, log *history.Log, window Window) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.shiplog")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	out, err := bundle.NewWriter(file)
	if err != nil {
		t.Fatal(err)
	}
	index, err := Write(t.Context(), log, window, out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Close(index); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// content lists what a log holds, past included: positions with the type of the entry.
func content(t *testing.T, path string) string {
	t.Helper()
	log, err := history.Open(t.Context(), path, "local")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	out := []string{fmt.Sprintf("%d-%d exact from %d:", log.First, log.Last, log.ExactFrom)}
	if err := log.Each(t.Context(), history.Span{Past: true}, func(record journal.Record) error {
		out = append(out, fmt.Sprintf("%d %s", record.Sequence, history.TypeOf(record.Entry)))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func TestWrite(t *testing.T) {
	log := recorded(t)
	for _, c := range []struct {
		name   string
		window Window
		want   string
	}{
		{"everything", Window{}, "1-6 exact from 0: 1 fact 2 fact 3 fact 4 fact 5 fact 6 command"},
		{"what counted before the window is there", Window{Span: history.Span{From: history.Moment{Sequence: 5}}}, "5-6 exact from 4: 2 fact 3 fact 4 fact 5 fact 6 command"},
		{"of other namespaces only where something was decided", Window{Namespace: "shop"}, "1-6 exact from 0: 1 fact 2 fact 3 fact 4 position 6 command"},
		{"a rollout", Window{Rollout: "uid/1"}, "4-6 exact from 3: 2 fact 3 fact 4 position 6 command"},
		{"an early end", Window{Span: history.Span{To: history.Moment{Sequence: 2}}}, "1-2 exact from 0: 1 fact 2 fact"},
	} {
		if got := content(t, write(t, log, c.window)); got != c.want {
			t.Errorf("%s:\n%s, want\n%s", c.name, got, c.want)
		}
	}
	out, err := bundle.NewWriter(&strings.Builder{})
	if err != nil {
		t.Fatal(err)
	}
	for _, window := range []Window{{Rollout: "nobody/1"}, {Span: history.Span{From: history.Moment{Sequence: 9}}}} {
		if _, err := Write(t.Context(), log, window, out); err == nil {
			t.Errorf("%+v is in the log", window)
		}
	}
}

// A bundle in which one byte is not as it was written is refused.
func TestDamage(t *testing.T) {
	path := write(t, recorded(t), Window{})
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	read := func() error {
		log, err := history.Open(t.Context(), path, "local")
		if err != nil {
			return err
		}
		defer log.Close()
		return log.Each(t.Context(), history.Span{Past: true}, func(journal.Record) error { return nil })
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	for at := 60; at < len(whole); at += 37 {
		data := append([]byte(nil), whole...)
		data[at] ^= 0x20
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		// Some bytes of a zip archive mean nothing to its reader: dates, permissions.
		if err := read(); err != nil && !errors.Is(err, bundle.ErrDamaged) {
			t.Errorf("byte %d: %v", at, err)
		}
	}
	if err := os.WriteFile(path, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := read(); !errors.Is(err, bundle.ErrDamaged) {
		t.Errorf("half a bundle: %v", err)
	}
}
