package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/object"
)

const (
	userAgent = object.Manager
	// auditHeader lets a client name its request in the audit log.
	auditHeader = "Audit-ID"
	// maxAnswer bounds an answer's body; etcd takes no object of this size. usualAnswer has room for that of a Pod.
	maxAnswer, usualAnswer = 16 << 20, 16 << 10
)

// client makes single API calls in JSON. It does not retry; the limiter bounds how many are in flight.
type client struct {
	http    *http.Client
	server  *url.URL
	limiter *limiter
}

func newClient(config *rest.Config, limiter *limiter) (*client, error) {
	config = rest.CopyConfig(config)
	config.UserAgent = userAgent
	server, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, err
	}
	transport, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	return &client{http: transport, server: server, limiter: limiter}, nil
}

// request is one API call.
type request struct {
	method      string
	path        string
	query       url.Values
	contentType string
	body        []byte
	// auditID names the request in the API server's audit log; empty: the API server makes one up.
	auditID string
	purpose purpose
}

// answer is what came of a call. Without code nothing is known of its effect.
type answer struct {
	code int
	body []byte
	// err is set when no whole answer arrived.
	err        error
	retryAfter time.Duration
}

// do makes one call. Its time to answer is bounded by timeout, waiting for a place only by ctx.
func (c *client) do(ctx context.Context, timeout time.Duration, r request) answer {
	if err := c.limiter.acquire(ctx, r.purpose); err != nil {
		return answer{err: err}
	}
	start := time.Now()
	got := c.roundTrip(ctx, timeout, r)
	c.limiter.release(r.purpose, time.Now(), time.Since(start), got.code == http.StatusTooManyRequests)
	return got
}

func (c *client) roundTrip(ctx context.Context, timeout time.Duration, r request) answer {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	target := c.server.JoinPath(r.path)
	target.RawQuery = r.query.Encode()
	call, err := http.NewRequestWithContext(ctx, r.method, target.String(), bytes.NewReader(r.body))
	if err != nil {
		return answer{err: err}
	}
	call.Header.Set("Accept", "application/json")
	if r.contentType != "" {
		call.Header.Set("Content-Type", r.contentType)
	}
	if r.auditID != "" {
		call.Header.Set(auditHeader, r.auditID)
	}
	response, err := c.http.Do(call)
	if err != nil {
		return answer{err: err}
	}
	defer response.Body.Close()
	var body bytes.Buffer
	body.Grow(usualAnswer)
	_, err = body.ReadFrom(io.LimitReader(response.Body, maxAnswer+1))
	if err == nil && body.Len() > maxAnswer {
		err = fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	}
	if err != nil {
		return answer{err: err}
	}
	seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
	return answer{code: response.StatusCode, body: body.Bytes(), retryAfter: time.Duration(max(0, seconds)) * time.Second}
}

// ok says that the API server did what was asked.
func (a answer) ok() bool { return a.err == nil && a.code >= 200 && a.code < 300 }

// temporary says that the same call may succeed later.
func (a answer) temporary() bool {
	return a.err != nil || a.code >= 500 || a.code == http.StatusTooManyRequests ||
		a.code == http.StatusRequestTimeout || a.code == http.StatusUnauthorized
}

// unsure says that the effect may have happened although the answer does not say so. A server that was not reached did nothing.
func (a answer) unsure() bool {
	if dial := new(net.OpError); errors.As(a.err, &dial) && dial.Op == "dial" {
		return false
	}
	return a.err != nil || a.code >= 500
}

// status is the API server's account of a failure. Without one it is made up from the code.
func (a answer) status() metav1.Status {
	var status metav1.Status
	if json.Unmarshal(a.body, &status) != nil || status.Kind != "Status" {
		status = metav1.Status{Message: string(a.body)}
	}
	if status.Reason == "" {
		status.Reason = reasons[a.code]
	}
	if status.Reason == "" {
		status.Reason = metav1.StatusReason("HTTP" + strconv.Itoa(a.code))
	}
	if status.Message == "" {
		status.Message = http.StatusText(a.code)
	}
	return status
}

// reasons stands in for the status reason that webhooks and proxies often leave out.
var reasons = map[int]metav1.StatusReason{
	http.StatusBadRequest:            metav1.StatusReasonBadRequest,
	http.StatusForbidden:             metav1.StatusReasonForbidden,
	http.StatusNotFound:              metav1.StatusReasonNotFound,
	http.StatusMethodNotAllowed:      metav1.StatusReasonMethodNotAllowed,
	http.StatusConflict:              metav1.StatusReasonConflict,
	http.StatusGone:                  metav1.StatusReasonGone,
	http.StatusRequestEntityTooLarge: metav1.StatusReasonRequestEntityTooLarge,
	http.StatusUnsupportedMediaType:  metav1.StatusReasonUnsupportedMediaType,
	http.StatusUnprocessableEntity:   metav1.StatusReasonInvalid,
}

// explain is the reason of an outcome for an answer that is not ok.
func (a answer) explain() *shiplogv1.Reason {
	if a.err != nil {
		return reason(unavailable, a.err.Error())
	}
	status := a.status()
	return reason(string(status.Reason), status.Message)
}

// object is the object in an ok answer.
func (a answer) object(ref *shiplogv1.ObjectRef) (*object.Object, error) {
	return object.Normalise(resource(ref), a.body)
}

func resource(ref *shiplogv1.ObjectRef) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: ref.GetGroup(), Version: ref.GetVersion(), Resource: ref.GetResource()}
}

// collection is the path of all objects of the kind in the namespace, named that of the object.
func collection(ref *shiplogv1.ObjectRef) string {
	path := "/api/" + ref.GetVersion()
	if ref.GetGroup() != "" {
		path = "/apis/" + ref.GetGroup() + "/" + ref.GetVersion()
	}
	if ref.GetNamespace() != "" {
		path += "/namespaces/" + url.PathEscape(ref.GetNamespace())
	}
	return path + "/" + ref.GetResource()
}

func named(ref *shiplogv1.ObjectRef) string {
	return collection(ref) + "/" + url.PathEscape(ref.GetName())
}
