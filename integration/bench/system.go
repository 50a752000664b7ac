package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"shiplog.dev/integration/testbed"
)

// system is Shiplog, with a log of its own.
type system struct {
	services []*service // in the order in which they start
	// url is where tools read the log.
	url func() (string, error)
}

// service is one process of it.
type service struct {
	name, program string
	arguments     []string
	address       string // at which it listens, where it has no other way to say that it is ready
	profiling     string // address of its profiles, where that is not one of Shiplog's own
	process       *testbed.Process
}

// layouts are the ways to run Shiplog.
var layouts = map[string]func(kubeconfig, dir string) (*system, error){
	"services": layServices,
	"one":      layOne,
}

// nodeImages has NodeImages made before anything is measured.
const nodeImages = "--nodeimage-creation-delay=1s"

var layoutNames = []string{"services", "one"}

// layOne is everything in one process, with an embedded NATS server, as shiplog up runs it.
func layOne(kubeconfig, dir string) (*system, error) {
	state := filepath.Join(dir, "state")
	return &system{
		services: []*service{{name: "up", program: "shiplog", arguments: []string{"up", "--kubeconfig", kubeconfig, "--state-dir", state, "--profiling", nodeImages}}},
		url: func() (string, error) {
			data, err := os.ReadFile(filepath.Join(state, "nats.url"))
			return strings.TrimSpace(string(data)), err
		},
	}, nil
}

// layServices is a process for each service on one NATS server, as the Helm chart runs them.
func layServices(kubeconfig, dir string) (*system, error) {
	address, err := testbed.FreeAddress()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "nats.conf")
	profiling, err := testbed.FreeAddress()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(profiling)
	text := fmt.Sprintf("listen: %s\nprof_port: %s\njetstream {store_dir: %q}\n", address, port, filepath.Join(dir, "nats"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	s := &system{
		services: []*service{{name: natsServer, program: "nats-server", arguments: []string{"-c", config}, address: address, profiling: profiling}},
		url:      func() (string, error) { return "nats://" + address, nil },
	}
	for _, name := range []string{"executor", "watcher", "planner"} {
		s.services = append(s.services, &service{
			name: name, program: "shiplog", arguments: []string{name, "--kubeconfig", kubeconfig, "--nats-url", "nats://" + address, "--profiling", nodeImages},
		})
	}
	return s, nil
}

// startSystem starts Shiplog and waits until it is ready.
func startSystem(ctx context.Context, layout string, cluster *testbed.Cluster, dir string) (*system, error) {
	s, err := layouts[layout](cluster.Kubeconfig, dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, one := range s.services {
		if err := one.start(ctx); err != nil {
			s.end()
			return nil, err
		}
	}
	return s, nil
}

// start starts the process and waits until it is ready.
func (s *service) start(ctx context.Context) (err error) {
	program, err := testbed.Program(s.program)
	if err != nil {
		return err
	}
	if s.program == "shiplog" {
		if s.process, err = testbed.StartShiplogAt(program, nil, s.arguments...); err != nil {
			return err
		}
		return s.process.Ready(ctx)
	}
	if s.process, err = testbed.Start(program, nil, s.arguments...); err != nil {
		return err
	}
	for {
		connection, err := net.DialTimeout("tcp", s.address, time.Second)
		if err == nil {
			return connection.Close()
		}
		if waited := pause(ctx, 20*time.Millisecond); waited != nil {
			return fmt.Errorf("%s does not listen: %w: %s", s.name, err, s.process.Output())
		}
	}
}

// of returns the service that does a part of the work: it or the one process of all.
func (s *system) of(name string) *service {
	for _, one := range s.services {
		if one.name == name || one.name == "up" {
			return one
		}
	}
	return nil
}

// servicesOn are the processes of Shiplog that work on a cluster.
func (c *cell) servicesOn(on *cluster) []*service {
	if on != c.ours {
		return nil
	}
	return c.system.services
}

// apart says whether each service is a process of its own.
func (s *system) apart() bool { return len(s.services) > 1 }

// end ends all processes, the log last.
func (s *system) end() {
	if s == nil {
		return
	}
	for i := len(s.services) - 1; i >= 0; i-- {
		if one := s.services[i]; one.process != nil && one.name != natsServer {
			if err := one.process.Stop(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				say("%v", err)
			}
			one.process = nil
		}
	}
	for _, one := range s.services {
		if one.process != nil {
			one.process.Kill()
			one.process = nil
		}
	}
}

func (s *system) output() string {
	var out strings.Builder
	for _, one := range s.services {
		if one.process != nil {
			fmt.Fprintf(&out, "---- %s\n%s", one.name, one.process.Output())
		}
	}
	return out.String()
}

// lastWords are the last lines that each process said.
func (s *system) lastWords() string {
	const lines = 15
	var out strings.Builder
	for _, one := range s.services {
		if one.process == nil {
			continue
		}
		said := strings.Split(strings.TrimSpace(one.process.Output()), "\n")
		fmt.Fprintf(&out, "---- %s\n%s\n", one.name, strings.Join(said[max(0, len(said)-lines):], "\n"))
	}
	return out.String()
}
