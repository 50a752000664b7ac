// Command steppedtime writes a build overlay in which a program's wall clock is off by as many seconds as a file says, at the time it
// asks. What measures durations, and timers, go on as they were: so does a machine whose clock somebody sets.
//
//	go run ./integration/chaos/steppedtime DIR
//	go build -overlay DIR/overlay.json PACKAGE
//	SHIPLOG_CLOCK=FILE PROGRAM
//
// The file holds the seconds as a signed number of eight bytes, lowest first. It is for the campaign only: no program that is shipped is
// built like this.
package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed stepped.go.txt
var stepped []byte

const (
	asks = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	adds = "\tsec += stepped()\n"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: steppedtime DIR")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "steppedtime:", err)
		os.Exit(1)
	}
}

// write puts the overlay and the two files it names into dir.
func write(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("ask where Go is: %w", err)
	}
	library := filepath.Join(string(bytes.TrimSpace(root)), "src", "time")
	source, err := os.ReadFile(filepath.Join(library, "time.go"))
	if err != nil {
		return err
	}
	if bytes.Count(source, []byte(asks)) != 1 {
		return fmt.Errorf("%s does not read the clock as this program knows it: look at its func Now, and mend the constant asks",
			filepath.Join(library, "time.go"))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	replace := map[string]string{}
	for name, text := range map[string][]byte{
		"time.go":    bytes.Replace(source, []byte(asks), []byte(asks+adds), 1),
		"stepped.go": stepped,
	} {
		path := filepath.Join(dir, name+".txt")
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
		replace[filepath.Join(library, name)] = path
	}
	overlay, err := json.MarshalIndent(map[string]any{"Replace": replace}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o644)
}
