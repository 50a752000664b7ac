package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/rs/zerolog"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal/embedded"
)

// guarded is a log whose server asks who its clients are.
type guarded struct {
	Journal
	// url without name and password.
	url   string
	lines *lines
	// refused counts what Options.Refused was told.
	refused func() map[string]int
}

// tokens that the executor of these tests knows.
var tokens = map[string]Identity{"token-1": {Node: "n1"}, "token-2": {Node: "n2"}}

func whoHas(_ context.Context, p Proof) (Identity, error) {
	if identity, known := tokens[p.Token]; known {
		return identity, nil
	}
	return Identity{}, fmt.Errorf("%w: nobody has this token", ErrRefused)
}

type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (g *guarded) identify(t *testing.T, who func(context.Context, Proof) (Identity, error)) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := g.Identify(ctx, who); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
}

func counter() (func(string), func() map[string]int) {
	var mu sync.Mutex
	counts := map[string]int{}
	return func(what string) { mu.Lock(); counts[what]++; mu.Unlock() },
		func() map[string]int { mu.Lock(); defer mu.Unlock(); return maps.Clone(counts) }
}

func guardEmbedded(t *testing.T) *guarded { return guardEmbeddedWith(t, whoHas) }

func guardEmbeddedWith(t *testing.T, who func(context.Context, Proof) (Identity, error)) *guarded {
	g := &guarded{lines: &lines{}}
	var count func(string)
	count, g.refused = counter()
	g.Journal = mustOpen(t, Options{Server: &embedded.Server{Directory: t.TempDir(), Listen: "127.0.0.1:0"}, Log: zerolog.New(g.lines), Refused: count})
	state, err := g.State(t.Context())
	check(t, err)
	g.url = anonymous(state.URL)
	g.identify(t, who)
	return g
}

// guardExternal starts a server with the configuration that is documented, and opens the log on it as its executor.
func guardExternal(t *testing.T) *guarded {
	g := &guarded{lines: &lines{}}
	issuer, err := nkeys.CreateAccount()
	check(t, err)
	public, err := issuer.PublicKey()
	check(t, err)
	seed, err := issuer.Seed()
	check(t, err)
	s := serve(t, public, g.lines)
	g.url = s.ClientURL()
	// The services that make the log come first: an executor may not.
	mustOpen(t, Options{URL: as(g.url, "planner"), Patience: testPatience})
	var count func(string)
	count, g.refused = counter()
	g.Journal = mustOpen(t, Options{URL: as(g.url, "executor"), Patience: testPatience, CalloutSeed: seed, Refused: count})
	g.identify(t, whoHas)
	return g
}

// as returns the address for a user of the documented configuration.
func as(address, user string) string {
	return strings.Replace(address, "://", "://"+user+":"+user+"-password@", 1)
}

// serve starts a server with the documented configuration, whose variables it sets.
func serve(t *testing.T, issuer string, log *lines) *server.Server {
	text, err := os.ReadFile("../../deploy/nats/nats.conf")
	check(t, err)
	config := string(text)
	for name, value := range map[string]string{"CALLOUT_ISSUER": issuer, "WATCHER_PASSWORD": "watcher-password", "PLANNER_PASSWORD": "planner-password",
		"EXECUTOR_PASSWORD": "executor-password", "DASHBOARD_PASSWORD": "dashboard-password", "STORE": filepath.Join(t.TempDir(), "js")} {
		config = strings.ReplaceAll(config, "$"+name, value)
	}
	path := filepath.Join(t.TempDir(), "nats.conf")
	check(t, os.WriteFile(path, []byte(config), 0o600))
	o, err := server.ProcessConfigFile(path)
	check(t, err)
	o.Host, o.Port, o.NoSigs = "127.0.0.1", server.RANDOM_PORT, true
	s, err := server.NewServer(o)
	check(t, err)
	s.SetLoggerV2(embedded.Log{Logger: zerolog.New(log)}, false, false, false)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(openWait) {
		t.Fatal("the server is not ready")
	}
	return s
}

func guards(t *testing.T, test func(*testing.T, *guarded)) {
	for name, start := range map[string]func(*testing.T) *guarded{"embedded": guardEmbedded, "external": guardExternal} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := start(t)
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("the server said:\n%s", g.lines)
				}
			})
			test(t, g)
		})
	}
}

