package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestStep sets the clock of a program that runs: what it calls now follows, how long something took does not.
func TestStep(t *testing.T) {
	dir := t.TempDir()
	if err := write(dir); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "asks")
	if out, err := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, "./testdata/asks").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	clock := filepath.Join(dir, "clock")
	set := func(seconds int64) {
		t.Helper()
		file, err := os.OpenFile(clock, os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.Write(binary.LittleEndian.AppendUint64(nil, uint64(seconds))); err != nil {
			t.Fatal(err)
		}
	}
	set(0)
	command := exec.Command(program)
	command.Env = append(os.Environ(), "SHIPLOG_CLOCK="+clock)
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = command.Process.Kill(); _ = command.Wait() }()
	said := bufio.NewScanner(out)
	for _, step := range []struct {
		seconds int64
		want    string
	}{{0, "0s 0s"}, {60, "1m0s 0s"}, {-60, "-1m0s 0s"}, {3600, "1h0m0s 0s"}, {0, "0s 0s"}} {
		set(step.seconds)
		fmt.Fprintln(in)
		if !said.Scan() {
			t.Fatalf("the program ended: %v", said.Err())
		}
		if said.Text() != step.want {
			t.Errorf("with the clock off by %d s: %s, want %s", step.seconds, said.Text(), step.want)
		}
	}
}
