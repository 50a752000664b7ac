package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

const (
	namespace  = "chaos"
	realNode   = "node-1"
	userOfAll  = "chaos-people"
	retryAfter = 200 * time.Millisecond
)

var cloneSets = schema.GroupVersionResource{Group: "apps.kruise.io", Version: "v1beta1", Resource: "clonesets"}

// cloneSet is what people want of one, and how far they may go.
type cloneSet struct {
	name           string
	kind           string // of update
	real           bool   // on the real node
	maxUnavailable int
	least, most    int // replicas

	replicas, partition, image int
	paused                     bool
	exists                     bool
}

// change of replicas, for who judges later; none: the CloneSet was created or deleted then.
type change struct {
	at       time.Time
	replicas int
}

// people change CloneSets and delete Pods, as a seed says. They try again what was not answered.
type people struct {
	client  kubernetes.Interface
	dynamic dynamic.Interface

	mu       sync.Mutex
	sets     []*cloneSet
	changes  map[string][]change
	removed  map[string]bool // UIDs of Pods deleted by hand
	scrapped map[string]bool // CloneSets that were deleted
	did      int
}

func newPeople(client kubernetes.Interface, dynamic dynamic.Interface) *people {
	return &people{client: client, dynamic: dynamic, changes: map[string][]change{}, removed: map[string]bool{}, scrapped: map[string]bool{}}
}

// settle makes the CloneSets that an act begins with. Names are new in each act.
func (p *people) settle(ctx context.Context, act int) error {
	p.mu.Lock()
	p.sets = []*cloneSet{
		{name: fmt.Sprintf("web-%d", act), kind: "InPlaceIfPossible", maxUnavailable: 2, least: 6, most: 16, replicas: 12},
		{name: fmt.Sprintf("shop-%d", act), kind: "ReCreate", maxUnavailable: 3, least: 5, most: 14, replicas: 10},
		{name: fmt.Sprintf("batch-%d", act), kind: "InPlaceOnly", maxUnavailable: 4, least: 10, most: 40, replicas: 30},
		{name: fmt.Sprintf("real-%d", act), kind: "InPlaceIfPossible", real: true, maxUnavailable: 1, least: 2, most: 3, replicas: 2},
	}
	sets := p.sets
	p.mu.Unlock()
	for _, s := range sets {
		if err := p.create(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (p *people) create(ctx context.Context, s *cloneSet) error {
	s.image++
	hollow := fmt.Sprint(!s.real)
	object := map[string]any{
		"apiVersion": "apps.kruise.io/v1beta1", "kind": "CloneSet",
		"metadata": map[string]any{"name": s.name, "namespace": namespace},
		"spec": map[string]any{
			"replicas": int64(s.replicas),
			"selector": map[string]any{"matchLabels": map[string]any{"app": s.name}},
			"updateStrategy": map[string]any{"rollingUpdate": map[string]any{
				"podUpdatePolicy": s.kind, "maxUnavailable": int64(s.maxUnavailable), "partition": int64(s.partition)}},
			"template": map[string]any{
				"metadata": map[string]any{"labels": map[string]any{"app": s.name}},
				"spec": map[string]any{
					"nodeSelector": map[string]any{"shiplog.dev/hollow": hollow}, "terminationGracePeriodSeconds": int64(2),
					"containers": []any{map[string]any{"name": "main", "image": s.imageName()}},
				},
			},
		},
	}
	p.mu.Lock()
	delete(p.scrapped, s.name)
	p.changes[s.name] = append(p.changes[s.name], change{time.Now(), 0}) // nothing need serve yet
	p.mu.Unlock()
	err := p.insist(ctx, func() error {
		_, err := p.dynamic.Resource(cloneSets).Namespace(namespace).Create(ctx, &unstructured.Unstructured{Object: object}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	s.exists = err == nil
	p.changes[s.name] = append(p.changes[s.name], change{time.Now(), s.replicas})
	return err
}

func (s *cloneSet) imageName() string { return fmt.Sprintf("nginx:%d", s.image) }

// insist tries until it works, it is refused for good, or ctx ends.
func (p *people) insist(ctx context.Context, do func() error) error {
	for {
		err := do()
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsInvalid(err) || apierrors.IsConflict(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(retryAfter):
		}
	}
}

func (p *people) patch(ctx context.Context, s *cloneSet, spec map[string]any) error {
	body, err := json.Marshal(map[string]any{"spec": spec})
	if err != nil {
		return err
	}
	return p.insist(ctx, func() error {
		_, err := p.dynamic.Resource(cloneSets).Namespace(namespace).Patch(ctx, s.name, types.MergePatchType, body, metav1.PatchOptions{})
		return err
	})
}

// bother does things until ctx ends, each a while after the one before.
func (p *people) bother(ctx context.Context, random *rand.Rand, witness *witness) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(200*time.Millisecond + time.Duration(random.Int64N(int64(1500*time.Millisecond)))):
		}
		s := p.sets[random.IntN(len(p.sets))]
		p.act(ctx, random, s, witness)
		p.mu.Lock()
		p.did++
		p.mu.Unlock()
	}
}

func (p *people) act(ctx context.Context, random *rand.Rand, s *cloneSet, witness *witness) {
	switch dice := random.IntN(100); {
	case dice < 40:
		s.image++
		_ = p.patch(ctx, s, map[string]any{"template": map[string]any{"spec": map[string]any{"containers": []any{
			map[string]any{"name": "main", "image": s.imageName()}}}}})
	case dice < 60:
		p.scale(ctx, s, s.least+random.IntN(s.most-s.least+1))
	case dice < 82:
		p.deletePod(ctx, random, s, witness)
	case dice < 90:
		s.partition = random.IntN(s.replicas)
		_ = p.patch(ctx, s, rolling(map[string]any{"partition": int64(s.partition)}))
	default:
		s.paused = !s.paused
		_ = p.patch(ctx, s, rolling(map[string]any{"paused": s.paused}))
	}
}

func rolling(update map[string]any) map[string]any {
	return map[string]any{"updateStrategy": map[string]any{"rollingUpdate": update}}
}

// scale notes the replicas before and after, because the change takes place at some moment in between.
func (p *people) scale(ctx context.Context, s *cloneSet, replicas int) {
	p.mu.Lock()
	p.changes[s.name] = append(p.changes[s.name], change{time.Now(), min(replicas, s.replicas)})
	p.mu.Unlock()
	err := p.patch(ctx, s, map[string]any{"replicas": int64(replicas)})
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		return // it may have happened or not: release says it again, and the smaller number stands until then
	}
	s.replicas = replicas
	p.changes[s.name] = append(p.changes[s.name], change{time.Now(), replicas})
}

func (p *people) deletePod(ctx context.Context, random *rand.Rand, s *cloneSet, witness *witness) {
	there := witness.some(s.name)
	if len(there) == 0 {
		return
	}
	uids := slices.Sorted(maps.Keys(there))
	uid := uids[random.IntN(len(uids))]
	p.mu.Lock()
	p.removed[uid] = true
	p.mu.Unlock()
	_ = p.insist(ctx, func() error {
		return p.client.CoreV1().Pods(namespace).Delete(ctx, there[uid], metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr.To(types.UID(uid))}})
	})
}

