package main

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var crashLoop = filepath.Join("..", "..", "integration", "histories", "crash-loop.shiplog")

// lines are what a command has written so far.
type lines struct{ written chan string }

func (l lines) Write(data []byte) (int, error) {
	for line := range strings.Lines(string(data)) {
		l.written <- line
	}
	return len(data), nil
}

// --step shows one entry for each line that is read, and no more.
func TestReplayStepByStep(t *testing.T) {
	hands, keys := io.Pipe()
	out := lines{make(chan string)}
	command := root()
	command.SetIn(hands)
	command.SetOut(out)
	command.SetArgs([]string{"replay", "--step", "--until", "7", "--log", crashLoop})
	ended := make(chan error, 1)
	go func() { ended <- command.ExecuteContext(t.Context()) }()
	for i, position := range []int{1, 3, 4, 5, 6, 7} { // 2 is not in the bundle
		if i > 0 {
			select {
			case line := <-out.written:
				t.Fatalf("before a key was pressed %q is shown", line)
			default:
			}
			if _, err := keys.Write([]byte("\n")); err != nil {
				t.Fatal(err)
			}
		}
		if line := <-out.written; !strings.HasPrefix(strings.TrimSpace(line), fmt.Sprint(position)) {
			t.Fatalf("%q is shown, not position %d", line, position)
		}
	}
	if line := <-out.written; !strings.Contains(line, "6 entries folded up to position 7") {
		t.Errorf("it ends with %q", line)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Where nobody presses a key any more the rest is shown.
func TestReplayStepsToTheEndOfItsInput(t *testing.T) {
	var out bytes.Buffer
	command := root()
	command.SetIn(strings.NewReader("\n\n"))
	command.SetOut(&out)
	command.SetArgs([]string{"replay", "--step", "--until", "10", "--log", crashLoop})
	if err := command.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\n"); n != 10 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
}

// --speed keeps the distances between entries, so many times as fast.
func TestReplayAtASpeed(t *testing.T) {
	took := func(speed string) time.Duration {
		began := time.Now()
		out, err := run(t, "replay", "--speed", speed, "--until", "66", "--log", crashLoop)
		if err != nil || !strings.Contains(out, "58 entries folded") {
			t.Fatalf("%v\n%s", err, out)
		}
		return time.Since(began)
	}
	// The first 66 positions took 4.76 s when they were recorded.
	if slow, fast := took("10"), took("100"); slow < 472*time.Millisecond || fast < 47200*time.Microsecond || fast > slow {
		t.Errorf("ten times as fast it took %s, a hundred times as fast %s", slow, fast)
	}
	for _, arguments := range [][]string{{"--speed", "-1"}, {"--speed", "2", "--step"}, {"--speed", "2", "-o", "json"}} {
		if out, err := run(t, append([]string{"replay", "--log", crashLoop}, arguments...)...); err == nil {
			t.Errorf("%v is taken:\n%s", arguments, out)
		}
	}
}

// why and timeline tell of any object: what changed, by whom, and what was commanded for its sake.
func TestAnyObjectIsExplained(t *testing.T) {
	time.Local = time.UTC
	nodeLost := filepath.Join("..", "..", "integration", "histories", "node-lost.shiplog")
	for _, c := range []struct{ arguments, wants string }{
		{"why node/hollow-3", "node/hollow-3 is changed by kubectl-taint: taints is set to"},
		{"timeline no/hollow-3 --since 100", "kubectl-taint"},
		{"why controllerrevision/web-7ff695fb44 -n node-lost", "create controllerrevision/web-7ff695fb44  CreateRevision"},
		{"why node/hollow-3 -o json", `"object": "node/hollow-3"`},
		{"why node/hollow-3 --at 100", "exists by"},
	} {
		out, err := run(t, append(strings.Fields(c.arguments), "--log", nodeLost)...)
		if err != nil || !strings.Contains(strings.Join(strings.Fields(out), " "), strings.Join(strings.Fields(c.wants), " ")) {
			t.Errorf("shiplog %s: %v, and %q is not in\n%s", c.arguments, err, c.wants, out)
		}
	}
	for _, arguments := range []string{"why node/nowhere", "why imagepulljob/none -n node-lost"} {
		if out, err := run(t, append(strings.Fields(arguments), "--log", nodeLost)...); !isNothing(err) {
			t.Errorf("shiplog %s: %v\n%s", arguments, err, out)
		}
	}
	if out, err := run(t, "why", "node/hollow-3", "--not-updated", "--log", nodeLost); err == nil {
		t.Errorf("a node that is not updated:\n%s", out)
	}
}
