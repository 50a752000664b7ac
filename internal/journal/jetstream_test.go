package journal

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal/embedded"
)

// lockEnv makes the test binary open the log in a directory and say what came of it, as another process.
const lockEnv = "JOURNAL_TEST_OPEN"

func TestMain(m *testing.M) {
	flag.Parse()
	if dir := os.Getenv(lockEnv); dir != "" {
		_, err := Open(context.Background(), Options{Server: &embedded.Server{Directory: dir}})
		fmt.Println(err)
		return
	}
	if dir := os.Getenv(killEnv); dir != "" {
		appendUntilKilled(dir)
	}
	_ = flag.Set("test.parallel", "12") // these tests wait more than they work
	os.Exit(m.Run())
}

// killEnv makes the test binary append to the log in a directory until it is killed.
const killEnv = "JOURNAL_TEST_KILL"

func appendUntilKilled(dir string) {
	ctx := context.Background()
	j, err := Open(ctx, Options{Server: &embedded.Server{Directory: dir}})
	if err != nil {
		panic(err)
	}
	fence, err := j.RaiseFence(ctx, "planner", "v1", nil)
	if err != nil {
		panic(err)
	}
	w, err := j.Commands(ctx, "executor")
	if err != nil {
		panic(err)
	}
	if _, err = j.AppendCommands(ctx, fence, write("held"), wish("due", time.Now().Add(time.Second))); err != nil {
		panic(err)
	}
	if _, err = w.Next(ctx); err != nil {
		panic(err)
	}
	for i := 0; ; i++ {
		last, err := j.Append(ctx, factOf("a", i, 3000), factOf("b", i, 3000))
		if err != nil {
			panic(err)
		}
		fmt.Println(last)
	}
}

// TestKilled: what a killed process was told is stored is there, and its work and wishes live on.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), killEnv+"="+dir)
	out, err := child.StdoutPipe()
	check(t, err)
	check(t, child.Start())
	var acknowledged uint64
	for lines := bufio.NewScanner(out); lines.Scan(); {
		_, err := fmt.Sscan(lines.Text(), &acknowledged)
		check(t, err)
		if acknowledged > 500 {
			check(t, child.Process.Kill())
			break
		}
	}
	_ = child.Wait()
	j := mustOpen(t, Options{Server: &embedded.Server{Directory: dir}})
	began := time.Now()
	state, err := j.State(within(t))
	check(t, err)
	if state.LastSequence < acknowledged {
		t.Fatalf("the log ends at %d, %d was acknowledged", state.LastSequence, acknowledged)
	}
	until(t, reads(t, j, From{}), ticked("due"))
	if task := next(t, works(t, j, "executor")); !task.Again || task.Entry.GetCommand().GetObject().GetName() != "held" {
		t.Errorf("what was under way comes back as %v", task)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("work came back after %s", took)
	}
}

func all(uint64) bool { return true }

// spoil damages the newest compacted view.
func spoil(t *testing.T, j Journal, how string) {
	l := j.(*logStream)
	ctx := within(t)
	views, err := l.listViews(ctx)
	check(t, err)
	stream, err := l.js.Stream(ctx, "OBJ_SHIPLOG_COMPACTED")
	check(t, err)
	chunks := "$O.SHIPLOG_COMPACTED.C." + views[0].object.NUID
	switch how {
	case "chunk lost":
		check(t, stream.Purge(ctx, jetstream.WithPurgeSubject(chunks)))
	case "end lost":
		info, err := l.views.GetInfo(ctx, views[0].object.Name)
		check(t, err)
		content, err := l.views.GetBytes(ctx, views[0].object.Name)
		check(t, err)
		_, err = l.views.Put(ctx, jetstream.ObjectMeta{Name: views[0].object.Name, Metadata: info.Metadata}, bytes.NewReader(content[:len(content)-9]))
		check(t, err)
	case "wrong from the start":
		info, err := l.views.GetInfo(ctx, views[0].object.Name)
		check(t, err)
		_, err = l.views.Put(ctx, jetstream.ObjectMeta{Name: views[0].object.Name, Metadata: info.Metadata}, strings.NewReader("something else"))
		check(t, err)
	}
}

