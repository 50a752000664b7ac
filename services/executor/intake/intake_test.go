package intake

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/types/known/durationpb"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/journal/embedded"
)

// makes of the log that every test runs on.
var makes = map[string]func(*testing.T) journal.Journal{
	"memory": func(t *testing.T) journal.Journal {
		log := journal.NewMemory(time.Now)
		go func() {
			for sleep(t.Context(), 10*time.Millisecond) {
				log.FireTicks()
			}
		}()
		return log
	},
	"embedded": func(t *testing.T) journal.Journal {
		log, err := journal.Open(t.Context(), journal.Options{Server: &embedded.Server{Directory: t.TempDir()}})
		if err != nil {
			t.Fatal(err)
		}
		return log
	},
}

func onEach(t *testing.T, test func(*testing.T, journal.Journal)) {
	t.Parallel()
	for name, start := range makes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := start(t)
			defer log.Close()
			test(t, log)
		})
	}
}

var quick = pace{
	takeWithin: 30 * time.Second, runWithin: time.Minute, slack: 200 * time.Millisecond, silence: time.Second, again: 200 * time.Millisecond,
	retry: 50 * time.Millisecond,
}

// hearing runs an intake and returns its metrics.
func hearing(t *testing.T, log journal.Journal, pace pace) (registry *prometheus.Registry, stop func()) {
	t.Helper()
	registry = prometheus.NewRegistry()
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() {
		if err := run(ctx, Options{Journal: log, Logger: zerolog.Nop(), Registry: registry, Writer: "executor/test", Version: "v1"}, pace); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); ended.Wait() })
	t.Cleanup(stop)
	return registry, stop
}

