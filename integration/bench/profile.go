package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	pprof "github.com/google/pprof/profile"
	"golang.org/x/sync/errgroup"
)

// profile is where a process spent its CPU during the first seconds of a job.
type profile struct {
	Process string  `json:"process"`
	Seconds float64 `json:"seconds"` // that were looked at
	CPU     float64 `json:"cpuSeconds"`
	// Packages and Functions are CPU by the innermost of the process's own packages (of Kubernetes', for the API server) on the stack, and by
	// the innermost function of these: shares, the largest first.
	Packages  []share `json:"packages"`
	Functions []share `json:"functions"`
}

// share of the whole, from 0 to 1.
type share struct {
	Name  string  `json:"name"`
	Share float64 `json:"share"`
}

// most is how many shares are kept.
const most = 8

// Processes that are profiled beside Shiplog's own: a component of the cluster, and the log's server.
const (
	apiServer  = "kube-apiserver"
	natsServer = "nats"
)

func noProfiles() ([]profile, error) { return nil, nil }

// profiles begins to take CPU profiles of the API server, and of Shiplog where that works; the function that it returns waits for them.
func (c *cell) profiles(ctx context.Context, on *cluster, job string) func() ([]profile, error) {
	if !c.profile {
		return noProfiles
	}
	seconds := min(max(2, c.pods/250), 15)
	takes := map[string]func(context.Context) ([]byte, error){
		apiServer: func(ctx context.Context) ([]byte, error) {
			return on.client.RESTClient().Get().AbsPath("/debug/pprof/profile").Param("seconds", fmt.Sprint(seconds)).DoRaw(ctx)
		},
	}
	for _, one := range c.servicesOn(on) {
		address := one.profiling
		if one.program == "shiplog" {
			address = one.process.Listen
		}
		takes[one.name] = func(ctx context.Context) ([]byte, error) { return fetchProfile(ctx, address, seconds) }
	}
	names := slices.Sorted(maps.Keys(takes))
	taken := make([]profile, len(names))
	group, ctx := errgroup.WithContext(ctx)
	for i, name := range names {
		group.Go(func() error {
			data, err := takes[name](ctx)
			if err == nil {
				taken[i], err = summarize(name, data)
			}
			if err == nil && c.keep != "" {
				err = os.WriteFile(filepath.Join(c.keep, strings.ReplaceAll(fmt.Sprintf("%s-%s-%s.pprof", c.name(), job, name), " ", "-")), data, 0o644)
			}
			if err != nil {
				return fmt.Errorf("take a CPU profile of %s: %w", name, err)
			}
			return nil
		})
	}
	return func() ([]profile, error) { return taken, group.Wait() }
}

func fetchProfile(ctx context.Context, address string, seconds int) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", address, seconds), nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, bytes.TrimSpace(data))
	}
	return data, err
}

// summarize says where a profile's CPU went.
func summarize(process string, data []byte) (profile, error) {
	p, err := pprof.ParseData(data)
	if err != nil {
		return profile{}, err
	}
	own := "shiplog.dev/"
	switch process {
	case apiServer:
		own = "k8s.io/"
	case natsServer:
		own = "github.com/nats-io/"
	}
	packages, functions, all := map[string]float64{}, map[string]float64{}, 0.0
	for _, sample := range p.Sample {
		cpu := float64(sample.Value[len(sample.Value)-1]) / float64(time.Second) // cpu/nanoseconds
		stack := functionsOf(sample)
		if len(stack) == 0 {
			continue
		}
		all += cpu
		function, pkg := workOf(stack, own)
		packages[pkg] += cpu
		if function != "" {
			functions[function] += cpu
		}
	}
	return profile{Process: process, Seconds: float64(p.DurationNanos) / float64(time.Second), CPU: all, Packages: largest(packages, all), Functions: largest(functions, all)}, nil
}

// functionsOf is the stack of a sample, the function that ran first.
func functionsOf(sample *pprof.Sample) (names []string) {
	for _, location := range sample.Location {
		for _, line := range location.Line {
			if line.Function != nil {
				names = append(names, line.Function.Name)
			}
		}
	}
	return names
}

// workOf names what a stack works on: the innermost function of the process's own packages, and its package; where there is none, a part of
// Go's runtime, or the package that runs the goroutine.
func workOf(stack []string, own string) (function, pkg string) {
	for _, name := range stack {
		if strings.HasPrefix(name, own) {
			return plain(name), strings.TrimPrefix(packageOf(name), "shiplog.dev/")
		}
	}
	outermost := stack[len(stack)-1]
	switch {
	case strings.HasPrefix(outermost, "runtime.gcBgMarkWorker"), strings.HasPrefix(outermost, "runtime.bgsweep"), strings.HasPrefix(outermost, "runtime.bgscavenge"):
		return "", "garbage collection"
	case strings.HasPrefix(outermost, "runtime."):
		return "", "Go's scheduler"
	}
	return "", strings.ReplaceAll(packageOf(outermost), "%2e", ".")
}

// packageOf is the import path of a function's package.
func packageOf(function string) string {
	directory, name := path.Split(untyped(function))
	name, _, _ = strings.Cut(name, ".")
	return directory + name
}

// plain is a function's name without type arguments, closures and the module's host.
func plain(function string) string {
	function = untyped(function)
	for {
		i := strings.LastIndexByte(function, '.')
		if i < 0 || !strings.HasPrefix(function[i+1:], "func") && strings.Trim(function[i+1:], "0123456789") != "" {
			break
		}
		function = function[:i]
	}
	return strings.TrimPrefix(function, "shiplog.dev/")
}

// untyped is a function's name without type arguments.
func untyped(function string) string {
	begins, ends := strings.IndexByte(function, '['), strings.LastIndexByte(function, ']')
	if begins < 0 || ends < begins {
		return function
	}
	return function[:begins] + function[ends+1:]
}

// largest are the largest shares of a whole.
func largest(of map[string]float64, all float64) []share {
	var out []share
	for name, cpu := range of {
		out = append(out, share{name, cpu / max(all, 1e-9)})
	}
	slices.SortFunc(out, func(a, b share) int { return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Name, b.Name)) })
	return out[:min(len(out), most)]
}
