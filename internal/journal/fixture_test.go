package journal

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/protobuf/types/known/timestamppb"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal/embedded"
)

// limits of a log under test; 0: none.
type limits struct{ max, store int64 }

// fixture is one log under test, of any make.
type fixture struct {
	Journal
	// second is another handle on the same log: another connection where there is one.
	second func(t testing.TB) Journal
	// reopen closes the log and opens it again.
	reopen func(t testing.TB)
	// down makes the log unreachable.
	down func(t testing.TB)
	// inject stores a message that no Append would.
	inject func(t testing.TB, subject string, data []byte) uint64
}

var makes = []struct {
	name  string
	start func(t testing.TB, l limits) *fixture
}{
	{"memory", startMemory},
	{"embedded", startEmbedded},
	{"strict", startStrict},
	{"external", startExternal},
}

const testPatience = 3 * time.Second

func startMemory(t testing.TB, l limits) *fixture {
	m := NewMemory(time.Now)
	m.SetLimits(MemoryLimits{Bytes: l.max, StoreBytes: l.store, EntryBytes: embedded.MaxPayload})
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				m.FireTicks()
			}
		}
	}()
	return &fixture{
		Journal: m,
		second:  func(testing.TB) Journal { return m },
		reopen:  func(testing.TB) { m.Close(); m.Reopen() },
		down:    func(testing.TB) { m.SetDown(true) },
		inject:  func(_ testing.TB, subject string, data []byte) uint64 { return m.inject(subject, data) },
	}
}

func testLog(t testing.TB) zerolog.Logger {
	if os.Getenv("JOURNAL_TEST_LOG") == "" {
		return zerolog.Nop()
	}
	return zerolog.New(zerolog.NewTestWriter(t))
}

func startEmbedded(t testing.TB, l limits) *fixture { return startEmbeddedWith(t, l, Fast) }

func startStrict(t testing.TB, l limits) *fixture { return startEmbeddedWith(t, l, Strict) }

func startEmbeddedWith(t testing.TB, l limits, d Durability) *fixture {
	o := Options{Durability: d, Server: &embedded.Server{Directory: t.TempDir(), StoreLimit: l.store}, MaxBytes: l.max, Patience: testPatience, ClusterUID: "uid-1", Log: testLog(t)}
	f := &fixture{Journal: mustOpen(t, o)}
	f.second = func(testing.TB) Journal { return f.Journal }
	f.reopen = func(t testing.TB) {
		f.Close()
		f.Journal = mustOpen(t, o)
	}
	f.down = func(testing.TB) { f.Close() }
	f.inject = func(t testing.TB, subject string, data []byte) uint64 { return inject(t, f.Journal, subject, data) }
	return f
}

func startExternal(t testing.TB, l limits) *fixture {
	s := startTestServer(t, l.store)
	o := Options{URL: s.url, MaxBytes: l.max, Patience: testPatience, ClusterUID: "uid-1", Log: testLog(t)}
	f := &fixture{Journal: mustOpen(t, o)}
	f.second = func(t testing.TB) Journal { return mustOpen(t, o) }
	f.reopen = func(t testing.TB) {
		f.Close()
		f.Journal = mustOpen(t, o)
	}
	f.down = func(testing.TB) { s.Stop() }
	f.inject = func(t testing.TB, subject string, data []byte) uint64 { return inject(t, f.Journal, subject, data) }
	return f
}

func inject(t testing.TB, j Journal, subject string, data []byte) uint64 {
	ack, err := j.(*logStream).js.Publish(t.Context(), subject, data)
	check(t, err)
	return ack.Sequence
}

func mustOpen(t testing.TB, o Options) Journal {
	t.Helper()
	j, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// testServer is a server that listens on one port of this machine, whose address stays when it is started again.
type testServer struct {
	*embedded.Server
	url string
}

// lasting returns an address that nobody else is given while a server that had it is away: below the ports that the kernel hands out.
func lasting(t testing.TB) string {
	for {
		address := fmt.Sprint("127.0.0.1:", 20000+rand.IntN(10000))
		if l, err := net.Listen("tcp", address); err == nil {
			check(t, l.Close())
			return address
		}
	}
}

func startTestServer(t testing.TB, store int64) *testServer {
	address := lasting(t)
	s := &testServer{Server: &embedded.Server{Directory: t.TempDir(), Listen: address, StoreLimit: store}}
	s.start(t)
	t.Cleanup(func() { s.Stop() })
	return s
}

func (s *testServer) start(t testing.TB) {
	t.Helper()
	check(t, s.Start(false, false, testLog(t), nil))
	s.url = s.Address()
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func pod(name string) *shiplogv1.ObjectRef {
	return &shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: "default", Name: name, Uid: "uid-" + name}
}

func fact(name string, version int) *shiplogv1.Entry { return factOf(name, version, 10) }

func factOf(name string, version, size int) *shiplogv1.Entry {
	return &shiplogv1.Entry{Writer: "watcher/test", Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
		Object: pod(name), ResourceVersion: fmt.Sprint(version), Json: filler(size)}}}
}

