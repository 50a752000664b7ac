package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"shiplog.dev/integration/testbed"
)

// entry is what is read of one line of `shiplog tail -o json`.
type entry struct {
	Sequence  uint64    `json:"sequence"`
	Time      time.Time `json:"time"`
	Type      string    `json:"type"`
	Namespace string    `json:"namespace"`
	Resource  string    `json:"resource"`
	Name      string    `json:"name"`
	Reason    string    `json:"reason"`
	Entry     struct {
		Writer  string `json:"writer"`
		Cause   string `json:"cause"`
		Command *struct {
			Object struct {
				UID string `json:"uid"`
			} `json:"object"`
			Create *struct{} `json:"create"`
			Patch  *struct{} `json:"patch"`
			Delete *struct{} `json:"delete"`
		} `json:"command"`
		Outcome *struct {
			Result string `json:"result"`
			Unsure bool   `json:"unsure"`
			Reason struct {
				Code string `json:"code"`
			} `json:"reason"`
			Object struct {
				UID string `json:"uid"`
			} `json:"object"`
		} `json:"outcome"`
	} `json:"entry"`

	received time.Time
	digest   [sha256.Size]byte
}

// verb of the command in the entry; empty: there is none that writes to Kubernetes.
func (e *entry) verb() string {
	switch command := e.Entry.Command; {
	case command == nil:
	case command.Create != nil:
		return "create"
	case command.Patch != nil:
		return "patch"
	case command.Delete != nil:
		return "delete"
	}
	return ""
}

func (e *entry) cause() uint64 {
	cause, _ := strconv.ParseUint(e.Entry.Cause, 10, 64)
	return cause
}

// observer reads the log as it grows, with the tool that everybody has, and remembers what it read. What it has read once was
// acknowledged, or was about to be, and must be there for ever.
type observer struct {
	program string
	url     func() (string, error)
	// clocks says that the log's clock may be off.
	clocks bool

	mu      sync.Mutex
	entries []entry // in order
}

func newObserver(url func() (string, error)) (*observer, error) {
	program, err := testbed.Program("shiplog")
	if err != nil {
		return nil, err
	}
	return &observer{program: program, url: url}, nil
}

// run reads until ctx ends. A reader that ends is started again behind what it had read.
func (o *observer) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := o.follow(ctx, "--follow"); err != nil && ctx.Err() == nil {
			pause(ctx, 300*time.Millisecond)
		}
	}
}

// follow runs one reader from behind the newest entry.
func (o *observer) follow(ctx context.Context, more ...string) error {
	return o.read(ctx, o.newest()+1, o.take, more...)
}

// catchUp reads to the end of the log on a connection of its own: the reader that follows may be on a server that was cut off, or look
// for one that was started again elsewhere.
func (o *observer) catchUp(ctx context.Context) error { return o.follow(ctx) }

func (o *observer) newest() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.entries) == 0 {
		return 0
	}
	return o.entries[len(o.entries)-1].Sequence
}

// read has the tool print entries from a position on.
func (o *observer) read(ctx context.Context, from uint64, take func(entry), more ...string) error {
	url, err := o.url()
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, o.program, append([]string{"tail", "-A", "-o", "json", "--log", url, "--since", fmt.Sprint(from)}, more...)...)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	var said strings.Builder
	command.Stderr = &said
	if err := command.Start(); err != nil {
		return err
	}
	lines := bufio.NewReaderSize(out, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_ = command.Process.Kill()
			}
			if err := command.Wait(); err != nil {
				return fmt.Errorf("shiplog tail: %w: %s", err, strings.TrimSpace(said.String()))
			}
			return nil
		}
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("read an entry: %w", err)
		}
		e.received, e.digest = time.Now(), sha256.Sum256(line)
		take(e)
	}
}

func (o *observer) take(e entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.entries); n > 0 && e.Sequence <= o.entries[n-1].Sequence {
		return
	}
	if o.clocks {
		e.Time = righted(e.Time, e.received)
	}
	o.entries = append(o.entries, e)
}

// since returns the entries behind a position.
func (o *observer) since(position int) []entry {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.entries[position:len(o.entries):len(o.entries)]
}

// lost reads the whole log again and returns what was read once and is not there any more, or is another now.
func (o *observer) lost(ctx context.Context) ([]string, error) {
	read := o.since(0)
	there := map[uint64][sha256.Size]byte{}
	if err := o.read(ctx, 1, func(e entry) { there[e.Sequence] = e.digest }); err != nil {
		return nil, fmt.Errorf("read the whole log: %w", err)
	}
	var lost []string
	for _, e := range read {
		digest, is := there[e.Sequence]
		switch {
		case !is:
			lost = append(lost, fmt.Sprintf("entry %d (%s %s) was read, and is not in the log any more", e.Sequence, e.Type, e.Name))
		case digest != e.digest:
			lost = append(lost, fmt.Sprintf("entry %d (%s %s) is not what it was", e.Sequence, e.Type, e.Name))
		}
	}
	return lost, nil
}
