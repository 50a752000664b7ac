// Package natscluster runs three NATS servers that replicate, each in a container and on a disk of its own, and lets somebody kill, wipe,
// pause and cut them off, and fill their disks. Clients reach them on one network, they reach one another on a second: either can be cut
// for itself. It knows nothing of what is kept in them.
package natscluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	tclog "github.com/testcontainers/testcontainers-go/log"
	tcnetwork "github.com/testcontainers/testcontainers-go/network"
)

const (
	servers = 3
	// serversStart is how long the servers may take until they have agreed on who leads.
	serversStart = time.Minute
	// Ports inside the containers.
	clientPort, routePort, monitorPort = 4222, 6222, 8222
)

// State is what a running cluster tells about itself, in DIR/natscluster.json.
type State struct {
	Docker  string   `json:"docker"` // URL of the daemon
	Clients string   `json:"clients"`
	Routes  string   `json:"routes"` // ids of the two networks
	Servers []Server `json:"servers"`
}

// Server is one of them.
type Server struct {
	Name    string `json:"name"`
	URL     string `json:"url"`
	Monitor string `json:"monitor"` // URL of its monitoring
	Store   string `json:"store"`   // directory of its data, as seen from outside the machine

	Container string     `json:"container"`
	Client    netip.Addr `json:"client"`
	Route     netip.Addr `json:"route"`
}

// Options of Up.
type Options struct {
	// Dir takes everything that is not data.
	Dir string
	// Store takes the servers' disks.
	Store string
	// Program is a statically linked nats-server.
	Program string
	// MaxFile is how much a server may store, in bytes. Its disk is as large.
	MaxFile int64
}

// Cluster is a running one.
type Cluster struct {
	State
	machine *machine
	client  *testcontainers.DockerClient
}

// Up starts dockerd and the servers, and returns when the servers can take streams of three replicas.
func Up(ctx context.Context, o Options) (_ *Cluster, err error) {
	c := &Cluster{State: State{Docker: "unix://" + socket(o.Dir)}}
	if c.machine, err = startMachine(ctx, o.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.Down()
		}
	}()
	if err := c.machine.claim(ctx); err != nil {
		return nil, err
	}
	// testcontainers reads these. The machine ends with everything in it, so nobody else has to clean up.
	for name, value := range map[string]string{"DOCKER_HOST": c.Docker, "TESTCONTAINERS_RYUK_DISABLED": "true", "TESTCONTAINERS_HOST_OVERRIDE": c.machine.outside.String()} {
		if err := os.Setenv(name, value); err != nil {
			return nil, err
		}
	}
	tclog.SetDefault(log.New(io.Discard, "", 0))
	if c.client, err = testcontainers.NewDockerClientWithOpts(ctx); err != nil {
		return nil, fmt.Errorf("reach dockerd: %w", err)
	}
	clients, err := c.network(ctx, c.machine.clients)
	if err != nil {
		return nil, err
	}
	routes, err := c.network(ctx, c.machine.routes)
	if err != nil {
		return nil, err
	}
	c.Clients, c.Routes = clients.ID, routes.ID
	if err := c.machine.join(ctx, "br-"+clients.ID[:12]); err != nil {
		return nil, err
	}
	image := filepath.Join(o.Dir, "image")
	if err := errors.Join(os.MkdirAll(image, 0o755), copyFile(filepath.Join(image, "nats-server"), o.Program),
		os.WriteFile(filepath.Join(image, "Dockerfile"), []byte("FROM scratch\nCOPY nats-server /nats-server\nENTRYPOINT [\"/nats-server\"]\n"), 0o644)); err != nil {
		return nil, fmt.Errorf("make an image: %w", err)
	}
	provider, err := testcontainers.NewDockerProvider()
	if err != nil {
		return nil, fmt.Errorf("reach dockerd: %w", err)
	}
	built, err := provider.BuildImage(ctx, &testcontainers.ContainerRequest{FromDockerfile: testcontainers.FromDockerfile{Context: image, KeepImage: true}})
	if err != nil {
		return nil, fmt.Errorf("build an image of %s: %w", o.Program, err)
	}
	for i := range servers {
		s := Server{Name: fmt.Sprint("nats-", i+1), Client: nth(c.machine.clients, 11+i), Route: nth(c.machine.routes, 11+i)}
		s.URL, s.Monitor = fmt.Sprintf("nats://%s:%d", s.Client, clientPort), fmt.Sprintf("http://%s:%d", s.Client, monitorPort)
		if s.Store, err = c.machine.mount(ctx, filepath.Join(o.Store, s.Name), o.MaxFile); err != nil {
			return nil, fmt.Errorf("make a disk for %s: %w", s.Name, err)
		}
		c.Servers = append(c.Servers, s)
	}
	for i := range c.Servers {
		if err := c.create(ctx, o, &c.Servers[i], built, clients.Name); err != nil {
			return nil, fmt.Errorf("create %s: %w", c.Servers[i].Name, err)
		}
	}
	if err := c.each(func(s Server) error { return c.Start(ctx, s) }); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, serversStart)
	defer cancel()
	if err := c.Well(ctx); err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(c.State, "", "  ")
	if err != nil {
		return nil, err
	}
	path := statePath(o.Dir)
	return c, errors.Join(os.WriteFile(path+".new", append(data, '\n'), 0o644), os.Rename(path+".new", path))
}

