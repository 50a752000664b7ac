package nodeagent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	contentv1 "github.com/containerd/containerd/api/services/content/v1"
	"github.com/distribution/reference"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakeRuntime is a container runtime in memory behind a real socket.
type fakeRuntime struct {
	runtimev1.UnimplementedRuntimeServiceServer
	runtimev1.UnimplementedImageServiceServer
	socket, version string
	server          *grpc.Server

	mu         sync.Mutex
	count      int
	containers map[string]*runtimev1.Container // by Pod
	images     []*runtimev1.Image
	pulls      []*runtimev1.PullImageRequest
	manifests  map[string]*manifest // by digest, what is pulled bit by bit
	listeners  []chan struct{}
	streams    int
	asked      int  // for the status of a container
	forgetful  bool // it has no account of a container's environment
	execs      [][]string
	hostIP     bool            // its Pods share the node's network
	young      time.Time       // until when it takes no calls, as a containerd that just started
	stubborn   map[string]bool // containers that end only when they are killed
	late       time.Duration   // how long they take to end then
	killed     time.Time       // when the first was
}

// startFake starts one of a version; from 2 on it tells everybody of its events.
func startFake(t *testing.T, version string) *fakeRuntime {
	dir, err := os.MkdirTemp("", "cri") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &fakeRuntime{socket: filepath.Join(dir, "s"), version: version, containers: map[string]*runtimev1.Container{},
		manifests: map[string]*manifest{}, stubborn: map[string]bool{}}
	f.up(t)
	t.Cleanup(f.down)
	return f
}

func (f *fakeRuntime) endpoint() string { return "unix://" + f.socket }

func (f *fakeRuntime) up(t *testing.T) {
	listener, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	f.server = grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		f.mu.Lock()
		young := time.Now().Before(f.young)
		f.mu.Unlock()
		if young {
			return nil, errors.New("server is not initialized yet")
		}
		return handle(ctx, request)
	}))
	runtimev1.RegisterRuntimeServiceServer(f.server, f)
	runtimev1.RegisterImageServiceServer(f.server, f)
	if f.tells() {
		contentv1.RegisterContentServer(f.server, &fakeContent{fake: f})
	}
	go func() { _ = f.server.Serve(listener) }()
}

func (f *fakeRuntime) down() { f.server.Stop() }

func (f *fakeRuntime) restart(t *testing.T) {
	f.down()
	time.Sleep(500 * time.Millisecond) // a runtime is away for a while, whether anybody calls it or not
	f.mu.Lock()
	f.young = time.Now().Add(500 * time.Millisecond)
	f.mu.Unlock()
	f.up(t)
}

// serve has the server on this machine's own address, where the Pods of an imagined runtime are.
func (f *fakeRuntime) serve(t *testing.T, pod string) (uint32, func() string) {
	var asked atomic.Value
	served := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Host + " " + r.URL.String() + " " + r.Header.Get("X-Who"))
		http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
	}))
	t.Cleanup(served.Close)
	f.run(t, pod)
	return uint32(served.Listener.Addr().(*net.TCPAddr).Port), func() string { return asked.Load().(string) }
}

func (f *fakeRuntime) run(_ *testing.T, pod string, command ...string) {
	f.change(func() {
		f.count++
		f.stubborn[fmt.Sprint("c", f.count)] = command != nil
		if f.images == nil {
			f.images = []*runtimev1.Image{{Id: "sha256:1", RepoTags: []string{image}, RepoDigests: []string{"docker.io/library/app@sha256:2"}, Size: 7}}
		}
		f.containers[pod] = &runtimev1.Container{
			Id: fmt.Sprint("c", f.count), Metadata: &runtimev1.ContainerMetadata{Name: containerName}, Image: &runtimev1.ImageSpec{Image: "sha256:1"},
			ImageRef: "sha256:1", State: runtimev1.ContainerState_CONTAINER_RUNNING, CreatedAt: time.Now().UnixNano(),
			Labels: map[string]string{
				"io.kubernetes.pod.name": pod, "io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.uid": "uid-" + pod,
			},
			Annotations: map[string]string{"io.kubernetes.container.hash": "69fd", "io.kubernetes.container.restartCount": "0"},
		}
	})
}

