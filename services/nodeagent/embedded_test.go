package nodeagent

import (
	"context"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/journal/embedded"
	"shiplog.dev/services/executor/intake"
)

// TestOverNATS: the way from a command to its outcome over a real server.
func TestOverNATS(t *testing.T) {
	t.Parallel()
	f := startFake(t, "v2.1.0")
	log, err := journal.Open(t.Context(), journal.Options{Server: &embedded.Server{Directory: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	own, err := log.Join(t.Context(), "node-1")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	ctx, cancel := context.WithCancel(context.Background())
	var both sync.WaitGroup
	defer both.Wait()
	defer cancel()
	both.Go(func() {
		if err := intake.Run(ctx, intake.Options{Journal: log, Logger: zerolog.Nop(), Writer: "executor/test"}); err != nil {
			t.Error(err)
		}
	})
	both.Go(func() {
		if err := run(ctx, Options{Node: "node-1", Endpoint: f.endpoint(), Log: own, Logger: zerolog.Nop(), Writer: "nodeagent/test"}, quick); err != nil {
			t.Error(err)
		}
	})
	for range 3 {
		applied(t, log, command(t, log, pullOf("app:v2")))
	}
	wantRefused(t, log, command(t, log, pullOf("app:missing")), "PullFailed", "app:missing")
	applied(t, log, command(t, log, stopOf("c1", 0)))
}