// Attach reaches a cluster that another process has started below dir.
func Attach(ctx context.Context, dir string) (*Cluster, error) {
	data, err := os.ReadFile(statePath(dir))
	if err != nil {
		return nil, fmt.Errorf("look for servers in %s: %w", dir, err)
	}
	c := &Cluster{}
	if err := json.Unmarshal(data, &c.State); err != nil {
		return nil, fmt.Errorf("read %s: %w", statePath(dir), err)
	}
	moby, err := client.New(client.WithHost(c.Docker))
	if err != nil {
		return nil, fmt.Errorf("reach dockerd at %s: %w", c.Docker, err)
	}
	c.client = &testcontainers.DockerClient{Client: moby}
	return c, nil
}

func statePath(dir string) string { return filepath.Join(dir, "natscluster.json") }

// Named returns a server by its name.
func (c *Cluster) Named(name string) (Server, error) {
	for _, s := range c.Servers {
		if s.Name == name {
			return s, nil
		}
	}
	return Server{}, fmt.Errorf("there is no server %q, only nats-1 to nats-%d", name, len(c.Servers))
}

// network makes one of the two.
func (c *Cluster) network(ctx context.Context, subnet netip.Prefix) (*testcontainers.DockerNetwork, error) {
	made, err := tcnetwork.New(ctx, tcnetwork.CustomizeNetworkOption(func(o *client.NetworkCreateOptions) error {
		o.IPAM = &network.IPAM{Config: []network.IPAMConfig{{Subnet: subnet, Gateway: nth(subnet, 1)}}}
		return nil
	}))
	if err != nil {
		return nil, fmt.Errorf("make the network %s: %w", subnet, err)
	}
	return made, nil
}

// create makes the container of a server, on both networks.
func (c *Cluster) create(ctx context.Context, o Options, s *Server, image, clients string) error {
	own := filepath.Join(o.Dir, s.Name)
	if err := errors.Join(os.MkdirAll(own, 0o755), os.WriteFile(filepath.Join(own, "nats.conf"), c.config(o, *s), 0o644)); err != nil {
		return err
	}
	made, err := testcontainers.GenericContainer(ctx, testcontainers.GenericContainerRequest{ContainerRequest: testcontainers.ContainerRequest{
		Image: image, Name: s.Name, Cmd: []string{"-c", "/own/nats.conf"}, Networks: []string{clients},
		HostConfigModifier: func(h *container.HostConfig) {
			h.Binds = []string{own + ":/own", filepath.Join(o.Store, s.Name) + ":/store"}
		},
		EndpointSettingsModifier: func(all map[string]*network.EndpointSettings) { all[clients] = at(s.Client) },
	}})
	if err != nil {
		return err
	}
	s.Container = made.GetContainerID()
	return c.connect(ctx, c.Routes, s.Container, s.Route)
}

func at(address netip.Addr) *network.EndpointSettings {
	return &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: address}}
}

// config of a server. What it acknowledges it has written through to its disk, and it does not tell clients of the others: who is to
// know them is told their addresses. A route over which no answer comes is closed within seconds: once a cut is over, what was sent into
// it would wait for TCP's next try, which may be as far away as the cut was long.
func (c *Cluster) config(o Options, s Server) []byte {
	var others []string
	for _, other := range c.Servers {
		others = append(others, fmt.Sprintf("%q", fmt.Sprintf("nats://%s:%d", other.Route, routePort)))
	}
	return fmt.Appendf(nil, `server_name: %s
listen: "0.0.0.0:%d"
http: "0.0.0.0:%d"
log_file: /own/nats.log
jetstream { store_dir: /store, max_file: %d, sync_interval: always }
cluster { name: shiplog, listen: "%s:%d", no_advertise: true, ping_interval: "2s", ping_max: 2, routes: [%s] }
`, s.Name, clientPort, monitorPort, o.MaxFile, s.Route, routePort, strings.Join(others, ", "))
}

// Start starts a server that is down. It does not wait until it is well.
func (c *Cluster) Start(ctx context.Context, s Server) error {
	_, err := c.client.ContainerStart(ctx, s.Container, client.ContainerStartOptions{})
	return doing("start", s, err)
}

// Kill ends a server at once, and returns when it has ended.
func (c *Cluster) Kill(ctx context.Context, s Server) error {
	gone := c.client.ContainerWait(ctx, s.Container, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	if _, err := c.client.ContainerKill(ctx, s.Container, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		return doing("kill", s, err)
	}
	select {
	case <-gone.Result:
		return nil
	case err := <-gone.Error:
		return doing("wait for the end of", s, err)
	}
}

// Wipe deletes what a server that is down has stored.
func (c *Cluster) Wipe(s Server) error {
	entries, err := os.ReadDir(s.Store)
	for _, entry := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(s.Store, entry.Name())))
	}
	return doing("wipe", s, err)
}

