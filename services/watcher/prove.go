package watcher

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

const (
	// proofPage is how many objects one page of a proof's list has.
	proofPage = 10_000
	// maxProofPage bounds such a page, in bytes.
	maxProofPage = 512 << 20
)

// proof says that at start the facts in the log were complete.
type proof struct {
	// start is when the consistent reads began, by the monotonic clock.
	start    time.Time
	complete []*shiplogv1.Completeness
	// cost is the longest that a kind took without waiting for its watch.
	cost time.Duration
}

// rewoundError: the API server is at an earlier state than one that it has shown.
type rewoundError struct {
	resource schema.GroupVersionResource
	at, seen uint64
}

func (e *rewoundError) Error() string {
	return fmt.Sprintf("the API server has %s as of version %d, but version %d was seen before: etcd was restored", e.resource.Resource, e.at, e.seen)
}

// Reasons why a kind is not proven.
var (
	errBehind = errors.New("the watch is behind what the API server has")
	errStale  = errors.New("the log holds an older state than the watch showed")
	errLost   = errors.New("the log cannot take a fact")
)

// prove reads consistently what the API server has of every kind, and returns when the log holds all of that. A kind that
// cannot be proven within the pace's bound gets a new watch.
func (w *watcher) prove(ctx context.Context) (*proof, error) {
	ctx, cancel := context.WithTimeout(ctx, w.pace.proof)
	defer cancel()
	p := &proof{start: time.Now(), complete: make([]*shiplogv1.Completeness, len(w.views))}
	failed := make([]error, len(w.views))
	costs := make([]time.Duration, len(w.views))
	var each sync.WaitGroup
	for i, v := range w.views {
		each.Go(func() { p.complete[i], costs[i], failed[i] = v.prove(ctx) })
	}
	each.Wait()
	for _, cost := range costs {
		p.cost += cost
	}
	return p, errors.Join(failed...)
}

func (v *view) prove(ctx context.Context) (_ *shiplogv1.Completeness, cost time.Duration, err error) {
	highest, progress := v.known()
	list, cost := v.glance(ctx, highest)
	if list == nil {
		watch, start := v.source.watches.Load(), time.Now()
		list, err = v.versions(ctx)
		cost = time.Since(start)
		if err != nil {
			return nil, cost, fmt.Errorf("read the versions of %s: %w", v.kind.name, err)
		}
		if err = v.compare(list, highest, progress); err == nil {
			err = v.passed(ctx, list)
		}
		if err == nil {
			v.compared = comparison{start, watch}
		}
	}
	if err == nil {
		err = v.w.queue.flushed(ctx, v.w.queue.position())
	}
	if err == nil && !v.lossless() {
		err = errLost
	}
	if err == nil {
		return &shiplogv1.Completeness{
			Group: v.kind.resource.Group, Resource: v.kind.resource.Resource, ResourceVersion: list.text,
		}, cost, nil
	}
	if errors.Is(err, errBehind) || errors.Is(err, errStale) {
		relist := errors.Is(err, errStale)
		v.source.log.Warn().Err(err).Bool("relist", relist).Msg("cannot prove that the facts are complete; dropping the watch")
		v.metrics.dropped.Inc()
		v.source.drop(relist)
	}
	return nil, cost, fmt.Errorf("prove %s: %w", v.kind.name, err)
}

// comparison is when all objects of a kind were compared last, and during which watch.
type comparison struct {
	at    time.Time
	watch uint64
}

// glance proves a kind of many objects by the current version alone: the watch shows versions in order, so once it has shown a newer one
// it has shown everything. While much happens that is at once, and spares the API server a list that costs it as much as a hundred
// writes. It returns nil where only a comparison can tell: after a new watch, after a while, or when nothing passes.
func (v *view) glance(ctx context.Context, highest uint64) (current *versions, cost time.Duration) {
	start := time.Now()
	if v.count() < v.w.pace.many || start.Sub(v.compared.at) > v.w.pace.compare || v.compared.watch != v.source.watches.Load() {
		return nil, 0
	}
	current, _, err := v.page(ctx, url.Values{"limit": {"1"}})
	cost = time.Since(start)
	if err != nil || highest > current.at {
		return nil, cost
	}
	ctx, cancel := context.WithTimeout(ctx, v.w.pace.pass)
	defer cancel()
	for {
		v.mu.Lock()
		progress, changed := v.progress, v.changed
		if progress >= current.at {
			err = v.settle(current.at)
		}
		v.mu.Unlock()
		switch {
		case err != nil, v.compared.watch != v.source.watches.Load():
			return nil, cost
		case progress >= current.at:
			return current, cost
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, cost
		}
	}
}

