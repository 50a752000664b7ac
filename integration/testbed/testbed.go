// Package testbed gives tests and benchmarks the real parts: a cluster on this machine, the shiplog program as a process,
// and a kubectl. It starts and stops programs; it knows nothing of what they do inside.
package testbed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Root returns the top directory of the repository.
func Root() (string, error) {
	directory, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(directory, "buf.yaml")); err == nil {
			return directory, nil
		}
		above := filepath.Dir(directory)
		if above == directory {
			return "", errors.New("find the repository: no buf.yaml here or above")
		}
		directory = above
	}
}

// Program returns the path of a program that `make build` makes.
func Program(name string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "bin", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is missing: run make build: %w", name, err)
	}
	return path, nil
}

// Cluster is a cluster on this machine.
type Cluster struct {
	Dir, Kubeconfig string
	program         string
}

// StartCluster starts a cluster below dir. What it says goes to out. More are arguments of shiplog-cluster up.
func StartCluster(ctx context.Context, dir string, nodes, hollow int, out io.Writer, more ...string) (*Cluster, error) {
	program, err := Program("shiplog-cluster")
	if err != nil {
		return nil, err
	}
	arguments := []string{"up", "--dir", dir, "--detach", fmt.Sprint("--nodes=", nodes), fmt.Sprint("--hollow=", hollow)}
	command := exec.CommandContext(ctx, program, append(arguments, more...)...)
	command.Stdout, command.Stderr = out, out
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("start a cluster in %s: %w", dir, err)
	}
	return &Cluster{Dir: dir, Kubeconfig: filepath.Join(dir, "kubeconfig"), program: program}, nil
}

// RunningCluster returns a cluster that somebody started below dir.
func RunningCluster(dir string) (*Cluster, error) {
	program, err := Program("shiplog-cluster")
	if err != nil {
		return nil, err
	}
	return &Cluster{Dir: dir, Kubeconfig: filepath.Join(dir, "kubeconfig"), program: program}, nil
}

// Down ends the cluster and removes what it left.
func (c *Cluster) Down() error {
	if out, err := exec.Command(c.program, "down", "--dir", c.Dir).CombinedOutput(); err != nil {
		return fmt.Errorf("end the cluster in %s: %w: %s", c.Dir, err, out)
	}
	return nil
}

// Pid returns the process id of a component, for example "kube-apiserver". One that ends is started again, under another id.
func (c *Cluster) Pid(component string) (int, error) {
	data, err := os.ReadFile(filepath.Join(c.Dir, "cluster.json"))
	if err != nil {
		return 0, fmt.Errorf("look for %s: %w", component, err)
	}
	var state struct{ Processes map[string]int }
	if err := json.Unmarshal(data, &state); err != nil {
		return 0, fmt.Errorf("look for %s: %w", component, err)
	}
	pid := state.Processes[component]
	if pid <= 0 {
		return 0, fmt.Errorf("look for %s: the cluster in %s has none", component, c.Dir)
	}
	return pid, nil
}

// Processes returns the process ids of the cluster's components; "hollow nodes" run in the supervisor.
func (c *Cluster) Processes() (map[string]int, error) {
	data, err := os.ReadFile(filepath.Join(c.Dir, "cluster.json"))
	if err != nil {
		return nil, fmt.Errorf("look for the cluster's processes: %w", err)
	}
	var state struct {
		Supervisor int
		Processes  map[string]int
	}
	if err := json.Unmarshal(data, &state); err != nil {
		return nil, fmt.Errorf("look for the cluster's processes: %w", err)
	}
	state.Processes["hollow nodes"] = state.Supervisor
	return state.Processes, nil
}

// Socket returns the address of the container runtime of a real node.
func (c *Cluster) Socket(node string) (string, error) {
	data, err := os.ReadFile(filepath.Join(c.Dir, "cluster.json"))
	if err != nil {
		return "", fmt.Errorf("look for node %s: %w", node, err)
	}
	var state struct {
		Nodes []struct{ Name, Socket string }
	}
	if err := json.Unmarshal(data, &state); err != nil {
		return "", fmt.Errorf("look for node %s: %w", node, err)
	}
	for _, n := range state.Nodes {
		if n.Name == node && n.Socket != "" {
			return "unix://" + n.Socket, nil
		}
	}
	return "", fmt.Errorf("look for node %s: the cluster in %s has no such real node", node, c.Dir)
}

