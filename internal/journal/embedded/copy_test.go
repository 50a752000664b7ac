package embedded_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/journal/embedded"
)

// Whoever looks at an old log finds all of it, and leaves every byte as it was: nothing has outlived the retention, and no
// tick falls due.
func TestAsIsLeavesADirectoryAsItIs(t *testing.T) {
	directory := t.TempDir()
	t.Setenv("TMPDIR", t.TempDir())
	options := journal.Options{Server: &embedded.Server{Directory: directory}, Retention: time.Second}
	log, err := journal.Open(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	ref := &shiplogv1.ObjectRef{Group: "apps.kruise.io", Version: "v1alpha1", Resource: "clonesets", Namespace: "shop", Name: "web", Uid: "uid"}
	fact := &shiplogv1.Entry{Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{Object: ref, ResourceVersion: "1", Json: []byte(`{}`)}}}
	if _, err := log.Append(t.Context(), fact); err != nil {
		t.Fatal(err)
	}
	wish := &shiplogv1.Entry{Cause: 1, Kind: &shiplogv1.Entry_Command{Command: &shiplogv1.Command{Object: ref, Effect: &shiplogv1.Command_WakeAt{
		WakeAt: &shiplogv1.WakeAt{Id: "later", Due: timestamppb.New(time.Now().Add(2 * time.Second))},
	}}}}
	if _, err := log.AppendCommands(t.Context(), 0, wish); err != nil {
		t.Fatal(err)
	}
	if _, err := journal.Open(t.Context(), journal.Options{Server: &embedded.Server{Directory: directory}, AsIs: true}); !errors.Is(err, embedded.ErrInUse) {
		t.Errorf("a directory in use: %v", err)
	}
	log.Close()
	before := contents(t, directory)
	<-time.After(3 * time.Second) // what is older than the retention can only be had by letting it grow old

	copied, err := journal.Open(t.Context(), journal.Options{Server: &embedded.Server{Directory: directory}, AsIs: true})
	if err != nil {
		t.Fatal(err)
	}
	state, err := copied.State(t.Context())
	if err != nil || state.FirstSequence != 1 || state.LastSequence < 2 {
		t.Errorf("it has %d to %d: %v", state.FirstSequence, state.LastSequence, err)
	}
	reader, err := copied.Read(t.Context(), journal.From{})
	if err != nil {
		t.Fatal(err)
	}
	for read := 0; read < 2; {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		records, err := reader.Next(ctx)
		cancel()
		if err != nil {
			t.Fatalf("after %d records: %v", read, err)
		}
		read += len(records)
	}
	reader.Close()
	copied.Close()
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("copies are left behind: %v, %v", left, err)
	}
	after := contents(t, directory)
	if len(before) != len(after) {
		t.Errorf("%d files, then %d", len(before), len(after))
	}
	for path, sum := range before {
		if after[path] != sum {
			t.Errorf("%s is changed", path)
		}
	}
}

func contents(t *testing.T, directory string) map[string][32]byte {
	t.Helper()
	out := map[string][32]byte{}
	if err := filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		out[path] = sha256.Sum256(data)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}
