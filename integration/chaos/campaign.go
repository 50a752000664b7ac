package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"shiplog.dev/deploy/crd"
	"shiplog.dev/integration/testbed"
)

// hollowNodes is how many nodes of the cluster only pretend.
const hollowNodes = 6

// campaign is one run: a cluster, and one act for each layout.
type campaign struct {
	options options
	cluster *testbed.Cluster
	proxy   *testbed.Proxy
	socket  string // of the real node's container runtime
	hollow  *part  // the nodes that only pretend
	client  kubernetes.Interface
	people  *people
	witness *witness
	end     context.CancelFunc
	result  result
}

// result is what a run came to, for the table in docs/reliability.md.
type result struct {
	Seed    uint64    `json:"seed"`
	Began   time.Time `json:"began"`
	Minutes float64   `json:"minutes"`
	Rounds  []round   `json:"rounds"`
	// Endings says which processes ended without being asked to, by layout.
	Endings  map[string]string `json:"endings,omitempty"`
	Entries  int               `json:"entries"`
	Commands int               `json:"commands"`
	Changes  int               `json:"changes"` // by people
	// Wrong is what was found at the end of a layout: entries that were lost, proofs that failed.
	Wrong []string `json:"wrong,omitempty"`
}

func (r result) failed() bool {
	return len(r.Wrong) > 0 || slices.ContainsFunc(r.Rounds, func(r round) bool { return len(r.Wrong) > 0 })
}

// round is what came of one round.
type round struct {
	Number  int       `json:"number"`
	Layout  string    `json:"layout"`
	Began   time.Time `json:"began"`
	Faults  []made    `json:"faults"`
	Settled float64   `json:"settledSeconds"` // after the last fault
	Notes   []string  `json:"notes,omitempty"`
	Wrong   []string  `json:"wrong,omitempty"`
}

// made is a fault as it happened.
type made struct {
	Name  string  `json:"name"`
	Hit   string  `json:"hit,omitempty"`
	After float64 `json:"afterSeconds"`
	Lasts float64 `json:"lastsSeconds"`
}

func newCampaign(ctx context.Context, o options) (_ *campaign, err error) {
	c := &campaign{options: o, result: result{Seed: o.seed, Began: time.Now(), Minutes: o.minutes, Endings: map[string]string{}}}
	said, err := os.Create(filepath.Join(o.dir, "logs", "cluster.log"))
	if err != nil {
		return nil, err
	}
	defer said.Close()
	if c.cluster, err = testbed.StartCluster(ctx, filepath.Join(o.dir, "cluster"), 1, 0, said); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.socket, err = c.cluster.Socket(realNode); err != nil {
		return nil, err
	}
	if c.hollow, err = newPart(o.dir, "hollow", "shiplog-cluster", "hollow", "--kubeconfig", c.cluster.Kubeconfig,
		fmt.Sprint("--nodes=", hollowNodes), "--start-delay=300ms"); err != nil {
		return nil, err
	}
	if err := c.hollow.start(); err != nil {
		return nil, err
	}
	if c.proxy, err = testbed.NewProxy(c.cluster, o.dir); err != nil {
		return nil, err
	}
	config, err := c.cluster.Config()
	if err != nil {
		return nil, err
	}
	config.UserAgent, config.WarningHandler = userOfAll, rest.NoWarnings{}
	if c.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	if err := crd.Install(ctx, config, nil); err != nil {
		return nil, err
	}
	if _, err := c.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	c.people = newPeople(c.client, objects)
	c.witness = newWitness(c.client, c.people)
	watching, end := context.WithCancel(context.WithoutCancel(ctx))
	c.end = end
	go c.witness.run(watching)
	return c, nil
}

func (c *campaign) close() {
	if c.end != nil {
		c.end()
	}
	if c.proxy != nil {
		c.proxy.Close()
	}
	if c.hollow != nil {
		c.hollow.kill()
	}
	if err := c.cluster.Down(); err != nil {
		say("%v", err)
	}
}