func count(t *testing.T, registry *prometheus.Registry, name, label string) (sum float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, one := range family.GetMetric() {
			if family.GetName() == name && (label == "" || one.GetLabel()[0].GetValue() == label) {
				sum += one.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func agent(t *testing.T, log journal.Journal, node string) journal.Node {
	t.Helper()
	own, err := log.Join(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { own.Close() })
	testbed.Eventually(t, 10*time.Second, func() error {
		_, err := own.Alive(t.Context())
		return err
	})
	return own
}

func command(t *testing.T, log journal.Journal, node string, takeWithin, runWithin time.Duration) uint64 {
	t.Helper()
	sequence, err := log.AppendCommands(t.Context(), 0, &shiplogv1.Entry{Writer: "planner/test", Rollout: "r/1", Kind: &shiplogv1.Entry_Command{
		Command: &shiplogv1.Command{
			Node: node, Object: &shiplogv1.ObjectRef{Resource: "pods", Namespace: "a", Name: "b", Uid: "u"}, Attempt: 3,
			TakeWithin: durationpb.New(takeWithin), RunWithin: durationpb.New(runWithin),
			Effect: &shiplogv1.Command_PullImage{PullImage: &shiplogv1.PullImage{Image: "app:1", PullSecrets: []*shiplogv1.SecretRef{{Namespace: "a", Name: "s"}}}},
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return sequence
}

func word(command uint64, state shiplogv1.CallObserved_State) *shiplogv1.Entry {
	return &shiplogv1.Entry{Writer: "nodeagent/one", Cause: command, Kind: &shiplogv1.Entry_CallObserved{CallObserved: &shiplogv1.CallObserved{State: state}}}
}

func outcome(command uint64) *shiplogv1.Entry {
	return &shiplogv1.Entry{Writer: "nodeagent/one", Cause: command, Kind: &shiplogv1.Entry_Outcome{Outcome: &shiplogv1.Outcome{
		Result: shiplogv1.Outcome_RESULT_APPLIED, Object: &shiplogv1.ObjectRef{Name: "forged"}, Node: "forged", Requests: 7,
		Found: &shiplogv1.Outcome_PulledImage{PulledImage: &shiplogv1.PulledImage{ImageId: "sha256:1", MissingSecrets: []*shiplogv1.SecretRef{
			{Namespace: "a", Name: "s"}}}},
	}}}
}

func runtimeFact(node, version string) *shiplogv1.Entry {
	return &shiplogv1.Entry{Writer: "nodeagent/one", Kind: &shiplogv1.Entry_NodeObserved{NodeObserved: &shiplogv1.NodeObserved{Node: node, RuntimeVersion: version}}}
}

func mustSay(t *testing.T, own journal.Node, word *shiplogv1.Entry) journal.Said {
	t.Helper()
	said, err := own.Say(t.Context(), word)
	if err != nil {
		t.Fatal(err)
	}
	return said
}

func TestWordsOfACall(t *testing.T) {
	onEach(t, func(t *testing.T, log journal.Journal) {
		registry, _ := hearing(t, log, quick)
		own := agent(t, log, "n")
		pull := command(t, log, "n", time.Minute, time.Minute)
		taken := mustSay(t, own, word(pull, shiplogv1.CallObserved_STATE_TAKEN))
		if again := mustSay(t, own, word(pull, shiplogv1.CallObserved_STATE_TAKEN)); again != taken {
			t.Errorf("a word said twice is at %+v and %+v", taken, again)
		}
		if running := mustSay(t, own, word(pull, shiplogv1.CallObserved_STATE_RUNNING)); running.Begun != "" {
			t.Errorf("%+v", running)
		}
		other := word(pull, shiplogv1.CallObserved_STATE_RUNNING)
		other.Writer = "nodeagent/two"
		if running := mustSay(t, own, other); running.Begun != "nodeagent/one" {
			t.Errorf("%+v", running)
		}
		ended := mustSay(t, own, outcome(pull))
		if again := mustSay(t, own, outcome(pull)); again.Sequence != ended.Sequence {
			t.Errorf("an outcome said twice is at %+v and %+v", ended, again)
		}
		for _, late := range []*shiplogv1.Entry{word(pull, shiplogv1.CallObserved_STATE_RUNNING), {Writer: "nodeagent/one", Cause: pull, Kind: &shiplogv1.Entry_Outcome{
			Outcome: &shiplogv1.Outcome{Result: shiplogv1.Outcome_RESULT_REFUSED, Reason: &shiplogv1.Reason{Code: "PullFailed"}}}}} {
			if _, err := own.Say(t.Context(), late); !errors.Is(err, journal.ErrRefused) {
				t.Errorf("%v: %v", late, err)
			}
		}
		record, err := log.At(t.Context(), ended.Sequence)
		if err != nil {
			t.Fatal(err)
		}
		told := record.Entry.GetOutcome()
		if record.Entry.Rollout != "r/1" || told.GetObject().GetUid() != "u" || told.Attempt != 3 || told.Node != "n" || told.Target != "app:1" || told.Requests != 0 ||
			told.GetPulledImage().GetImageId() != "sha256:1" || len(told.GetPulledImage().GetMissingSecrets()) != 1 {
			t.Errorf("outcome %v", record.Entry)
		}
		if late := count(t, registry, "shiplog_intake_words_total", "late"); late != 2 {
			t.Errorf("%v words were late", late)
		}
	})
}

// TestForgedWords: what is not the word of that very agent about its own business is refused, counted, and not in the log.
func TestForgedWords(t *testing.T) {
	onEach(t, func(t *testing.T, log journal.Journal) {
		registry, _ := hearing(t, log, quick)
		own := agent(t, log, "n")
		mine, others := command(t, log, "n", time.Minute, time.Minute), command(t, log, "m", time.Minute, time.Minute)
		state, err := log.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		with := func(change func(*shiplogv1.Entry)) *shiplogv1.Entry {
			e := outcome(mine)
			change(e)
			return e
		}
		forged := map[string]*shiplogv1.Entry{
			"about another node":           runtimeFact("m", "v1"),
			"about another node's command": word(others, shiplogv1.CallObserved_STATE_RUNNING),
			"about no command":             word(state.LastSequence+1, shiplogv1.CallObserved_STATE_RUNNING),
			"about nothing":                word(0, shiplogv1.CallObserved_STATE_RUNNING),
			"of no state":                  word(mine, 0),
			"an object": {Writer: "nodeagent/one", Cause: mine, Kind: &shiplogv1.Entry_ObjectObserved{
				ObjectObserved: &shiplogv1.ObjectObserved{Object: &shiplogv1.ObjectRef{Resource: "pods", Name: "a", Uid: "u"}, ResourceVersion: "1"}}},
			"a command":        {Writer: "nodeagent/one", Cause: mine, Kind: &shiplogv1.Entry_Command{Command: &shiplogv1.Command{Node: "n"}}},
			"nothing":          {Writer: "nodeagent/one", Cause: mine},
			"of the planner":   with(func(e *shiplogv1.Entry) { e.Writer = "planner/one" }),
			"of a long writer": with(func(e *shiplogv1.Entry) { e.Writer = "nodeagent/" + strings.Repeat("x", 200) }),
			"with lines":       with(func(e *shiplogv1.Entry) { e.WriterVersion = "v1\nplanner" }),
			"superseded":       with(func(e *shiplogv1.Entry) { e.GetOutcome().Result = shiplogv1.Outcome_RESULT_SUPERSEDED }),
			"without a reason": with(func(e *shiplogv1.Entry) { e.GetOutcome().Result = shiplogv1.Outcome_RESULT_REFUSED }),
			"with more secrets than named": with(func(e *shiplogv1.Entry) {
				e.GetOutcome().GetPulledImage().MissingSecrets = []*shiplogv1.SecretRef{{}, {}}
			}),
			"of another find": with(func(e *shiplogv1.Entry) {
				e.GetOutcome().Found = &shiplogv1.Outcome_InspectedContainer{InspectedContainer: &shiplogv1.InspectedContainer{}}
			}),
		}
		for what, word := range forged {
			if _, err := own.Say(t.Context(), word); !errors.Is(err, journal.ErrRefused) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if refused := count(t, registry, "shiplog_intake_words_total", "refused"); refused != float64(len(forged)) {
			t.Errorf("%v of %d are counted", refused, len(forged))
		}
		if now, err := log.State(t.Context()); err != nil || now.LastSequence != state.LastSequence {
			t.Errorf("the log ends at %d, %v; before at %d", now.LastSequence, err, state.LastSequence)
		}
		mustSay(t, own, outcome(mine))
	})
}

func TestRuntimeFactsAreKeptOnce(t *testing.T) {
	onEach(t, func(t *testing.T, log journal.Journal) {
		hearing(t, log, quick)
		own := agent(t, log, "n")
		one := mustSay(t, own, runtimeFact("n", "v1"))
		if again := mustSay(t, own, runtimeFact("n", "v1")); again != one {
			t.Errorf("%+v and %+v", one, again)
		}
		two := mustSay(t, own, runtimeFact("n", "v2"))
		if back := mustSay(t, own, runtimeFact("n", "v1")); back.Sequence != two.Sequence+1 {
			t.Errorf("%+v: a node that is again as it was is a fact too", back)
		}
		if newest, err := own.Alive(t.Context()); err != nil || newest != two.Sequence+1 {
			t.Errorf("%d, %v", newest, err)
		}
	})
}

// TestBusyNode: who says too much waits; others do not.
func TestBusyNode(t *testing.T) {
	t.Parallel()
	log := journal.NewMemory(time.Now)
	hearing(t, log, quick)
	loud, other := agent(t, log, "loud"), agent(t, log, "n")
	var busy int
	for range wordsAtOnce + 200 {
		if _, err := loud.Say(t.Context(), runtimeFact("loud", "v1")); errors.Is(err, journal.ErrUnavailable) {
			busy++
		}
	}
	if busy == 0 {
		t.Error("a node may say as much as it likes")
	}
	mustSay(t, other, runtimeFact("n", "v1"))
}

// ends waits for the outcome of a command.
func ends(t *testing.T, log journal.Journal, node string, command uint64) *shiplogv1.Outcome {
	t.Helper()
	var found *journal.Record
	testbed.Eventually(t, 20*time.Second, func() (err error) {
		if _, found, err = log.LastOfCall(t.Context(), node, command); err == nil && found == nil {
			err = fmt.Errorf("command %d has no outcome", command)
		}
		return err
	})
	return found.Entry.GetOutcome()
}

// TestNobodySpeaks: calls that no agent takes, and those whose agent falls silent, end in time, once, whoever watches.
func TestNobodySpeaks(t *testing.T) {
	onEach(t, func(t *testing.T, log journal.Journal) {
		_, stop := hearing(t, log, quick)
		own := agent(t, log, "n")
		untaken, silent := command(t, log, "absent", 2*time.Second, time.Minute), command(t, log, "n", time.Minute, time.Second)
		waiting, ended := command(t, log, "n", 500*time.Millisecond, time.Minute), command(t, log, "n", 500*time.Millisecond, time.Minute)
		began := time.Now()
		mustSay(t, own, word(silent, shiplogv1.CallObserved_STATE_RUNNING))
		mustSay(t, own, word(waiting, shiplogv1.CallObserved_STATE_TAKEN))
		mustSay(t, own, outcome(ended))
		stop() // another one goes on
		hearing(t, log, quick)
		hearing(t, log, quick)
		live, die := context.WithCancel(t.Context())
		go func() {
			for live.Err() == nil {
				beat, end := context.WithTimeout(live, 200*time.Millisecond)
				_, _ = own.Alive(beat)
				end()
				sleep(live, 100*time.Millisecond)
			}
		}()
		told := ends(t, log, "absent", untaken)
		if after := time.Since(began); told.GetReason().GetCode() != "NoAgent" || !strings.Contains(told.GetReason().GetMessage(), "no agent of node absent took the command within 2s") ||
			after < 1900*time.Millisecond || told.Target != "app:1" || told.Attempt != 3 || told.Unsure {
			t.Errorf("after %s: %v", after, told)
		}
		if told := ends(t, log, "n", silent); told.GetReason().GetCode() != "AgentSilent" || !told.Unsure { // it may have been made
			t.Errorf("%v", told)
		}
		if _, found, err := log.LastOfCall(t.Context(), "n", waiting); err != nil || found != nil {
			t.Errorf("a call that waits for its turn at a living agent ended: %v, %v", found, err)
		}
		die()
		if told := ends(t, log, "n", waiting); told.GetReason().GetCode() != "AgentSilent" || told.Unsure { // it had not begun
			t.Errorf("%v", told)
		}
		if told := ends(t, log, "n", ended); told.GetResult() != shiplogv1.Outcome_RESULT_APPLIED {
			t.Errorf("%v", told)
		}
		if _, err := own.Say(t.Context(), word(silent, shiplogv1.CallObserved_STATE_RUNNING)); !errors.Is(err, journal.ErrRefused) {
			t.Errorf("a late word: %v", err)
		}
		outcomes := map[uint64]int{}
		reader, err := log.Read(t.Context(), journal.From{})
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		state, err := log.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for last := uint64(0); last < state.LastSequence; {
			records, err := reader.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, record := range records {
				if last = record.Sequence; record.Entry.GetOutcome() != nil {
					outcomes[record.Entry.Cause]++
				}
			}
		}
		for _, command := range []uint64{untaken, silent, waiting, ended} {
			if outcomes[command] != 1 {
				t.Errorf("command %d has %d outcomes", command, outcomes[command])
			}
		}
	})
}