// release lets every rollout end: it says again what is wanted, and that nothing is paused.
func (p *people) release(ctx context.Context) error {
	for _, s := range p.sets {
		if !s.exists {
			continue
		}
		s.paused = false
		if err := p.patch(ctx, s, map[string]any{"replicas": int64(s.replicas),
			"updateStrategy": map[string]any{"rollingUpdate": map[string]any{"paused": false, "partition": int64(s.partition)}},
			"template": map[string]any{"spec": map[string]any{"containers": []any{
				map[string]any{"name": "main", "image": s.imageName()}}}}}); err != nil {
			return fmt.Errorf("let %s roll out: %w", s.name, err)
		}
		p.mu.Lock()
		p.changes[s.name] = append(p.changes[s.name], change{time.Now(), s.replicas})
		p.mu.Unlock()
	}
	return nil
}

// leave deletes every CloneSet, and waits until nothing is left of them.
func (p *people) leave(ctx context.Context) error {
	p.mu.Lock()
	for _, s := range p.sets {
		p.scrapped[s.name] = true
	}
	p.mu.Unlock()
	for _, s := range p.sets {
		if err := p.insist(ctx, func() error {
			return p.dynamic.Resource(cloneSets).Namespace(namespace).Delete(ctx, s.name, metav1.DeleteOptions{})
		}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	for {
		list, err := p.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of all Pods: %w", ctx.Err())
		case <-time.After(retryAfter):
		}
	}
}

// deleted says whether people asked for the end of a Pod, or of its whole CloneSet.
func (p *people) deleted(uid, set string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.removed[uid] || p.scrapped[set]
}

// need returns how many Pods of a set had to serve, by the smallest number of replicas that was asked for in a span of time. It does
// not apply to a CloneSet that was deleted.
func (p *people) need(set string, from, to time.Time) (int, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.scrapped[set] {
		return 0, false
	}
	need, held := 1<<30, 0
	for _, c := range p.changes[set] {
		switch {
		case c.at.Before(from):
			held = c.replicas
		case c.at.Before(to):
			need = min(need, c.replicas)
		}
	}
	need = min(need, held)
	for _, s := range p.sets {
		if s.name == set {
			return need - s.maxUnavailable, true
		}
	}
	return 0, false
}

// unsettled says what keeps a rollout from having ended; empty: nothing.
func (p *people) unsettled(ctx context.Context) string {
	for _, s := range p.sets {
		if why := p.unsettledSet(ctx, s); why != "" {
			return s.name + ": " + why
		}
	}
	return ""
}

func (p *people) unsettledSet(ctx context.Context, s *cloneSet) string {
	set, err := p.dynamic.Resource(cloneSets).Namespace(namespace).Get(ctx, s.name, metav1.GetOptions{})
	if err != nil {
		return err.Error()
	}
	if replicas, _, _ := unstructured.NestedInt64(set.Object, "spec", "replicas"); int(replicas) != s.replicas {
		return fmt.Sprintf("%d replicas are asked for, people want %d", replicas, s.replicas)
	}
	observed, _, _ := unstructured.NestedInt64(set.Object, "status", "observedGeneration")
	if observed != set.GetGeneration() {
		return fmt.Sprintf("generation %d is observed, it is %d", observed, set.GetGeneration())
	}
	pods, err := p.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + s.name})
	if err != nil {
		return err.Error()
	}
	updated := 0
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Spec.NodeName == "" {
			return fmt.Sprintf("Pod %s waits for kube-scheduler", pod.Name)
		}
		if !serves(pod) {
			return fmt.Sprintf("Pod %s does not serve", pod.Name)
		}
		if pod.Spec.Containers[0].Image == s.imageName() {
			updated++
		}
	}
	if len(pods.Items) != s.replicas {
		return fmt.Sprintf("%d Pods, %d are wanted", len(pods.Items), s.replicas)
	}
	if updated < s.replicas-s.partition {
		return fmt.Sprintf("%d Pods have %s, at least %d are wanted", updated, s.imageName(), s.replicas-s.partition)
	}
	ready, _, _ := unstructured.NestedInt64(set.Object, "status", "readyReplicas")
	if int(ready) != s.replicas {
		return fmt.Sprintf("its status says that %d are ready, all %d are", ready, s.replicas)
	}
	return ""
}
