package blackbox

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal"
)

// realNode returns the cluster's node that really runs containers, and how to reach its runtime.
func realNode(t *testing.T) (name, endpoint string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(cluster.Dir, "cluster.json"))
	if err != nil {
		t.Fatal(err)
	}
	var state struct {
		Nodes []struct{ Name, Socket string }
	}
	if err := json.Unmarshal(data, &state); err != nil {
		t.Fatal(err)
	}
	for _, node := range state.Nodes {
		if node.Socket != "" {
			return node.Name, "unix://" + node.Socket
		}
	}
	t.Fatal("no node has a container runtime")
	return "", ""
}

// TestNodeAgent: alone against the log of a running instance, and within `up`, the agent reports what runs, and never the
// same twice in a row, however often it is started.
//
// image-pull R52: it is ready, by /readyz, once the log says what its runtime has.
func TestNodeAgent(t *testing.T) {
	namespace := space(t)
	node, endpoint := realNode(t)
	stateDir := t.TempDir()
	service := up(t, stateDir)
	kubectl(t, cloneSet("web", 1, "app:v1", "false", ""), "apply", "-n", namespace, "-f", "-")
	waitReported(t, node, namespace, stateDir, false) // nobody reports yet
	for range 2 {
		agent, err := testbed.StartShiplog("nodeagent", "--nats-url", logURL(t, stateDir), "--node", node, "--cri", endpoint)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(agent.Kill)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := agent.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		waitReported(t, node, namespace, stateDir, true)
		atRest(t, agent)
		if err := agent.Stop(); err != nil {
			t.Error(err)
		}
	}
	if err := service.Stop(); err != nil {
		t.Error(err)
	}
	up(t, stateDir, "--nodeagent", node+"="+endpoint)
	kubectl(t, "", "delete", "cloneset", "web", "-n", namespace)
	waitReported(t, node, namespace, stateDir, false)

	log := openLog(t, stateDir)
	state, err := log.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	reader, err := log.Read(t.Context(), journal.From{})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var before *shiplogv1.NodeObserved
	for at := uint64(0); at < state.LastSequence; {
		records, err := reader.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, record := range records {
			at = record.Sequence
			if fact := record.Entry.GetNodeObserved(); fact != nil {
				if proto.Equal(before, fact) {
					t.Errorf("entry %d says what the fact before says", at)
				}
				before = fact
			}
		}
	}
}

// restingMemory is how much, in kB, an agent at rest may hold resident: what a daemon on every node may cost.
const restingMemory = 20_000

// atRest wants an agent that has nothing to do, and is scraped, to be the small program and to hold little memory.
func atRest(t *testing.T, agent *testbed.Process) {
	t.Helper()
	if program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", agent.Pid())); err != nil || filepath.Base(program) != "shiplog-nodeagent" {
		t.Errorf("the agent is run by %q: %v", program, err)
	}
	testbed.Eventually(t, 30*time.Second, func() error {
		if _, err := agent.Metric("shiplog_nodeagent_facts_total"); err != nil {
			return err
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", agent.Pid()))
		if err != nil {
			return err
		}
		_, of, _ := strings.Cut(string(status), "VmRSS:")
		var resident int
		if _, err := fmt.Sscan(of, &resident); err != nil || resident >= restingMemory {
			return fmt.Errorf("%d kB are resident, want less than %d (%v)", resident, restingMemory, err)
		}
		return nil
	})
}

func logURL(t *testing.T, stateDir string) string {
	t.Helper()
	url, err := os.ReadFile(filepath.Join(stateDir, "nats.url"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(url))
}

func openLog(t *testing.T, stateDir string) journal.Journal {
	t.Helper()
	log, err := journal.Open(t.Context(), journal.Options{URL: logURL(t, stateDir), AsIs: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log
}

// waitReported waits until the newest fact of a node, if there is one, has a running container of a namespace, or none at all.
func waitReported(t *testing.T, node, namespace, stateDir string, want bool) {
	t.Helper()
	log := openLog(t, stateDir)
	defer log.Close()
	testbed.Eventually(t, time.Minute, func() error {
		record, err := log.LastOfNode(t.Context(), node)
		if err != nil {
			return err
		}
		var found *shiplogv1.RuntimeContainer
		if record != nil {
			for _, container := range record.Entry.GetNodeObserved().GetContainers() {
				if container.PodNamespace == namespace {
					found = container
				}
			}
		}
		running := found.GetState() == shiplogv1.RuntimeContainer_STATE_RUNNING && found.GetPlainHash() != 0
		if want != running || !want && found != nil {
			return fmt.Errorf("the container of %s, wanted: %v, is %v", namespace, want, found)
		}
		return nil
	})
}
