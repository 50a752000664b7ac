package natscluster_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"shiplog.dev/integration/natscluster"
)

// TestServers breaks servers in every way, and sees what the others and the clients see of it.
func TestServers(t *testing.T) {
	program, err := filepath.Abs("../../bin/nats-server")
	if err != nil {
		t.Fatal(err)
	}
	_, missing := os.Stat(program)
	_, none := exec.LookPath("dockerd")
	if (missing != nil || none != nil || os.Geteuid() != 0 || testing.Short()) && os.Getenv("CI") != "true" {
		t.Skip("needs root, Debian's docker.io, and make bin/nats-server")
	}
	dir, err := os.MkdirTemp("", "nats-") // t.TempDir is too long a path for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	up, err := natscluster.Up(ctx, natscluster.Options{Dir: dir, Store: filepath.Join(dir, "store"), Program: program, MaxFile: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(up.Down)
	c, err := natscluster.Attach(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	first, second := c.Servers[0], c.Servers[1]
	reached := func() bool {
		connection, err := net.DialTimeout("tcp", first.Client.String()+":4222", 500*time.Millisecond)
		if err == nil {
			_ = connection.Close()
		}
		return err == nil
	}
	unwell := func(s natscluster.Server) {
		t.Helper()
		for s.Unwell(ctx) == nil {
			if ctx.Err() != nil {
				t.Fatalf("%s stays well", s.Name)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}

	check(c.Kill(ctx, first))
	if reached() {
		t.Error("a server that was killed takes connections")
	}
	check(second.Unwell(ctx))
	check(c.Wipe(first))
	if left, err := os.ReadDir(first.Store); err != nil || len(left) > 0 {
		t.Errorf("a server that was wiped has %d files left: %v", len(left), err)
	}
	check(c.Start(ctx, first))
	check(c.Well(ctx))

	check(c.Pause(ctx, first))
	unwell(first)
	check(c.Resume(ctx, first))
	check(c.Well(ctx))

	check(c.Cut(ctx, first, false))
	if reached() {
		t.Error("a server that is cut off takes connections")
	}
	check(c.Join(ctx, first))
	check(c.Well(ctx))

	check(c.Cut(ctx, first, true))
	unwell(first)
	if !reached() {
		t.Error("a server that is cut off from the others takes no connections")
	}
	check(second.Unwell(ctx))
	check(c.Join(ctx, first))
	check(c.Well(ctx))
}