func (c *campaign) run(ctx context.Context) error {
	share := time.Duration(c.options.minutes * float64(time.Minute) / float64(len(c.options.layouts)))
	for i, layout := range c.options.layouts {
		if err := c.act(ctx, i+1, layout, share); err != nil {
			return err
		}
		if c.result.failed() && !c.options.keepGoing {
			return nil
		}
	}
	return nil
}

// act is one layout at work.
type act struct {
	campaign *campaign
	system   *system
	observer *observer
	ledger   *ledger
	random   *rand.Rand
	alone    []fault // not made alone yet
	possible []fault
	first    func(fault) bool // of a pair
	mu       sync.Mutex       // of round and choices, while faults are made
	round    *round
	choices  *rand.Rand // of a round's faults at the moment when they come
}

// note says something about the round that is no failure.
func (a *act) note(format string, arguments ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.round.Notes = append(a.round.Notes, fmt.Sprintf(format, arguments...))
}

func (c *campaign) act(ctx context.Context, number int, layout string, share time.Duration) (err error) {
	lay, is := layouts[layout]
	if !is {
		return fmt.Errorf("there is no layout %q, only %s", layout, strings.Join(layoutNames(), ", "))
	}
	a := &act{campaign: c, system: &system{layout: layout, dir: filepath.Join(c.options.dir, "layout-"+layout)},
		random: rand.New(rand.NewPCG(c.options.seed, uint64(number)))}
	if err := a.system.mount(); err != nil {
		return err
	}
	defer a.system.unmount()
	defer a.system.end()
	if err := lay(c, ctx, a.system); err != nil {
		return err
	}
	say("seed %d: %s, for %s", c.options.seed, layout, share)
	if err := a.system.start(ctx); err != nil {
		return err
	}
	if a.observer, err = newObserver(a.system.url); err != nil {
		return err
	}
	a.observer.clocks = a.system.clocks
	reading, end := context.WithCancel(ctx)
	defer end()
	go a.observer.run(reading)
	c.witness.begin()
	a.ledger = newLedger(a.observer, c.cluster.AuditLog(), c.witness, c.people)
	for _, f := range faults {
		if (len(f.on) == 0 || slices.Contains(f.on, layout)) && (len(c.options.faults) == 0 || slices.Contains(c.options.faults, f.name)) {
			a.possible = append(a.possible, f)
		}
	}
	a.first = func(fault) bool { return true }
	if slices.ContainsFunc(a.possible, ofServers) { // the others are made alone elsewhere
		a.first = ofServers
	}
	for _, i := range a.random.Perm(len(a.possible)) {
		if a.first(a.possible[i]) {
			a.alone = append(a.alone, a.possible[i])
		}
	}
	if err := c.people.settle(ctx, number); err != nil {
		return fmt.Errorf("create CloneSets: %w", err)
	}
	ends := time.Now().Add(share)
	for time.Now().Before(ends) && ctx.Err() == nil {
		if err := a.play(ctx); err != nil {
			return err
		}
		if c.result.failed() && !c.options.keepGoing {
			break
		}
	}
	return a.finish(ctx)
}

// play plays one round.
func (a *act) play(ctx context.Context) error {
	c := a.campaign
	a.round = &round{Number: len(c.result.Rounds) + 1, Layout: a.system.layout, Began: time.Now()}
	chosen := plan(a.random, a.possible, a.first, &a.alone, c.options.longest)
	a.choices = rand.New(rand.NewPCG(c.options.seed, uint64(2000+a.round.Number)))
	bothers := rand.New(rand.NewPCG(c.options.seed, uint64(1000+a.round.Number)))
	busy, stop := context.WithCancel(ctx)
	var people, troubles sync.WaitGroup
	people.Go(func() { c.people.bother(busy, bothers, c.witness) })
	failures := make([]error, len(chosen))
	for i, f := range chosen {
		troubles.Go(func() { failures[i] = a.make(ctx, f) })
	}
	if len(chosen) == 0 {
		pause(ctx, 10*time.Second)
	}
	troubles.Wait()
	stop()
	people.Wait()
	healed := time.Now()
	err := errors.Join(failures...)
	if err != nil {
		return err
	}
	a.settle(ctx)
	a.round.Settled = time.Since(healed).Seconds()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	wrong, err := a.ledger.check()
	if err != nil {
		return err
	}
	a.round.Wrong = append(a.round.Wrong, wrong...)
	a.round.Wrong = append(a.round.Wrong, c.witness.budgets(a.ledger.decided)...)
	a.tell()
	c.result.Rounds = append(c.result.Rounds, *a.round)
	return nil
}

