package executor

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

const (
	revisions = "/apis/apps/v1/namespaces/ns/controllerrevisions"
	revision  = `{"kind":"ControllerRevision","apiVersion":"apps/v1","metadata":{"name":"r","namespace":"ns","uid":"u9","resourceVersion":"3"}}`
)

var revisionRef = &shiplogv1.ObjectRef{Group: "apps", Version: "v1", Resource: "controllerrevisions", Namespace: "ns", Name: "r"}

func createRevision() *shiplogv1.Command {
	return &shiplogv1.Command{Object: revisionRef, Effect: &shiplogv1.Command_Create{Create: &shiplogv1.CreateObject{Json: []byte(revision)}}}
}

func needing(c *shiplogv1.Command) *shiplogv1.Command {
	c.Needs = revisionRef
	return c
}

// TestNeeds: a write happens only when what the command needs is there, whoever makes it.
func TestNeeds(t *testing.T) {
	patch := step{method: "PATCH", want: podPath, code: 200, body: pod("u1", "5", "")}
	t.Run("made by a command before it", func(t *testing.T) {
		b := open(t)
		b.start(server(t,
			step{method: "POST", want: revisions, code: 500, body: "etcd"},
			step{method: "POST", want: revisions, code: 201, body: revision},
			patch))
		b.command(createRevision())
		b.await(b.command(needing(patchPod("4")))).want(t, "APPLIED  requests=1 facts=[5]")
	})
	t.Run("made by somebody else, after a while", func(t *testing.T) {
		b := open(t)
		b.start(server(t,
			step{method: "GET", want: revisions + "/r", code: 404, body: status(404, "NotFound")},
			step{method: "GET", want: revisions + "/r", code: 200, body: revision},
			patch))
		b.await(b.command(needing(patchPod("4")))).want(t, "APPLIED  requests=3 facts=[5]")
	})
	t.Run("refused", func(t *testing.T) {
		b := open(t)
		b.start(server(t,
			step{method: "POST", want: revisions, code: 403, body: status(403, "Forbidden")},
			step{method: "GET", want: revisions + "/r", code: 404, body: status(404, "NotFound")}))
		b.command(createRevision())
		b.await(b.command(needing(patchPod("4")))).want(t, "REFUSED Lacking requests=1 facts=[]")
	})
	t.Run("never made", func(t *testing.T) {
		b := open(t)
		b.start(server(t, step{method: "GET", want: revisions + "/r", code: 404, body: status(404, "NotFound")}),
			func(e *executor) { e.patience.command = 0 })
		b.await(b.command(needing(patchPod("4")))).want(t, "REFUSED Unavailable requests=1 facts=[]")
	})
}

// TestOneLooks: what a thousand commands need is looked for once, and found by all.
func TestOneLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		present := newPresent()
		var looks, found atomic.Int32
		var needing sync.WaitGroup
		for range 1000 {
			needing.Go(func() {
				now := present.look(revisionRef, func() sight {
					looks.Add(1)
					time.Sleep(time.Second)
					return sight{known: true}
				})
				if now.known {
					found.Add(1)
				}
			})
		}
		needing.Wait()
		if looks.Load() != 1 || found.Load() != 1000 {
			t.Errorf("%d looks, found by %d", looks.Load(), found.Load())
		}
	})
}
