package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"shiplog.dev/integration/cluster/cgroups"
	"shiplog.dev/integration/cluster/process"
)

// State is what a running cluster tells about itself, in DIR/cluster.json.
type State struct {
	Dir        string         `json:"dir"`
	Supervisor int            `json:"supervisor"` // process id
	Server     string         `json:"server"`     // the API server's URL
	Kubeconfig string         `json:"kubeconfig"`
	AuditLog   string         `json:"auditLog"`
	Network    string         `json:"network,omitempty"`  // of real nodes, Pods and Services; routed from the machine
	Registry   string         `json:"registry,omitempty"` // makes any image
	Nodes      []Node         `json:"nodes"`
	Processes  map[string]int `json:"processes"` // process ids by name: kill one and its component is started again
}

// Node is one node of a running cluster.
type Node struct {
	Name    string `json:"name"`
	Hollow  bool   `json:"hollow"`
	Address string `json:"address,omitempty"`
	Socket  string `json:"socket,omitempty"` // containerd's CRI socket
}

const (
	lockName      = "supervisor.lock" // also the mark of a directory that is ours to clear
	supervisorLog = "supervisor.log"
)

func statePath(dir string) string { return filepath.Join(dir, "cluster.json") }

// saveState writes the state file. The caller holds stateMu.
func (c *Cluster) saveState() error {
	data, err := json.MarshalIndent(c.state, "", "  ")
	if err != nil {
		return fmt.Errorf("save the cluster's state: %w", err)
	}
	path := statePath(c.options.Dir)
	if err := errors.Join(os.WriteFile(path+".new", append(data, '\n'), 0o644), os.Rename(path+".new", path)); err != nil {
		return fmt.Errorf("save the cluster's state: %w", err)
	}
	return nil
}

// ErrNotRunning says that no cluster runs in a directory.
var ErrNotRunning = errors.New("no cluster is running")

// Load tells about the cluster that runs in a directory.
func Load(dir string) (State, error) {
	var state State
	data, err := os.ReadFile(statePath(dir))
	if errors.Is(err, fs.ErrNotExist) || err == nil && supervisor(dir) == 0 {
		return state, fmt.Errorf("%w in %s: start one with `shiplog-cluster up --dir %s`", ErrNotRunning, dir, dir)
	}
	if err != nil {
		return state, fmt.Errorf("read the cluster's state: %w", err)
	}
	if err := json.Unmarshal(data, &state); err != nil {
		return state, fmt.Errorf("read the cluster's state from %s: %w", statePath(dir), err)
	}
	return state, nil
}

// claim is the right to a directory. The kernel holds it (a lock on a file) and takes it back when the supervisor ends
// in whatever way; so it tells better than a process id whether a supervisor is alive.
type claim struct{ file *os.File }

// take claims a directory for this process. It takes only directories that are new, empty or marked as a cluster's.
func take(dir string) (*claim, error) {
	if err := Usable(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the cluster's directory: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("claim %s: %w", dir, err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("a cluster is running in %s (process %d): stop it with `shiplog-cluster down --dir %s`", dir, supervisor(dir), dir)
	}
	_ = file.Truncate(0)
	if _, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		file.Close()
		return nil, fmt.Errorf("claim %s: %w", dir, err)
	}
	return &claim{file}, nil
}

func (c *claim) release() { c.file.Close() }

// Usable tells why a directory cannot hold a cluster, if it cannot: clearing somebody else's files is worse than failing.
func Usable(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look into %s: %w", dir, err)
	}
	if _, err := os.Stat(filepath.Join(dir, lockName)); err != nil {
		return fmt.Errorf("%s holds files but no cluster: choose a new or empty directory", dir)
	}
	return nil
}

// supervisor is the process id of the directory's supervisor, or 0 if none is alive.
func supervisor(dir string) int {
	file, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return 0
	}
	defer file.Close()
	if syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
		return 0 // nobody holds it
	}
	data, err := os.ReadFile(file.Name())
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}

// clean clears what an earlier cluster left. The caller holds the claim, so its supervisor is gone; the kernel may still
// be ending its processes.
func clean(dir string) error {
	if err := cgroups.Remove(Cgroup(dir)); err != nil {
		return fmt.Errorf("clear what is left of the last cluster in %s: %w", dir, err)
	}
	err := process.Until(context.Background(), 10*time.Second, func(context.Context) error {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		var problems []error
		for _, entry := range entries {
			if entry.Name() != lockName && entry.Name() != supervisorLog {
				problems = append(problems, os.RemoveAll(filepath.Join(dir, entry.Name())))
			}
		}
		return errors.Join(problems...)
	})
	if err != nil {
		return fmt.Errorf("clear what is left of the last cluster in %s: %w", dir, err)
	}
	return nil
}

// Cgroup is the control group above the containers of the cluster in a directory; found again by the directory alone.
func Cgroup(dir string) string {
	hash := fnv.New64a()
	hash.Write([]byte(dir))
	return fmt.Sprintf("shiplog-%x", hash.Sum64())
}

// Down stops the cluster in a directory, if one runs, and clears what it or a crashed one left. It removes the directory
// unless keep is set.
func Down(ctx context.Context, dir string, keep bool, say func(format string, args ...any)) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("find the directory %s: %w", dir, err)
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := Usable(dir); err != nil {
		return err
	}
	if pid := supervisor(dir); pid > 0 {
		say("stopping the cluster in %s (process %d)", dir, pid)
		if err := stop(ctx, dir, pid); err != nil {
			return err
		}
	}
	claim, err := take(dir)
	if err != nil {
		return err
	}
	defer claim.release()
	if keep {
		return cgroups.Remove(Cgroup(dir))
	}
	if err := clean(dir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the cluster's directory: %w", err)
	}
	return nil
}

func stop(ctx context.Context, dir string, pid int) error {
	gone := func(context.Context) error {
		if supervisor(dir) != 0 {
			return fmt.Errorf("the supervisor (process %d) is still alive", pid)
		}
		return nil
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop the supervisor (process %d): %w", pid, err)
		}
		if process.Until(ctx, 20*time.Second, gone) == nil {
			return nil
		}
	}
	return fmt.Errorf("stop the cluster in %s: %w", dir, gone(ctx))
}
