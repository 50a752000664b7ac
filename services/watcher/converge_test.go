package watcher

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
)

// Whatever happens on the way - writes, cut watches, positions too old, an executor whose facts come late - in the end a
// reader of the log knows exactly what the API server has.
func TestConverges(t *testing.T) {
	s := newScene(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s.watch("first")
	s.awaitProof(time.Time{})
	second := s.watch("second")
	var late []*shiplogv1.Entry
	for step := range 400 {
		name := "p-" + strconv.Itoa(random.IntN(12))
		switch random.IntN(12) {
		case 0, 1, 2:
			written, err := s.pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name},
				Spec: corev1.PodSpec{SchedulerName: "absent", Containers: []corev1.Container{{Name: "main", Image: "nginx:1"}}}}, metav1.CreateOptions{})
			s.tolerate(err)
			if err == nil {
				late = append(late, executorFact(written))
			}
		case 3, 4, 5, 6:
			patch := fmt.Appendf(nil, `{"metadata":{"labels":{"n":"%d"}}}`, random.IntN(3))
			written, err := s.pods.Patch(t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{})
			s.tolerate(err)
			if err == nil {
				late = append(late, executorFact(written))
			}
		case 7, 8:
			s.tolerate(s.pods.Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}))
		case 9:
			s.proxy.refuse(random.IntN(2) == 0)
		case 10:
			s.proxy.refuse(false)
		case 11:
			if len(late) > 0 && random.IntN(2) == 0 {
				if _, err := s.log.Append(t.Context(), late[len(late)-1]); err != nil {
					t.Fatal(err)
				}
				late = nil
			}
		}
		if step == 200 {
			second()
		}
	}
	s.proxy.refuse(false)
	list, err := s.pods.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, p := range list.Items {
		want[p.Name] = string(p.UID) + " " + p.Labels["n"]
	}
	var got map[string]string
	s.await("the log to hold what the API server has", func(records []journal.Record) bool {
		got = foldPods(records, s.namespace)
		return maps.Equal(got, want)
	})
	t.Logf("%d Pods", len(want))
}

func (s *scene) tolerate(err error) {
	s.Helper()
	if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		s.Fatal(err)
	}
}

// executorFact is what an executor would say of the object that its write returned.
func executorFact(p *corev1.Pod) *shiplogv1.Entry {
	raw := fmt.Appendf(nil, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":%q,"namespace":%q,"uid":%q,"resourceVersion":%q,"labels":{"n":%q}}}`,
		p.Name, p.Namespace, p.UID, p.ResourceVersion, p.Labels["n"])
	return &shiplogv1.Entry{Writer: "executor", Kind: &shiplogv1.Entry_ObjectObserved{ObjectObserved: &shiplogv1.ObjectObserved{
		Object:          &shiplogv1.ObjectRef{Version: "v1", Resource: "pods", Namespace: p.Namespace, Name: p.Name, Uid: string(p.UID)},
		ResourceVersion: p.ResourceVersion, Json: raw,
	}}}
}

// foldPods is the simplest reader: of all facts about a name the newest counts. It has no memory of what is gone.
func foldPods(records []journal.Record, namespace string) map[string]string {
	held := map[string]string{}
	versions := map[string]int{}
	for _, r := range records {
		if o := r.Entry.GetObjectObserved(); o.GetObject().GetNamespace() == namespace && o.GetObject().GetResource() == "pods" {
			version, _ := strconv.Atoi(o.GetResourceVersion())
			if name := o.GetObject().GetName(); version > versions[name] {
				held[name], versions[name] = o.GetObject().GetUid()+" "+label(o.GetJson()), version
			}
		}
		if o := r.Entry.GetObjectDeleted(); o.GetObject().GetNamespace() == namespace && o.GetObject().GetResource() == "pods" {
			version, _ := strconv.Atoi(o.GetResourceVersion())
			if name := o.GetObject().GetName(); version >= versions[name] {
				delete(held, name)
				delete(versions, name)
			}
		}
	}
	return held
}

func label(raw []byte) string {
	var partial metav1.PartialObjectMetadata
	_ = json.Unmarshal(raw, &partial)
	return partial.Labels["n"]
}
