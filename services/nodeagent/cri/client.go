// Package cri speaks to a node's container runtime over its CRI socket, and alone does so. It says what the runtime has, in
// the words of the log, and when to look again. It decides nothing and changes nothing on the node.
package cri

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	contentv1 "github.com/containerd/containerd/api/services/content/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

const (
	// maxAnswer is the largest answer in bytes that is read, as the kubelet has it.
	maxAnswer = 16 << 20
	// lookWait bounds all questions of one Look together.
	lookWait = 10 * time.Second
	// After a lost connection the socket is tried again with pauses that grow from redialWait to redialWaitMax.
	redialWait    = 100 * time.Millisecond
	redialWaitMax = 5 * time.Second

	scheme = "unix://"
)

// ErrNoEvents: the runtime tells nobody but the kubelet of its events, or nobody at all.
var ErrNoEvents = errors.New("the runtime has no event stream for this agent")

// Path returns the file that an endpoint such as unix:///run/containerd/containerd.sock names.
func Path(endpoint string) (string, error) {
	path, is := strings.CutPrefix(endpoint, scheme)
	if !is || !strings.HasPrefix(path, "/") {
		return "", fmt.Errorf("%q is not of the form unix:///path", endpoint)
	}
	return path, nil
}

// Client is a connection to one runtime. Look is for one goroutine; everything else may run beside it.
type Client struct {
	endpoint   string
	connection *grpc.ClientConn
	runtime    runtimev1.RuntimeServiceClient
	images     runtimev1.ImageServiceClient
	// content is containerd's own; other runtimes have none.
	content contentv1.ContentClient
	// known holds the details of the containers of the last Look, by id. Once a container started they do not change.
	known map[string]detail
}

// New returns a client. It does not wait for the runtime, which may come and go.
func New(endpoint string) (*Client, error) {
	if _, err := Path(endpoint); err != nil {
		return nil, err
	}
	pauses := backoff.Config{BaseDelay: redialWait, Multiplier: 1.6, Jitter: 0.2, MaxDelay: redialWaitMax}
	connection, err := grpc.NewClient(endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the socket's file mode says who may connect
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: pauses, MinConnectTimeout: redialWaitMax}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return nil, fmt.Errorf("set up the connection to the runtime at %s: %w", endpoint, err)
	}
	return &Client{
		endpoint: endpoint, connection: connection,
		runtime: runtimev1.NewRuntimeServiceClient(connection), images: runtimev1.NewImageServiceClient(connection),
		content: contentv1.NewContentClient(connection),
	}, nil
}

// Close ends the connection.
func (c *Client) Close() { _ = c.connection.Close() }

// Look returns what the runtime has: its name and version, images and containers, in the order that NodeObserved wants.
func (c *Client) Look(ctx context.Context) (*shiplogv1.NodeObserved, error) {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	fail := func(doing string, err error) (*shiplogv1.NodeObserved, error) {
		return nil, fmt.Errorf("%s of the runtime at %s: %w", doing, c.endpoint, err)
	}
	version, err := c.runtime.Version(ctx, &runtimev1.VersionRequest{})
	if err != nil {
		return fail("ask the version", err)
	}
	images, err := c.images.ListImages(ctx, &runtimev1.ListImagesRequest{})
	if err != nil {
		return fail("list the images", err)
	}
	containers, err := c.runtime.ListContainers(ctx, &runtimev1.ListContainersRequest{})
	if err != nil {
		return fail("list the containers", err)
	}
	details, err := c.details(ctx, containers.GetContainers())
	if err != nil {
		return fail("ask for the containers", err)
	}
	c.known = details
	return &shiplogv1.NodeObserved{
		RuntimeName: version.GetRuntimeName(), RuntimeVersion: version.GetRuntimeVersion(),
		Images: imagesOf(images.GetImages()), Containers: containersOf(containers.GetContainers(), details),
	}, nil
}

// detail is what a list of containers does not say of one.
type detail struct {
	startedAt int64 // Unix nanoseconds; 0: not started
	image     string
}

// details asks for those that are not known, or had not started: one question, as a rule, in the life of a container.
func (c *Client) details(ctx context.Context, containers []*runtimev1.Container) (map[string]detail, error) {
	details := make(map[string]detail, len(containers))
	for _, container := range containers {
		id := container.GetId()
		if known := c.known[id]; known.startedAt != 0 {
			details[id] = known
			continue
		}
		answer, err := c.runtime.ContainerStatus(ctx, &runtimev1.ContainerStatusRequest{ContainerId: id})
		if status.Code(err) == codes.NotFound {
			continue // gone since the list
		}
		if err != nil {
			return nil, err
		}
		one := answer.GetStatus()
		details[id] = detail{one.GetStartedAt(), cmp.Or(one.GetImage().GetUserSpecifiedImage(), one.GetImage().GetImage())}
	}
	return details, nil
}

// Watch calls changed whenever the runtime tells of an event, and once when it starts to listen, until the stream breaks.
// Errors: ErrNoEvents, after which watching again is pointless; what broke the stream; that of ctx.
func (c *Client) Watch(ctx context.Context, changed func()) error {
	version, err := c.runtime.Version(ctx, &runtimev1.VersionRequest{})
	if err != nil {
		return err
	}
	if !sharesEvents(version.GetRuntimeName(), version.GetRuntimeVersion()) {
		return ErrNoEvents
	}
	stream, err := c.runtime.GetContainerEvents(ctx, &runtimev1.GetEventsRequest{})
	for err == nil {
		changed()
		_, err = stream.Recv()
	}
	if status.Code(err) == codes.Unimplemented {
		return ErrNoEvents
	}
	return fmt.Errorf("watch the events of the runtime at %s: %w", c.endpoint, err)
}

// sharesEvents says whether each listener gets all events. A containerd before version 2 hands each event to one listener
// only, and the kubelet may be the other one.
func sharesEvents(name, version string) bool {
	version = strings.TrimPrefix(version, "v")
	return name != "containerd" || !strings.HasPrefix(version, "0.") && !strings.HasPrefix(version, "1.")
}
