package nodeagent

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	utilnet "k8s.io/apimachinery/pkg/util/net"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/services/nodeagent/cri"
)

const (
	// maxOutput is how many bytes of what a failed hook wrote its outcome quotes; maxBody how many of an answer are read.
	maxOutput = 512
	maxBody   = 10 << 10
	// maxRedirects within one host are followed, as the kubelet does.
	maxRedirects = 10
)

// hook runs what a container wants done before it stops (container-restart R20, D5). It runs until it ends or ctx does.
func (c *call) hook(ctx context.Context, hook *shiplogv1.RunHook) *shiplogv1.Outcome {
	var err error
	switch handler := hook.GetHandler().(type) {
	case *shiplogv1.RunHook_Exec:
		err = c.exec(ctx, hook.GetContainerId(), handler.Exec.GetCommand())
	case *shiplogv1.RunHook_Http:
		err = c.get(ctx, hook.GetContainerId(), handler.Http)
	case *shiplogv1.RunHook_Tcp:
		err = c.connect(ctx, hook.GetContainerId(), handler.Tcp)
	case *shiplogv1.RunHook_Sleep:
		if !sleep(ctx, handler.Sleep.AsDuration()) {
			err = ctx.Err()
		}
	default:
		return refused(unsupported, fmt.Errorf("this agent cannot run %T", handler))
	}
	if err == nil {
		return &shiplogv1.Outcome{}
	}
	code := hookFailed
	if cri.Unavailable(err) {
		code = interrupted // it may have run, and is not run twice
	}
	return c.ended(ctx, "the hook of container "+hook.GetContainerId(), code, err)
}

func (c *call) exec(ctx context.Context, container string, command []string) error {
	if len(command) == 0 {
		return errors.New("the hook names no program")
	}
	result, err := c.runtime.Exec(ctx, container, command)
	if err != nil || result.Code == 0 {
		return err
	}
	output := result.Stderr
	if len(bytes.TrimSpace(output)) == 0 {
		output = result.Stdout
	}
	output = bytes.TrimSpace(output[:min(len(output), maxOutput)])
	return fmt.Errorf("%s ends with exit code %d: %s", command[0], result.Code, output)
}

// get asks for a page. Any answer is well, as for the kubelet.
func (c *call) get(ctx context.Context, container string, hook *shiplogv1.HttpHook) error {
	host, err := c.host(ctx, container, hook.GetHost())
	if err != nil {
		return err
	}
	path, query, _ := strings.Cut(hook.GetPath(), "?")
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	address := url.URL{Scheme: cmp.Or(hook.GetScheme(), "http"), Host: net.JoinHostPort(host, port(hook.GetPort())), Path: path, RawQuery: query}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "shiplog-nodeagent")
	for _, header := range hook.GetHeaders() {
		if http.CanonicalHeaderKey(header.GetName()) == "Host" {
			request.Host = header.GetValue()
			continue
		}
		request.Header.Add(header.GetName(), header.GetValue())
	}
	client := http.Client{
		// No proxy: a hook is for the Pod. No certificate of a Pod is known to anybody.
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(next *http.Request, before []*http.Request) error {
			if next.URL.Hostname() != before[0].URL.Hostname() || len(before) >= maxRedirects {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxBody)) // what it says is for nobody
	return nil
}

// connect opens a connection and closes it.
func (c *call) connect(ctx context.Context, container string, hook *shiplogv1.TcpHook) error {
	host, err := c.host(ctx, container, hook.GetHost())
	if err != nil {
		return err
	}
	connection, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(host, port(hook.GetPort())))
	if err != nil {
		return err
	}
	return connection.Close()
}

// host returns the one that is given, else the address of the container's Pod.
func (c *call) host(ctx context.Context, container, given string) (string, error) {
	if given != "" {
		return given, nil
	}
	var address string
	if err := c.patiently(ctx, func(ctx context.Context) (err error) {
		address, err = c.runtime.Address(ctx, container)
		return err
	}); err != nil || address != "" {
		return address, err
	}
	if c.options.NodeIP != "" {
		return c.options.NodeIP, nil
	}
	ip, err := utilnet.ChooseHostInterface()
	if err != nil {
		return "", fmt.Errorf("find the node's address for a Pod that shares its network: %w", err)
	}
	return ip.String(), nil
}

func port(number uint32) string { return strconv.FormatUint(uint64(number), 10) }
