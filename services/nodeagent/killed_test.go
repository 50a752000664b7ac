package nodeagent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/rs/zerolog"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/journal/embedded"
	"shiplog.dev/services/executor/intake"
)

// TestKilled kills the agent, a process of its own, in the middle of calls: the next one neither repeats nor forgets any.
func TestKilled(t *testing.T) {
	if _, err := testbed.Program("shiplog"); err != nil && os.Getenv("CI") != "true" {
		t.Skip("bin/shiplog is not built (make build)")
	}
	for name, machine := range map[string]func(*testing.T) machine{
		"imagined":   func(t *testing.T) machine { return startFake(t, "v2.1.0") },
		"containerd": func(t *testing.T) machine { return startContainerd(t) },
	} {
		t.Run(name, func(t *testing.T) { killed(t, machine(t)) })
	}
}

func killed(t *testing.T, m machine) {
	log, err := journal.Open(t.Context(), journal.Options{Server: &embedded.Server{Directory: t.TempDir(), Listen: "127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	ctx, cancel := context.WithCancel(context.Background())
	var both sync.WaitGroup
	defer both.Wait()
	defer cancel()
	both.Go(func() {
		_ = intake.Run(ctx, intake.Options{Journal: log, Logger: zerolog.Nop(), Writer: "executor/test"})
	})
	both.Go(func() {
		_ = log.Identify(ctx, func(_ context.Context, proof journal.Proof) (journal.Identity, error) {
			if !nkeys.IsValidPublicUserKey(proof.Key) {
				return journal.Identity{}, journal.ErrRefused
			}
			return journal.Identity{Node: "node-1"}, nil
		})
	})
	state, err := log.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, address, _ := strings.Cut(state.URL, "@")
	key := filepath.Join(t.TempDir(), "key")
	var agent *testbed.Process
	begin := func() {
		t.Helper()
		agent, err = testbed.StartShiplog("nodeagent", "--node", "node-1", "--cri", m.endpoint(), "--nats-url", "nats://"+address, "--nkey", key)
		if err != nil {
			t.Fatal(err)
		}
	}
	begin()
	defer func() { agent.Kill() }()

	m.run(t, "killed")
	id := wantRunning(t, log, "killed").Id
	for i := range 3 {
		hook := command(t, log, execOf(id, 2*time.Minute, "sleep", "60"))
		pull := command(t, log, pullOf(fmt.Sprintf("slow:v%d", time.Now().UnixNano())))
		wantState(t, log, hook, shiplogv1.CallObserved_STATE_RUNNING)
		if f, is := m.(*fakeRuntime); is {
			wantExecs(t, f, i+1) // it is said to run before it does
		}
		agent.Kill()
		later := command(t, log, pullOf(fmt.Sprintf("later:v%d", time.Now().UnixNano()))) // while nobody is there
		begin()
		wantRefused(t, log, hook, "Interrupted", id)
		for _, one := range []uint64{pull, later} {
			if found := applied(t, log, one).GetPulledImage(); found.GetImageId() == "" {
				t.Errorf("life %d: pulled %v", i, found)
			}
		}
	}
	if f, is := m.(*fakeRuntime); is {
		wantExecs(t, f, 3)
	}
	m.remove(t, "killed")
	// Another container: a runtime may be long about the end of one in which it was starting processes for clients that went.
	m.run(t, "ending")
	id = wantRunning(t, log, "ending").Id
	stop := command(t, log, stopOf(id, 10*time.Second))
	agent.Kill()
	begin()
	applied(t, log, stop)
	wantStopped(t, log, "ending", id)
	m.remove(t, "ending")
}
