package nodeagent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/envhash"
	"shiplog.dev/internal/journal"
)

func hookOf(container string, hook *shiplogv1.RunHook, within time.Duration) *shiplogv1.Command {
	hook.ContainerId = container
	return &shiplogv1.Command{Effect: &shiplogv1.Command_RunHook{RunHook: hook}, RunWithin: durationpb.New(within)}
}

func execOf(container string, within time.Duration, program ...string) *shiplogv1.Command {
	return hookOf(container, &shiplogv1.RunHook{Handler: &shiplogv1.RunHook_Exec{Exec: &shiplogv1.ExecHook{Command: program}}}, within)
}

func runsHooks(t *testing.T, m machine) {
	log := journal.NewMemory(time.Now)
	start(t, m, log, quick)
	m.run(t, "hooked")
	id := wantRunning(t, log, "hooked").Id
	applied(t, log, command(t, log, execOf(id, time.Minute, "true")))
	wantRefused(t, log, command(t, log, execOf(id, time.Minute, "sh", "-c", "echo oops >&2; exit 3")), "HookFailed", "sh ends with exit code 3: oops")
	wantRefused(t, log, command(t, log, execOf(id, time.Minute, "no-such-program")), "HookFailed", "no-such-program")
	late := ended(t, log, command(t, log, execOf(id, time.Second, "sleep", "60")))
	if took := late.GetTook().AsDuration(); late.GetReason().GetCode() != "TimedOut" || took < time.Second || took > 20*time.Second {
		t.Errorf("outcome %v", late)
	}
	long := command(t, log, execOf(id, time.Minute, "sleep", "60"))
	wantState(t, log, long, shiplogv1.CallObserved_STATE_RUNNING)
	applied(t, log, command(t, log, &shiplogv1.Command{Effect: &shiplogv1.Command_CancelCall{CancelCall: &shiplogv1.CancelCall{Command: long}}}))
	wantRefused(t, log, long, "Stopped", id)
	applied(t, log, command(t, log, hookOf(id, &shiplogv1.RunHook{Handler: &shiplogv1.RunHook_Sleep{Sleep: durationpb.New(time.Second)}}, time.Minute)))
	m.remove(t, "hooked")
	wantGone(t, log, "hooked")
}

func inspects(t *testing.T, m machine) {
	log := journal.NewMemory(time.Now)
	start(t, m, log, quick)
	m.run(t, "inspected")
	c := wantRunning(t, log, "inspected")
	inspect := &shiplogv1.InspectContainer{ContainerId: c.Id, Environment: []string{"COLOR", "NOBODY_SETS_THIS"}}
	found := applied(t, log, command(t, log, &shiplogv1.Command{Effect: &shiplogv1.Command_InspectContainer{InspectContainer: inspect}})).GetInspectedContainer()
	want := envhash.Of([]envhash.Variable{{Name: "COLOR", Value: "blue"}, {Name: "NOBODY_SETS_THIS"}})
	if found.GetPlainHash() != c.PlainHash || found.GetRestartCount() != c.Attempt || found.GetEnvironmentHash() != want {
		t.Errorf("found %v of %v, environment %d", found, c, want)
	}
	none := &shiplogv1.InspectContainer{ContainerId: c.Id}
	found = applied(t, log, command(t, log, &shiplogv1.Command{Effect: &shiplogv1.Command_InspectContainer{InspectContainer: none}})).GetInspectedContainer()
	if found.GetPlainHash() != c.PlainHash || found.GetEnvironmentHash() != envhash.Of(nil) {
		t.Errorf("found %v", found)
	}
	gone := &shiplogv1.InspectContainer{ContainerId: "nobody"}
	wantRefused(t, log, command(t, log, &shiplogv1.Command{Effect: &shiplogv1.Command_InspectContainer{InspectContainer: gone}}), "Failed", "nobody")
	m.remove(t, "inspected")
	wantGone(t, log, "inspected")
}

// wantState waits until the newest word about a call is of a state.
func wantState(t *testing.T, log journal.Journal, command uint64, state shiplogv1.CallObserved_State) {
	t.Helper()
	testbed.Eventually(t, 30*time.Second, func() error {
		word, _, err := log.LastOfCall(t.Context(), "node-1", command)
		if err == nil && (word == nil || word.Entry.GetCallObserved().GetState() != state) {
			err = fmt.Errorf("the newest word is %v", word)
		}
		return err
	})
}

