package watcher

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"shiplog.dev/internal/object"
)

const (
	// maxEvent bounds one event of a watch, in bytes.
	maxEvent = 32 << 20
	// maxDecoded is how many decoded events wait for the reflector.
	maxDecoded = 64
)

// stream is one watch: a line of JSON for each event.
type stream struct {
	resource schema.GroupVersionResource
	body     io.ReadCloser
	events   chan watch.Event
	ended    chan struct{}
	end      func()
	relist   atomic.Bool
}

func newStream(resource schema.GroupVersionResource, body io.ReadCloser, cancel context.CancelFunc) *stream {
	s := &stream{resource: resource, body: body, events: make(chan watch.Event, maxDecoded), ended: make(chan struct{})}
	s.end = sync.OnceFunc(func() {
		close(s.ended)
		cancel()
		_ = body.Close()
	})
	go s.read()
	return s
}

// Stop ends the watch for good; nobody reads its events any more.
func (s *stream) Stop() { s.end() }

// ResultChan is closed when the watch has ended.
func (s *stream) ResultChan() <-chan watch.Event { return s.events }

// drop ends the connection. With relist the reflector is told that its position is too old.
func (s *stream) drop(relist bool) {
	if relist {
		s.relist.Store(true)
	}
	_ = s.body.Close()
	s.end()
}

func (s *stream) read() {
	defer close(s.events)
	defer s.end()
	lines := bufio.NewReaderSize(s.body, 64<<10)
	for {
		line, err := readLine(lines)
		if err != nil {
			// Whatever ended it, the reflector watches again from where it is.
			if s.relist.Load() {
				s.last(expired("the watch was dropped to list again"))
			}
			return
		}
		event, err := decode(s.resource, line)
		if err != nil {
			s.last(expired(err.Error()))
			return
		}
		select {
		case s.events <- event:
		case <-s.ended:
			if s.relist.Load() {
				s.last(expired("the watch was dropped to list again"))
			}
			return
		}
	}
}

// last delivers the final event if the reflector is still there to take it: one that has stopped the watch does not read.
func (s *stream) last(event watch.Event) {
	for {
		select {
		case s.events <- event:
			return
		default:
		}
		select {
		case <-s.events: // makes room; what is dropped comes again with the list
		default:
		}
	}
}

func expired(why string) watch.Event {
	status := apierrors.NewResourceExpired(why).ErrStatus
	return watch.Event{Type: watch.Error, Object: &status}
}

// readLine returns the next line, which is only valid until the next call.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	long := append([]byte(nil), line...)
	for errors.Is(err, bufio.ErrBufferFull) {
		if len(long) > maxEvent {
			return nil, fmt.Errorf("an event of the watch is larger than %d bytes", maxEvent)
		}
		line, err = r.ReadSlice('\n')
		long = append(long, line...)
	}
	return long, err
}

// decode reads an event. Nothing of line is kept.
func decode(resource schema.GroupVersionResource, line []byte) (watch.Event, error) {
	var kind, raw []byte
	_, err := object.Members(line, 0, func(name []byte, start int) (int, error) {
		end, err := object.Skip(line, start)
		if err != nil {
			return 0, err
		}
		switch string(name) {
		case "type":
			kind = line[start:end]
		case "object":
			raw = line[start:end]
		}
		return end, nil
	})
	if err != nil || len(kind) < 2 {
		return watch.Event{}, fmt.Errorf("decode an event %.100q: %w", line, err)
	}
	event := watch.Event{Type: watch.EventType(kind[1 : len(kind)-1])}
	switch event.Type {
	case watch.Error:
		event.Object, err = decodeStatus(raw)
	case watch.Bookmark:
		event.Object, err = decodeBookmark(raw)
	default:
		event.Object, err = newItem(resource, raw)
	}
	return event, err
}

func decodeStatus(raw []byte) (runtime.Object, error) {
	status := &metav1.Status{}
	return status, json.Unmarshal(raw, status)
}

func decodeBookmark(raw []byte) (runtime.Object, error) {
	var partial metav1.PartialObjectMetadata
	err := json.Unmarshal(raw, &partial)
	mark := &item{}
	mark.ResourceVersion, mark.Annotations = partial.ResourceVersion, partial.Annotations
	return mark, err
}
