package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"shiplog.dev/integration/testbed"
)

// system is Shiplog as one layout runs it, with a log of its own.
type system struct {
	layout string
	dir    string // below which the log is kept
	parts  []*part
	// clocks says that the parts' clocks can be set.
	clocks bool
	// url is where tools read the log.
	url func() (string, error)
	// servers hold the log; nil: no cluster does.
	servers *testbed.NATSCluster
}

// layouts are the ways to run Shiplog.
var layouts = map[string]func(*campaign, context.Context, *system) error{
	"one":      (*campaign).layOne,
	"services": (*campaign).layServices,
	"clocks":   (*campaign).layClocks,
	"cluster":  (*campaign).layCluster,
}

func layoutNames() []string { return []string{"services", "one", "clocks", "cluster"} }

// usualLayouts are those that are played unless somebody says otherwise.
func usualLayouts() []string {
	if canRunServers() {
		return layoutNames()
	}
	return []string{"services", "one", "clocks"}
}

// layOne is everything in one process, with an embedded NATS server.
func (c *campaign) layOne(_ context.Context, s *system) error {
	address, err := testbed.FreeAddress()
	if err != nil {
		return err
	}
	state := filepath.Join(s.dir, "state")
	_, err = c.addPart(s, "up", "shiplog", "up", "--kubeconfig", c.proxy.Kubeconfig, "--state-dir", state,
		"--nats-listen", address, "--max-log-bytes", logSize, "--nodeagent", realNode+"="+c.socket)
	if err != nil {
		return err
	}
	s.url = func() (string, error) {
		data, err := os.ReadFile(filepath.Join(state, "nats.url"))
		return strings.TrimSpace(string(data)), err
	}
	return nil
}

// layServices is a process for each service, two planners and two executors, on one NATS server.
func (c *campaign) layServices(_ context.Context, s *system) error {
	address, err := testbed.FreeAddress()
	if err != nil {
		return err
	}
	monitor, err := testbed.FreeAddress()
	if err != nil {
		return err
	}
	// Without a limit of its own the server takes what is free on the disk when it starts, which is nothing on a full one.
	config := filepath.Join(s.dir, "nats.conf")
	text := fmt.Sprintf("listen: %s\nhttp: %s\njetstream {store_dir: %q, max_file: %d}\n", address, monitor, filepath.Join(s.dir, "nats"), diskSize)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	nats, err := c.addPart(s, "nats", "nats-server", "-c", config)
	if err != nil {
		return err
	}
	nats.alive = "http://" + monitor + "/healthz"
	s.url = func() (string, error) { return "nats://" + address, nil }
	return c.addServices(s, "nats://"+address, "--max-log-bytes", logSize)
}

// addServices adds a process for each service, on a log somewhere else.
func (c *campaign) addServices(s *system, url string, more ...string) error {
	for _, one := range []struct {
		name      string
		arguments []string
	}{
		{"watcher", []string{"watcher", "--kubeconfig", c.proxy.Kubeconfig}},
		{"planner-1", []string{"planner", "--kubeconfig", c.proxy.Kubeconfig}},
		{"planner-2", []string{"planner", "--kubeconfig", c.proxy.Kubeconfig}},
		{"executor-1", []string{"executor", "--kubeconfig", c.proxy.Kubeconfig}},
		{"executor-2", []string{"executor", "--kubeconfig", c.proxy.Kubeconfig, "--webhook-listen", "off"}},
		{"nodeagent", []string{"nodeagent", "--node", realNode, "--cri", c.socket}},
	} {
		arguments := append(one.arguments, "--nats-url", url)
		if one.name != "nodeagent" {
			arguments = append(arguments, more...)
		}
		if _, err := c.addPart(s, one.name, "shiplog", arguments...); err != nil {
			return err
		}
	}
	return nil
}

// start starts all parts and waits until they are ready.
func (s *system) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for _, p := range s.parts {
		if err := p.start(); err != nil {
			return err
		}
		if p.name == "watcher" || p.name == "executor-1" || p.name == "up" {
			if err := p.ready(ctx); err != nil {
				return err
			}
		}
	}
	return s.ready(ctx)
}

// ready waits until every part of Shiplog is.
func (s *system) ready(ctx context.Context) error {
	for _, p := range s.parts {
		if !p.shiplog {
			continue
		}
		if err := p.ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// part returns a part by its name; nil when the layout has none.
func (s *system) part(name string) *part {
	i := slices.IndexFunc(s.parts, func(p *part) bool { return p.name == name })
	if i < 0 {
		return nil
	}
	return s.parts[i]
}

// planner returns the one that leads, or the one that does not; nil when nobody says so.
func (s *system) planner(leading bool) *part {
	for _, p := range s.parts {
		if strings.HasPrefix(p.name, "planner") && (p.metric("shiplog_planner_leading") == 1) == leading && p.now() != nil {
			return p
		}
	}
	return nil
}

// end ends all parts, the log last.
func (s *system) end() {
	for i := len(s.parts) - 1; i >= 0; i-- {
		s.parts[i].kill()
	}
	if s.servers != nil {
		if err := s.servers.Down(); err != nil {
			say("%v", err)
		}
	}
}

func (s *system) String() string {
	endings := ""
	for _, p := range s.parts {
		p.mu.Lock()
		if p.endings > 0 {
			endings += fmt.Sprintf(" %s %d", p.name, p.endings)
		}
		p.mu.Unlock()
	}
	return endings
}