// TestInspectAsksTheContainer: a runtime that keeps no account of the environment.
func TestInspectAsksTheContainer(t *testing.T) {
	t.Parallel()
	f := startFake(t, "v2.1.0")
	f.forgetful = true
	inspects(t, f)
	if got := fmt.Sprint(f.execs); got != "[[env -0] [env]]" {
		t.Errorf("run in the container: %s", got)
	}
}

// hooksOverTheNetwork: a server in a Pod is asked as the hook says, is not followed elsewhere, and is found missing where there is none.
func hooksOverTheNetwork(t *testing.T, m machine) {
	log := journal.NewMemory(time.Now)
	start(t, m, log, quick)
	own, asked := m.serve(t, "served")
	id := wantRunning(t, log, "served").Id
	get := func(port uint32) *shiplogv1.RunHook {
		return &shiplogv1.RunHook{Handler: &shiplogv1.RunHook_Http{Http: &shiplogv1.HttpHook{
			Scheme: "http", Port: port, Path: "/cgi-bin/bye?now=1", Headers: []*shiplogv1.HttpHeader{{Name: "X-Who", Value: "me"}, {Name: "host", Value: "web"}},
		}}}
	}
	applied(t, log, command(t, log, hookOf(id, get(own), time.Minute)))
	if was := asked(); was != "web /cgi-bin/bye?now=1 me" {
		t.Errorf("it was asked %q", was)
	}
	tcp := func(port uint32) *shiplogv1.RunHook {
		return &shiplogv1.RunHook{Handler: &shiplogv1.RunHook_Tcp{Tcp: &shiplogv1.TcpHook{Port: port}}}
	}
	applied(t, log, command(t, log, hookOf(id, tcp(own), time.Minute)))
	wantRefused(t, log, command(t, log, hookOf(id, tcp(1), time.Minute)), "HookFailed", "refused")
	wantRefused(t, log, command(t, log, hookOf(id, get(1), time.Minute)), "HookFailed", "refused")
	wantRefused(t, log, command(t, log, hookOf("nobody", tcp(own), time.Minute)), "HookFailed", "nobody")
	m.remove(t, "served")
	wantGone(t, log, "served")
}

// TestHooksElsewhere: a hook may name its host; a Pod in the node's network is asked at the node's address.
func TestHooksElsewhere(t *testing.T) {
	t.Parallel()
	f, log := startFake(t, "v2.1.0"), journal.NewMemory(time.Now)
	start(t, f, log, quick)
	own, _ := f.serve(t, "p")
	tcp := func(host string) *shiplogv1.RunHook {
		return &shiplogv1.RunHook{Handler: &shiplogv1.RunHook_Tcp{Tcp: &shiplogv1.TcpHook{Host: host, Port: own}}}
	}
	applied(t, log, command(t, log, hookOf("c1", tcp("localhost"), time.Minute)))
	f.hostIP = true
	outcome := ended(t, log, command(t, log, hookOf("c1", tcp(""), time.Minute)))
	if message := outcome.GetReason().GetMessage(); strings.Contains(message, "127.0.0.1") {
		t.Errorf("a Pod in the node's network is asked at %s", message)
	}
}

// TestHooksRunOnce: a hook that an agent which died had begun is not begun again; neither is one during which the runtime went away.
func TestHooksRunOnce(t *testing.T) {
	t.Parallel()
	f, log := startFake(t, "v2.1.0"), journal.NewMemory(time.Now)
	first := start(t, f, log, quick)
	f.run(t, "p")
	hook := command(t, log, execOf("c1", time.Minute, "sleep", "60"))
	wantExecs(t, f, 1)
	first.stop()
	start(t, f, log, quick)
	wantRefused(t, log, hook, "Interrupted", "c1")
	again := command(t, log, execOf("c1", time.Minute, "sleep", "60"))
	wantExecs(t, f, 2)
	f.restart(t)
	wantRefused(t, log, again, "Interrupted", "")
	wantExecs(t, f, 2)
}

func wantExecs(t *testing.T, f *fakeRuntime, want int) {
	t.Helper()
	testbed.Eventually(t, 10*time.Second, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.execs) != want {
			return fmt.Errorf("%d programs were run", len(f.execs))
		}
		return nil
	})
}