// Fill leaves no room on the disk of a server.
func (c *Cluster) Fill(s Server) error {
	file, err := os.Create(filler(s))
	if err != nil {
		return doing("fill the disk of", s, err)
	}
	defer file.Close()
	for at, size := int64(0), int64(1<<30); size > 0; {
		switch err := syscall.Fallocate(int(file.Fd()), 0, at, size); err {
		case nil:
			at += size
		case syscall.ENOSPC:
			size /= 2
		default:
			return doing("fill the disk of", s, err)
		}
	}
	return nil
}

// Free makes room again on a disk that was filled.
func (c *Cluster) Free(s Server) error { return doing("free the disk of", s, os.Remove(filler(s))) }

func filler(s Server) string { return filepath.Join(s.Store, "filler") }

// Pause stops a server where it is.
func (c *Cluster) Pause(ctx context.Context, s Server) error {
	_, err := c.client.ContainerPause(ctx, s.Container, client.ContainerPauseOptions{})
	return doing("pause", s, err)
}

// Resume lets a paused server go on.
func (c *Cluster) Resume(ctx context.Context, s Server) error {
	_, err := c.client.ContainerUnpause(ctx, s.Container, client.ContainerUnpauseOptions{})
	return doing("resume", s, err)
}

// Cut takes a server off the network of the servers, and off that of the clients too unless routesOnly is set. Nobody is told: what is
// sent is lost.
func (c *Cluster) Cut(ctx context.Context, s Server, routesOnly bool) error {
	networks := []string{c.Routes, c.Clients}
	if routesOnly {
		networks = networks[:1]
	}
	for _, id := range networks {
		if _, err := c.client.NetworkDisconnect(ctx, id, client.NetworkDisconnectOptions{Container: s.Container, Force: true}); err != nil {
			return doing("cut off", s, err)
		}
	}
	return nil
}

// Join puts a server back on the networks that it was cut off from.
func (c *Cluster) Join(ctx context.Context, s Server) error {
	now, err := c.client.ContainerInspect(ctx, s.Container, client.ContainerInspectOptions{})
	if err != nil {
		return doing("look at", s, err)
	}
	on := map[string]bool{}
	for _, endpoint := range now.Container.NetworkSettings.Networks {
		on[string(endpoint.NetworkID)] = true
	}
	for _, one := range []struct {
		id      string
		address netip.Addr
	}{{c.Routes, s.Route}, {c.Clients, s.Client}} {
		if !on[one.id] {
			if err := c.connect(ctx, one.id, s.Container, one.address); err != nil {
				return doing("join", s, err)
			}
		}
	}
	return nil
}

func (c *Cluster) connect(ctx context.Context, id, container string, address netip.Addr) error {
	_, err := c.client.NetworkConnect(ctx, id, client.NetworkConnectOptions{Container: container, EndpointConfig: at(address)})
	return err
}

// Well waits until every server says that it is: it has caught up with the others in every stream.
func (c *Cluster) Well(ctx context.Context) error {
	for _, s := range c.Servers {
		if err := until(ctx, func() error { return s.Unwell(ctx) }); err != nil {
			return fmt.Errorf("%s is not well: %w", s.Name, err)
		}
	}
	return nil
}

// until waits until check returns nil, and returns its last error when ctx ends before that.
func until(ctx context.Context, check func() error) error {
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Unwell says why a server is not well; nil: it is.
func (s Server) Unwell(ctx context.Context) error {
	_, err := s.ask(ctx, "/healthz")
	return err
}

// ask asks the monitoring of a server; everything but 200 is an error.
func (s Server) ask(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Monitor+path, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	said, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(strings.TrimSpace(string(said)))
	}
	return string(said), err
}

// Ended is closed when dockerd has ended.
func (c *Cluster) Ended() <-chan struct{} { return c.machine.ended }

// Down ends the servers and dockerd, and removes what they left but the servers' data.
func (c *Cluster) Down() {
	if c.client != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		// With the containers go their control groups.
		_ = c.each(func(s Server) error {
			_, err := c.client.ContainerRemove(ctx, s.Container, client.ContainerRemoveOptions{Force: true})
			return err
		})
	}
	c.machine.stop()
}

// each does something to all servers at once.
func (c *Cluster) each(do func(Server) error) error {
	errs := make([]error, len(c.Servers))
	var all sync.WaitGroup
	for i, s := range c.Servers {
		all.Go(func() { errs[i] = do(s) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func doing(what string, s Server, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", what, s.Name, err)
}

// nth address of a subnet.
func nth(subnet netip.Prefix, n int) netip.Addr {
	address := subnet.Addr().As4()
	address[3] = byte(n)
	return netip.AddrFrom4(address)
}

func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}