func TestDamagedViews(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"chunk lost", "end lost", "wrong from the start"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			f := startEmbedded(t, limits{})
			ctx := within(t)
			_, err := f.Append(ctx, fact("a", 1), fact("a", 2), fact("a", 3), fact("a", 4), fact("a", 5))
			check(t, err)
			check(t, f.Compact(ctx, 2, func(uint64) bool { return false }))
			check(t, f.Compact(ctx, 4, func(uint64) bool { return false }))
			take(t, reads(t, f, From{Compacted: true}), 2)
			spoil(t, f.Journal, how)
			if got := sequences(take(t, reads(t, f, From{Compacted: true}), 4)); got[0] != 2 {
				t.Errorf("with the newest view damaged: %v", got)
			}
			f.reopen(t)
			check(t, f.Compact(ctx, 5, func(s uint64) bool { return s == 3 })) // from the view at 2 and the log after it
			if got := sequences(take(t, reads(t, f, From{Compacted: true}), 2)); got[0] != 3 || got[1] != 5 {
				t.Errorf("compacted from the view before the damaged one: %v", got)
			}
		})
	}
	t.Run("all of them", func(t *testing.T) {
		t.Parallel()
		f := startEmbedded(t, limits{})
		_, err := f.Append(within(t), fact("a", 1), fact("a", 2), fact("a", 3))
		check(t, err)
		check(t, f.Compact(within(t), 2, func(uint64) bool { return false }))
		spoil(t, f.Journal, "chunk lost")
		take(t, reads(t, f, From{Compacted: true}), 3)
	})
}

func TestViewsDoNotPileUp(t *testing.T) {
	t.Parallel()
	f := startEmbedded(t, limits{})
	ctx := within(t)
	l := f.Journal.(*logStream)
	_, err := l.js.Publish(ctx, "$O.SHIPLOG_COMPACTED.C.scrap", []byte("what a killed process left"))
	check(t, err)
	for i := range 5 {
		_, err := f.Append(ctx, fact("a", i))
		check(t, err)
		check(t, f.Compact(ctx, uint64(i+1), all))
	}
	stream, err := l.js.Stream(ctx, "OBJ_SHIPLOG_COMPACTED")
	check(t, err)
	if n := stream.CachedInfo().State.NumSubjects; n != 2*viewsKept {
		t.Errorf("%d subjects remain in the store, want %d: each view's description and its chunks", n, 2*viewsKept)
	}
}

// TestRolledBack: a log that lost its end, or everything, must not start from a view of what it lost.
func TestRolledBack(t *testing.T) {
	t.Parallel()
	f := startEmbedded(t, limits{})
	ctx := within(t)
	_, err := f.Append(ctx, fact("a", 1), fact("a", 2))
	check(t, err)
	check(t, f.Compact(ctx, 2, all))
	l := f.Journal.(*logStream)
	check(t, l.js.DeleteStream(ctx, l.name))
	f.reopen(t)
	_, err = f.Append(ctx, fact("b", 1), fact("b", 2), fact("b", 3))
	check(t, err)
	records := take(t, reads(t, f, From{Compacted: true}), 3)
	if records[0].Entry.GetObjectObserved().GetObject().GetName() != "b" {
		t.Errorf("begins with %v", records[0].Entry)
	}
	check(t, f.Compact(ctx, 1, all))
}

func TestOtherCluster(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx := within(t)
	open := func(uid string) error {
		j, err := Open(ctx, Options{Server: &embedded.Server{Directory: dir}, ClusterUID: uid})
		if err == nil {
			check(t, j.Close())
		}
		return err
	}
	check(t, open("")) // identity not known yet
	check(t, open("uid-1"))
	check(t, open("uid-1"))
	check(t, open(""))
	err := open("uid-2")
	wantError(t, err, ErrOtherCluster)
	for _, uid := range []string{"uid-1", "uid-2"} {
		if !strings.Contains(err.Error(), uid) {
			t.Errorf("%q does not name %s", err, uid)
		}
	}
	check(t, open("uid-1"))
}

func TestClustersShareAServer(t *testing.T) {
	t.Parallel()
	s := startTestServer(t, 0)
	ctx := within(t)
	for _, cluster := range []string{"local", "eu.1", "eu_1"} {
		j := mustOpen(t, Options{URL: s.url, Cluster: cluster, ClusterUID: "uid of " + cluster})
		if last, err := j.Append(ctx, fact("a", 1)); err != nil || last != 1 {
			t.Errorf("%s: %d, %v", cluster, last, err)
		}
		check(t, j.Compact(ctx, 1, all))
		take(t, reads(t, j, From{Compacted: true}), 1)
	}
}

func TestOneProcessPerDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := mustOpen(t, Options{Server: &embedded.Server{Directory: dir}})
	if _, err := Open(within(t), Options{Server: &embedded.Server{Directory: dir}}); err == nil || !strings.Contains(err.Error(), "another process") || !strings.Contains(err.Error(), dir) {
		t.Errorf("opened twice: %v", err)
	}
	second := exec.Command(os.Args[0])
	second.Env = append(os.Environ(), lockEnv+"="+dir)
	if out, err := second.CombinedOutput(); err != nil || !strings.Contains(string(out), "another process") {
		t.Errorf("opened by two processes: %s, %v", out, err)
	}
	check(t, j.Close())
	mustOpen(t, Options{Server: &embedded.Server{Directory: dir}})
}

func TestOptions(t *testing.T) {
	t.Parallel()
	ctx := within(t)
	for _, o := range []Options{{}, {URL: "nats://x", Server: &embedded.Server{Directory: "y"}}, {Server: &embedded.Server{Directory: "x"}, Durability: "some"}, {Server: &embedded.Server{Directory: "x"}, Replicas: 3}, {Server: &embedded.Server{Directory: "x"}, Retention: -1},
		{Server: &embedded.Server{Directory: t.TempDir(), Listen: "nonsense"}}} {
		if j, err := Open(ctx, o); err == nil {
			j.Close()
			t.Errorf("%+v was taken", o)
		}
	}
	dir := t.TempDir()
	j := mustOpen(t, Options{Server: &embedded.Server{Directory: dir}})
	j.Close()
	j = mustOpen(t, Options{Server: &embedded.Server{Directory: dir}, Durability: Strict, Retention: time.Hour, MaxBytes: 1 << 30})
	config := j.(*logStream).stream.CachedInfo().Config
	if config.MaxAge != time.Hour || config.MaxBytes != 1<<30 || config.Compression != jetstream.S2Compression || !config.DenyDelete {
		t.Errorf("stream %+v", config)
	}
	_, err := j.Append(ctx, fact("a", 1))
	check(t, err)
	began := time.Now()
	if _, err := Open(ctx, Options{URL: "nats://127.0.0.1:1", Patience: time.Second}); err == nil || time.Since(began) > 5*time.Second {
		t.Errorf("no server: %v after %s", err, time.Since(began))
	} else {
		wantError(t, err, ErrUnavailable)
	}
}

func TestRetention(t *testing.T) {
	t.Parallel()
	j := mustOpen(t, Options{Server: &embedded.Server{Directory: t.TempDir()}, Retention: 500 * time.Millisecond})
	ctx := within(t)
	_, err := j.Append(ctx, fact("a", 1))
	check(t, err)
	testbed.Eventually(t, time.Minute, func() error {
		state, err := j.State(ctx)
		check(t, err)
		if state.FirstSequence != 2 {
			return fmt.Errorf("the first entry is %d", state.FirstSequence)
		}
		return nil
	})
	_, err = reads(t, j, From{Sequence: 1}).Next(func() context.Context { go j.Append(ctx, fact("a", 2)); return ctx }())
	wantError(t, err, ErrGap)
}

