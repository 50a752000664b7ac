package cri

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	contentv1 "github.com/containerd/containerd/api/services/content/v1"
	"github.com/distribution/reference"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	// progressWait bounds all questions of one Progress together.
	progressWait = 5 * time.Second
	// maxManifest is the largest manifest in bytes that is read, maxManifests how many are for one image: those of its
	// repository that the node has.
	maxManifest  = 4 << 20
	maxManifests = 64
	// maxImage in bytes: a manifest that claims more lies.
	maxImage = 1 << 50

	// What containerd keeps of the content of a pull: where it is from, and what it refers to.
	namespaceOfCRI = "k8s.io"
	labelSource    = "containerd.io/distribution.source."
	labelRefersTo  = "containerd.io/gc.ref.content"
)

// ErrNoProgress: the runtime is none that tells how far a pull is.
var ErrNoProgress = errors.New("the runtime does not tell how far a pull is")

// Progress returns how many of the bytes of an image that is being pulled the runtime has; 0, 0: nothing is known. CRI does not
// tell. On the same socket, containerd tells what is on its way, but not for which image: that is known once the manifest is
// there, and only if one manifest of the image's repository alone names what comes. Errors: ErrNoProgress, after which asking
// again is pointless; what failed.
func (c *Client) Progress(ctx context.Context, image string) (done, total uint64, _ error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return 0, 0, fmt.Errorf("image %q: %w", image, err)
	}
	ctx, cancel := context.WithTimeout(ctx, progressWait)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespaceOfCRI)
	done, total, err = c.progress(ctx, named)
	if status.Code(err) == codes.Unimplemented {
		return 0, 0, ErrNoProgress
	}
	if err != nil {
		return 0, 0, fmt.Errorf("ask the runtime at %s how far the pull of %s is: %w", c.endpoint, image, err)
	}
	return done, total, nil
}

func (c *Client) progress(ctx context.Context, image reference.Named) (done, total uint64, _ error) {
	coming, err := c.coming(ctx)
	if err != nil || len(coming) == 0 {
		return 0, 0, err
	}
	blobs, err := c.blobsOf(ctx, image, coming)
	if err != nil || blobs == nil {
		return 0, 0, err
	}
	present, err := c.present(ctx, blobs)
	if err != nil {
		return 0, 0, err
	}
	for digest, size := range blobs {
		total += size
		if present[digest] {
			done += size
		} else {
			done += min(coming[digest], size)
		}
	}
	return done, total, nil
}

// coming returns how many bytes are there of each layer and config that is on its way, by digest.
func (c *Client) coming(ctx context.Context) (map[string]uint64, error) {
	answer, err := c.content.ListStatuses(ctx, &contentv1.ListStatusesRequest{})
	if err != nil {
		return nil, err
	}
	coming := map[string]uint64{}
	for _, one := range answer.GetStatuses() {
		kind, digest, _ := strings.Cut(one.GetRef(), "-") // layer-sha256:...
		if (kind == "layer" || kind == "config") && one.GetOffset() >= 0 {
			coming[digest] = uint64(one.GetOffset())
		}
	}
	return coming, nil
}

// blobsOf returns the sizes of what the one manifest of an image's repository names that names something which is coming; nil:
// there is none, or several.
func (c *Client) blobsOf(ctx context.Context, image reference.Named, coming map[string]uint64) (map[string]uint64, error) {
	source := labelSource + reference.Domain(image)
	held, err := c.list(ctx, fmt.Sprintf("labels.%q", source))
	if err != nil {
		return nil, err
	}
	held = slices.DeleteFunc(held, func(one *contentv1.Info) bool {
		refers := false
		for label := range one.GetLabels() {
			refers = refers || strings.HasPrefix(label, labelRefersTo)
		}
		repositories := strings.Split(one.GetLabels()[source], ",")
		return !refers || one.GetSize() > maxManifest || !slices.Contains(repositories, reference.Path(image))
	})
	if len(held) > maxManifests {
		return nil, nil
	}
	var found map[string]uint64
	for _, one := range held {
		body, err := c.read(ctx, one)
		if status.Code(err) == codes.NotFound {
			continue // gone since the list
		}
		if err != nil {
			return nil, err
		}
		blobs := sizes(body)
		comes := false
		for digest := range coming {
			_, named := blobs[digest]
			comes = comes || named
		}
		if comes && found != nil {
			return nil, nil
		}
		if comes {
			found = blobs
		}
	}
	return found, nil
}

// present returns which of these blobs the runtime has completely.
func (c *Client) present(ctx context.Context, blobs map[string]uint64) (map[string]bool, error) {
	var filters []string
	for digest := range blobs {
		filters = append(filters, fmt.Sprintf("digest==%q", digest))
	}
	held, err := c.list(ctx, filters...)
	if err != nil {
		return nil, err
	}
	present := map[string]bool{}
	for _, one := range held {
		present[one.GetDigest()] = true
	}
	return present, nil
}

// list returns what the runtime holds that passes any of the filters.
func (c *Client) list(ctx context.Context, filters ...string) ([]*contentv1.Info, error) {
	stream, err := c.content.List(ctx, &contentv1.ListContentRequest{Filters: filters})
	if err != nil {
		return nil, err
	}
	var held []*contentv1.Info
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return held, nil
		}
		if err != nil {
			return nil, err
		}
		held = append(held, answer.GetInfo()...)
	}
}

// read returns the bytes of a blob.
func (c *Client) read(ctx context.Context, blob *contentv1.Info) ([]byte, error) {
	stream, err := c.content.Read(ctx, &contentv1.ReadContentRequest{Digest: blob.GetDigest(), Size: blob.GetSize()})
	if err != nil {
		return nil, err
	}
	var body bytes.Buffer
	for body.Len() <= maxManifest {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return body.Bytes(), nil
		}
		if err != nil {
			return nil, err
		}
		body.Write(answer.GetData())
	}
	return nil, fmt.Errorf("the manifest %s has more bytes than the runtime says", blob.GetDigest())
}

// sizes returns the sizes in bytes of what a manifest names, by digest; nil: it names no layers, or cannot be true.
func sizes(manifest []byte) map[string]uint64 {
	type blob struct {
		Digest string
		Size   int64
	}
	var named struct {
		Config blob
		Layers []blob
	}
	if json.Unmarshal(manifest, &named) != nil || len(named.Layers) == 0 {
		return nil
	}
	out := map[string]uint64{}
	var total int64
	for _, one := range append(named.Layers, named.Config) {
		if one.Size < 0 || one.Size > maxImage-total {
			return nil
		}
		total += one.Size
		out[one.Digest] = uint64(one.Size)
	}
	return out
}
