package hollow

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// A real API server leaves this state only when it is killed at the right moment, so a fake one holds it here.
func TestPodLeftHalfDeletedIsDeletedAgain(t *testing.T) {
	cases := []struct {
		name       string
		since      time.Duration // the deletion
		finalizers []string
		deletes    int
	}{
		{"left behind", resync, nil, 1},
		{"perhaps still on its way", 0, nil, 0},
		{"held by a finalizer", resync, []string{"example.com/hold"}, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			pod := newPod("app:1")
			pod.DeletionTimestamp = &metav1.Time{Time: time.Now().Add(-c.since)}
			pod.DeletionGracePeriodSeconds = new(int64(0))
			pod.Finalizers = c.finalizers
			client := fake.NewClientset(pod)
			known := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
			if err := known.Add(pod); err != nil {
				t.Fatal(err)
			}
			nodes := &Nodes{
				client: client,
				pods:   corelisters.NewPodLister(known),
				queue:  workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[types.NamespacedName]()),
				latest: map[types.UID]*corev1.Pod{},
			}
			defer nodes.queue.ShutDown()
			if err := nodes.sync(t.Context(), types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}); err != nil {
				t.Fatal(err)
			}
			deletes := 0
			for _, action := range client.Actions() {
				if action.GetVerb() == "delete" {
					deletes++
				}
			}
			if deletes != c.deletes {
				t.Errorf("%d deletes, want %d", deletes, c.deletes)
			}
		})
	}
}
