package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shiplog.dev/integration/bench/longlog"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/journal/embedded"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/replay"
)

// logBench measures what reads a long log: fold, replay, why, the page.
type logBench struct {
	figures
	plan        longlog.Plan
	samples     int
	directory   string
	binary      string
	journal     journal.Journal
	pods        []world.Ref // every Pod of the log, those that are gone included
	messageSize uint64
}

// logCommand is the part of the bench that needs no cluster.
func logCommand() *cobra.Command {
	b := logBench{plan: longlog.Million}
	command := &cobra.Command{
		Use: "log", Short: "Measure what reads a long log: fold, replay, why, the page",
		Example: "  go run ./integration/bench log\n  go run ./integration/bench log --entries 100000 --keep /tmp/long",
		RunE:    func(command *cobra.Command, _ []string) error { return b.run(command.Context()) },
	}
	flags := command.Flags()
	flags.Uint64Var(&b.plan.Seed, "seed", b.plan.Seed, "what is in the log follows from it")
	flags.Uint64Var(&b.plan.Entries, "entries", b.plan.Entries, "entries of the log")
	flags.IntVar(&b.samples, "samples", 200, "Pods that why is asked about, on each source")
	flags.StringVar(&b.directory, "keep", "", "keep the log in this `DIRECTORY`, and use what is there; default: a temporary one")
	flags.StringVar(&b.binary, "binary", "bin/shiplog", "`PATH` of the program that is asked")
	flags.StringVar(&b.jsonFile, "json", "", "write the figures to this `FILE` too")
	return command
}

