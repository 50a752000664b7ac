package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// clockStep is how far a clock is set wrong.
const clockStep = time.Minute

// layClocks is what layServices is, of programs whose clocks can be set: built from the same sources, with steppedtime.
func (c *campaign) layClocks(ctx context.Context, s *system) error {
	s.clocks = true
	return c.layServices(ctx, s)
}

// wallClock is a file that says by how many seconds the clock of a process is off.
type wallClock string

func (c wallClock) set(off time.Duration) error {
	// The process has the file mapped: it is written to where it is, all of it at once.
	file, err := os.OpenFile(string(c), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = file.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(int64(off/time.Second))), 0)
	return err
}

// addPart adds a process to the system. Where clocks can be set it is the program that was built for that, with a clock of its own.
func (c *campaign) addPart(s *system, name, program string, arguments ...string) (*part, error) {
	if !s.clocks {
		p, err := newPart(c.options.dir, name, program, arguments...)
		if err == nil {
			s.parts = append(s.parts, p)
		}
		return p, err
	}
	p, err := newPart(c.options.dir, name, filepath.Join("stepped", program), arguments...)
	if err != nil {
		return nil, err
	}
	p.clock = wallClock(filepath.Join(c.options.dir, "logs", name+".clock"))
	s.parts = append(s.parts, p)
	return p, p.clock.set(0)
}

// clockFaults set the clock of a process forward and back by a minute, and right again later: the other way.
func clockFaults(name string, pick func(*system) []*part) []fault {
	on := []string{"clocks"}
	return []fault{
		{"forward-" + name, on, 2 * time.Second, 30 * time.Second, stepped(pick, clockStep)},
		{"back-" + name, on, 2 * time.Second, 30 * time.Second, stepped(pick, -clockStep)},
	}
}

func stepped(pick func(*system) []*part, off time.Duration) func(context.Context, *act) (func(context.Context) error, string, error) {
	return func(_ context.Context, a *act) (func(context.Context) error, string, error) {
		parts := pick(a.system)
		if len(parts) == 0 {
			return nil, "nobody", nil
		}
		set := func(off time.Duration) error {
			for _, p := range parts {
				if err := p.clock.set(off); err != nil {
					return fmt.Errorf("set the clock of %s: %w", p.name, err)
				}
			}
			return nil
		}
		hit := parts[0].name
		if len(parts) > 1 {
			hit = "all"
		}
		return func(context.Context) error { return set(0) }, hit, set(off)
	}
}

// everybody is every process: the clock of the machine.
func everybody(s *system) []*part { return slices.Clone(s.parts) }

// one is the process that a fault picks.
func one(pick picks) func(*system) []*part {
	return func(s *system) []*part {
		if p := pick(s); p != nil {
			return []*part{p}
		}
		return nil
	}
}

// righted returns the time of an entry by a clock that is right. The log's clock is off by whole minutes, if it is, and entries are read
// within half a minute.
func righted(at, received time.Time) time.Time {
	return at.Add(received.Sub(at).Round(clockStep))
}
