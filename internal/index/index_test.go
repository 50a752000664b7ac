package index

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/narrate"
	"shiplog.dev/internal/world"
)

func histories(t *testing.T) []string {
	paths, err := filepath.Glob("../../integration/histories/*.shiplog")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no histories: %v", err)
	}
	return paths
}

func read(t *testing.T, path string) *history.Log {
	log, err := history.Open(t.Context(), path, "local")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log
}

func indexed(t *testing.T, log history.Log, directory string) *Index {
	x, err := Open(t.Context(), &log, directory, "v1", func(uint64, uint64) {})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// told is what the whole log tells of every Pod of every CloneSet, as JSON, by workload and Pod.
func told(t *testing.T, log *history.Log) map[[2]string]string {
	accounts := map[world.Ref]*narrate.Account{}
	if err := log.Each(t.Context(), history.Span{Past: true}, func(record journal.Record) error {
		if ref, about := history.ObjectOf(record.Entry); about && ref.Resource == world.ResourceCloneSets && accounts[ref] == nil {
			accounts[ref] = narrate.NewAccount(ref.Namespace, ref.Name)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	out := map[[2]string]string{}
	for ref, account := range accounts {
		if err := log.Each(t.Context(), history.Span{Past: true}, func(record journal.Record) error {
			if !account.Concerns(record.Entry) {
				return nil
			}
			return account.Show(record)
		}); err != nil {
			t.Fatal(err)
		}
		for _, life := range account.Lives {
			out[[2]string{ref.Namespace + "/" + ref.Name, life.Name}] = asJSON(t, account.Story(life.Name))
		}
	}
	return out
}

func asJSON(t *testing.T, story narrate.Story) string {
	data, err := json.MarshalIndent(struct {
		Life   *narrate.Life
		Chains []narrate.Chain
	}{story.Life, narrate.Chains(story.Steps)}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// compare holds what an index tells against what the whole log tells.
func compare(t *testing.T, x *Index, log *history.Log) {
	t.Helper()
	all := told(t, log)
	if len(all) == 0 {
		t.Error("the log tells of no Pod: the test shows nothing")
	}
	for of, want := range all {
		namespace, name := filepath.Split(of[0])
		workload := narrate.NewAccount(filepath.Clean(namespace), name).Workload
		story, err := x.Story(workload, of[1])
		if err != nil {
			t.Fatal(err)
		}
		if got := asJSON(t, story); got != want {
			t.Errorf("Pod %s of %s: the index tells\n%s\nthe log tells\n%s", of[1], of[0], got, want)
			return
		}
		if owner, err := x.Owner(workload.Namespace, of[1]); err != nil || owner != "CloneSet/"+name {
			t.Errorf("the owner of %s is %q: %v", of[1], owner, err)
		}
	}
}

// An index tells what the log tells, in however many parts it was made.
func TestAnIndexTellsWhatTheLogTells(t *testing.T) {
	for _, path := range histories(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			log := read(t, path)
			for _, parts := range []uint64{1, 2, 7, 40} {
				directory := t.TempDir()
				for part := range parts {
					grown := *log
					grown.Last = log.First + (log.Last-log.First)*(part+1)/parts
					x := indexed(t, grown, directory)
					if part == parts-1 {
						compare(t, x, log)
					}
					if err := x.Close(); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

// What an index was made of must be what the log is; else it is made anew.
func TestAnIndexThatDoesNotHoldIsMadeAnew(t *testing.T) {
	paths := histories(t)
	first, second := read(t, paths[0]), read(t, paths[1])
	for name, spoil := range map[string]func(directory string, log *history.Log){
		"the file is of another log": func(directory string, log *history.Log) {
			other := *second
			other.Identity, other.Last = log.Identity, min(second.Last, log.Last)
			indexed(t, other, directory).Close()
		},
		"the log was rolled back": func(directory string, log *history.Log) {
			indexed(t, *log, directory).Close()
			log.Last -= 20
		},
		"the file is no index": func(directory string, log *history.Log) {
			indexed(t, *log, directory).Close()
			overwrite(t, directory, 0, 1<<13)
		},
		"the file is damaged": func(directory string, log *history.Log) {
			indexed(t, *log, directory).Close()
			overwrite(t, directory, 1<<13, 1<<20)
		},
		"the file is empty": func(directory string, log *history.Log) {
			indexed(t, *log, directory).Close()
			for _, path := range files(t, directory) {
				if err := os.Truncate(path, 0); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			log, directory := *first, t.TempDir()
			spoil(directory, &log)
			x := indexed(t, log, directory)
			defer x.Close()
			compare(t, x, &log)
		})
	}
}

// Entries that have left the log before an index came to them are a gap.
func TestAnIndexWithAGapIsMadeAnew(t *testing.T) {
	log, directory := read(t, histories(t)[0]), t.TempDir()
	early := *log
	early.Last = log.First + 30
	indexed(t, early, directory).Close()
	late := *log
	late.First = log.First + 60
	x := indexed(t, late, directory)
	defer x.Close()
	if x.covered.First != late.First {
		t.Errorf("it goes on from %d, with what it had before", x.covered.First)
	}
}

func TestIndexesThatNobodyUsesAreRemoved(t *testing.T) {
	log, directory := read(t, histories(t)[0]), t.TempDir()
	indexed(t, *log, directory).Close()
	Remove(directory, time.Hour)
	if len(files(t, directory)) != 1 {
		t.Error("one that was used just now is removed")
	}
	long := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(files(t, directory)[0], long, long); err != nil {
		t.Fatal(err)
	}
	if Remove(directory, time.Hour); len(files(t, directory)) != 0 {
		t.Error("one that nobody used is still there")
	}
}

// Another process that has the index open is waited for, and no longer than the caller wants.
func TestAnIndexInUseIsWaitedFor(t *testing.T) {
	log, directory := read(t, histories(t)[0]), t.TempDir()
	held := indexed(t, *log, directory)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, log, directory, "v1", func(uint64, uint64) {}); err == nil {
		t.Error("two have it open")
	}
	time.AfterFunc(300*time.Millisecond, func() { held.Close() })
	indexed(t, *log, directory).Close()
}

func files(t *testing.T, directory string) []string {
	paths, err := filepath.Glob(filepath.Join(directory, "*.index"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func overwrite(t *testing.T, directory string, from, to int64) {
	for _, path := range files(t, directory) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		junk := make([]byte, min(to, info.Size())-from)
		for i := range junk {
			junk[i] = byte(i * 31)
		}
		if _, err := file.WriteAt(junk, from); err != nil {
			t.Fatal(err)
		}
		file.Close()
	}
}
