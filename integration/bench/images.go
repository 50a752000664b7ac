package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"shiplog.dev/api/kruise/apps/v1beta1"
	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal"
)

// images measures one ImagePullJob over many nodes. The nodes are hollow, and so are their agents: they take their commands from the
// log as real ones do, wait as long as a pull is to take, and say that it is done.
type images struct {
	nodes, parallelism int
	pull               time.Duration
	verbose            bool
	figures
}

func imagesCommand() *cobra.Command {
	var m images
	command := &cobra.Command{
		Use: "images", Short: "Measure one ImagePullJob over many hollow nodes", Args: cobra.NoArgs,
		Example: "  go run ./integration/bench images --nodes 500 --parallelism 100 --pull 10s",
		RunE:    func(command *cobra.Command, _ []string) error { return m.run(command.Context()) },
	}
	command.Flags().IntVar(&m.nodes, "nodes", 500, "hollow nodes")
	command.Flags().IntVar(&m.parallelism, "parallelism", 100, "nodes that pull at once")
	command.Flags().DurationVar(&m.pull, "pull", 10*time.Second, "how long one pull takes")
	command.Flags().StringVar(&m.jsonFile, "json", "", "write the figures to this `FILE` too")
	command.Flags().BoolVarP(&m.verbose, "verbose", "v", false, "show what Shiplog says")
	return command
}

func (m *images) run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "shiplog-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cluster, err := testbed.StartCluster(ctx, filepath.Join(dir, "cluster"), 0, m.nodes, os.Stderr)
	if err != nil {
		return err
	}
	defer cluster.Down()
	state := filepath.Join(dir, "state")
	shiplog, err := testbed.StartShiplog("up", "--kubeconfig", cluster.Kubeconfig, "--state-dir", state, "--feature-gates", "ImagePullJobGate=true", "--nodeimage-creation-delay", "1s")
	if err != nil {
		return err
	}
	defer func() {
		if m.verbose {
			fmt.Fprintln(os.Stderr, shiplog.Output())
		}
		shiplog.Kill()
	}()
	if err := shiplog.Ready(ctx); err != nil {
		return err
	}
	say("waiting for %d NodeImages", m.nodes)
	if err := await(ctx, func() (bool, error) {
		out, err := cluster.Kubectl(ctx, "", "get", "nodeimages", "-o", "name")
		return strings.Count(out, "\n") == m.nodes, err
	}); err != nil {
		return err
	}
	url, err := os.ReadFile(filepath.Join(state, "nats.url"))
	if err != nil {
		return err
	}
	var pulled, listening atomic.Int64
	agents, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer func() { stop(); running.Wait() }()
	for i := range m.nodes {
		running.Go(func() {
			m.agent(agents, strings.TrimSpace(string(url)), fmt.Sprintf("hollow-%d", i+1), &listening, &pulled)
		})
	}
	say("waiting for %d agents", m.nodes)
	if err := await(ctx, func() (bool, error) { return int(listening.Load()) == m.nodes, nil }); err != nil {
		return err
	}
	audit := cluster.AuditLog()
	if _, err := audit.Next(); err != nil {
		return err
	}
	job := fmt.Sprintf("apiVersion: apps.kruise.io/v1beta1\nkind: ImagePullJob\nmetadata: {name: all}\nspec: {image: \"app:1\", parallelism: %d}\n", m.parallelism)
	say("pulling on %d nodes, %d at once, %s each", m.nodes, m.parallelism, m.pull)
	if _, err := cluster.Kubectl(ctx, job, "apply", "-f", "-"); err != nil {
		return err
	}
	var status v1beta1.ImagePullJobStatus
	if err := await(ctx, func() (bool, error) {
		out, err := cluster.Kubectl(ctx, "", "get", "imagepulljob", "all", "-o", "json")
		if err != nil {
			return false, err
		}
		var held v1beta1.ImagePullJob
		err = json.Unmarshal([]byte(out), &held)
		status = held.Status
		return status.CompletionTime != nil, err
	}); err != nil {
		return err
	}
	if int(status.Succeeded) != m.nodes || int(pulled.Load()) != m.nodes {
		return fmt.Errorf("%d nodes succeeded and %d pulls were made, want %d of each", status.Succeeded, pulled.Load(), m.nodes)
	}
	select { // the last statuses are written up to two seconds late
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(5 * time.Second):
	}
	lines, err := audit.Next()
	if err != nil {
		return err
	}
	m.figuresOf(lines)
	return m.print(os.Stdout)
}

