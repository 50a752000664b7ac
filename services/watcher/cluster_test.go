package watcher

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"shiplog.dev/deploy/crd/apitest"
	"shiplog.dev/internal/journal"
)

// quick is the standard pace, sped up.
var quick = pace{
	idle: 200 * time.Millisecond, busy: 100 * time.Millisecond, stalest: 2 * time.Second, costs: 1,
	many: 1, compare: 500 * time.Millisecond, pass: 50 * time.Millisecond,
	proof: 2 * time.Second, vouch: 150 * time.Millisecond, fresh: 3 * time.Second,
}

// scene is a watcher between a real API server, behind a proxy, and a log.
type scene struct {
	*testing.T
	proxy     *proxy
	config    *rest.Config
	log       journal.Journal
	namespace string
	pods      typedcorev1.PodInterface
	pace      pace

	mu      sync.Mutex
	records []journal.Record
	changed chan struct{}
}

func newScene(t *testing.T) *scene {
	t.Helper()
	direct := apitest.Config(t)
	namespace := apitest.Namespace(t, direct)
	proxy := newProxy(t, direct)
	memory := journal.NewMemory(time.Now)
	t.Cleanup(func() { _ = memory.Close() })
	s := &scene{T: t, proxy: proxy, pace: quick, config: &rest.Config{Host: proxy.url}, log: memory, namespace: namespace, changed: make(chan struct{}),
		pods: kubernetes.NewForConfigOrDie(direct).CoreV1().Pods(namespace)}
	reader, err := memory.Read(t.Context(), journal.From{Sequence: 1})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer reader.Close()
		for {
			records, err := reader.Next(t.Context())
			if err != nil {
				return
			}
			s.mu.Lock()
			s.records = append(s.records, records...)
			close(s.changed)
			s.changed = make(chan struct{})
			s.mu.Unlock()
		}
	}()
	return s
}