func openNode(t *testing.T, g *guarded, node string, credential Credential) Node {
	t.Helper()
	n, err := OpenNode(t.Context(), Options{URL: g.url, Patience: testPatience}, node, credential)
	check(t, err)
	t.Cleanup(func() { n.Close() })
	return n
}

func tokenFile(t *testing.T, token string) Credential {
	path := filepath.Join(t.TempDir(), "token")
	check(t, os.WriteFile(path, []byte(token+"\n"), 0o600))
	return Credential{TokenFile: path}
}

// alive waits until an intake answers the agent.
func alive(t *testing.T, n Node) {
	t.Helper()
	testbed.Eventually(t, time.Minute, func() error {
		_, err := n.Alive(t.Context())
		return err
	})
}

// TestAgentsProveWhoTheyAre: with a token, or a key, an agent does all of its work; without, or with another's, nothing.
func TestAgentsProveWhoTheyAre(t *testing.T) {
	t.Parallel()
	guards(t, func(t *testing.T, g *guarded) {
		hears(t, g.Journal, Intake{})
		joined, err := g.Join(t.Context(), "n3")
		check(t, err)
		defer joined.Close()
		proven := tokenFile(t, "token-1")
		for name, n := range map[string]Node{"n1": openNode(t, g, "n1", proven), "n3": joined} {
			alive(t, n)
			work, err := n.Commands(within(t))
			check(t, err)
			sequence := appendCommand(t, g, pull(name, "nginx:1"))
			task, err := work.Next(within(t))
			check(t, err)
			if task.Sequence != sequence {
				t.Errorf("given entry %d, want %d", task.Sequence, sequence)
			}
			time.Sleep(ackWait + time.Second) // held for longer than a command waits for a word of its holder
			check(t, task.Done(within(t)))
			work.Close()
			again, err := n.Commands(within(t))
			check(t, err)
			short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			if task, err := again.Next(short); err == nil {
				t.Errorf("entry %d comes again", task.Sequence)
			}
			cancel()
			again.Close()
		}
		before := g.refused()["connect"]
		seed := func() []byte {
			key, err := nkeys.CreateUser()
			check(t, err)
			seed, err := key.Seed()
			check(t, err)
			return seed
		}
		for what, credential := range map[string]Credential{"no proof": {}, "a wrong token": tokenFile(t, "token-9"), "a key nobody knows": {Seed: seed()}} {
			n := openNode(t, g, "n1", credential)
			if _, err := n.Alive(t.Context()); !errors.Is(err, ErrUnavailable) {
				t.Errorf("%s: %v", what, err)
			}
			n.Close()
		}
		if now := g.refused()["connect"]; now < before+3 {
			t.Errorf("%d refusals were counted", now-before)
		}
		if said := g.lines.String(); !strings.Contains(said, "nobody has this token") || strings.Contains(said, "token-9") {
			t.Errorf("the server said:\n%s", said)
		}
	})
}

func appendCommand(t *testing.T, g *guarded, command *shiplogv1.Entry) uint64 {
	t.Helper()
	log := g.Journal
	if !strings.Contains(g.Journal.(*logStream).options.URL, "executor") {
		sequence, err := log.AppendCommands(t.Context(), 0, command)
		check(t, err)
		return sequence
	}
	planner := mustOpen(t, Options{URL: as(g.url, "planner"), Patience: testPatience})
	defer planner.Close()
	sequence, err := planner.AppendCommands(t.Context(), 0, command)
	check(t, err)
	return sequence
}

