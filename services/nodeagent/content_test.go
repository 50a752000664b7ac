package nodeagent

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	contentv1 "github.com/containerd/containerd/api/services/content/v1"
	"github.com/distribution/reference"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// trickleBytes is the size in bytes of the large layer of images that come bit by bit.
const trickleBytes = 4 << 20

// manifest is an image in the middle of a pull: its config is there, its layer is not.
type manifest struct {
	source, repository string
	config, layer      string // digests
	offset             int64
	body               []byte
}

func digestOf(what string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(what))) }

// tells says whether it has the content service of a containerd.
func (f *fakeRuntime) tells() bool { return strings.HasPrefix(f.version, "v2") }

// trickle takes two seconds, and leaves nothing when it is ended.
func (f *fakeRuntime) trickle(ctx context.Context, name string) error {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return err
	}
	one := &manifest{
		source: "containerd.io/distribution.source." + reference.Domain(named), repository: reference.Path(named),
		config: digestOf("config of " + name), layer: digestOf("layer of " + name),
	}
	one.body = fmt.Appendf(nil, `{"config":{"digest":%q,"size":100},"layers":[{"digest":%q,"size":%d}]}`, one.config, one.layer, trickleBytes)
	f.mu.Lock()
	f.manifests[digestOf(string(one.body))] = one
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.manifests, digestOf(string(one.body)))
	}()
	const pieces = 20
	for range pieces {
		if !sleep(ctx, 2*time.Second/pieces) {
			return status.FromContextError(ctx.Err()).Err()
		}
		f.mu.Lock()
		one.offset += trickleBytes / pieces
		f.mu.Unlock()
	}
	return nil
}

// fakeContent is the content service: what is being pulled bit by bit.
type fakeContent struct {
	contentv1.UnimplementedContentServer
	fake *fakeRuntime
}

func (c *fakeContent) ListStatuses(ctx context.Context, _ *contentv1.ListStatusesRequest) (*contentv1.ListStatusesResponse, error) {
	if sent, _ := metadata.FromIncomingContext(ctx); len(sent["containerd-namespace"]) != 1 || sent["containerd-namespace"][0] != "k8s.io" {
		return nil, status.Error(codes.FailedPrecondition, "namespace is required")
	}
	c.fake.mu.Lock()
	defer c.fake.mu.Unlock()
	answer := &contentv1.ListStatusesResponse{}
	for _, one := range c.fake.manifests {
		answer.Statuses = append(answer.Statuses, &contentv1.Status{Ref: "layer-" + one.layer, Offset: one.offset, Total: trickleBytes})
	}
	return answer, nil
}

// List knows two filters: by the presence of a label, and by digest.
func (c *fakeContent) List(request *contentv1.ListContentRequest, stream contentv1.Content_ListServer) error {
	c.fake.mu.Lock()
	defer c.fake.mu.Unlock()
	answer := &contentv1.ListContentResponse{}
	for _, filter := range request.Filters {
		for digest, one := range c.fake.manifests {
			switch filter {
			case fmt.Sprintf("labels.%q", one.source):
				answer.Info = append(answer.Info, &contentv1.Info{Digest: digest, Size: int64(len(one.body)), Labels: map[string]string{
					one.source: "another," + one.repository, "containerd.io/gc.ref.content.l.0": one.layer,
				}})
			case fmt.Sprintf("digest==%q", one.config):
				answer.Info = append(answer.Info, &contentv1.Info{Digest: one.config, Size: 100})
			}
		}
	}
	return stream.Send(answer)
}

func (c *fakeContent) Read(request *contentv1.ReadContentRequest, stream contentv1.Content_ReadServer) error {
	c.fake.mu.Lock()
	one := c.fake.manifests[request.Digest]
	c.fake.mu.Unlock()
	if one == nil {
		return status.Error(codes.NotFound, "gone")
	}
	return stream.Send(&contentv1.ReadContentResponse{Data: one.body})
}