func (f *fakeRuntime) remove(_ *testing.T, pod string) {
	f.change(func() { delete(f.containers, pod) })
}

// change changes what there is and tells the listeners.
func (f *fakeRuntime) change(how func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how()
	for _, listener := range f.listeners {
		select {
		case listener <- struct{}{}:
		default:
		}
	}
}

func (f *fakeRuntime) Version(context.Context, *runtimev1.VersionRequest) (*runtimev1.VersionResponse, error) {
	return &runtimev1.VersionResponse{RuntimeName: "containerd", RuntimeVersion: f.version}, nil
}

func (f *fakeRuntime) ListImages(context.Context, *runtimev1.ListImagesRequest) (*runtimev1.ListImagesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &runtimev1.ListImagesResponse{Images: slices.Clone(f.images)}, nil
}

// imageID is what the fake makes of a name.
func imageID(name string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(name))) }

func (f *fakeRuntime) ImageStatus(_ context.Context, request *runtimev1.ImageStatusRequest) (*runtimev1.ImageStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, one := range f.images {
		if slices.Contains(one.RepoTags, normal(request.GetImage().GetImage())) {
			return &runtimev1.ImageStatusResponse{Image: one}, nil
		}
	}
	return &runtimev1.ImageStatusResponse{}, nil
}

// PullImage has every image whose tag is not missing, as the registry of the real cluster.
func (f *fakeRuntime) PullImage(ctx context.Context, request *runtimev1.PullImageRequest) (*runtimev1.PullImageResponse, error) {
	name := normal(request.GetImage().GetImage())
	if strings.HasSuffix(name, ":missing") {
		return nil, status.Errorf(codes.NotFound, "failed to pull and unpack image %q: not found", name)
	}
	if auth := request.GetAuth(); strings.Contains(name, "/private/") && (auth.GetUsername() != registryUser || auth.GetPassword() != registryPassword) {
		return nil, status.Errorf(codes.Unknown, "failed to pull and unpack image %q: unexpected status: 401 Unauthorized", name)
	}
	f.mu.Lock()
	f.pulls = append(f.pulls, proto.CloneOf(request))
	f.mu.Unlock()
	if strings.Contains(name, "trickle") {
		if err := f.trickle(ctx, name); err != nil {
			return nil, err
		}
	}
	if strings.Contains(name, "slow") {
		select {
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		case <-time.After(2 * time.Second):
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.ContainsFunc(f.images, func(one *runtimev1.Image) bool { return slices.Contains(one.RepoTags, name) }) {
		f.images = append(f.images, &runtimev1.Image{Id: imageID(name), RepoTags: []string{name}, Size: 7})
	}
	return &runtimev1.PullImageResponse{ImageRef: imageID(name)}, nil
}

func normal(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		panic(err)
	}
	return named.String()
}

// StopContainer ends a container; the kubelet of this runtime starts nothing again.
func (f *fakeRuntime) StopContainer(ctx context.Context, request *runtimev1.StopContainerRequest) (*runtimev1.StopContainerResponse, error) {
	f.mu.Lock()
	stubborn := f.stubborn[request.ContainerId]
	f.mu.Unlock()
	if stubborn && !(sleep(ctx, time.Duration(request.Timeout)*time.Second) && sleep(ctx, f.dying())) {
		return nil, status.Error(codes.Unknown, ctx.Err().Error()) // as containerd words it
	}
	f.change(func() {
		for _, container := range f.containers { // at most one matches
			if container.Id == request.ContainerId {
				container.State = runtimev1.ContainerState_CONTAINER_EXITED
			}
		}
	})
	return &runtimev1.StopContainerResponse{}, nil
}

// dying kills a container, and returns how long it takes to end.
func (f *fakeRuntime) dying() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.killed.IsZero() {
		f.killed = time.Now()
	}
	return time.Until(f.killed.Add(f.late))
}