// TestAThiefGetsNothing: whoever holds the identity of one node's agent tries everything that it has no business with.
func TestAThiefGetsNothing(t *testing.T) {
	t.Parallel()
	guards(t, func(t *testing.T, g *guarded) {
		var foreign atomic.Int64
		hears(t, g.Journal, Intake{
			Heard: func(node string) {
				if node != "n1" {
					foreign.Add(1)
				}
			},
			Word: func(_ context.Context, node string, _ *shiplogv1.Entry) (Said, error) {
				if node != "n1" {
					foreign.Add(1)
				}
				return Said{}, ErrRefused
			},
			Alive: func(ctx context.Context, node string) (uint64, error) { return 0, g.Admit(ctx, node) },
		})
		check(t, g.Admit(t.Context(), "n2"))
		own := openNode(t, g, "n1", tokenFile(t, "token-1"))
		alive(t, own)
		secret := appendCommand(t, g, pull("n2", "secret:1"))
		appendCommand(t, g, pull("n1", "own:1"))

		var mu sync.Mutex
		violations := map[string]bool{}
		inbox := agentInbox("local", "n1")
		thief, err := nats.Connect(g.url, nats.Token("token-1"), nats.CustomInboxPrefix(inbox), nats.ErrorHandler(
			func(_ *nats.Conn, _ *nats.Subscription, err error) {
				mu.Lock()
				violations[err.Error()] = true
				mu.Unlock()
			}))
		check(t, err)
		defer thief.Close()
		before := end(t, g)

		attempts := 0
		refusedPublish := func(subject string, header nats.Header, reply string) {
			t.Helper()
			attempts++
			msg := &nats.Msg{Subject: subject, Header: header, Reply: reply, Data: []byte("{}")}
			check(t, thief.PublishMsg(msg))
			check(t, thief.Flush())
			waitFor(t, subject, func() bool {
				mu.Lock()
				defer mu.Unlock()
				for text := range violations {
					if strings.Contains(text, "Permissions Violation for Publish") && strings.Contains(text, `"`+subject+`"`) {
						return true
					}
				}
				return false
			})
		}
		// Entries of every kind, also with headers by which the log would do something else than store them.
		for _, subject := range []string{"fact.apps.pods.d.x", "cmd.0.core.pods.d.x", "out.core.pods.d.x", "node.n1.cmd.pull.x", "node.n1.fact.runtime",
			"node.n1.out.call.1", "node.n2.cmd.pull.x", "node.n2.say.word", "node.n2.say.alive", "node.n2.ask.credentials", "node.n1.say.other", "tick.x", "wish.x.y.z",
			"wake.x", "fence.planner", "seal.planner", "vouch", "event.CloneSet.d.x.t"} {
			refusedPublish("shiplog.local."+subject, nil, "")
		}
		for _, header := range []nats.Header{
			{"Nats-Schedule": {"@at 2020-01-01T00:00:00Z"}, "Nats-Schedule-Target": {"shiplog.local.cmd.0.core.pods.d.y"}},
			{"Nats-Msg-Id": {"uid/1"}}, {"Nats-Batch-Id": {"b"}, "Nats-Batch-Sequence": {"1"}, "Nats-Batch-Commit": {"1"}},
		} {
			refusedPublish("shiplog.local.node.n1.fact.headers", header, "")
		}
		// The JetStream API: reading, consumers, views, and management.
		for _, api := range []string{
			"STREAM.MSG.GET.SHIPLOG", "DIRECT.GET.SHIPLOG", "DIRECT.GET.SHIPLOG.shiplog.local.node.n2.cmd.pull.x", "STREAM.INFO.SHIPLOG", "STREAM.NAMES", "STREAM.LIST",
			"STREAM.UPDATE.SHIPLOG", "STREAM.DELETE.SHIPLOG", "STREAM.PURGE.SHIPLOG", "STREAM.MSG.DELETE.SHIPLOG", "STREAM.SNAPSHOT.SHIPLOG", "STREAM.CREATE.MINE",
			"CONSUMER.CREATE.SHIPLOG.mine", "CONSUMER.CREATE.SHIPLOG.mine.shiplog.>", "CONSUMER.DURABLE.CREATE.SHIPLOG.mine", "CONSUMER.CREATE.SHIPLOG.node-n1",
			"CONSUMER.DELETE.SHIPLOG.node-n2", "CONSUMER.PAUSE.SHIPLOG.node-n2", "CONSUMER.INFO.SHIPLOG.node-n2", "CONSUMER.MSG.NEXT.SHIPLOG.node-n2",
			"CONSUMER.MSG.NEXT.SHIPLOG.executor", "CONSUMER.NAMES.SHIPLOG", "CONSUMER.LIST.SHIPLOG", "STREAM.MSG.GET.OBJ_SHIPLOG_COMPACTED",
			"CONSUMER.CREATE.OBJ_SHIPLOG_COMPACTED.mine", "INFO",
		} {
			refusedPublish("$JS.API."+api, nil, inbox+".stolen")
			refusedPublish("shiplog.local.js."+api, nil, inbox+".stolen")
		}
		refusedPublish("$JS.ACK.SHIPLOG.node-n2.1.1.1.1.0", nil, "")
		refusedPublish("$O.SHIPLOG_COMPACTED.M.x", nil, "")
		refusedPublish("$SYS.REQ.USER.AUTH", nil, inbox+".stolen")
		refusedPublish(agentInbox("local", "n2")+".x", nil, "")

		for _, subject := range []string{">", "shiplog.>", "shiplog.local.node.n2.>", "shiplog.local.node.n1.>", "$JS.>", "$SYS.>", "$O.>", "_INBOX.>",
			agentInbox("local", "n2") + ".>", "$SYS.REQ.USER.AUTH", "_R_.>"} {
			attempts++
			_, err := thief.Subscribe(subject, func(m *nats.Msg) { t.Errorf("the thief hears %s", m.Subject) })
			check(t, err)
			check(t, thief.Flush())
			waitFor(t, "subscription to "+subject, func() bool {
				mu.Lock()
				defer mu.Unlock()
				for text := range violations {
					if strings.Contains(text, "Permissions Violation for Subscription") && strings.Contains(text, `"`+subject+`"`) {
						return true
					}
				}
				return false
			})
		}

		// What it may ask, answered elsewhere: into the log, or to another agent.
		for _, reply := range []string{"shiplog.local.cmd.0.core.pods.d.evil", "shiplog.local.node.n1.fact.evil", "shiplog.local.node.n2.say.word",
			"shiplog.local.node.n2.say.alive", "$JS.API.STREAM.DELETE.SHIPLOG"} {
			for _, subject := range []string{"shiplog.local.node.n1.say.alive", "shiplog.local.node.n1.ask.credentials",
				"shiplog.local.js.CONSUMER.INFO.SHIPLOG.node-n1", "shiplog.local.js.CONSUMER.MSG.NEXT.SHIPLOG.node-n1"} {
				check(t, thief.PublishRequest(subject, reply, []byte(`{"batch":1,"no_wait":true}`)))
			}
		}
		check(t, thief.Flush())
		_, err = own.Alive(within(t)) // what came before it has been handled
		check(t, err)
		time.Sleep(500 * time.Millisecond) // what another agent was sent may still be on its way; that nothing is shows only in time that passes

		if after := end(t, g); after != before {
			for sequence := before + 1; sequence <= after; sequence++ {
				record, err := g.At(t.Context(), sequence)
				t.Errorf("entry %d: %v (%v)", sequence, record, err)
			}
		}
		if n := foreign.Load(); n > 0 {
			t.Errorf("%d words or signs of life of another node were heard", n)
		}
		consumer, err := g.Journal.(*logStream).stream.Consumer(t.Context(), nodeConsumer("n2"))
		check(t, err)
		if info, err := consumer.Info(t.Context()); err != nil || info.NumPending != 1 || info.Delivered.Consumer != 0 {
			t.Errorf("command %d for node n2 was touched: %+v, %v", secret, info, err)
		}
		if server := strings.Count(g.lines.String(), "Violation"); server < attempts {
			t.Errorf("the server's log tells %d of %d attempts", server, attempts)
		}
		if counted := g.refused(); g.Journal.(*logStream).server != nil && counted["publish"]+counted["subscribe"] < attempts {
			t.Errorf("%v of %d attempts were counted", counted, attempts)
		}
	})
}

func waitFor(t *testing.T, what string, so func() bool) {
	t.Helper()
	testbed.Eventually(t, 30*time.Second, func() error {
		if !so() {
			return fmt.Errorf("%s: not refused", what)
		}
		return nil
	})
}

func end(t *testing.T, j Journal) uint64 {
	t.Helper()
	state, err := j.State(t.Context())
	check(t, err)
	return state.LastSequence
}

// TestIdentityEnds: an agent has to prove anew who it is when its time is over.
func TestIdentityEnds(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	g := guardEmbeddedWith(t, func(context.Context, Proof) (Identity, error) {
		asked.Add(1)
		return Identity{Node: "n1", Until: time.Now().Add(3 * time.Second)}, nil
	})
	hears(t, g.Journal, Intake{})
	n := openNode(t, g, "n1", tokenFile(t, "x"))
	alive(t, n)
	testbed.Eventually(t, time.Minute, func() error {
		if asked.Load() < 2 {
			return errors.New("it was not asked again")
		}
		return nil
	})
	alive(t, n)
}