// make makes one fault and ends it.
func (a *act) make(ctx context.Context, f planned) error {
	pause(ctx, f.after)
	end, hit, err := f.begin(ctx, a)
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	began := time.Now()
	if end != nil {
		pause(ctx, f.lasts)
		if err := end(ctx); err != nil {
			return fmt.Errorf("end %s: %w", f.name, err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.round.Faults = append(a.round.Faults, made{f.name, hit, f.after.Seconds(), time.Since(began).Seconds()})
	return nil
}

const (
	// slowly is how long settling may take before a round says what it waited for longest.
	slowly = 15 * time.Second
	// forgiven is after how long without trouble client-go's watches wait as briefly as at first.
	forgiven = 2 * time.Minute
)

// settle waits until every rollout has ended and every command has its outcome, within the bound.
func (a *act) settle(ctx context.Context) {
	c := a.campaign
	bounded, cancel := context.WithTimeout(ctx, c.options.bound)
	defer cancel()
	if err := c.people.release(bounded); err != nil {
		a.round.Wrong = append(a.round.Wrong, err.Error())
		return
	}
	// With each outage of a series scheduler and nodes wait longer before they watch again. No bound of ours could hold.
	if a.outagesSince(time.Now().Add(-forgiven)) > 1 {
		if err := c.watchAnew(); err != nil {
			a.note("cannot start scheduler and nodes anew: %v", err)
		}
	}
	began := time.Now()
	var waits wait
	for {
		why := ""
		if a.system.servers != nil {
			why = a.system.servers.Unwell(bounded)
		}
		if why == "" {
			why = c.people.unsettled(bounded)
		}
		if why == "" {
			if err := a.observer.catchUp(bounded); err != nil {
				why = err.Error()
			}
		}
		if why == "" {
			var err error
			if why, err = a.ledger.unfinished(); err != nil {
				why = err.Error()
			}
		}
		waits.missing(why)
		if why == "" {
			if time.Since(began) > slowly {
				a.note("slow to settle, for %.1fs of that: %s", waits.longest.Seconds(), waits.slowest)
			}
			return
		}
		select {
		case <-bounded.Done():
			if ctx.Err() == nil {
				a.round.Wrong = append(a.round.Wrong, fmt.Sprintf("not settled within %s after the last fault: %s", c.options.bound, why))
			}
			return
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// wait knows what was missing for the longest time.
type wait struct {
	slowest string
	longest time.Duration

	now   string
	since time.Time
}

// missing takes note of what is missing now; empty: nothing.
func (w *wait) missing(what string) {
	if what == w.now {
		return
	}
	if took := time.Since(w.since); w.now != "" && took > w.longest {
		w.slowest, w.longest = w.now, took
	}
	w.now, w.since = what, time.Now()
}

// outage notes that the API server may do what its audit log does not show.
func (a *act) outage() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ledger.outages = append(a.ledger.outages, time.Now())
}

// outagesSince counts the outages since a moment.
func (a *act) outagesSince(moment time.Time) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, at := range a.ledger.outages {
		if at.After(moment) {
			n++
		}
	}
	return n
}

// restored notes that etcd goes back.
func (a *act) restored() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ledger.restores = append(a.ledger.restores, time.Now())
	a.campaign.witness.forget()
}

func (a *act) tell() {
	r := a.round
	var what []string
	for _, f := range r.Faults {
		line := fmt.Sprintf("%s after %.1fs", f.Name, f.After)
		if f.Lasts > 0.1 {
			line += fmt.Sprintf(" for %.1fs", f.Lasts)
		}
		if f.Hit != "" && !strings.HasSuffix(f.Name, f.Hit) {
			line += " (" + f.Hit + ")"
		}
		what = append(what, line)
	}
	say("seed %d round %d %s: %s; settled after %.1fs", a.campaign.options.seed, r.Number, r.Layout, strings.Join(what, ", "), r.Settled)
	for _, note := range r.Notes {
		say("  note: %s", note)
	}
	for _, wrong := range r.Wrong {
		say("  WRONG: %s", wrong)
	}
}

// finish reads the whole log once more, has the tools prove it, and takes down what the act put up.
func (a *act) finish(ctx context.Context) error {
	c := a.campaign
	wrong, err := a.prove(ctx)
	if err != nil {
		wrong = append(wrong, err.Error())
	}
	c.result.Wrong = append(c.result.Wrong, wrong...)
	for _, one := range wrong {
		say("  WRONG: %s", one)
	}
	c.result.Entries += len(a.observer.entries)
	for _, e := range a.observer.entries {
		if e.verb() != "" {
			c.result.Commands++
		}
	}
	c.result.Changes = c.people.did
	if endings := a.system.String(); endings != "" {
		c.result.Endings[a.system.layout] = strings.TrimSpace(endings)
		say("ended by themselves:%s", endings)
	}
	if c.result.failed() {
		return a.keep(ctx)
	}
	leaving, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return c.people.leave(leaving)
}

// prove returns what the log has lost, and what the tools find wrong with it.
func (a *act) prove(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	wrong, err := a.observer.lost(ctx)
	if err != nil {
		return nil, err
	}
	url, err := a.system.url()
	if err != nil {
		return nil, err
	}
	for _, tool := range []string{"verify", "replay"} {
		out, err := exec.CommandContext(ctx, a.observer.program, tool, "--log", url).CombinedOutput()
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("shiplog %s: %v: %s", tool, err, strings.TrimSpace(string(out))))
		}
	}
	return wrong, nil
}

// keep leaves the log as a bundle beside what the processes said.
func (a *act) keep(ctx context.Context) error {
	url, err := a.system.url()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	path := filepath.Join(a.campaign.options.dir, a.system.layout+".shiplog")
	if out, err := exec.CommandContext(ctx, a.observer.program, "export", path, "--log", url, "--redact=false").CombinedOutput(); err != nil {
		say("the log cannot be kept: %v: %s", err, out)
	} else {
		say("the log is in %s", path)
	}
	copied, err := os.Create(filepath.Join(a.campaign.options.dir, "audit.log"))
	if err != nil {
		return err
	}
	defer copied.Close()
	audit, err := os.Open(filepath.Join(a.campaign.cluster.Dir, "audit.log"))
	if err != nil {
		return err
	}
	defer audit.Close()
	_, err = io.Copy(copied, audit)
	return err
}

func (c *campaign) report() error {
	if len(c.result.Rounds) > 0 {
		slowest := slices.MaxFunc(c.result.Rounds, func(a, b round) int { return int(1000 * (a.Settled - b.Settled)) })
		say("seed %d: %d rounds, %d changes by people, %d entries, %d commands; slowest to settle: round %d, %.1fs; lost, doubled or unexplained: %v",
			c.options.seed, len(c.result.Rounds), c.result.Changes, c.result.Entries, c.result.Commands, slowest.Number, slowest.Settled, c.result.failed())
	}
	if c.options.summary == "" {
		return nil
	}
	data, err := json.MarshalIndent(c.result, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(c.options.summary, append(data, '\n'), 0o644)
}
