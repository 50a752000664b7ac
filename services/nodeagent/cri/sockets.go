package cri

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// hostRun is where the node's /var/run is mounted in a container, as OpenKruise's daemon has it (image-pull R38).
const hostRun = "/hostvarrun"

// WellKnown are the files at which runtimes listen unless they are told otherwise, the likeliest first: in a container, and on
// the node itself.
var WellKnown = []string{
	hostRun + "/containerd.sock", hostRun + "/containerd/containerd.sock", hostRun + "/crio.sock", hostRun + "/crio/crio.sock",
	hostRun + "/cri-dockerd.sock", hostRun + "/cri-dockerd/cri-dockerd.sock",
	"/run/containerd/containerd.sock", "/var/run/crio/crio.sock", "/var/run/cri-dockerd.sock",
}

// findWait is how long a socket that exists gets to answer.
const findWait = 10 * time.Second

// Find returns the endpoint of the first of these files that is the socket of a runtime which answers, or "".
func Find(ctx context.Context, files []string) string {
	for _, file := range files {
		endpoint := scheme + file
		if Check(endpoint) == nil && answers(ctx, endpoint) {
			return endpoint
		}
	}
	return ""
}

func answers(ctx context.Context, endpoint string) bool {
	client, err := New(endpoint)
	if err != nil {
		return false
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, findWait)
	defer cancel()
	_, err = client.runtime.Version(ctx, &runtimev1.VersionRequest{})
	if err == nil {
		_, err = client.images.ListImages(ctx, &runtimev1.ListImagesRequest{}) // a socket may serve Pods and no images
	}
	return err == nil
}

// InHostRun returns the endpoint of a file below the node's /var/run, as it is mounted in a container.
func InHostRun(file string) string { return scheme + filepath.Join(hostRun, file) }

// Check says what is wrong with an endpoint: its form, or that no socket is there.
func Check(endpoint string) error {
	path, err := Path(endpoint)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s is no socket", path)
	}
	return nil
}
