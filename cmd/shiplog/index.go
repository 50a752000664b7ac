package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"shiplog.dev/cmd/internal/process"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/index"
)

const (
	// quietly is how long an index may take before the user is told what takes so long.
	quietly = time.Second
	// indexUnused is when an index of a log that nobody asks about is removed.
	indexUnused = 30 * 24 * time.Hour
)

// index opens the index of a long log, as of its end. It returns nil where it is better to read the log itself: for another
// moment, for a short log, where the user wants none, and where there is no place to keep one.
func (r *reading) index(command *cobra.Command, log *opened, at history.Moment) (*index.Index, error) {
	directory, err := indexDirectory()
	if r.noIndex || err != nil || at != (history.Moment{}) || log.Identity == "" || log.Last-log.First < index.Worth {
		return nil, nil
	}
	index.Remove(directory, indexUnused)
	began, told := time.Now(), false
	kept, err := index.Open(command.Context(), log.Log, directory, programVersion(), func(done, of uint64) {
		if time.Since(began) > quietly {
			told = true
			fmt.Fprintf(command.ErrOrStderr(), "\rreading the log for the first time: %d%%", done*100/max(of, 1))
		}
	})
	if told {
		fmt.Fprint(command.ErrOrStderr(), "\r\033[K")
	}
	if err != nil && command.Context().Err() == nil {
		fmt.Fprintf(command.ErrOrStderr(), "shiplog: reading the whole log instead: %v\n", err)
		return nil, nil
	}
	return kept, err
}

// indexDirectory is where indexes are kept: with the user's other caches.
func indexDirectory() (string, error) {
	caches, err := os.UserCacheDir()
	return filepath.Join(caches, "shiplog"), err
}

// programVersion tells builds apart, also those that have no version.
func programVersion() string {
	name := process.Version()
	if info, ok := debug.ReadBuildInfo(); ok {
		name += info.Main.Sum
	}
	if path, err := os.Executable(); err == nil {
		if file, err := os.Stat(path); err == nil {
			name += file.ModTime().String()
		}
	}
	return name
}