// ListContainers answers in the order of a map: none.
func (f *fakeRuntime) ListContainers(_ context.Context, request *runtimev1.ListContainersRequest) (*runtimev1.ListContainersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := &runtimev1.ListContainersResponse{}
	for _, container := range f.containers {
		if id := request.GetFilter().GetId(); id == "" || id == container.Id {
			answer.Containers = append(answer.Containers, proto.CloneOf(container))
		}
	}
	return answer, nil
}

func (f *fakeRuntime) ContainerStatus(_ context.Context, request *runtimev1.ContainerStatusRequest) (*runtimev1.ContainerStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	for _, container := range f.containers { // at most one matches
		if container.Id == request.ContainerId {
			answer := &runtimev1.ContainerStatusResponse{Status: &runtimev1.ContainerStatus{
				Id: container.Id, StartedAt: container.CreatedAt + 1, Image: &runtimev1.ImageSpec{Image: image}, Annotations: container.Annotations,
			}}
			if request.Verbose && !f.forgetful {
				answer.Info = map[string]string{"info": `{"runtimeSpec":{"process":{"env":["PATH=/bin","COLOR=red","COLOR=blue"]}}}`}
			}
			return answer, nil
		}
	}
	return nil, status.Error(codes.NotFound, "gone")
}

func (f *fakeRuntime) GetContainerEvents(_ *runtimev1.GetEventsRequest, stream grpc.ServerStreamingServer[runtimev1.ContainerEventResponse]) error {
	heard := make(chan struct{}, 1)
	f.mu.Lock()
	f.listeners = append(f.listeners, heard)
	f.streams++
	f.mu.Unlock()
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case <-heard:
			if err := stream.Send(&runtimev1.ContainerEventResponse{}); err != nil {
				return err
			}
		}
	}
}

// ExecSync knows the programs true, false, sleep and env; the last can separate by NUL only if it says so.
func (f *fakeRuntime) ExecSync(ctx context.Context, request *runtimev1.ExecSyncRequest) (*runtimev1.ExecSyncResponse, error) {
	f.mu.Lock()
	f.execs = append(f.execs, request.Cmd)
	f.mu.Unlock()
	switch strings.Join(request.Cmd, " ") {
	case "true":
		return &runtimev1.ExecSyncResponse{}, nil
	case "sh -c echo oops >&2; exit 3":
		return &runtimev1.ExecSyncResponse{ExitCode: 3, Stderr: []byte("oops\n")}, nil
	case "sleep 60":
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	case "env -0":
		return &runtimev1.ExecSyncResponse{ExitCode: 1}, nil
	case "env":
		return &runtimev1.ExecSyncResponse{Stdout: []byte("PATH=/bin\nCOLOR=blue\n")}, nil
	}
	return nil, status.Errorf(codes.Unknown, "exec: %q: executable file not found", request.Cmd)
}

func (f *fakeRuntime) PodSandboxStatus(context.Context, *runtimev1.PodSandboxStatusRequest) (*runtimev1.PodSandboxStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := &runtimev1.PodSandboxStatus{Network: &runtimev1.PodSandboxNetworkStatus{Ip: "127.0.0.1"}}
	if f.hostIP {
		answer.Network.Ip = ""
		answer.Linux = &runtimev1.LinuxPodSandboxStatus{Namespaces: &runtimev1.Namespace{Options: &runtimev1.NamespaceOption{Network: runtimev1.NamespaceMode_NODE}}}
	}
	return &runtimev1.PodSandboxStatusResponse{Status: answer}, nil
}