// TestServerComesBack: an external server is stopped and started again under readers, takers and writers.
func TestServerComesBack(t *testing.T) {
	t.Parallel()
	s := startTestServer(t, 0)
	ctx := within(t)
	j := mustOpen(t, Options{URL: s.url, Patience: 45 * time.Second, Log: testLog(t)})
	r := reads(t, j, From{})
	w := works(t, j, "executor")
	fence, err := j.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	_, err = j.AppendCommands(ctx, fence, write("a"))
	check(t, err)
	take(t, r, 2)
	held := next(t, w)
	const n = 400
	appended := make(chan error, 1)
	half := make(chan struct{})
	go func() {
		for i := range n {
			if i == n/4 {
				close(half)
			}
			if _, err := j.Append(ctx, fact("a", i), fact("b", i)); err != nil {
				appended <- err
				return
			}
		}
		appended <- nil
	}()
	<-half
	s.Stop()
	fenced := make(chan error, 1)
	go func() { _, err := j.AppendCommands(ctx, fence, write("b"), write("c")); fenced <- err }()
	s.start(t)
	check(t, <-appended)
	if err := <-fenced; err != nil {
		// It went out on the dying connection: whether it is stored is unknown, and the planner does what it always does then.
		wantError(t, err, ErrUnavailable)
		fence, err = j.RaiseFence(ctx, "planner", "v1", nil)
		check(t, err)
		known := reads(t, j, From{Sequence: 3})
		var stored bool
		until(t, known, func(r Record) bool {
			stored = stored || r.Entry.GetCommand() != nil
			return r.Sequence == fence
		})
		if !stored {
			_, err = j.AppendCommands(ctx, fence, write("b"), write("c"))
			check(t, err)
		}
	}
	check(t, held.Done(ctx))
	state, err := j.State(ctx)
	check(t, err)
	records := take(t, r, int(state.LastSequence)-2)
	var a, b int
	for i, record := range records {
		if record.Sequence != uint64(i+3) {
			t.Fatalf("position %d came where %d was due", record.Sequence, i+3)
		}
		switch o := record.Entry.GetObjectObserved(); o.GetObject().GetName() {
		case "a":
			if o.GetResourceVersion() != fmt.Sprint(a) {
				t.Fatalf("version %s of a, want %d", o.GetResourceVersion(), a)
			}
			a++
		case "b":
			b++
		}
	}
	if a != n || b != n {
		t.Errorf("%d and %d facts, want %d", a, b, n)
	}
	for _, name := range []string{"b", "c"} {
		task := next(t, w)
		for task.Sequence == held.Sequence { // the server may have lost the last acknowledgement before it was stopped
			check(t, task.Done(ctx))
			task = next(t, w)
		}
		if got := task.Entry.GetCommand().GetObject().GetName(); got != name {
			t.Errorf("command for %s came, want %s", got, name)
		}
	}
}

// TestSlowReader: a taker that does not take bounds what is held for it, and misses nothing.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	f := startEmbedded(t, limits{})
	r := reads(t, f, From{}).(*reader)
	const n, size = 60, 1 << 20
	for i := range n {
		_, err := f.Append(within(t), factOf("a", i, size))
		check(t, err)
	}
	testbed.Eventually(t, time.Minute, func() error {
		r.queue.mu.Lock()
		bytes := r.queue.bytes
		r.queue.mu.Unlock()
		if bytes > aheadBytes+2*size {
			t.Fatalf("%d bytes are held", bytes)
		}
		if bytes < aheadBytes {
			return fmt.Errorf("%d bytes are held", bytes)
		}
		return nil
	})
	take(t, r, n)
}

// TestDamage: a bit of one message falls over on the disk while nobody looks. Reading ends before it and names it.
func TestDamage(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	o := Options{Server: &embedded.Server{Directory: directory}, Log: testLog(t)}
	j := mustOpen(t, o)
	for i := range 20 {
		_, err := j.Append(t.Context(), fact(fmt.Sprint("pod-", i+1), i+1))
		check(t, err)
	}
	check(t, j.Close())
	blocks, err := filepath.Glob(filepath.Join(directory, "jetstream/$G/streams/SHIPLOG/msgs/*.blk"))
	check(t, err)
	data, err := os.ReadFile(blocks[0])
	check(t, err)
	at := bytes.LastIndex(data, []byte("uid-pod-13"))
	data[at+1] ^= 1 // from uid-pod-13 to uhd-pod-13, which decodes
	check(t, os.WriteFile(blocks[0], data, 0o600))

	r, err := mustOpen(t, o).Read(t.Context(), From{Sequence: 1})
	check(t, err)
	defer r.Close()
	for read := uint64(0); ; {
		records, err := r.Next(within(t))
		if errors.Is(err, ErrUndecodable) && strings.Contains(err.Error(), "sequence 13") && read == 12 {
			return
		}
		if err != nil {
			t.Fatalf("after %d: %v", read, err)
		}
		if read = records[len(records)-1].Sequence; read > 12 {
			t.Fatalf("it reads on to %d: %v", read, records[12].Entry)
		}
	}
}

