package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"shiplog.dev/integration/testbed"
)

// restartPause is how long a process that ended by itself stays down: somebody starts it again, as a Deployment would.
const restartPause = 500 * time.Millisecond

// part is one process of Shiplog, or of what it stands on. It is started again when it ends without having been asked to.
type part struct {
	name, program string
	arguments     []string
	shiplog       bool
	said          io.WriteCloser
	// alive is a URL that answers with something else than 200 when the process has to be started anew; empty: none.
	alive string
	// clock of the process, when it can be set; empty: it has that of the machine.
	clock wallClock

	mu      sync.Mutex
	process *testbed.Process // nil: it is down
	wanted  bool
	// endings counts how often it ended by itself.
	endings int
}

func newPart(dir, name, program string, arguments ...string) (*part, error) {
	path, err := testbed.Program(program)
	if err != nil {
		return nil, err
	}
	said, err := os.OpenFile(filepath.Join(dir, "logs", name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	return &part{name: name, program: path, arguments: arguments, shiplog: filepath.Base(program) == "shiplog", said: said}, nil
}

func (p *part) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted = true
	return p.launch()
}

// launch starts the process. The caller holds mu.
func (p *part) launch() (err error) {
	if p.process != nil {
		return nil
	}
	fmt.Fprintf(p.said, "---- started %s\n", time.Now().Format(time.RFC3339Nano))
	program, arguments := p.program, p.arguments
	if p.clock != "" {
		program, arguments = "/usr/bin/env", append([]string{"SHIPLOG_CLOCK=" + string(p.clock), p.program}, p.arguments...)
	}
	if p.shiplog {
		p.process, err = testbed.StartShiplogAt(program, p.said, arguments...)
	} else {
		p.process, err = testbed.Start(program, p.said, arguments...)
	}
	if err != nil {
		return err
	}
	go p.watch(p.process)
	if p.alive != "" {
		go p.probe(p.process)
	}
	return nil
}

// probe ends a process that has not been well for a while, as a liveness probe would.
func (p *part) probe(process *testbed.Process) {
	client := http.Client{Timeout: time.Second}
	failed := 0
	for {
		select {
		case <-process.Done():
			return
		case <-time.After(time.Second):
		}
		response, err := client.Get(p.alive)
		if err != nil {
			continue // it is paused, or has not begun to listen
		}
		_ = response.Body.Close()
		if response.StatusCode == http.StatusOK {
			failed = 0
		} else if failed++; failed == 3 {
			process.Kill()
			return
		}
	}
}

func (p *part) watch(process *testbed.Process) {
	<-process.Done()
	p.mu.Lock()
	if p.process != process {
		p.mu.Unlock()
		return
	}
	p.process = nil
	p.endings++
	p.mu.Unlock()
	time.Sleep(restartPause)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wanted {
		if err := p.launch(); err != nil {
			say("%s cannot be started again: %v", p.name, err)
		}
	}
}

// take returns the process, which is the caller's to end; nil when it is down.
func (p *part) take() *testbed.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	process := p.process
	p.process, p.wanted = nil, false
	return process
}

func (p *part) now() *testbed.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.process
}

// kill ends it at once and leaves it down.
func (p *part) kill() {
	if process := p.take(); process != nil {
		process.Kill()
	}
}

// stop asks it to end, and leaves it down.
func (p *part) stop() error {
	if process := p.take(); process != nil {
		return process.Stop()
	}
	return nil
}

// ready waits until it says that it is ready.
func (p *part) ready(ctx context.Context) error {
	for {
		process := p.now()
		if process != nil {
			short, cancel := context.WithTimeout(ctx, 5*time.Second)
			err := process.Ready(short)
			cancel()
			if err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", p.name, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// metric of the process; 0 when it does not answer.
func (p *part) metric(name string) float64 {
	process := p.now()
	if process == nil {
		return 0
	}
	value, err := process.Metric(name)
	if err != nil {
		return 0
	}
	return value
}
