// Package cgroups makes and removes the control group above all containers of one cluster: what namespaces do not cover
// and containers leave behind. It knows both layouts, version 1 (one tree per controller) and version 2 (one tree).
package cgroups

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"shiplog.dev/integration/cluster/process"
)

const top = "/sys/fs/cgroup"

// trees are the roots of all control group trees. Their mark is the list of processes that every group has.
func trees() ([]string, error) {
	lists, err := filepath.Glob(top + "/*/cgroup.procs")
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(top + "/cgroup.controllers"); err == nil {
		return []string{top}, nil // version 2; what the pattern found are groups
	}
	var trees []string
	for _, list := range lists {
		trees = append(trees, filepath.Dir(list))
	}
	return trees, nil
}

// Make makes the group. The kubelet sets limits on it and reads its use.
func Make(name string) error {
	trees, err := trees()
	if err != nil {
		return fmt.Errorf("find the control group trees: %w", err)
	}
	for _, tree := range trees {
		group := filepath.Join(tree, name)
		if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make control group %s: %w", group, err)
		}
		// In version 1 a new group of this tree has no processors and no memory: nothing could run in it.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if filepath.Base(tree) != "cpuset" {
				break
			}
			value, err := os.ReadFile(filepath.Join(tree, file))
			if err == nil {
				err = os.WriteFile(filepath.Join(group, file), value, 0)
			}
			if err != nil {
				return fmt.Errorf("set up control group %s: %w", group, err)
			}
		}
	}
	return nil
}

// Remove removes the group and all below it. Processes in it must be ending: it waits a moment for the last.
func Remove(name string) error {
	trees, err := trees()
	if err != nil {
		return fmt.Errorf("find the control group trees: %w", err)
	}
	var problems []error
	for _, tree := range trees {
		var groups []string
		_ = filepath.WalkDir(filepath.Join(tree, name), func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				groups = append(groups, path)
			}
			return nil
		})
		for i := len(groups) - 1; i >= 0; i-- { // children first
			err := process.Until(context.Background(), 5*time.Second, func(context.Context) error {
				if err := syscall.Rmdir(groups[i]); err != nil && !errors.Is(err, syscall.ENOENT) {
					return err
				}
				return nil
			})
			if err != nil {
				problems = append(problems, fmt.Errorf("remove control group %s: %w", groups[i], err))
			}
		}
	}
	return errors.Join(problems...)
}
