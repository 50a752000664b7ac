package blackbox

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shiplog.dev/integration/testbed"
)

// TestExamples runs the lines that each example tells people to try, as they stand there: what they wait for must come.
func TestExamples(t *testing.T) {
	root, err := testbed.Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "examples", "*", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	withAgent(t, t.TempDir())
	t.Run("all", func(t *testing.T) {
		for _, file := range files {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
				t.Parallel()
				try(t, root, file)
			})
		}
	})
}

// try runs the lines of an example in a namespace of its own, with kubectl on the path.
func try(t *testing.T, root, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for line := range strings.Lines(string(data)) {
		if command, is := strings.CutPrefix(line, "#   "); is {
			script.WriteString(command)
		}
	}
	namespace := space(t)
	dir := t.TempDir()
	program, err := testbed.Program("shiplog-cluster")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	kubeconfig, err := os.ReadFile(cluster.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config := write("kubeconfig", string(kubeconfig), 0o600)
	write("kubectl", "#!/bin/sh\nexec "+program+" kubectl \"$@\"\n", 0o755)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "bash", "-exo", "pipefail", "-c", "kubectl config set-context --current --namespace="+namespace+" >/dev/null\n"+script.String())
	command.Dir = root
	command.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "KUBECONFIG="+config)
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}
