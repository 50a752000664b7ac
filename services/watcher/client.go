package watcher

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

const (
	userAgent = "shiplog-watcher"
	// maxError bounds how much of an error's body is read.
	maxError = 64 << 10
	asJSON   = "application/json"
)

// client sends reads. It limits no rate: there are few, and each is spaced by its caller.
type client struct {
	http   *http.Client
	server *url.URL
}

func newClient(config *rest.Config) (*client, error) {
	config = rest.CopyConfig(config)
	config.UserAgent = userAgent
	config.Timeout = 0               // watches are long; other reads are bounded by their contexts
	config.DisableCompression = true // an API server takes longer to compress a list than to send it
	server, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, err
	}
	transport, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	return &client{http: transport, server: server}, nil
}

// get returns the body of an ok answer, which the caller closes. An answer that is not ok is an error that apierrors
// understands.
func (c *client) get(ctx context.Context, path string, query url.Values, accept string) (io.ReadCloser, error) {
	target := c.server.JoinPath(path)
	target.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", accept)
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, nil
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxError))
	return nil, failure(response.StatusCode, body)
}

func failure(code int, body []byte) error {
	var status metav1.Status
	if json.Unmarshal(body, &status) != nil || status.Kind != "Status" {
		status = metav1.Status{Message: fmt.Sprintf("HTTP %d: %.200s", code, body)}
	}
	status.Status = metav1.StatusFailure
	if status.Code == 0 {
		status.Code = int32(code)
	}
	return &apierrors.StatusError{ErrStatus: status}
}
