package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"

	"shiplog.dev/deploy/crd"
	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal"
)

const namespace = "default"

// bareClient is the user agent of the bench: of the user who changes CloneSets, and of the bare client.
const bareClient = "bench"

// cell is one measurement: so many Pods in so many CloneSets, on a cluster of its own.
type cell struct {
	*options
	pods, sets int
	layout     string
	idles      bool // measures an idle cluster too
	result     result

	cluster  *testbed.Cluster
	client   *kubernetes.Clientset
	system   *system
	audit    audit
	windows  []window // of the log, one for each round of each job
	recorded recording
}

func newCell(o *options, pods, sets int, layout string) *cell {
	c := &cell{options: o, pods: pods, sets: sets, layout: layout}
	c.result = result{Pods: pods, CloneSets: sets, Layout: layout, Began: time.Now(), Workers: o.workers, Machine: thisMachine(), Jobs: []job{}}
	return c
}

func (c *cell) name() string { return c.result.name() }

// updates is how often the Pods are updated in place.
func (c *cell) updates() int {
	if c.pods > 1000 {
		return 1
	}
	return max(1, c.rounds)
}

// estimate is how long the cell takes, by what was measured on two cores.
func (c *cell) estimate() time.Duration {
	took := 80*time.Second + time.Duration(c.pods)*time.Duration(50+14*c.updates())*time.Millisecond
	if c.idles {
		took += time.Duration(c.changes) * 2500 * time.Millisecond
		if c.layout == c.layouts[0] {
			took += sealWithin + c.idle
		}
	}
	return took
}

// measure does everything to the Pods, with Shiplog and then without it.
func (c *cell) measure(ctx context.Context) error {
	c.result.Began = time.Now()
	defer func() { c.result.Took = time.Since(c.result.Began).Seconds() }()
	dir, err := os.MkdirTemp("", "shiplog-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := c.start(ctx, dir); err != nil {
		return err
	}
	defer c.cluster.Down()
	defer c.system.end()
	for _, step := range []func(context.Context) error{c.prepare, c.rollouts, c.scaleDown, c.study} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("%w\n%s", err, c.system.lastWords())
		}
	}
	if c.verbose {
		fmt.Fprintln(os.Stderr, c.system.output())
	}
	c.system.end()
	return c.floor(ctx)
}

// start starts a cluster, and Shiplog on it.
func (c *cell) start(ctx context.Context, dir string) (err error) {
	if c.cluster, err = testbed.StartCluster(ctx, filepath.Join(dir, "cluster"), 0, c.nodes, os.Stderr); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			c.system.end()
			_ = c.cluster.Down()
		}
	}()
	c.audit.log = c.cluster.AuditLog()
	config, err := c.cluster.Config()
	if err != nil {
		return err
	}
	if err := crd.Install(ctx, config, nil); err != nil {
		return err
	}
	config.ContentType, config.UserAgent = "application/vnd.kubernetes.protobuf", bareClient
	if c.client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	say("starting Shiplog, layout %s", c.layout)
	c.system, err = startSystem(ctx, c.layout, c.cluster, dir)
	return err
}

// open opens the log as a reader does.
func (c *cell) open(ctx context.Context) (journal.Journal, error) {
	url, err := c.system.url()
	if err != nil {
		return nil, err
	}
	return journal.Open(ctx, journal.Options{URL: url, AsIs: true})
}

// position is the sequence of the newest entry.
func (c *cell) position(ctx context.Context) (uint64, error) {
	log, err := c.open(ctx)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	state, err := log.State(ctx)
	return state.LastSequence, err
}

// setName is the name of a CloneSet of the cell.
func setName(i int) string { return fmt.Sprintf("web-%03d", i) }

// smallName is the name of a CloneSet of ten Pods that is none of the cell's: it is changed where little is to happen.
const (
	smallName = "small"
	smallPods = 10
)

// measuredPods selects the Pods of the cell.
const measuredPods = "bench=measured"

func manifest(name, label string, replicas int) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"apps.kruise.io/v1beta1","kind":"CloneSet","metadata":{"name":%[1]q},"spec":{"replicas":%[3]d,
"updateStrategy":{"type":"RollingUpdate","rollingUpdate":{"podUpdatePolicy":"InPlaceIfPossible","maxUnavailable":"100%%"}},"selector":{"matchLabels":{"app":%[1]q}},
"template":{"metadata":{"labels":{"app":%[1]q,"bench":%[2]q}},"spec":{"containers":[{"name":"main","image":%[4]q}]}}}}`, name, label, replicas, imageOf(0))
}

func imageOf(round int) string { return fmt.Sprintf("nginx:%d", round) }

const cloneSetsPath = "/apis/apps.kruise.io/v1beta1/namespaces/" + namespace + "/clonesets"

func (c *cell) createSet(ctx context.Context, name, label string, replicas int) error {
	return c.client.RESTClient().Post().AbsPath(cloneSetsPath).SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").
		Body(manifest(name, label, replicas)).Do(ctx).Error()
}

// changeSet changes fields of a CloneSet's spec with one request.
func (c *cell) changeSet(ctx context.Context, name string, operations ...string) error {
	return c.client.RESTClient().Patch("application/json-patch+json").AbsPath(cloneSetsPath, name).SetHeader("Accept", "application/json").
		Body([]byte("[" + strings.Join(operations, ",") + "]")).Do(ctx).Error()
}

func setImage(image string) string {
	return fmt.Sprintf(`{"op":"replace","path":"/spec/template/spec/containers/0/image","value":%q}`, image)
}

func setPodUpdatePolicy(name string) string {
	return fmt.Sprintf(`{"op":"replace","path":"/spec/updateStrategy/rollingUpdate/podUpdatePolicy","value":%q}`, name)
}

func setReplicas(replicas int) string {
	return fmt.Sprintf(`{"op":"replace","path":"/spec/replicas","value":%d}`, replicas)
}
