package cri

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"shiplog.dev/internal/keyring"
)

// stopSlack is what the runtime gets for each try to stop a container, beyond the container's grace (container-restart R17).
const stopSlack = 5 * time.Second

// waitForRuntime has a call that must not be made twice wait for the connection, instead of failing without one.
var waitForRuntime = grpc.WaitForReady(true)

// tooYoung is how a containerd that just started refuses all calls of CRI: it takes none yet, and gives the refusal no code.
const tooYoung = "server is not initialized yet"

// Unavailable says whether an error of a call means that the runtime did not answer, as it does not while it restarts.
func Unavailable(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable:
		return true
	case codes.Unknown:
		return err != nil && strings.Contains(err.Error(), tooYoung)
	}
	return false
}

// Image returns the runtime's identity of an image that it holds, or "".
func (c *Client) Image(ctx context.Context, image string) (string, error) {
	answer, err := c.images.ImageStatus(ctx, &runtimev1.ImageStatusRequest{Image: &runtimev1.ImageSpec{Image: image}})
	if status.Code(err) == codes.NotFound {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("ask for image %s: %w", image, err)
	}
	return answer.GetImage().GetId(), nil
}

// Pull lets the runtime pull an image, with a credential (nil: without), and returns its identity.
func (c *Client) Pull(ctx context.Context, image string, labels, annotations map[string]string, credential *keyring.Credential) (string, error) {
	request := &runtimev1.PullImageRequest{
		Image: &runtimev1.ImageSpec{Image: image}, SandboxConfig: &runtimev1.PodSandboxConfig{Labels: labels, Annotations: annotations},
	}
	if credential != nil {
		request.Auth = &runtimev1.AuthConfig{
			Username: credential.Username, Password: credential.Password, Auth: credential.Auth, ServerAddress: credential.ServerAddress,
			IdentityToken: credential.IdentityToken, RegistryToken: credential.RegistryToken,
		}
	}
	answer, err := c.images.PullImage(ctx, request)
	if err != nil {
		return "", err
	}
	// What it is called in the answer is for the runtime to say: its id, or a name with a digest.
	if id, err := c.Image(ctx, image); err == nil && id != "" {
		return id, nil
	}
	return answer.GetImageRef(), nil
}

// Stop stops a container; one that is not there or not running is stopped. A container that outlives its grace has been killed
// by then, and only a busy machine has it end much later than that: it is asked for again without grace, as long as ctx lasts.
func (c *Client) Stop(ctx context.Context, id string, grace time.Duration) error {
	err := c.stop(ctx, id, int64((grace+time.Second-1)/time.Second))
	for errors.Is(err, errStopLate) {
		err = c.stop(ctx, id, 0)
	}
	return err
}

// errStopLate is why a try to stop a container ended before the runtime had an answer of its own.
var errStopLate = errors.New("the container did not end in time after it was killed")

// stop tries once to stop a container. Errors: errStopLate, that of ctx, or the runtime's.
func (c *Client) stop(ctx context.Context, id string, seconds int64) error {
	end := time.Now().Add(time.Duration(seconds)*time.Second + stopSlack)
	limited, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	_, err := c.runtime.StopContainer(limited, &runtimev1.StopContainerRequest{ContainerId: id, Timeout: seconds})
	switch {
	case status.Code(err) == codes.NotFound:
		return nil
	case err != nil && ctx.Err() == nil && !time.Now().Before(end): // the runtime counts the time too, and words its end in its own way
		return fmt.Errorf("%w: %s", errStopLate, err)
	}
	return err
}