// count is how many objects there are, or were lately.
func (v *view) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.entries)
}

// known returns the highest version that was seen or is in the log, and what the watch has passed.
func (v *view) known() (highest, progress uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	highest = v.progress
	for _, e := range v.entries {
		highest = max(highest, e.seen.version, e.logged.version)
	}
	return highest, v.progress
}

// compare holds a consistent list against what was known before it was asked for. Errors: rewoundError when what was known cannot have
// come before the list; errStale when the watch has passed what it did not show.
func (v *view) compare(list *versions, highest, progress uint64) error {
	rewound := func(seen uint64) error { return &rewoundError{v.kind.resource, list.at, seen} }
	if highest > list.at {
		return rewound(highest)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for at, has := range list.objects {
		if ended, was := v.gone[has.uid]; was && ended <= list.at {
			return rewound(ended)
		}
		e := v.entries[at]
		if e == nil {
			e = &entry{}
		}
		for _, held := range []state{e.seen, e.logged} {
			if held.uid == has.uid && held.version > has.version && held.version <= list.at {
				return rewound(held.version)
			}
		}
		if e.seen.uid == "" && has.version <= progress && v.progress <= list.at {
			return fmt.Errorf("%w: it never showed %s/%s", errStale, at.namespace, at.name)
		}
	}
	if v.progress < list.at {
		return nil
	}
	for at, e := range v.entries {
		if has := list.objects[at]; e.seen.uid != "" && e.seen.version <= list.at && (has.uid != e.seen.uid || has.version != e.seen.version) {
			return fmt.Errorf("%w: it missed a change of %s/%s", errStale, at.namespace, at.name)
		}
	}
	return nil
}

// versions reads, consistently, which versions the API server has.
func (v *view) versions(ctx context.Context) (*versions, error) {
	query := url.Values{"limit": {strconv.Itoa(proofPage)}}
	list, next, err := v.page(ctx, query)
	for err == nil && next != "" {
		query.Set("continue", next)
		var more *versions
		if more, next, err = v.page(ctx, query); err == nil {
			maps.Copy(list.objects, more.objects)
		}
	}
	return list, err
}

// page reads one page of versions, and where the next one starts.
func (v *view) page(ctx context.Context, query url.Values) (_ *versions, next string, err error) {
	body, err := v.client.get(ctx, v.kind.path(), query, asMetadata)
	if err != nil {
		return nil, "", err
	}
	defer body.Close()
	raw, err := readAll(body, maxProofPage)
	if err != nil {
		return nil, "", err
	}
	page := &versions{objects: map[place]state{}}
	next, err = page.add(raw)
	return page, next, err
}

// passed waits until everything on the list has passed through the watch and has been pushed to the log. Errors: errBehind
// when ctx ends first, errStale.
func (v *view) passed(ctx context.Context, list *versions) error {
	for {
		v.mu.Lock()
		behind, changed := v.behind(list), v.changed
		var err error
		if behind == 0 {
			err = v.settle(list.at)
		}
		v.mu.Unlock()
		if behind == 0 {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: %d objects at version %d", errBehind, behind, list.at)
		}
	}
}

// behind counts the objects that the watch has to show yet, at least one while any is missing. What has been shown is taken
// off the list, so that asking again is cheap.
func (v *view) behind(list *versions) int {
	if v.progress >= list.at {
		return 0 // the watch shows versions in order
	}
	if v.progress == 0 {
		return len(list.objects) + 1 // nothing was ever listed
	}
	listed := list.objects
	behind := 0
	for at, want := range listed {
		if e := v.entries[at]; e == nil || e.seen.uid == "" || e.seen.version < want.version {
			behind++
		}
	}
	for at, e := range v.entries {
		if _, ok := listed[at]; !ok && e.seen.uid != "" && e.seen.version <= list.at {
			behind++
		}
	}
	return behind
}

// settle compares what the watch showed with what the log holds, which may come from others too: a late fact about an
// object that is gone is answered by its deletion, and an object that the log holds in an older state is stale.
func (v *view) settle(version uint64) error {
	stale := 0
	for at, e := range v.entries {
		switch {
		case e.seen.uid == "":
			v.hide(at, version)
		case e.logged.uid == e.seen.uid && (e.logged.hash == e.seen.hash || e.logged.version >= e.seen.version):
		case e.logged.version > e.seen.version: // another object, which the watch will show
		default:
			stale++
		}
	}
	if stale > 0 {
		return fmt.Errorf("%w: %d objects", errStale, stale)
	}
	return nil
}
