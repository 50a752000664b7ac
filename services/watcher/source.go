package watcher

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/rs/zerolog"

	"shiplog.dev/internal/object"
)

// maxList bounds one page of a list, in bytes.
const maxList = 512 << 20

// source lists and watches one kind for a reflector, keeping objects as the bytes that they came in.
type source struct {
	kind   kind
	client *client
	log    zerolog.Logger

	// watches counts those that were opened.
	watches atomic.Uint64

	mu sync.Mutex
	// abort ends the watch that is open or being opened.
	abort func(relist bool)
}

// List and Watch make up the interface that has no context; the reflector uses the other.
func (s *source) List(options metav1.ListOptions) (runtime.Object, error) {
	return s.ListWithContext(context.Background(), options)
}

// Watch see List.
func (s *source) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return s.WatchWithContext(context.Background(), options)
}

// ListWithContext returns one page.
func (s *source) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	page, err := s.list(ctx, options)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn().Err(err).Msg("cannot list")
		}
		return nil, err
	}
	return page, nil
}

func (s *source) list(ctx context.Context, options metav1.ListOptions) (*items, error) {
	body, err := s.client.get(ctx, s.kind.path(), query(options), asJSON)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", s.kind.name, err)
	}
	defer body.Close()
	raw, err := readAll(body, maxList)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", s.kind.name, err)
	}
	page, err := s.page(raw)
	if err != nil {
		return nil, fmt.Errorf("decode a list of %s: %w", s.kind.name, err)
	}
	return page, nil
}

func (s *source) page(raw []byte) (*items, error) {
	page := &items{}
	var elements []byte
	_, err := object.Members(raw, 0, func(name []byte, start int) (int, error) {
		end, err := object.Skip(raw, start)
		if err != nil {
			return 0, err
		}
		switch string(name) {
		case "kind":
			err = json.Unmarshal(raw[start:end], &page.Kind)
		case "apiVersion":
			err = json.Unmarshal(raw[start:end], &page.APIVersion)
		case "metadata":
			err = json.Unmarshal(raw[start:end], &page.ListMeta)
		case "items":
			elements = raw[start:end]
		}
		return end, err
	})
	if err != nil || len(elements) == 0 || elements[0] != '[' {
		return page, err
	}
	// The API server leaves kind and version out of the items of built-in kinds; in a watch it does not.
	head := fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,`, strings.TrimSuffix(page.Kind, "List"), page.APIVersion)
	_, err = object.Elements(elements, 0, func(start int) (int, error) {
		end, err := object.Skip(elements, start)
		if err != nil {
			return 0, err
		}
		one := elements[start:end]
		if !bytes.HasPrefix(one, []byte(`{"kind":`)) && !bytes.HasPrefix(one, []byte(`{"apiVersion":`)) && len(one) > 2 {
			one = append(append(make([]byte, 0, len(head)+len(one)), head...), one[1:]...)
		}
		next, err := newItem(s.kind.resource, one)
		page.Items = append(page.Items, next)
		return end, err
	})
	return page, err
}

// WatchWithContext opens a watch.
func (s *source) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	q := query(options)
	q.Set("watch", "true")
	ctx, cancel := context.WithCancel(ctx)
	s.abortBy(func(bool) { cancel() })
	body, err := s.client.get(ctx, s.kind.path(), q, asJSON)
	if err != nil {
		cancel()
		err = fmt.Errorf("watch %s: %w", s.kind.name, err)
		s.log.Warn().Err(err).Msg("cannot watch")
		return nil, err
	}
	s.watches.Add(1)
	next := newStream(s.kind.resource, body, cancel)
	s.abortBy(next.drop)
	return next, nil
}

func (s *source) abortBy(abort func(relist bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abort = abort
}

// drop ends the watch under way, so that the reflector opens another one: where this one ended, or after a new list.
func (s *source) drop(relist bool) {
	s.mu.Lock()
	abort := s.abort
	s.mu.Unlock()
	if abort != nil {
		abort(relist)
	}
}

func query(o metav1.ListOptions) url.Values {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("resourceVersion", o.ResourceVersion)
	set("resourceVersionMatch", string(o.ResourceVersionMatch))
	set("continue", o.Continue)
	if o.Limit > 0 {
		set("limit", strconv.FormatInt(o.Limit, 10))
	}
	if o.AllowWatchBookmarks {
		set("allowWatchBookmarks", "true")
	}
	if o.SendInitialEvents != nil {
		set("sendInitialEvents", strconv.FormatBool(*o.SendInitialEvents))
	}
	if o.TimeoutSeconds != nil {
		set("timeoutSeconds", strconv.FormatInt(*o.TimeoutSeconds, 10))
	}
	return q
}

func readAll(r io.Reader, limit int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = fmt.Errorf("the answer is larger than %d bytes", limit)
	}
	return raw, err
}