// TestNoteGoesAhead: a note that was there when a reader asked which were gone, and that goes before the reader comes to it, is no damage.
func TestNoteGoesAhead(t *testing.T) {
	t.Parallel()
	j := mustOpen(t, Options{Server: &embedded.Server{Directory: t.TempDir()}, Log: testLog(t)})
	ctx := within(t)
	fence, err := j.RaiseFence(ctx, "planner", "v1", nil)
	check(t, err)
	later := time.Now().Add(time.Hour)
	for range 2 {
		_, err = j.AppendCommands(ctx, fence, wish("early", later))
		check(t, err)
	}
	const ahead = aheadRecords + 2*pullMessages
	for version := 0; version < ahead; version += maxTaken {
		var facts []*shiplogv1.Entry
		for i := range maxTaken {
			facts = append(facts, fact("a", version+i))
		}
		_, err = j.Append(ctx, facts...)
		check(t, err)
	}
	_, err = j.AppendCommands(ctx, fence, wish("late", later))
	check(t, err)
	r := reads(t, j, From{Sequence: fence})
	readTo := func(position uint64) {
		for at := uint64(0); at < position; {
			records, err := r.Next(ctx)
			check(t, err)
			at = records[len(records)-1].Sequence
		}
	}
	readTo(fence + 5) // past the early note that is gone
	last, err := j.AppendCommands(ctx, fence, wish("late", later))
	check(t, err)
	_, err = j.Append(ctx, fact("a", ahead))
	check(t, err)
	readTo(last + 1)
}

// TestStartIsQuiet: a server that starts as it should warns of nothing.
func TestStartIsQuiet(t *testing.T) {
	t.Parallel()
	var said bytes.Buffer
	j := mustOpen(t, Options{Server: &embedded.Server{Directory: t.TempDir(), Listen: "127.0.0.1:0"}, Log: zerolog.New(&said).Level(zerolog.InfoLevel)})
	check(t, j.Close())
	if said.Len() > 0 {
		t.Errorf("it says %s", said.String())
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	j := mustOpen(t, Options{Server: &embedded.Server{Directory: t.TempDir(), Listen: "127.0.0.1:0"}})
	if _, err := Open(t.Context(), Options{URL: anonymous(j.(*logStream).server.Address()), Patience: time.Second}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a client without the token is told %v", err)
	}
	state, err := j.State(t.Context())
	check(t, err)
	other := mustOpen(t, Options{URL: state.URL, AsIs: true})
	var wg sync.WaitGroup
	for _, x := range []Journal{j, other} {
		wg.Go(func() {
			if _, err := x.Append(context.Background(), &shiplogv1.Entry{Kind: vouch().Kind}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	take(t, reads(t, other, From{}), 2)
}

// TestPasswordsStayOut: an address that does not answer is named without its password.
func TestPasswordsStayOut(t *testing.T) {
	t.Parallel()
	const address = "nats://somebody:sesame@127.0.0.1:1,nats://somebody:sesame@127.0.0.1:2"
	said := &lines{}
	_, err := Open(t.Context(), Options{URL: address, Log: zerolog.New(said)})
	wantError(t, err, ErrUnavailable)
	if text := err.Error() + said.String(); strings.Contains(text, "sesame") || !strings.Contains(text, "127.0.0.1:1") {
		t.Errorf("it says %s", text)
	}
}

// TestOlderLog: a log that was made before nodes had a place in it takes their facts once it is opened to be kept.
func TestOlderLog(t *testing.T) {
	t.Parallel()
	f := startExternal(t, limits{})
	l := f.Journal.(*logStream)
	config := l.stream.CachedInfo().Config
	config.Subjects = slices.DeleteFunc(slices.Clone(config.Subjects), func(s string) bool {
		return strings.HasPrefix(s, l.subject(spaceNode+".")) || s == l.subject(spaceEvent+".>")
	})
	_, err := l.js.UpdateStream(within(t), config)
	check(t, err)
	_, err = f.Append(within(t), nodeFact("n", "a"))
	wantError(t, err, ErrUnavailable)
	f.reopen(t)
	_, err = f.Append(within(t), nodeFact("n", "a"))
	check(t, err)
	check(t, f.AppendEvents(within(t), 0, rolloutEvent("web", 1, 0)))
}
