package process_test

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"shiplog.dev/integration/cluster/process"
)

func start(t *testing.T, script string) *process.Process {
	t.Helper()
	p, err := process.Start(process.Spec{Name: "child", Args: []string{"sh", "-c", script}, LogDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func TestAChildThatEndsIsNotWaitedFor(t *testing.T) {
	p := start(t, "echo the disk is full; exit 3")
	err := p.WaitHealthy(context.Background(), time.Minute, func(context.Context) error { return errors.New("not yet") })
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("the error tells neither the exit status nor what the child said: %v", err)
	}
}

func TestStopEndsAChildThatDoesNotListen(t *testing.T) {
	p := start(t, "trap '' TERM; echo up; while :; do sleep 1; done")
	p.Stop(50 * time.Millisecond)
	if err := syscall.Kill(p.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the child is still there: %v", err)
	}
}

func TestKeepRunning(t *testing.T) {
	p := start(t, "exec sleep 60")
	events := make(chan bool, 10)
	p.KeepRunning(1, func(err error, again bool) {
		if err != nil {
			events <- again
		}
	})
	for _, wantAgain := range []bool{true, false} {
		killed := p.PID()
		if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if again := <-events; again != wantAgain {
			t.Fatalf("started again: %v, want %v", again, wantAgain)
		}
		if wantAgain {
			err := process.Until(context.Background(), 10*time.Second, func(context.Context) error {
				if p.PID() == killed {
					return errors.New("the same process")
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	<-p.Done()
}