// Config returns how to reach the API server, without a limit on requests.
func (c *Cluster) Config() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's kubeconfig: %w", err)
	}
	config.QPS = -1
	return config, nil
}

// Kubectl runs kubectl with input on its standard input and returns what it prints.
func (c *Cluster) Kubectl(ctx context.Context, input string, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, c.program, append([]string{"kubectl", "--kubeconfig", c.Kubeconfig}, arguments...)...)
	command.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Output runs a shiplog command to its end and returns what it prints.
func Output(arguments ...string) (string, error) {
	program, err := Program("shiplog")
	if err != nil {
		return "", err
	}
	out, err := exec.Command(program, arguments...).Output()
	if err != nil {
		return "", fmt.Errorf("shiplog %s: %w", strings.Join(arguments, " "), err)
	}
	return string(out), nil
}

// Process is a process of the program, or of another one.
type Process struct {
	// Listen is the address of its health and metrics; empty for other programs than shiplog.
	Listen  string
	what    string
	command *exec.Cmd
	done    chan struct{}
	err     error
	output  lines
}

// lines collects what a process says.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
	also io.Writer
}

func (l *lines) Write(data []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.also != nil {
		_, _ = l.also.Write(data)
	}
	return l.text.Write(data)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// StartShiplog starts the program with a sub-command and arguments; --listen is added. It dies with this process.
func StartShiplog(arguments ...string) (*Process, error) {
	program, err := Program("shiplog")
	if err != nil {
		return nil, err
	}
	return StartShiplogAt(program, nil, arguments...)
}

// StartShiplogAt is StartShiplog for the program at a path. What it says goes to out too; nil: only into its Output.
func StartShiplogAt(program string, out io.Writer, arguments ...string) (*Process, error) {
	address, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	p, err := Start(program, out, append(arguments, "--listen", address)...)
	if err != nil {
		return nil, err
	}
	p.Listen = address
	return p, nil
}

// Start starts a program. What it says goes to out too; nil: only into its Output. It dies with this process.
func Start(program string, out io.Writer, arguments ...string) (*Process, error) {
	p := &Process{what: filepath.Base(program), done: make(chan struct{}), output: lines{also: out}}
	p.command = exec.Command(program, arguments...)
	p.command.Stdout, p.command.Stderr = &p.output, &p.output
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s %s: %w", p.what, strings.Join(arguments, " "), err)
	}
	go func() {
		p.err = p.command.Wait()
		close(p.done)
	}()
	return p, nil
}

// Ready waits until the process says that it is ready.
func (p *Process) Ready(ctx context.Context) error {
	for {
		response, err := http.Get("http://" + p.Listen + "/readyz")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.what, ctx.Err(), p.Output())
		case <-p.done:
			return fmt.Errorf("%s ended: %w\n%s", p.what, p.err, p.Output())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Output is what the process has said so far.
func (p *Process) Output() string { return p.output.String() }

// Pid of the process.
func (p *Process) Pid() int { return p.command.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Pause stops the process where it is, Resume lets it go on.
func (p *Process) Pause() error { return p.command.Process.Signal(syscall.SIGSTOP) }

// Resume see Pause.
func (p *Process) Resume() error { return p.command.Process.Signal(syscall.SIGCONT) }

// Kill ends the process at once, with nothing cleaned up.
func (p *Process) Kill() {
	_ = p.command.Process.Kill()
	<-p.done
}

// Stop asks the process to end and waits; it is an error when it does not end cleanly.
func (p *Process) Stop() error {
	_ = p.command.Process.Signal(os.Interrupt)
	select {
	case <-p.done:
	case <-time.After(15 * time.Second):
		p.Kill()
		return fmt.Errorf("%s did not stop within 15 s:\n%s", p.what, p.Output())
	}
	if p.err != nil {
		return fmt.Errorf("%s did not stop cleanly: %w\n%s", p.what, p.err, p.Output())
	}
	return nil
}

// Metric returns the sum of a metric over its labels, 0 when there is none.
func (p *Process) Metric(name string) (float64, error) {
	response, err := http.Get("http://" + p.Listen + "/metrics")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	return sumOf(response.Body, name)
}

// Eventually waits until check returns nil, and fails the test with its last error when it does not in time.
func Eventually(t testing.TB, within time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %v", within, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
