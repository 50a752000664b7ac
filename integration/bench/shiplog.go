package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"shiplog.dev/integration/testbed"
)

const namespace = "default"

func manifest(name string, replicas int, image string) string {
	return fmt.Sprintf(`apiVersion: apps.kruise.io/v1alpha1
kind: CloneSet
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  updateStrategy: {type: InPlaceIfPossible, maxUnavailable: 100%%}
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec: {containers: [{name: main, image: "%[3]s"}]}
`, name, replicas, image)
}

func (b *bench) apply(ctx context.Context, name string, replicas int, image string) error {
	_, err := b.cluster.Kubectl(ctx, manifest(name, replicas, image), "apply", "-n", namespace, "-f", "-")
	return err
}

// setImage changes the image with one request, so that no kubectl is part of what is measured.
func (b *bench) setImage(ctx context.Context, name, image string) error {
	patch := fmt.Appendf(nil, `[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":%q}]`, image)
	return b.client.RESTClient().Patch("application/json-patch+json").AbsPath("/apis/apps.kruise.io/v1alpha1/namespaces", namespace, "clonesets", name).
		SetHeader("Accept", "application/json").Body(patch).Do(ctx).Error()
}

// compare stops Shiplog and has a bare client make the same writes.
func (b *bench) compare(ctx context.Context, shiplog *testbed.Process) error {
	if err := shiplog.Stop(); err != nil {
		return err
	}
	say("floor: the same writes by a bare client with %d workers", floorWorkers)
	// The other CloneSet's Pods stay as they are; nobody looks after them now.
	f, err := b.floor(ctx, b.stateDir, fmt.Sprintf("nginx:%d", b.rounds))
	if err != nil {
		return fmt.Errorf("measure the floor: %w", err)
	}
	b.figures = append([]figure{
		compared(fmt.Sprintf("in-place update of %d Pods", b.pods), f.update, b.updated, "ratio 1.3 (1.5 for the main job)"),
		compared(fmt.Sprintf("create %d Pods", b.pods), f.create, b.created, ""),
	}, b.figures...)
	return nil
}

func compared(what string, floor, value time.Duration, budget string) figure {
	return figure{What: what, Floor: floor.Seconds(), Value: value.Seconds(), Unit: "s", Ratio: value.Seconds() / floor.Seconds(), Budget: budget}
}

// rollout measures creation and in-place update of all Pods.
func (b *bench) rollout(ctx context.Context, shiplog *testbed.Process) error {
	say("shiplog: a CloneSet of %d Pods", b.pods)
	mark := time.Now()
	took, err := b.until(ctx, "web", "nginx:0", func() error { return b.apply(ctx, "web", b.pods, "nginx:0") })
	if err != nil {
		return err
	}
	b.created = took
	if err := b.settle(ctx, "web"); err != nil {
		return err
	}
	writes, err := b.writes(mark)
	if err != nil {
		return err
	}
	b.add(figure{What: "API writes by us per Pod created", Value: float64(writes.pods) / float64(b.pods), Unit: "writes", Budget: "2"})
	profiled := b.startProfile(ctx, shiplog)
	var updates []time.Duration
	mark = time.Now()
	for round := 1; round <= b.rounds; round++ {
		image := fmt.Sprintf("nginx:%d", round)
		took, err := b.until(ctx, "web", image, func() error { return b.setImage(ctx, "web", image) })
		if err != nil {
			return err
		}
		say("shiplog: updated in place in %.2fs", took.Seconds())
		updates = append(updates, took)
		if err := b.settle(ctx, "web"); err != nil {
			return err
		}
	}
	if err := <-profiled; err != nil {
		return err
	}
	if writes, err = b.writes(mark); err != nil {
		return err
	}
	b.updated = median(updates)
	updated := float64(b.pods * b.rounds)
	b.add(figure{What: "API writes by us to Pods per Pod updated", Value: float64(writes.pods) / updated, Unit: "writes", Budget: "1"})
	b.add(figure{What: "all API writes by us per Pod updated, Events aside", Value: float64(writes.all) / updated, Unit: "writes"})
	b.add(figure{What: "Kubernetes Events written per Pod updated", Value: float64(writes.events) / updated, Unit: "writes"})
	return b.use(shiplog)
}

// startProfile takes a CPU profile, if one is wanted, while the updates run; the channel delivers when it is written.
func (b *bench) startProfile(ctx context.Context, shiplog *testbed.Process) <-chan error {
	done := make(chan error, 1)
	if b.profile == "" {
		close(done)
		return done
	}
	go func() {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+shiplog.Listen+"/debug/pprof/profile?seconds=15", nil)
		if err != nil {
			done <- err
			return
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			done <- err
			return
		}
		defer response.Body.Close()
		file, err := os.Create(b.profile)
		if err != nil {
			done <- err
			return
		}
		_, err = io.Copy(file, response.Body)
		done <- errors.Join(err, file.Close())
	}()
	return done
}