// filler is text that compresses about as well as objects do.
func filler(size int) []byte {
	b := make([]byte, size)
	x := uint32(size)
	for i := range b {
		if i%4 == 0 {
			x = x*1664525 + 1013904223
		}
		b[i] = "abcdefghijklmnopqrstuvwxyz{}:,\"0"[x>>uint(i%4*5+5)&31]
	}
	return b
}

func gone(name string, version int) *shiplogv1.Entry {
	return &shiplogv1.Entry{Writer: "watcher/test", Kind: &shiplogv1.Entry_ObjectDeleted{ObjectDeleted: &shiplogv1.ObjectDeleted{
		Object: pod(name), ResourceVersion: fmt.Sprint(version)}}}
}

func outcome(name string, cause uint64, attempt uint32) *shiplogv1.Entry {
	return &shiplogv1.Entry{Writer: "executor/test", Cause: cause, Kind: &shiplogv1.Entry_Outcome{Outcome: &shiplogv1.Outcome{
		Result: shiplogv1.Outcome_RESULT_APPLIED, Object: pod(name), Attempt: attempt}}}
}

func nodeFact(name, runtime string) *shiplogv1.Entry {
	return &shiplogv1.Entry{Writer: "nodeagent/test", Skippable: true, Kind: &shiplogv1.Entry_NodeObserved{NodeObserved: &shiplogv1.NodeObserved{
		Node: name, RuntimeName: runtime}}}
}

func vouch() *shiplogv1.Entry {
	return &shiplogv1.Entry{Writer: "watcher/test", Kind: &shiplogv1.Entry_Vouched{Vouched: &shiplogv1.Vouched{}}}
}

func write(name string) *shiplogv1.Entry {
	return &shiplogv1.Entry{Writer: "planner/test", Cause: 1, Kind: &shiplogv1.Entry_Command{Command: &shiplogv1.Command{
		Object: pod(name), Effect: &shiplogv1.Command_Delete{Delete: &shiplogv1.DeleteObject{}}}}}
}

func wish(id string, due time.Time) *shiplogv1.Entry {
	return &shiplogv1.Entry{Writer: "planner/test", Cause: 7, Rollout: "u/1", Kind: &shiplogv1.Entry_Command{Command: &shiplogv1.Command{
		Object: pod("workload"), Effect: &shiplogv1.Command_WakeAt{WakeAt: &shiplogv1.WakeAt{Id: id, Due: timestamppb.New(due)}}}}}
}

// within gives everything a test waits for one bound, for a machine that has much else to do.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func reads(t testing.TB, j Journal, from From) Reader {
	t.Helper()
	r, err := j.Read(within(t), from)
	check(t, err)
	t.Cleanup(r.Close)
	return r
}

// take reads n records.
func take(t testing.TB, r Reader, n int) []Record {
	t.Helper()
	ctx := within(t)
	var all []Record
	for len(all) < n {
		records, err := r.Next(ctx)
		if err != nil {
			t.Fatalf("after %d of %d records: %v", len(all), n, err)
		}
		all = append(all, records...)
	}
	if len(all) != n {
		t.Fatalf("%d records, want %d: %v", len(all), n, sequences(all))
	}
	for i := 1; i < n; i++ {
		if all[i].Sequence <= all[i-1].Sequence {
			t.Fatalf("sequences do not rise: %v", sequences(all))
		}
	}
	return all
}

// until reads records until one satisfies found, and returns all of them.
func until(t testing.TB, r Reader, found func(Record) bool) []Record {
	t.Helper()
	ctx := within(t)
	var all []Record
	for {
		records, err := r.Next(ctx)
		if err != nil {
			t.Fatalf("after %v: %v", sequences(all), err)
		}
		for i, record := range records {
			all = append(all, record)
			if found(record) {
				if i != len(records)-1 {
					t.Fatalf("more came than was waited for: %v", sequences(records[i:]))
				}
				return all
			}
		}
	}
}

func ticked(id string) func(Record) bool {
	return func(r Record) bool { return r.Entry.GetTicked().GetId() == id && r.Entry.GetTicked() != nil }
}

func sequences(records []Record) []uint64 {
	s := make([]uint64, len(records))
	for i, r := range records {
		s[i] = r.Sequence
	}
	return s
}

// inject stores what no Append would.
func (m *Memory) inject(subject string, data []byte) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.wake()
	return m.store(message{subject: subject, data: data})
}

func rolloutEvent(name string, cause uint64, index uint32) *shiplogv1.Entry {
	return &shiplogv1.Entry{
		Writer: "planner/one", WriterVersion: "v1", Cause: cause, Rollout: "uid-" + name + "/7", Skippable: true,
		Kind: &shiplogv1.Entry_RolloutEvent{RolloutEvent: &shiplogv1.RolloutEvent{
			Index: index, Type: "pod-updated", Kind: "CloneSet", Time: timestamppb.New(time.Date(2026, 1, 15, 8, 0, 0, 123456789, time.UTC)),
			Workload: &shiplogv1.ObjectRef{Group: "apps.kruise.io", Version: "v1alpha1", Resource: "clonesets", Namespace: "default", Name: name, Uid: "uid-" + name},
			Data:     []byte(`{"pod":"<a&b>","seconds":1.5}`),
		}},
	}
}