// figuresOf takes the figures from the API server's audit log. The job lasts from its creation until its last status.
func (m *images) figuresOf(lines []testbed.Audit) {
	var began, ended time.Time
	for _, line := range lines {
		switch {
		case line.ObjectRef.Resource != "imagepulljobs" || !line.Writes():
		case line.Ours() && line.Answered.After(ended):
			ended = line.Answered
		case !line.Ours() && began.IsZero():
			began = line.Received
		}
	}
	took := ended.Sub(began)
	floor := m.pull * time.Duration((m.nodes+m.parallelism-1)/m.parallelism)
	m.add(figure{What: fmt.Sprintf("ImagePullJob, %d nodes, %d at once", m.nodes, m.parallelism), Floor: floor.Seconds(), Value: took.Seconds(),
		Unit: "s", Ratio: took.Seconds() / floor.Seconds()}.atMost(1.1))
	status, spec := map[string][]time.Time{}, 0
	writes := 0
	for _, line := range lines {
		if !line.Ours() || !line.Writes() || line.ObjectRef.Resource == "events" {
			continue
		}
		writes++
		key := line.ObjectRef.Resource + "/" + line.ObjectRef.Name
		switch {
		case line.ObjectRef.Subresource == "status":
			status[key] = append(status[key], line.Received)
		case line.ObjectRef.Resource == "nodeimages":
			spec++
		}
	}
	nodes, closest := 0, time.Hour
	for key, times := range status {
		slices.SortFunc(times, time.Time.Compare)
		for i := 1; i < len(times); i++ {
			closest = min(closest, times[i].Sub(times[i-1]))
		}
		if strings.HasPrefix(key, "nodeimages/") {
			nodes += len(times)
		}
	}
	m.add(figure{What: "writes to ask one node", Value: float64(spec) / float64(m.nodes), Unit: "writes"}.atMost(1))
	m.add(figure{What: "writes of one node's status, one for each flush", Value: float64(nodes) / float64(m.nodes), Unit: "writes"})
	m.add(figure{What: "least time between two status writes of one object", Value: closest.Seconds(), Unit: "s"}.atLeast(1))
	m.add(figure{What: "status writes of the job", Value: float64(len(status["imagepulljobs/all"])), Unit: "writes"})
	m.add(figure{What: "writes in all, for each node", Value: float64(writes) / float64(m.nodes), Unit: "writes"})
}

// agent is the agent of one hollow node.
func (m *images) agent(ctx context.Context, url, node string, listening, pulled *atomic.Int64) {
	log, err := journal.Open(ctx, journal.Options{URL: url, AsIs: true})
	if err != nil {
		say("node %s: %v", node, err)
		return
	}
	defer log.Close()
	own, err := log.Join(ctx, node)
	if err != nil {
		say("node %s: %v", node, err)
		return
	}
	defer own.Close()
	if _, err := own.Alive(ctx); err != nil {
		say("node %s: %v", node, err)
	}
	work, err := own.Commands(ctx)
	if err != nil {
		say("node %s: %v", node, err)
		return
	}
	defer work.Close()
	listening.Add(1)
	for ctx.Err() == nil {
		task, err := work.Next(ctx)
		if err != nil {
			continue
		}
		command := task.Entry.GetCommand()
		called := &shiplogv1.CallObserved{Node: node, Target: command.GetPullImage().GetImage(), State: shiplogv1.CallObserved_STATE_RUNNING}
		m.word(ctx, own, &shiplogv1.Entry{Writer: "nodeagent/" + node, Cause: task.Sequence, Kind: &shiplogv1.Entry_CallObserved{CallObserved: called}})
		select {
		case <-ctx.Done():
			return
		case <-time.After(m.pull):
		}
		pulled.Add(1)
		m.word(ctx, own, &shiplogv1.Entry{Writer: "nodeagent/" + node, Cause: task.Sequence, Kind: &shiplogv1.Entry_Outcome{Outcome: &shiplogv1.Outcome{
			Result: shiplogv1.Outcome_RESULT_APPLIED, Object: command.GetObject(), Node: node, Target: called.Target,
			Found: &shiplogv1.Outcome_PulledImage{PulledImage: &shiplogv1.PulledImage{ImageId: "sha256:0"}},
		}}})
		_ = task.Done(ctx) // else it comes again, and is refused
	}
}

func (m *images) word(ctx context.Context, own journal.Node, entry *shiplogv1.Entry) {
	if _, err := own.Say(ctx, entry); err != nil && ctx.Err() == nil {
		say("%v", err)
	}
}

// await asks until the answer is yes.
func await(ctx context.Context, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	for {
		done, err := ask()
		if err == nil && done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within ten minutes: %w", errors.Join(err, ctx.Err()))
		case <-time.After(200 * time.Millisecond):
		}
	}
}