func (b *logBench) run(ctx context.Context) error {
	if b.directory == "" {
		dir, err := os.MkdirTemp("", "shiplog-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		b.directory = dir
	}
	// Tools keep their index where the user's caches are; these ones are the bench's own.
	if err := os.Setenv("XDG_CACHE_HOME", filepath.Join(b.directory, "cache")); err != nil {
		return err
	}
	if err := b.write(ctx); err != nil {
		return err
	}
	defer func() { b.journal.Close() }()
	for _, measure := range []func(context.Context) error{b.fold, b.ask, b.rollout} {
		if err := measure(ctx); err != nil {
			return err
		}
	}
	return b.print(os.Stdout)
}

// write makes the log, unless the directory has it, and leaves it open for others to read.
func (b *logBench) write(ctx context.Context) error {
	path := filepath.Join(b.directory, "log")
	_, err := os.Stat(path)
	exists := err == nil
	if b.journal, err = journal.Open(ctx, journal.Options{Server: &embedded.Server{Directory: path, Listen: "127.0.0.1:0"}}); err != nil {
		return err
	}
	if exists {
		return nil
	}
	began := time.Now()
	if err := longlog.Write(ctx, b.journal, b.plan, func(n uint64) {
		say("%d of %d entries written", n, b.plan.Entries)
	}); err != nil {
		return err
	}
	say("written in %s", time.Since(began).Round(time.Second))
	return nil
}

// fold reads the whole log as a planner that starts does, and as replay does.
func (b *logBench) fold(ctx context.Context) error {
	state, err := b.journal.State(ctx)
	if err != nil {
		return err
	}
	log, err := history.Open(ctx, state.URL, "local")
	if err != nil {
		return err
	}
	defer log.Close()
	causes, types := replay.Causes{}, map[string]int{}
	seen := map[world.Ref]bool{}
	began := time.Now()
	if err := log.Each(ctx, history.Span{}, func(record journal.Record) error {
		causes.Note(record)
		b.messageSize += uint64(record.Size)
		types[history.TypeOf(record.Entry)]++
		if ref, about := history.ObjectOf(record.Entry); about && ref.Resource == world.ResourcePods && !seen[ref] {
			seen[ref] = true
			b.pods = append(b.pods, ref)
		}
		return nil
	}); err != nil {
		return err
	}
	entries := float64(log.Last)
	say("%d entries: %v", log.Last, types)
	b.add(figure{What: "read", Value: entries / time.Since(began).Seconds(), Unit: "entries/s"})

	before := heap()
	w := world.New()
	began = time.Now()
	if err := b.foldAll(ctx, state.URL, w); err != nil {
		return err
	}
	b.add(figure{What: "fold, reading and decoding included", Value: entries / time.Since(began).Seconds(), Unit: "entries/s"}.atLeast(50_000))
	b.add(figure{What: "memory of the world", Value: (heap() - before) / (1 << 20), Unit: "MB"})
	runtime.KeepAlive(w)

	run := replay.New(causes, 0)
	began = time.Now()
	if err := log.Each(ctx, history.Span{}, run.Show); err != nil {
		return err
	}
	if err := run.End(); err != nil {
		return err
	}
	b.add(figure{What: fmt.Sprintf("replay, %d commands decided again", run.Proven), Value: entries / time.Since(began).Seconds(), Unit: "entries/s"})
	b.add(figure{What: "message", Value: float64(b.messageSize) / entries, Unit: "bytes/entry"})
	b.add(figure{What: "on disk, compressed by the server", Value: b.onDisk("log") / entries, Unit: "bytes/entry"})
	return nil
}

// foldAll folds the log as a planner that starts without a compacted view.
func (b *logBench) foldAll(ctx context.Context, url string, w *world.World) error {
	log, err := journal.Open(ctx, journal.Options{URL: url, AsIs: true})
	if err != nil {
		return err
	}
	defer log.Close()
	state, err := log.State(ctx)
	if err != nil {
		return err
	}
	return foldAhead(ctx, log, state.LastSequence, w)
}

func heap() float64 {
	runtime.GC()
	runtime.GC() // what pools hold goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// onDisk is how many bytes the files below a part of the directory take.
func (b *logBench) onDisk(part string) (bytes float64) {
	_ = filepath.WalkDir(filepath.Join(b.directory, part), func(_ string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			if info, err := entry.Info(); err == nil {
				bytes += float64(info.Size())
			}
		}
		return nil
	})
	return bytes
}

// ask runs why about Pods drawn from all of the log, on a server, on a bundle, and on the directory of a stopped instance. The first
// question to each source makes the index.
func (b *logBench) ask(ctx context.Context) error {
	state, err := b.journal.State(ctx)
	if err != nil {
		return err
	}
	if err := b.askOn(ctx, "server", state.URL); err != nil {
		return err
	}
	bundle := filepath.Join(b.directory, "all.shiplog")
	if _, err := os.Stat(bundle); err != nil {
		took, _, err := b.program(ctx, "export", bundle, "--log", state.URL, "--redact=false")
		if err != nil {
			return err
		}
		b.add(figure{What: "export of everything", Value: took.Seconds(), Unit: "s"})
	}
	info, err := os.Stat(bundle)
	if err != nil {
		return err
	}
	b.add(figure{What: "in a bundle", Value: float64(info.Size()) / float64(state.LastSequence), Unit: "bytes/entry"})
	if err := b.askOn(ctx, "bundle", bundle); err != nil {
		return err
	}
	if err := b.journal.Close(); err != nil {
		return err
	}
	if err := b.askOn(ctx, "stopped instance", b.directory); err != nil {
		return err
	}
	b.add(figure{What: "index on disk", Value: b.onDisk("cache") / (1 << 20), Unit: "MB"})
	return nil
}

func (b *logBench) askOn(ctx context.Context, name, where string) error {
	draw := rand.New(rand.NewPCG(b.plan.Seed, 1))
	var times []time.Duration
	most := int64(0)
	for i := range b.samples + 1 {
		pod := b.pods[draw.IntN(len(b.pods))]
		took, memory, err := b.program(ctx, "why", "pod/"+pod.Name, "-n", pod.Namespace, "--log", where)
		if err != nil {
			return err
		}
		if i == 0 {
			b.add(figure{What: "first why, " + name, Value: took.Seconds(), Unit: "s"})
			b.add(figure{What: "first why, memory", Value: float64(memory) / 1024, Unit: "MB"})
			continue
		}
		times, most = append(times, took), max(most, memory)
	}
	slices.Sort(times)
	b.add(figure{What: "why, " + name + ", p50", Value: times[len(times)/2].Seconds(), Unit: "s"})
	b.add(figure{What: "why, " + name + ", p99", Value: times[len(times)*99/100].Seconds(), Unit: "s"}.atMost(1))
	b.add(figure{What: "why, " + name + ", memory", Value: float64(most) / 1024, Unit: "MB"})
	return nil
}

// program runs the program and returns how long it took and its largest resident memory in kB, as far as looking every few
// milliseconds shows it.
func (b *logBench) program(ctx context.Context, arguments ...string) (time.Duration, int64, error) {
	command := exec.CommandContext(ctx, b.binary, arguments...)
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	began := time.Now()
	if err := command.Start(); err != nil {
		return 0, 0, err
	}
	ended, largest := make(chan struct{}), make(chan int64)
	go func() {
		most := int64(0)
		for {
			most = max(most, resident(command.Process.Pid))
			select {
			case <-ended:
				largest <- most
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	err := command.Wait()
	took := time.Since(began)
	close(ended)
	if most := <-largest; err == nil {
		return took, most, nil
	}
	return 0, 0, fmt.Errorf("%s %v: %w\n%s", b.binary, arguments, err, out.Bytes())
}

// resident is the largest resident memory of a process until now in kB; 0: the process has ended. What the kernel says of one that has ended counts its
// parent's too.
func resident(process int) (kilobytes int64) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", process))
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	_, _ = fmt.Sscan(rest, &kilobytes)
	return kilobytes
}

// rollout writes the page of the rollout of 1,000 Pods.
func (b *logBench) rollout(ctx context.Context) error {
	page := filepath.Join(b.directory, "large.html")
	took, memory, err := b.program(ctx, "timeline", "cloneset/"+longlog.LargeName, "-n", longlog.LargeNamespace, "--generation", "2", "--html", page, "--log", b.directory)
	if err != nil {
		return err
	}
	info, err := os.Stat(page)
	if err != nil {
		return err
	}
	b.add(figure{What: fmt.Sprintf("page of a rollout of %d Pods", b.plan.Large), Value: float64(info.Size()) / 1e6, Unit: "MB"}.atMost(2))
	b.add(figure{What: "page, time", Value: took.Seconds(), Unit: "s"})
	b.add(figure{What: "page, memory", Value: float64(memory) / 1024, Unit: "MB"})
	return nil
}
