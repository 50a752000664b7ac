package natscluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
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
	up, err := Up(ctx, Options{Dir: dir, Store: filepath.Join(dir, "store"), Program: program, MaxFile: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(up.Down)
	c, err := Attach(ctx, dir)
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
	unwell := func(s Server) {
		t.Helper()
		check(until(ctx, func() error {
			if s.Unwell(ctx) == nil {
				return fmt.Errorf("%s stays well", s.Name)
			}
			return nil
		}))
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

	write := func(s Server) error { return os.WriteFile(filepath.Join(s.Store, "more"), make([]byte, 64<<10), 0o600) }
	check(c.Fill(first))
	if err := write(first); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk takes more: %v", err)
	}
	check(write(second))
	check(c.Free(first))
	check(write(first))

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
	soon, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	check(until(soon, func() error {
		routes, err := second.ask(soon, "/routez")
		if err == nil && strings.Contains(routes, first.Name) {
			err = fmt.Errorf("%s keeps its routes to a server that is cut off", second.Name)
		}
		return err
	}))
	check(second.Unwell(ctx))
	check(c.Join(ctx, first))
	check(c.Well(ctx))
}
