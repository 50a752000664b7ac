package journal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal/embedded"
)

// replicasPatience outlasts the elections of three servers that start together on a busy machine.
const replicasPatience = 45 * time.Second

// startReplicas starts three servers that replicate, on directories.
func startReplicas(t *testing.T, directories []string) (servers []*server.Server, urls string) {
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
			ServerName: fmt.Sprint("s", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, JetStream: true, StoreDir: directories[i], SyncAlways: true,
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

func directories(t *testing.T) []string { return []string{t.TempDir(), t.TempDir(), t.TempDir()} }

// TestAllReplicasKilled: all servers end at one moment, more than once, and what was acknowledged is there.
func TestAllReplicasKilled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	on := directories(t)
	const n, size = 100, 4096
	for life := range 4 {
		servers, urls := startReplicas(t, on)
		j := mustOpen(t, Options{URL: urls, Durability: Strict, Patience: replicasPatience, Log: testLog(t)})
		for i := range n {
			_, err := j.Append(ctx, factOf("a", life*n+i, size))
			check(t, err)
		}
		r, err := j.Read(ctx, From{Sequence: 1})
		check(t, err)
		take(t, r, (life+1)*n)
		r.Close()
		left := on
		if life > 0 { // The first time they end well, and leave a snapshot. Later what is on the disk now is what they find: they were killed.
			left = directories(t)
			for i := range left {
				check(t, os.CopyFS(left[i], os.DirFS(on[i])))
			}
		}
		check(t, j.Close())
		for _, s := range servers {
			s.Shutdown()
			s.WaitForShutdown()
		}
		on = left
	}
}

// TestReplicated: three servers hold the log; the one that leads it goes, and nothing that was acknowledged does.
func TestReplicated(t *testing.T) {
	t.Parallel()
	servers, urls := startReplicas(t, directories(t))
	o := Options{URL: urls, Durability: Strict, Patience: replicasPatience, Log: testLog(t)}
	j := mustOpen(t, o)
	l := j.(*logStream)
	if n := l.stream.CachedInfo().Config.Replicas; n != 3 {
		t.Fatalf("%d replicas", n)
	}
	if l.pulse() != pullPulse {
		t.Errorf("servers of which one may be lost give a sign of life every %s", l.pulse())
	}
	compressed := l.stream.CachedInfo().Config // as earlier versions made it
	compressed.Compression = jetstream.S2Compression
	_, err := l.js.UpdateStream(within(t), compressed)
	check(t, err)
	if c := mustOpen(t, o).(*logStream).stream.CachedInfo().Config.Compression; c != jetstream.NoCompression {
		t.Errorf("the log is compressed: %s", c)
	}
	f := &fixture{Journal: j, second: func(t testing.TB) Journal { return mustOpen(t, o) }}
	onlyTheNewestFenceWrites(t, f)
	ctx := within(t)
	_, err = j.Append(ctx, fact("x", 1), fact("x", 1), gone("x", 1))
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

// TestLeavesServerWithoutOthers: a server that takes connections, and that no other server hears, is left for one that answers.
func TestLeavesServerWithoutOthers(t *testing.T) {
	t.Parallel()
	_, urls := startReplicas(t, directories(t))
	alone, err := server.NewServer(&server.Options{
		ServerName: "alone", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, JetStream: true, StoreDir: t.TempDir(),
		Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoAdvertise: true},
		Routes:  []*url.URL{{Scheme: "nats", Host: lasting(t)}}, // nobody listens there
	})
	check(t, err)
	alone.Start()
	t.Cleanup(func() { alone.Shutdown(); alone.WaitForShutdown() })
	if !alone.ReadyForConnections(30 * time.Second) {
		t.Fatal("a server does not start")
	}
	l := &link{patience: time.Minute, closing: t.Context()}
	check(t, l.dial(alone.ClientURL(), testLog(t)))
	t.Cleanup(l.nc.Close)
	check(t, l.nc.SetServerPool(append([]string{alone.ClientURL()}, strings.Split(urls, ",")...)))
	check(t, l.patiently(within(t), "look for a stream", func(ctx context.Context) error {
		_, err := l.js.AccountInfo(ctx)
		return err
	}))
	if l.nc.ConnectedUrl() == alone.ClientURL() {
		t.Error("the server that is alone answered")
	}
}

// TestAloneAnswersNothing: a server that lost the other two still describes the stream, as it was. That is no answer: whoever took it for one
// would stay with that server.
func TestAloneAnswersNothing(t *testing.T) {
	t.Parallel()
	servers, _ := startReplicas(t, directories(t))
	j := mustOpen(t, Options{URL: servers[0].ClientURL(), Durability: Strict, Patience: replicasPatience, Log: testLog(t)}).(*logStream)
	_, err := j.info(within(t))
	check(t, err)
	for _, s := range servers[1:] {
		s.Shutdown()
	}
	testbed.Eventually(t, time.Minute, func() error {
		short, cancel := context.WithTimeout(t.Context(), tryWait)
		defer cancel()
		info, err := j.stream.Info(short)
		if err == nil && info.Cluster.Leader != "" {
			err = errors.New("it does not know yet")
		}
		return err
	})
	short, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	_, err = j.info(short)
	wantError(t, err, ErrUnavailable)
}
