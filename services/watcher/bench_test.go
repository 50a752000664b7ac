package watcher

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"shiplog.dev/deploy/crd/apitest"
	"shiplog.dev/internal/journal"
)

// BenchmarkDecodeEvent is the cost of one event of a watch, from its bytes to an item.
func BenchmarkDecodeEvent(b *testing.B) {
	pod := strings.TrimSuffix(string(raw("a", "u1", 5, "x")), "}") + `,"spec":{"containers":[` +
		strings.Repeat(`{"name":"main","image":"nginx:1.25","env":[{"name":"A","value":"some value"}],"resources":{"limits":{"cpu":"1"}}},`, 25) + `{}]}}`
	line := fmt.Appendf(nil, "{\"type\":\"MODIFIED\",\"object\":%s}\n", pod)
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if _, err := decode(kinds[2].resource, line); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStart is the time from nothing to the first vouch, with an empty log and whatever the cluster has.
func BenchmarkStart(b *testing.B) {
	config := apitest.Config(b)
	for b.Loop() {
		log := journal.NewMemory(time.Now)
		stop := start(b, Options{Config: config, Journal: log, Writer: "w", Logger: zerolog.Nop()})
		objects := awaitVouch(b, log)
		b.ReportMetric(float64(objects), "objects")
		stop()
	}
}

// BenchmarkRestart is the same with a log that holds everything.
func BenchmarkRestart(b *testing.B) {
	config := apitest.Config(b)
	log := journal.NewMemory(time.Now)
	options := Options{Config: config, Journal: log, Writer: "w", Logger: zerolog.Nop()}
	stop := start(b, options)
	awaitVouch(b, log)
	stop()
	for b.Loop() {
		before, err := log.State(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		stop := start(b, options)
		reader, err := log.Read(b.Context(), journal.From{Sequence: before.LastSequence + 1})
		if err != nil {
			b.Fatal(err)
		}
		for vouched := false; !vouched; {
			records, err := reader.Next(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			for _, r := range records {
				vouched = vouched || r.Entry.GetVouched() != nil
			}
		}
		reader.Close()
		stop()
	}
}

// BenchmarkProof is the cost of one proof when nothing has to be waited for.
func BenchmarkProof(b *testing.B) {
	config := apitest.Config(b)
	client, err := newClient(config)
	if err != nil {
		b.Fatal(err)
	}
	w := &watcher{options: Options{Logger: zerolog.Nop()}, metrics: newMetrics(nil), pace: standard}
	w.queue = newQueue(nil, zerolog.Nop(), w.metrics)
	for _, kind := range kinds {
		v := newView(kind, client, w)
		v.progress = 1 << 62
		w.views = append(w.views, v)
	}
	for b.Loop() {
		if _, err := w.prove(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkChangeToFact is the time from the answer to a write until the fact can be read from the log.
func BenchmarkChangeToFact(b *testing.B) {
	config := apitest.Config(b)
	namespace := apitest.Namespace(b, config)
	log := journal.NewMemory(time.Now)
	defer start(b, Options{Config: config, Journal: log, Writer: "w", Logger: zerolog.Nop()})()
	awaitVouch(b, log)
	state, err := log.State(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	reader, err := log.Read(b.Context(), journal.From{Sequence: state.LastSequence + 1})
	if err != nil {
		b.Fatal(err)
	}
	defer reader.Close()
	pods := kubernetes.NewForConfigOrDie(config).CoreV1().Pods(namespace)
	_, err = pods.Create(b.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"},
		Spec: corev1.PodSpec{SchedulerName: "absent", Containers: []corev1.Container{{Name: "main", Image: "nginx:1"}}}}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	var waited time.Duration
	n := 0
	for b.Loop() {
		n++
		patch := fmt.Appendf(nil, `{"metadata":{"labels":{"n":"%d"}}}`, n)
		written, err := pods.Patch(b.Context(), "a", types.MergePatchType, patch, metav1.PatchOptions{})
		if err != nil {
			b.Fatal(err)
		}
		since := time.Now()
		for there := false; !there; {
			records, err := reader.Next(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			for _, r := range records {
				there = there || r.Entry.GetObjectObserved().GetResourceVersion() == written.ResourceVersion
			}
		}
		waited += time.Since(since)
	}
	b.ReportMetric(float64(waited.Microseconds())/float64(n), "µs/wait")
}

// start runs a watcher at the standard pace until the returned function ends it.
func start(b *testing.B, options Options) (stop func()) {
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := Run(ctx, options); err != nil {
			b.Errorf("the watcher ended: %v", err)
		}
	}()
	return func() { cancel(); <-ended }
}

// awaitVouch reads the log from its start to the first vouch and returns how many objects it holds.
func awaitVouch(b *testing.B, log journal.Journal) (objects int) {
	b.Helper()
	reader, err := log.Read(b.Context(), journal.From{Sequence: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer reader.Close()
	for {
		records, err := reader.Next(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		for _, r := range records {
			if r.Entry.GetVouched() != nil {
				return objects
			}
			objects++
		}
	}
}
