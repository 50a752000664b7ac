package journal

import (
	"fmt"
	"testing"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal/embedded"
)

func benchmarkEach(b *testing.B, run func(b *testing.B, j Journal)) {
	for _, m := range []struct {
		name string
		open func(b *testing.B) Journal
	}{
		{"memory", func(b *testing.B) Journal { return NewMemory(time.Now) }},
		{"fast", func(b *testing.B) Journal {
			return mustOpen(b, Options{Server: &embedded.Server{Directory: b.TempDir()}})
		}},
		{"strict", func(b *testing.B) Journal {
			return mustOpen(b, Options{Server: &embedded.Server{Directory: b.TempDir()}, Durability: Strict})
		}},
		{"tcp", func(b *testing.B) Journal { return startExternal(b, limits{}) }},
	} {
		b.Run(m.name, func(b *testing.B) { run(b, m.open(b)) })
	}
}

func rate(b *testing.B, n int) {
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkAppend appends facts of 3 kB, 500 at a time.
func BenchmarkAppend(b *testing.B) {
	benchmarkEach(b, func(b *testing.B, j Journal) {
		const batch = 500
		entries := make([]*shiplogv1.Entry, batch)
		version := 0
		for b.Loop() {
			for k := range entries {
				version++
				entries[k] = factOf("a", version, 3000)
			}
			if _, err := j.Append(b.Context(), entries...); err != nil {
				b.Fatal(err)
			}
		}
		rate(b, version)
	})
}

// BenchmarkAppendOne appends one fact of 3 kB at a time.
func BenchmarkAppendOne(b *testing.B) {
	benchmarkEach(b, func(b *testing.B, j Journal) {
		version := 0
		for b.Loop() {
			version++
			if _, err := j.Append(b.Context(), factOf("a", version, 3000)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkCommands appends commands of about 600 bytes, some at a time.
func BenchmarkCommands(b *testing.B) {
	for _, batch := range []int{1, 2, MaxCommands} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) { benchmarkCommands(b, batch) })
	}
}

func benchmarkCommands(b *testing.B, batch int) {
	benchmarkEach(b, func(b *testing.B, j Journal) {
		fence, err := j.RaiseFence(b.Context(), "planner", "v1", nil)
		check(b, err)
		commands := make([]*shiplogv1.Entry, batch)
		for i := range commands {
			commands[i] = write(fmt.Sprint(i))
			commands[i].GetCommand().Effect = &shiplogv1.Command_Patch{Patch: &shiplogv1.PatchObject{Json: filler(550)}}
		}
		n := 0
		for b.Loop() {
			n += len(commands)
			if _, err := j.AppendCommands(b.Context(), fence, commands...); err != nil {
				b.Fatal(err)
			}
		}
		rate(b, n)
	})
}

// BenchmarkLatency is the time from appending one entry to its coming out of a waiting reader.
func BenchmarkLatency(b *testing.B) {
	benchmarkEach(b, func(b *testing.B, j Journal) {
		r, err := j.Read(b.Context(), From{})
		check(b, err)
		defer r.Close()
		version := 0
		for b.Loop() {
			version++
			if _, err := j.Append(b.Context(), factOf("a", version, 3000)); err != nil {
				b.Fatal(err)
			}
			if _, err := r.Next(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkRead reads 20,000 facts of 3 kB from the beginning.
func BenchmarkRead(b *testing.B) {
	const total = 20_000
	benchmarkRead(b, total, From{}, func(*testing.B, Journal) {})
}

// BenchmarkReadCompacted does so from a compacted view.
func BenchmarkReadCompacted(b *testing.B) {
	const total = 20_000
	benchmarkRead(b, total, From{Compacted: true}, func(b *testing.B, j Journal) {
		check(b, j.Compact(b.Context(), total, all))
	})
}

func benchmarkRead(b *testing.B, total int, from From, prepare func(*testing.B, Journal)) {
	benchmarkEach(b, func(b *testing.B, j Journal) {
		if l, ok := j.(*logStream); ok && l.options.Durability == Strict {
			b.Skip("reads like fast")
		}
		for i := 0; i < total; i += 500 {
			var entries []*shiplogv1.Entry
			for k := range 500 {
				entries = append(entries, factOf(fmt.Sprint(i+k), 1, 3000))
			}
			_, err := j.Append(b.Context(), entries...)
			check(b, err)
		}
		prepare(b, j)
		n := 0
		for b.Loop() {
			r, err := j.Read(b.Context(), from)
			check(b, err)
			for got := 0; got < total; {
				records, err := r.Next(b.Context())
				check(b, err)
				got += len(records)
			}
			n += total
			r.Close()
		}
		rate(b, n)
	})
}

// BenchmarkWork takes commands and says that they are done, 64 at a time.
func BenchmarkWork(b *testing.B) {
	benchmarkEach(b, func(b *testing.B, j Journal) {
		fence, err := j.RaiseFence(b.Context(), "planner", "v1", nil)
		check(b, err)
		w, err := j.Commands(b.Context(), "executor")
		check(b, err)
		defer w.Close()
		go func() {
			for b.Context().Err() == nil {
				var commands []*shiplogv1.Entry
				for i := range 100 {
					commands = append(commands, write(fmt.Sprint(i)))
				}
				if _, err := j.AppendCommands(b.Context(), fence, commands...); err != nil {
					return
				}
				if _, ok := j.(*Memory); ok {
					time.Sleep(time.Millisecond) // it takes entries faster than anybody takes them away
				}
			}
		}()
		free := make(chan struct{}, 64)
		n := 0
		for b.Loop() {
			free <- struct{}{}
			task, err := w.Next(b.Context())
			check(b, err)
			n++
			go func() {
				_ = task.Done(b.Context())
				<-free
			}()
		}
		rate(b, n)
	})
}
