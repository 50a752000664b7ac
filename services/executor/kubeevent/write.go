package kubeevent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
)

const (
	// entriesAnnotation lists the positions in the log of the rollout events that an Event stands for.
	entriesAnnotation = "shiplog.dev/entries"
	// maxMessage is how long a message the API server takes, in bytes.
	maxMessage = 1024
)

// write writes one Event for notices of one workload and reason, and tells the log that they are done. It tries until that is
// so, the API server says that it never will be, or ctx ends.
func (w *writer) write(ctx context.Context, notices ...*notice) {
	event := w.eventOf(notices)
	log := w.options.Logger.With().Str("namespace", event.Namespace).Str("event", event.Name).Str("reason", event.Reason).Logger()
	for pause := retryFirst; ; pause = min(2*pause, retryLongest) {
		bounded, cancel := context.WithTimeout(ctx, writeWithin)
		_, err := w.client.Events(event.Namespace).Create(bounded, event, metav1.CreateOptions{})
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil, apierrors.IsAlreadyExists(err):
			w.finish(ctx, "written", notices...)
			return
		case apierrors.IsNotFound(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
			w.finish(ctx, "dropped", notices...) // its namespace is gone, or about to be
			return
		case apierrors.IsForbidden(err), apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsRequestEntityTooLargeError(err),
			apierrors.IsMethodNotSupported(err):
			log.Warn().Err(err).Msg("the API server does not take an Event; give the executor the right to create events in every namespace")
			w.finish(ctx, "refused", notices...)
			return
		}
		log.Warn().Err(err).Msg("cannot write an Event; trying again")
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// eventOf words the Event for notices, one or several. Its name follows from the first of them, so writing it again finds it.
func (w *writer) eventOf(notices []*notice) *corev1.Event {
	first, last := notices[0], notices[len(notices)-1]
	sum := sha256.Sum256([]byte(journal.EventID(first.task.Entry)))
	positions := make([]string, len(notices))
	for i, sequence := range sequences(notices) {
		positions[i] = strconv.FormatUint(sequence, 10)
	}
	o, component := first.workload, components[first.kind]
	fieldPath := ""
	if first.container != "" {
		fieldPath = "spec.containers{" + first.container + "}"
	}
	message := last.message
	if more := len(notices) - 1; more > 0 {
		message = fmt.Sprintf("%s, and %d more; see all: shiplog timeline %s/%s -n %s", shortened(last.message, maxMessage-300), more, strings.ToLower(first.kind), o.GetName(), o.GetNamespace())
	}
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespaceOf(o), Name: o.GetName() + "." + hex.EncodeToString(sum[:8]),
			Annotations: map[string]string{entriesAnnotation: strings.Join(positions, ",")},
		},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: schema.GroupVersion{Group: o.GetGroup(), Version: o.GetVersion()}.String(), Kind: first.kind,
			Namespace: o.GetNamespace(), Name: o.GetName(), UID: types.UID(o.GetUid()), FieldPath: fieldPath,
		},
		Type: last.eventType(), Reason: first.reason, Message: shortened(message, maxMessage), Count: int32(len(notices)),
		Source: corev1.EventSource{Component: component}, ReportingController: component, ReportingInstance: w.options.Writer,
		FirstTimestamp: metav1.NewTime(first.at), LastTimestamp: metav1.NewTime(last.at),
	}
}

// namespaceOf is where Events about an object are: those of an object without a namespace stand in the default one.
func namespaceOf(o *shiplogv1.ObjectRef) string {
	return cmp.Or(o.GetNamespace(), metav1.NamespaceDefault)
}

// shortened cuts a text to a number of bytes, at a rune's end.
func shortened(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-3], "") + "..."
}

// toldBy returns the entries that the Events of a notice's workload and reason stand for.
func (w *writer) toldBy(ctx context.Context, n *notice) map[uint64]bool {
	told := map[uint64]bool{}
	bounded, cancel := context.WithTimeout(ctx, writeWithin)
	defer cancel()
	list, err := w.client.Events(namespaceOf(n.workload)).List(bounded, metav1.ListOptions{
		FieldSelector: fields.Set{"involvedObject.uid": n.workload.GetUid(), "reason": n.reason}.String(),
	})
	if err != nil {
		// Something may be counted twice; nothing is left out.
		w.options.Logger.Warn().Err(err).Str("reason", n.reason).Msg("cannot read which Events there are")
		return told
	}
	for i := range list.Items {
		for position := range strings.SplitSeq(list.Items[i].Annotations[entriesAnnotation], ",") {
			if sequence, err := strconv.ParseUint(position, 10, 64); err == nil {
				told[sequence] = true
			}
		}
	}
	return told
}

// finish tells the log that notices are done.
func (w *writer) finish(ctx context.Context, result string, notices ...*notice) {
	for _, n := range notices {
		w.written.WithLabelValues(n.reason, result).Inc()
		w.done(ctx, n.task)
	}
}

func (w *writer) done(ctx context.Context, task *journal.Task) {
	if err := task.Done(ctx); err != nil && ctx.Err() == nil {
		w.options.Logger.Warn().Err(err).Uint64("entry", task.Sequence).Msg("cannot tell the log that a rollout event is done; it comes again")
	}
}