// watch runs a watcher until the test or the returned function ends it.
func (s *scene) watch(writer string) (stop func()) {
	ctx, cancel := context.WithCancel(s.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		options := Options{Config: s.config, Journal: s.log, Writer: writer, Logger: zerolog.New(zerolog.NewTestWriter(s.T))}
		if err := run(ctx, options, s.pace); err != nil {
			s.Errorf("%s ended: %v", writer, err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-ended })
	s.Cleanup(stop)
	return stop
}

// await waits until the log so far satisfies is, and returns it.
func (s *scene) await(what string, is func([]journal.Record) bool) []journal.Record {
	s.Helper()
	deadline := time.After(20 * time.Second)
	for {
		s.mu.Lock()
		records, changed := s.records, s.changed
		s.mu.Unlock()
		if is(records) {
			return records
		}
		select {
		case <-changed:
		case <-deadline:
			s.Fatalf("waited in vain for %s; the log has %d entries and about ours:\n%s", what, len(records), strings.Join(s.facts(records), "\n"))
		}
	}
}

// facts are those about the test's Pods, as "name", "name changed ending", "-name", in order.
func (s *scene) facts(records []journal.Record) []string {
	var all []string
	for _, r := range records {
		if o := r.Entry.GetObjectObserved(); o.GetObject().GetNamespace() == s.namespace && o.GetObject().GetResource() == "pods" {
			label := ""
			if strings.Contains(string(o.GetJson()), `"changed":"yes"`) {
				label = " changed"
			}
			if strings.Contains(string(o.GetJson()), `"deletionTimestamp"`) {
				label += " ending"
			}
			all = append(all, r.Entry.GetWriter()+": "+o.GetObject().GetName()+label)
		}
		if o := r.Entry.GetObjectDeleted(); o.GetObject().GetNamespace() == s.namespace && o.GetObject().GetResource() == "pods" {
			all = append(all, r.Entry.GetWriter()+": -"+o.GetObject().GetName())
		}
	}
	return all
}

func (s *scene) awaitFacts(want ...string) {
	s.Helper()
	s.await(strings.Join(want, ", "), func(r []journal.Record) bool {
		return strings.Join(s.facts(r), ", ") == strings.Join(want, ", ")
	})
}

// awaitProof waits for a vouch whose proof began after then.
func (s *scene) awaitProof(then time.Time) []journal.Record {
	s.Helper()
	return s.await("a vouch", func(records []journal.Record) bool { return proven(records).After(then) })
}

// proven is when the newest proof that the log tells of began.
func proven(records []journal.Record) time.Time {
	var newest time.Time
	for _, r := range records {
		if v := r.Entry.GetVouched(); v != nil {
			if at := r.Time.Add(-v.GetAge().AsDuration()); at.After(newest) {
				newest = at
			}
		}
	}
	return newest
}

func (s *scene) create(name string) {
	s.Helper()
	_, err := s.pods.Create(s.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		// Of a scheduler that does not exist, so that nothing else touches it.
		Spec: corev1.PodSpec{SchedulerName: "absent", Containers: []corev1.Container{{Name: "main", Image: "nginx:1"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
}

func (s *scene) change(name string) {
	s.Helper()
	_, err := s.pods.Patch(s.Context(), name, types.MergePatchType, []byte(`{"metadata":{"labels":{"changed":"yes"}}}`), metav1.PatchOptions{})
	if err != nil {
		s.Fatal(err)
	}
}

func (s *scene) remove(name string) {
	s.Helper()
	if err := s.pods.Delete(s.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		s.Fatal(err)
	}
}

func TestFactsInOrderAndVouched(t *testing.T) {
	s := newScene(t)
	s.create("before")
	s.watch("w")
	records := s.awaitProof(time.Time{})
	for _, r := range records {
		if v := r.Entry.GetVouched(); v != nil {
			if len(v.GetComplete()) != len(kinds) {
				t.Errorf("the first vouch covers %d kinds, want %d", len(v.GetComplete()), len(kinds))
			}
			if got := s.facts(records[:r.Sequence]); len(got) != 1 {
				t.Errorf("before the first vouch there are the facts %v", got)
			}
			break
		}
	}
	s.create("a")
	s.change("a")
	s.remove("a")
	s.awaitFacts("w: before", "w: a", "w: a changed", "w: a changed ending", "w: -a")
	s.awaitProof(time.Now().Add(-quick.idle)) // the log moved, so it is vouched again
	for _, r := range s.await("everything", func([]journal.Record) bool { return true }) {
		if o := r.Entry.GetObjectObserved(); o != nil && strings.Contains(string(o.GetJson()), "managedFields") {
			t.Fatalf("managedFields are in the log: %s", o.GetJson())
		}
		if o := r.Entry.GetObjectObserved(); o != nil && !strings.Contains(string(o.GetJson()), `"kind":"`) {
			t.Fatalf("the kind is not in the log: %s", o.GetJson())
		}
	}
}

// While much happens to many objects, proofs do not make the API server list them.
func TestGlances(t *testing.T) {
	s := newScene(t)
	s.pace.compare = time.Hour
	s.create("a")
	s.create("b")
	s.watch("w")
	s.awaitProof(time.Time{})
	s.change("a")
	s.awaitProof(time.Now()) // by then the one comparison of this watch has been
	before := s.proxy.podLists()
	for i := range 5 {
		began := time.Now()
		moving, stop := context.WithCancel(t.Context())
		moved := make(chan struct{})
		go func() {
			defer close(moved)
			for n := 0; moving.Err() == nil; n++ {
				patch := fmt.Sprintf(`{"metadata":{"labels":{"n":"%d-%d"}}}`, i, n)
				_, _ = s.pods.Patch(moving, "b", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			}
		}()
		s.awaitProof(began)
		stop()
		<-moved
	}
	if lists := s.proxy.podLists() - before; lists > 0 {
		t.Errorf("all Pods were listed %d times", lists)
	}
}

// The reason why vouches exist: a watch that lives but shows nothing.
func TestNoVouchWhileTheWatchIsHeld(t *testing.T) {
	s := newScene(t)
	s.watch("w")
	s.awaitProof(time.Time{})
	s.proxy.hold()
	s.create("a")
	created := time.Now()
	// The log moves, so a watcher that could vouch would. It outlasts two bounds of a proof, so that the watch is dropped.
	services := kubernetes.NewForConfigOrDie(apitest.Config(t)).CoreV1().Services(s.namespace)
	for i := 0; time.Since(created) < 2*quick.proof+quick.fresh; i++ {
		name := fmt.Sprintf("moves-%d", i)
		_, err := services.Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.ServiceSpec{ClusterIP: "None"}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		records := s.await("the fact of "+name, func(records []journal.Record) bool {
			for _, r := range records {
				if r.Entry.GetObjectObserved().GetObject().GetName() == name {
					return true
				}
			}
			return false
		})
		if at := proven(records); at.After(created) {
			t.Fatalf("vouched for a moment %v after a Pod was created that the log does not have", at.Sub(created))
		}
		if len(s.facts(records)) > 0 {
			t.Fatalf("the proxy did not hold: %v", s.facts(records))
		}
		if sleep(t.Context(), 50*time.Millisecond) != nil { // the rate at which the log moves
			return
		}
	}
	if s.proxy.watches("/api/v1/pods") < 2 {
		t.Error("the held watch was not dropped")
	}
	s.proxy.release()
	records := s.awaitProof(created)
	if got := s.facts(records); len(got) != 1 {
		t.Errorf("vouched with the facts %v", got)
	}
}

// A deletion that no watch ever shows, because the position is too old when the watch comes back.
func TestTooOldResourceVersion(t *testing.T) {
	s := newScene(t)
	s.create("a")
	s.create("b")
	s.watch("w")
	s.awaitProof(time.Time{})
	s.proxy.refuse(true)
	s.remove("a")
	s.create("a") // another object by the same name
	s.remove("b")
	s.create("c")
	s.proxy.awaitRefused(t)
	s.proxy.refuse(false)
	s.await("the difference", func(r []journal.Record) bool {
		got := strings.Join(s.facts(r), ", ")
		return strings.Contains(got, "w: -a, w: a") && strings.Contains(got, "w: -b") && strings.Contains(got, "w: c")
	})
	s.await("a vouch for it", func(r []journal.Record) bool { return r[len(r)-1].Entry.GetVouched() != nil })
}

func TestRestartPublishesTheDifference(t *testing.T) {
	s := newScene(t)
	s.create("same")
	s.create("goes")
	s.create("changes")
	stop := s.watch("first")
	records := s.awaitProof(time.Time{})
	stop()
	// The second watcher learns from a compacted view and what follows it.
	if err := s.log.Compact(t.Context(), records[len(records)-1].Sequence, func(uint64) bool { return true }); err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	s.remove("goes")
	s.change("changes")
	s.create("comes")
	s.watch("second")
	records = s.awaitProof(before)
	var second []string
	for _, f := range s.facts(records) {
		if strings.HasPrefix(f, "second") {
			second = append(second, f)
		}
	}
	all := strings.Join(second, ", ")
	if len(second) != 3 || !strings.Contains(all, "changes changed") || !strings.Contains(all, "comes") || !strings.Contains(all, "-goes") {
		t.Errorf("the second watcher published %s", all)
	}
}

func TestTwoWatchersAtOnce(t *testing.T) {
	s := newScene(t)
	s.create("a")
	s.watch("first")
	s.watch("second")
	s.await("both to vouch", func(records []journal.Record) bool {
		vouched := map[string]bool{}
		for _, r := range records {
			if r.Entry.GetVouched() != nil {
				vouched[r.Entry.GetWriter()] = true
			}
		}
		return len(vouched) == 2
	})
	s.change("a")
	s.remove("a")
	s.create("z") // what either of them says twice about a, it has said before z
	records := s.await("z", func(r []journal.Record) bool { return strings.Contains(strings.Join(s.facts(r), ", "), ": z") })
	got := make([]string, 0, 3)
	for _, f := range s.facts(records) {
		got = append(got, f[strings.Index(f, ": ")+2:])
	}
	if strings.Join(got, ", ") != "a, a changed, a changed ending, -a, z" {
		t.Errorf("together they published %v", got)
	}
}

func TestIdleLogStaysIdle(t *testing.T) {
	s := newScene(t)
	s.watch("w")
	s.awaitProof(time.Time{})
	// Namespaces of other tests may still be going. Within a minute there must be a window without a single entry.
	for range 20 {
		s.mu.Lock()
		length, lists := len(s.records), s.proxy.lists()
		s.mu.Unlock()
		if sleep(t.Context(), 15*quick.idle) != nil {
			return
		}
		s.mu.Lock()
		more := s.records[length:]
		s.mu.Unlock()
		if got := s.proxy.lists() - lists; got < 3*len(kinds) {
			t.Errorf("only %d proofs' lists in a window", got)
		}
		if len(more) == 0 {
			return
		}
		t.Logf("not idle yet: %d entries, the last by %s about %s", len(more), more[len(more)-1].Entry.GetWriter(), more[len(more)-1].Subject)
	}
	t.Error("the log never came to rest")
}

// proxy stands between the watcher and the API server.
type proxy struct {
	url string

	mu      sync.Mutex
	open    chan struct{} // closed while watches of Pods may flow
	refused chan struct{} // closed once a watch was refused
	refuses bool
	count   map[string]int
	listed  int
	// listedPods are those of all Pods, in full.
	listedPods int
	cancel     map[int]context.CancelFunc // of the watches of Pods
	next       int
}

func newProxy(t *testing.T, config *rest.Config) *proxy {
	t.Helper()
	target, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{open: make(chan struct{}), refused: make(chan struct{}), count: map[string]int{}, cancel: map[int]context.CancelFunc{}}
	close(p.open)
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.Transport = transport
	forward.FlushInterval = -1
	forward.ErrorLog = log.New(io.Discard, "", 0) // connections are cut on purpose
	forward.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) { w.WriteHeader(http.StatusBadGateway) }
	forward.ModifyResponse = func(r *http.Response) error {
		if watchesPods(r.Request) {
			r.Body = &held{ReadCloser: r.Body, proxy: p, ended: r.Request.Context().Done()}
		}
		return nil
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		if r.URL.Query().Get("watch") == "" {
			p.listed++
			if r.URL.Path == "/api/v1/pods" && r.URL.Query().Get("limit") != "1" {
				p.listedPods++
			}
		} else {
			p.count[r.URL.Path]++
		}
		if watchesPods(r) {
			if p.refuses {
				select {
				case <-p.refused:
				default:
					close(p.refused)
				}
				p.mu.Unlock()
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusGone)
				_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410,"message":"too old resource version"}`)
				return
			}
			ctx, cancel := context.WithCancel(r.Context())
			id := p.next
			p.next++
			p.cancel[id] = cancel
			defer func() { p.mu.Lock(); delete(p.cancel, id); p.mu.Unlock(); cancel() }()
			r = r.WithContext(ctx)
		}
		p.mu.Unlock()
		defer func() { _ = recover() }() // a cut connection ends in http.ErrAbortHandler
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	p.url = server.URL
	return p
}

func watchesPods(r *http.Request) bool {
	return r.URL.Path == "/api/v1/pods" && r.URL.Query().Get("watch") != ""
}

// hold keeps back what watches of Pods would show from now on; the connections live.
func (p *proxy) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = make(chan struct{})
}

func (p *proxy) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.open)
}

// refuse ends the watches of Pods and answers new ones that their position is too old.
func (p *proxy) refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuses = on
	for _, cancel := range p.cancel {
		cancel()
	}
}

func (p *proxy) awaitRefused(t *testing.T) {
	select {
	case <-p.refused:
	case <-time.After(10 * time.Second):
		t.Fatal("no watch was refused")
	}
}

func (p *proxy) watches(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count[path]
}

func (p *proxy) lists() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.listed
}

// podLists counts the lists of all Pods.
func (p *proxy) podLists() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.listedPods
}

// held passes bytes on only while the proxy is open.
type held struct {
	io.ReadCloser
	proxy *proxy
	ended <-chan struct{}
}

func (h *held) Read(b []byte) (int, error) {
	n, err := h.ReadCloser.Read(b)
	h.proxy.mu.Lock()
	open := h.proxy.open
	h.proxy.mu.Unlock()
	select {
	case <-open:
		return n, err
	case <-h.ended:
		return 0, io.ErrUnexpectedEOF
	}
}
