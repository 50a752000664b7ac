package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// diskSize is how large the filesystem under the log is; a NATS server takes three quarters of it at most. logSize is less.
const (
	diskSize = 512 << 20
	logSize  = "300Mi"
)

// mount puts a small filesystem of its own under the log, so that it can be filled without harm to others.
func (s *system) mount() error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", s.dir, "tmpfs", 0, fmt.Sprintf("size=%d", diskSize)); err != nil {
		return fmt.Errorf("mount a small filesystem at %s (root is needed): %w", s.dir, err)
	}
	return nil
}

// unmount takes it away, with what it holds.
func (s *system) unmount() {
	if err := syscall.Unmount(s.dir, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
		say("unmount %s: %v", s.dir, err)
	}
}

// fullDisk fills the filesystem under the log.
func fullDisk(_ context.Context, a *act) (func(context.Context) error, string, error) {
	path := filepath.Join(a.system.dir, "filler")
	file, err := os.Create(path)
	if err != nil {
		return nil, "", err
	}
	defer file.Close()
	block := make([]byte, 64<<10)
	for size := len(block); ; {
		if _, err := file.Write(block[:size]); err == nil {
			continue
		}
		if size == 1 {
			break
		}
		size = max(1, size/8)
	}
	return func(context.Context) error { return os.Remove(path) }, "", nil
}

// restoreEtcd copies etcd's data as they are, and puts the copy back later: what happened in between has not happened.
func restoreEtcd(_ context.Context, a *act) (func(context.Context) error, string, error) {
	c := a.campaign
	plane := filepath.Join(c.cluster.Dir, "control-plane")
	saved := filepath.Join(plane, "etcd.saved")
	pid, err := c.cluster.Pid("etcd")
	if err != nil {
		return nil, "", err
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return nil, "", err
	}
	err = os.CopyFS(saved, os.DirFS(filepath.Join(plane, "etcd")))
	if err := errors.Join(err, syscall.Kill(pid, syscall.SIGCONT)); err != nil {
		return nil, "", err
	}
	return func(context.Context) error {
		pid, err := c.cluster.Pid("etcd")
		if err != nil {
			return err
		}
		a.restored()
		// The API server goes first: what it would write between the two would be neither here nor there.
		for _, component := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
			if err := c.stopFor(component, syscall.SIGSTOP); err != nil {
				return err
			}
		}
		// etcd is started again 200 ms after its end; the directories change places before that.
		err = errors.Join(syscall.Kill(pid, syscall.SIGKILL), gone(pid), os.Rename(filepath.Join(plane, "etcd"), filepath.Join(plane, fmt.Sprint("etcd.", pid))),
			os.Rename(saved, filepath.Join(plane, "etcd")))
		// Who watches is started anew, as whoever restores etcd is told to do. Shiplog is not.
		return errors.Join(err, c.stopFor("kube-apiserver", syscall.SIGKILL), c.watchAnew())
	}, "", nil
}

// watchAnew starts everything anew that watches the API server, Shiplog aside.
func (c *campaign) watchAnew() (err error) {
	for _, component := range []string{"kube-controller-manager", "kube-scheduler", realNode + "-kubelet"} {
		err = errors.Join(err, c.stopFor(component, syscall.SIGKILL))
	}
	c.hollow.kill()
	return errors.Join(err, c.hollow.start())
}

// stopFor sends a signal to a component of the cluster.
func (c *campaign) stopFor(component string, signal syscall.Signal) error {
	pid, err := c.cluster.Pid(component)
	if err != nil {
		return err
	}
	return syscall.Kill(pid, signal)
}

// gone waits until a process has ended.
func gone(pid int) error {
	for range 1000 {
		if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || bytes.Contains(data, []byte(") Z ")) {
			return nil
		}
		time.Sleep(time.Millisecond / 5)
	}
	return fmt.Errorf("process %d has not ended", pid)
}

// compaction has the watches cut, etcd forget all earlier versions, and the API server start anew, so that no watch can go on where it
// was.
func compaction(ctx context.Context, a *act) (func(context.Context) error, string, error) {
	end, _, err := troubled(noWatches)(ctx, a)
	if err != nil {
		return nil, "", err
	}
	url, err := a.campaign.etcdURL()
	if err != nil {
		return nil, "", errors.Join(err, end(ctx))
	}
	revision, err := etcd(ctx, url+"/v3/kv/range", map[string]any{"key": base64.StdEncoding.EncodeToString([]byte("/"))}, "header", "revision")
	if err == nil {
		_, err = etcd(ctx, url+"/v3/kv/compaction", map[string]any{"revision": revision, "physical": true})
	}
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("compact etcd: %w", err), end(ctx))
	}
	a.outage()
	return end, "", a.campaign.stopFor("kube-apiserver", syscall.SIGKILL)
}

// etcd makes a request to etcd's gateway and returns a text of the answer.
func etcd(ctx context.Context, url string, body any, path ...string) (string, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(data))
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("POST %s: %s: %s", url, response.Status, answer)
	}
	if len(path) == 0 {
		return "", nil
	}
	var tree map[string]map[string]any
	if err := json.Unmarshal(answer, &tree); err != nil {
		return "", fmt.Errorf("POST %s: %w: %s", url, err, answer)
	}
	return fmt.Sprint(tree[path[0]][path[1]]), nil
}

// etcdURL finds etcd's address in how it was started.
func (c *campaign) etcdURL() (string, error) {
	pid, err := c.cluster.Pid("etcd")
	if err != nil {
		return "", err
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return "", err
	}
	for argument := range bytes.SplitSeq(line, []byte{0}) {
		if url, is := bytes.CutPrefix(argument, []byte("--listen-client-urls=")); is {
			return string(url), nil
		}
	}
	return "", errors.New("find etcd: its arguments do not say where it listens")
}
