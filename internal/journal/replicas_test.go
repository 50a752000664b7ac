package journal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"shiplog.dev/internal/journal/embedded"
)

// startReplicas starts three servers that replicate.
func startReplicas(t *testing.T) (servers []*server.Server, urls string) {
	var ports []int
	var routes []*url.URL
	for range 3 {
		address := lasting(t)
		_, text, err := net.SplitHostPort(address)
		check(t, err)
		port, err := strconv.Atoi(text)
		check(t, err)
		ports = append(ports, port)
		routes = append(routes, &url.URL{Scheme: "nats", Host: address})
	}
	var all []string
	for i, port := range ports {
		s, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("s", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, JetStream: true, StoreDir: t.TempDir(),
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: port}, Routes: routes, MaxPayload: embedded.MaxPayload,
		})
		check(t, err)
		s.SetLoggerV2(embedded.Log{Logger: testLog(t)}, false, false, false)
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		servers = append(servers, s)
	}
	for _, s := range servers {
		if !s.ReadyForConnections(30 * time.Second) {
			t.Fatal("a server does not start")
		}
		all = append(all, s.ClientURL())
	}
	return servers, strings.Join(all, ",")
}

// TestReplicated: three servers hold the log; the one that leads it goes, and nothing that was acknowledged does.
func TestReplicated(t *testing.T) {
	t.Parallel()
	servers, urls := startReplicas(t)
	o := Options{URL: urls, Durability: Strict, Patience: 45 * time.Second, Log: testLog(t)}
	j := mustOpen(t, o)
	l := j.(*logStream)
	if n := l.stream.CachedInfo().Config.Replicas; n != 3 {
		t.Fatalf("%d replicas", n)
	}
	f := &fixture{Journal: j, second: func(t testing.TB) Journal { return mustOpen(t, o) }}
	onlyTheNewestFenceWrites(t, f)
	ctx := within(t)
	_, err := j.Append(ctx, fact("x", 1), fact("x", 1), gone("x", 1))
	check(t, err)
	fence, err := j.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	due := time.Now().Add(3 * time.Second)
	_, err = j.AppendCommands(ctx, fence, write("a"), write("b"), wish("due", due))
	check(t, err)
	check(t, j.Compact(ctx, fence, all))

	const n = 300
	r := reads(t, j, From{Sequence: fence})
	ended := make(chan error, 1)
	reached := make(chan struct{})
	go func() {
		for i := range n {
			if i == n/3 {
				close(reached)
			}
			if _, err := j.Append(context.Background(), fact("a", i)); err != nil {
				ended <- fmt.Errorf("append %d: %w", i, err)
				return
			}
		}
		ended <- nil
	}()
	<-reached
	leader := l.stream.CachedInfo().Cluster.Leader
	for _, s := range servers {
		if s.Name() == leader {
			s.Shutdown()
		}
	}
	check(t, <-ended)
	_, err = j.AppendCommands(ctx, fence, write("c"), write("d"))
	for errors.Is(err, ErrUnavailable) {
		fence, err = j.RaiseFence(ctx, "planner", "v1", nil)
		check(t, err)
		_, err = j.AppendCommands(ctx, fence, write("c"), write("d"))
	}
	check(t, err)
	_, err = j.Append(ctx, fact("last", 1))
	check(t, err)
	version, tick := 0, false
	var last uint64
	for done := false; !done || !tick; {
		records, err := r.Next(ctx)
		check(t, err)
		for _, record := range records {
			if record.Sequence <= last {
				t.Fatalf("%d after %d", record.Sequence, last)
			}
			last = record.Sequence
			tick = tick || record.Entry.GetTicked() != nil
			o := record.Entry.GetObjectObserved()
			done = done || o.GetObject().GetName() == "last"
			if o.GetObject().GetName() == "a" {
				if o.GetResourceVersion() != fmt.Sprint(version) {
					t.Fatalf("version %s of a, want %d", o.GetResourceVersion(), version)
				}
				version++
			}
		}
	}
	if version != n {
		t.Errorf("%d facts, want %d", version, n)
	}
	task := next(t, works(t, j, "executor"))
	check(t, task.Done(ctx))
	until(t, reads(t, j, From{Compacted: true}), func(r Record) bool { return r.Sequence == last })
}
