// Package process starts child processes and answers for them: a child logs to a file, is asked until it is
// healthy, is stopped by its own process group, and dies with its parent whatever ends the parent. It knows
// nothing about what the children do.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Spec says what to run.
type Spec struct {
	Name   string   // for messages and the log file's name
	Args   []string // the program and its arguments
	LogDir string   // the output goes to LogDir/Name.log, appended
	// Cloneflags are the namespaces in which the child is to live, if not in those of its parent.
	Cloneflags uintptr
}

// Process is a child.
type Process struct {
	Name string
	Log  string

	spec Spec
	pid  atomic.Int64
	done chan struct{}
	err  error // how it ended; read only after done is closed

	mu       sync.Mutex
	stopping bool
	stopped  chan struct{} // closed with stopping
	restarts int
	onEnd    func(err error, restarts bool)
}

// Start starts a child. It does not wait for it to be useful: see WaitHealthy.
func Start(spec Spec) (*Process, error) {
	p := &Process{Name: spec.Name, Log: filepath.Join(spec.LogDir, spec.Name+".log"), spec: spec, done: make(chan struct{}), stopped: make(chan struct{})}
	cmd, err := p.launch()
	if err != nil {
		return nil, err
	}
	go p.watch(cmd)
	return p, nil
}

func (p *Process) launch() (*exec.Cmd, error) {
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: open its log: %w", p.Name, err)
	}
	defer log.Close()
	cmd := exec.Command(p.spec.Args[0], p.spec.Args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// A group of its own, so that Ctrl-C reaches only the parent, which then stops children in order.
		Setpgid: true,
		// Sent when the thread that starts the child ends. The Go runtime keeps its threads, so that is
		// when the process ends.
		Pdeathsig:  syscall.SIGKILL,
		Cloneflags: p.spec.Cloneflags,
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.pid.Store(int64(cmd.Process.Pid))
	return cmd, nil
}

// watch waits for the child to end, and starts it again where KeepRunning allows it.
func (p *Process) watch(cmd *exec.Cmd) {
	defer close(p.done)
	for {
		p.err = cmd.Wait()
		p.mu.Lock()
		if p.stopping || p.onEnd == nil {
			p.mu.Unlock()
			return
		}
		again, onEnd := p.restarts > 0, p.onEnd
		p.restarts--
		p.mu.Unlock()
		onEnd(p.Ended(), again)
		if !again {
			return
		}
		if cmd = p.relaunch(); cmd == nil {
			return
		}
		onEnd(nil, true)
	}
}

// relaunch starts the child again unless it has been stopped. It waits a moment first, so that a child which another
// one's end has brought down does not use up its restarts before that one is back.
func (p *Process) relaunch() *exec.Cmd {
	select {
	case <-p.stopped:
	case <-time.After(200 * time.Millisecond):
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopping {
		return nil
	}
	cmd, err := p.launch()
	if err != nil {
		p.err = err
		return nil
	}
	return cmd
}

// KeepRunning starts the child again when it ends by itself, as often as restarts says. It calls onEnd at each end, with
// what is known of it and whether the child will be started again, and with nil once it has been.
func (p *Process) KeepRunning(restarts int, onEnd func(err error, again bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.restarts, p.onEnd = restarts, onEnd
}

// PID is the child's process id as its parent sees it.
func (p *Process) PID() int { return int(p.pid.Load()) }

// Done is closed once the child has ended for good.
func (p *Process) Done() <-chan struct{} { return p.done }

// Ended describes how a child that should have gone on ended, with the last lines of its log.
func (p *Process) Ended() error {
	how := "exit status 0"
	if p.err != nil {
		how = p.err.Error()
	}
	return fmt.Errorf("%s ended (%s); its log %s ends with:\n%s", p.Name, how, p.Log, tail(p.Log, 8))
}

// WaitHealthy asks until check answers nil, the child ends, or the time is over.
func (p *Process) WaitHealthy(ctx context.Context, limit time.Duration, check func(context.Context) error) error {
	err := Until(ctx, limit, func(ctx context.Context) error {
		select {
		case <-p.done:
			return Final(p.Ended())
		default:
			return check(ctx)
		}
	})
	if err != nil && !errors.As(err, new(final)) {
		return fmt.Errorf("wait for %s (log: %s): %w", p.Name, p.Log, err)
	}
	return err
}

// Stop asks the child's process group to end, and ends it by force when the time is over.
func (p *Process) Stop(grace time.Duration) {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
		p.Kill()
	}
}

// Kill ends the child's process group by force and waits until the child is gone.
func (p *Process) Kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// LetGo ends what KeepRunning began: whatever ends the child now, it stays down and nobody is told.
func (p *Process) LetGo() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.letGo()
}

func (p *Process) letGo() {
	if !p.stopping {
		p.stopping = true
		close(p.stopped)
	}
}

func (p *Process) signal(signal syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.letGo()
	select {
	case <-p.done: // its id may belong to somebody else by now
	default:
		_ = syscall.Kill(-p.PID(), signal)
	}
}

type final struct{ error }

func (f final) Unwrap() error { return f.error }

// Final marks an error after which Until does not ask again.
func Final(err error) error { return final{err} }

// Until asks again and again until check answers nil or a final error, or the time is over; then it answers with
// what check said last.
func Until(ctx context.Context, limit time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check(ctx)
		if err == nil || errors.As(err, new(final)) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", limit, err)
		case <-ticker.C:
		}
	}
}

func tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "(" + err.Error() + ")"
	}
	all := strings.Split(string(bytes.TrimSpace(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
