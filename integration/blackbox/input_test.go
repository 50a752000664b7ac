package blackbox

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/journal/embedded"
)

// TestBadInput: wrong flags, an API server or NATS that cannot be reached, a state directory of another cluster: one clear
// line and an exit code that is not 0.
func TestBadInput(t *testing.T) {
	program, err := testbed.Program("shiplog")
	if err != nil {
		t.Fatal(err)
	}
	unreachable := t.TempDir() + "/kubeconfig"
	if err := os.WriteFile(unreachable, []byte("apiVersion: v1\nkind: Config\nclusters: [{name: x, cluster: {server: 'http://127.0.0.1:1'}}]\ncontexts: [{name: x, context: {cluster: x}}]\ncurrent-context: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	log, err := journal.Open(t.Context(), journal.Options{Server: &embedded.Server{Directory: other + "/log"}, ClusterUID: "another"})
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	_, endpoint := realNode(t)
	for name, test := range map[string]struct {
		arguments []string
		code      int
		says      string
	}{
		"unknown flag":           {[]string{"up", "--nonsense"}, 2, "unknown flag: --nonsense"},
		"argument":               {[]string{"up", "here"}, 2, `unexpected argument "here"`},
		"durability":             {[]string{"up", "--kubeconfig", cluster.Kubeconfig, "--durability", "some"}, 2, "neither fast nor strict"},
		"log format":             {[]string{"up", "--log-format", "xml"}, 2, "neither console nor json"},
		"log size":               {[]string{"up", "--kubeconfig", cluster.Kubeconfig, "--max-log-bytes", "big"}, 2, "--max-log-bytes"},
		"service without log":    {[]string{"planner"}, 2, "--nats-url is required"},
		"agent without log":      {[]string{"nodeagent"}, 2, "--nats-url is required"},
		"agent without socket":   {[]string{"nodeagent", "--nats-url", "nats://127.0.0.1:1", "--cri", "unix:///nowhere"}, 2, "/nowhere: no such file"},
		"agent, no endpoint":     {[]string{"nodeagent", "--nats-url", "nats://127.0.0.1:1", "--cri", "/nowhere"}, 2, "unix:///path"},
		"agent, no Kubernetes":   {[]string{"nodeagent", "--kubeconfig", "x"}, 2, "unknown flag: --kubeconfig"},
		"up, agent of no node":   {[]string{"up", "--nodeagent", "unix:///nowhere"}, 2, "NAME=unix:///path"},
		"up, agent no address":   {[]string{"up", "--nodeagent", "n=" + endpoint, "--node-ip", "nonsense"}, 2, "--node-ip"},
		"up, agent no plugins":   {[]string{"up", "--nodeagent", "n=" + endpoint, "--plugin-config-file", "/nowhere"}, 2, "--plugin-config-file"},
		"up, agent no socket":    {[]string{"up", "--nodeagent", "n=unix:///nowhere"}, 2, "/nowhere: no such file"},
		"kubeconfig missing":     {[]string{"up", "--kubeconfig", "/nowhere"}, 1, "/nowhere"},
		"API server unreachable": {[]string{"up", "--kubeconfig", unreachable}, 1, "reach the API server at http://127.0.0.1:1"},
		"NATS unreachable":       {[]string{"up", "--kubeconfig", cluster.Kubeconfig, "--nats-url", "nats://127.0.0.1:1"}, 1, "cannot be reached"},
		"other cluster":          {[]string{"up", "--kubeconfig", cluster.Kubeconfig, "--state-dir", other}, 1, "belongs to another cluster"},
		"no log":                 {[]string{"tail", "--log", "/nowhere"}, 1, "not a state directory"},
		"timeline of nothing":    {[]string{"timeline"}, 2, "name one object"},
		"object of no kind":      {[]string{"why", "web"}, 2, "give KIND/NAME"},
		"unknown type":           {[]string{"tail", "--type", "rumour"}, 2, "none of: fact"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			command := exec.Command(program, test.arguments...)
			command.Dir = t.TempDir()
			timer := time.AfterFunc(time.Minute, func() { _ = command.Process.Kill() })
			defer timer.Stop()
			out, err := command.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != test.code {
				t.Errorf("ended with %v, want exit code %d", err, test.code)
			}
			text := strings.TrimSpace(string(out))
			if !strings.Contains(text, test.says) {
				t.Errorf("%q does not say %q", text, test.says)
			}
			if strings.Contains(text, "\n") {
				t.Errorf("says more than one line:\n%s", text)
			}
		})
	}
}
