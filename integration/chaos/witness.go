package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// cause of a Pod's going down, as far as the API server shows it.
type cause string

const (
	bySystem cause = "Shiplog" // its image was changed, or it was deleted by nobody else
	byHand   cause = "people"
	byNature cause = "nature" // kubelet, node, a restored etcd
)

// transition is a Pod that began or ceased to serve.
type transition struct {
	at        time.Time
	set, pod  string
	uid       string
	up        bool
	by        cause
	remaining int // Pods of the set that serve after it
}

// sighting is a Pod as the witness saw it last.
type sighting struct {
	set, name, image string
	up               bool
}

// witness watches Pods through the API server, on a connection of its own, and writes down who served when.
type witness struct {
	client kubernetes.Interface
	people *people

	mu      sync.Mutex
	pods    map[string]sighting // by UID
	created map[string]string   // names by UID, of all Pods ever seen
	gone    map[string]bool     // UIDs
	history []transition
	// restored is when etcd was last put back. Until the next whole list, what differs is nobody's doing.
	restored   time.Time
	unexplored bool
	excused    map[string]bool // UIDs that came or went with a restored etcd
}

func newWitness(client kubernetes.Interface, people *people) *witness {
	return &witness{
		client: client, people: people, pods: map[string]sighting{}, created: map[string]string{}, gone: map[string]bool{}, excused: map[string]bool{},
	}
}

// begin forgets the Pods of an act that is over.
func (w *witness) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.created, w.gone, w.excused, w.history = map[string]string{}, map[string]bool{}, map[string]bool{}, nil
}

// run watches until ctx ends. A watch that ends goes on where it was, or begins anew with a list.
func (w *witness) run(ctx context.Context) {
	version := ""
	for ctx.Err() == nil {
		if version == "" {
			list, err := w.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
			if err != nil {
				pause(ctx, 100*time.Millisecond)
				continue
			}
			w.relist(list.Items)
			version = list.ResourceVersion
		}
		version = w.watch(ctx, version)
	}
}

// watch follows from a version until the watch ends, and returns where to go on; empty: with a list.
func (w *witness) watch(ctx context.Context, version string) string {
	events, err := w.client.CoreV1().Pods(namespace).Watch(ctx, metav1.ListOptions{ResourceVersion: version, AllowWatchBookmarks: true})
	if err != nil {
		pause(ctx, 100*time.Millisecond)
		if w.lost() || !temporary(err) {
			return ""
		}
		return version
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		pod, is := event.Object.(*corev1.Pod)
		if !is || w.lost() {
			return ""
		}
		version = pod.ResourceVersion
		if event.Type != watch.Bookmark {
			w.see(pod, event.Type == watch.Deleted)
		}
	}
	if w.lost() {
		return ""
	}
	return version
}

func temporary(err error) bool {
	text := err.Error()
	return !strings.Contains(text, "too old") && !strings.Contains(text, "Too large") && !strings.Contains(text, "too large") && !strings.Contains(text, "expired")
}

// forget makes the witness begin anew: etcd is put back.
func (w *witness) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.restored, w.unexplored = time.Now(), true
}

func (w *witness) lost() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unexplored
}

func (w *witness) relist(items []corev1.Pod) {
	w.mu.Lock()
	explored := !w.unexplored
	w.mu.Unlock()
	listed := map[string]bool{}
	for i := range items {
		listed[string(items[i].UID)] = true
		w.see(&items[i], false)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for uid, seen := range w.pods {
		if !listed[uid] {
			w.end(uid, seen)
		}
	}
	if !explored {
		w.unexplored = false
	}
}

// serves says whether a Pod is ready and runs what its spec says.
func serves(p *corev1.Pod) bool {
	if p.DeletionTimestamp != nil || len(p.Status.ContainerStatuses) == 0 || !strings.HasSuffix(p.Status.ContainerStatuses[0].Image, p.Spec.Containers[0].Image) {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func (w *witness) see(p *corev1.Pod, deleted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	uid := string(p.UID)
	before, known := w.pods[uid]
	if !known {
		before = sighting{set: p.Labels["app"], name: p.Name, image: p.Spec.Containers[0].Image}
		w.created[uid] = p.Name
		delete(w.gone, uid)
		if w.unexplored {
			w.excused[uid] = true
		}
	}
	if deleted {
		w.end(uid, before)
		return
	}
	now := sighting{before.set, p.Name, p.Spec.Containers[0].Image, serves(p)}
	w.pods[uid] = now
	if now.up == before.up {
		return
	}
	by := byNature
	switch {
	case now.up || w.unexplored:
	case p.DeletionTimestamp != nil && w.people.deleted(uid, now.set):
		by = byHand
	case p.DeletionTimestamp != nil || now.image != before.image:
		by = bySystem
	}
	w.note(uid, now, by)
}

// end notes that a Pod is gone. The caller holds mu.
func (w *witness) end(uid string, seen sighting) {
	delete(w.pods, uid)
	w.gone[uid] = true
	if w.unexplored {
		w.excused[uid] = true
	}
	if seen.up {
		seen.up = false
		by := bySystem
		if w.people.deleted(uid, seen.set) {
			by = byHand
		}
		if w.unexplored {
			by = byNature
		}
		w.note(uid, seen, by)
	}
}

func (w *witness) note(uid string, seen sighting, by cause) {
	remaining := 0
	for _, other := range w.pods {
		if other.set == seen.set && other.up {
			remaining++
		}
	}
	w.history = append(w.history, transition{time.Now(), seen.set, seen.name, uid, seen.up, by, remaining})
}

// some returns the UIDs and names of Pods that are there, of a set.
func (w *witness) some(set string) map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]string{}
	for uid, seen := range w.pods {
		if seen.set == set {
			out[uid] = seen.name
		}
	}
	return out
}

// knowledge is how old a view of Pods may be on which Shiplog takes one down: it wants facts vouched for within 15 s.
const knowledge = 20 * time.Second

// budgets returns what took down more than a budget allows. decided says when the command for a Pod was decided on at the latest, as
// the log says; what happened shortly before that, or later, it need not have known.
func (w *witness) budgets(decided func(pod, uid string, before time.Time) time.Time) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var broken []string
	for i, t := range w.history {
		if t.up || t.by != bySystem {
			continue
		}
		horizon := decided(t.pod, t.uid, t.at).Add(-knowledge)
		if w.restored.After(horizon) {
			continue
		}
		need, applies := w.people.need(t.set, horizon, t.at)
		if !applies {
			continue
		}
		// Pods that went down for other reasons, and that Shiplog need not have known of.
		down := map[string]bool{}
		for _, earlier := range w.history[:i] {
			if earlier.set == t.set && earlier.at.After(horizon) {
				down[earlier.uid] = !earlier.up && earlier.by != bySystem
			}
		}
		excused := 0
		for _, is := range down {
			if is {
				excused++
			}
		}
		if t.remaining+excused < need {
			broken = append(broken, fmt.Sprintf("%s: %s was taken down while only %d others served (%d more went down otherwise); %d had to",
				t.at.Format("15:04:05.000"), t.pod, t.remaining, excused, need))
		}
	}
	w.history = nil
	return broken
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