// settle waits until the status says that all is updated and available, and nothing has been written for two seconds.
func (b *bench) settle(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		out, err := b.cluster.Kubectl(ctx, "", "get", "clonesets", name, "-n", namespace, "-o",
			"jsonpath={.metadata.generation} {.spec.replicas} {.status.observedGeneration} {.status.updatedAvailableReplicas}")
		if err != nil {
			return err
		}
		var generation, replicas, observed, available int
		_, _ = fmt.Sscan(out, &generation, &replicas, &observed, &available)
		if generation == observed && available == replicas {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("CloneSet %s does not settle: %s", name, out)
		case <-time.After(100 * time.Millisecond):
		}
	}
	for {
		recent, err := b.writes(time.Now().Add(-2 * time.Second))
		if err != nil {
			return err
		}
		if recent.all+recent.events == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// use reports what the process needed.
func (b *bench) use(shiplog *testbed.Process) error {
	cpu, err := shiplog.Metric("process_cpu_seconds_total")
	if err != nil {
		return err
	}
	memory, err := shiplog.Metric("process_resident_memory_bytes")
	if err != nil {
		return err
	}
	b.add(figure{What: "CPU of all services until here", Value: cpu, Unit: "s"})
	b.add(figure{What: "memory of all services", Value: memory / 1e6, Unit: "MB"})
	return nil
}

// latency measures from the API server's answer to a spec change until it receives our first write to a Pod, with ten Pods
// of one CloneSet on a cluster where nothing else happens.
func (b *bench) latency(ctx context.Context, _ *testbed.Process) error {
	const name = "small"
	say("shiplog: latency of %d spec changes", b.changes)
	if err := b.apply(ctx, name, 10, "nginx:0"); err != nil {
		return err
	}
	if err := b.settle(ctx, name); err != nil {
		return err
	}
	mark := time.Now()
	for i := 1; i <= b.changes; i++ {
		if err := b.setImage(ctx, name, fmt.Sprintf("nginx:%d", i)); err != nil {
			return err
		}
		if err := b.settle(ctx, name); err != nil {
			return err
		}
	}
	sinceAnswer, sinceRequest, err := b.delays(mark, name)
	if err != nil {
		return err
	}
	if len(sinceAnswer) < b.changes {
		return fmt.Errorf("%d of %d spec changes found in the audit log", len(sinceAnswer), b.changes)
	}
	at := func(sorted []time.Duration, percent int) float64 {
		return float64(sorted[(len(sorted)-1)*percent/100]) / float64(time.Millisecond)
	}
	b.add(figure{What: "spec change to first Pod write, p50", Value: at(sinceAnswer, 50), Unit: "ms", Budget: "10 (20 for the main job)"})
	b.add(figure{What: "spec change to first Pod write, p99", Value: at(sinceAnswer, 99), Unit: "ms", Budget: "50"})
	b.add(figure{What: "the same with the API server's own time for the change, p50", Value: at(sinceRequest, 50), Unit: "ms"})
	return nil
}

// quiet watches an idle cluster.
func (b *bench) quiet(ctx context.Context, shiplog *testbed.Process) error {
	// Idling begins when the log has been silent for a while: the last vouch and tick of the work before belong to that, and the
	// seal, which comes within a minute.
	entries, silent := -1.0, time.Now()
	for time.Since(silent) < 65*time.Second {
		position, err := shiplog.Metric("shiplog_planner_position")
		if err != nil {
			return err
		}
		if position != entries {
			entries, silent = position, time.Now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	say("shiplog: idle for %s", b.idle)
	mark := time.Now()
	cpu, err := shiplog.Metric("process_cpu_seconds_total")
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(b.idle):
	}
	later, err := shiplog.Metric("shiplog_planner_position")
	if err != nil {
		return err
	}
	cpuLater, err := shiplog.Metric("process_cpu_seconds_total")
	if err != nil {
		return err
	}
	writes, err := b.writes(mark)
	if err != nil {
		return err
	}
	b.add(figure{What: fmt.Sprintf("log entries in %s of idling", b.idle), Value: later - entries, Unit: "entries", Budget: "0"})
	b.add(figure{What: fmt.Sprintf("API writes by us in %s of idling", b.idle), Value: float64(writes.all + writes.events), Unit: "writes", Budget: "0"})
	b.add(figure{What: "CPU while idle", Value: 100 * (cpuLater - cpu) / b.idle.Seconds(), Unit: "% of a core", Budget: "1"})
	return nil
}
