package natscluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// machine is a dockerd in mount, process and network namespaces of its own. Whatever dockerd does to bridges, routes and mounts it does
// in there, and the kernel takes all of it back when the first process ends, in whatever way. Outside there is one veth interface.
type machine struct {
	command *exec.Cmd
	ended   chan struct{}
	// clients and routes are the subnets of the two networks, outside the address of this machine among the clients.
	clients, routes netip.Prefix
	outside         netip.Addr
	veth            string
}

const (
	dockerdStart = 30 * time.Second
	// cgroupParent holds the control groups of all containers.
	cgroupParent = "shiplog-natscluster"
)

// startMachine starts dockerd with everything it keeps below dir.
func startMachine(ctx context.Context, dir string) (*machine, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("start dockerd: root is needed")
	}
	dockerd, err := exec.LookPath("dockerd")
	if err != nil {
		return nil, fmt.Errorf("start dockerd: install Debian's docker.io: %w", err)
	}
	if len(socket(dir)) > 100 {
		return nil, fmt.Errorf("start dockerd: the path %s is too long for a socket", socket(dir))
	}
	said, err := os.OpenFile(filepath.Join(dir, "dockerd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start dockerd: %w", err)
	}
	defer said.Close()
	settings := filepath.Join(dir, "daemon.json") // in place of the machine's
	if err := os.WriteFile(settings, []byte("{}\n"), 0o600); err != nil {
		return nil, fmt.Errorf("start dockerd: %w", err)
	}
	m := &machine{ended: make(chan struct{})}
	// Nothing is routed or translated: servers and clients are on the same links.
	m.command = exec.Command("unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "--kill-child=KILL", "--",
		"sh", "-c", `ip link set lo up && for d in /run/containerd /etc/docker; do mkdir -p $d && mount -t tmpfs tmpfs $d || exit 1; done; exec "$@"`, "sh",
		dockerd, "--config-file", settings, "--host", "unix://"+socket(dir), "--data-root", filepath.Join(dir, "docker"), "--exec-root", filepath.Join(dir, "run"),
		"--pidfile", filepath.Join(dir, "dockerd.pid"), "--cgroup-parent", "/"+cgroupParent, "--bridge", "none", "--iptables=false", "--ip-masq=false", "--ip-forward=false")
	m.command.Stdout, m.command.Stderr = said, said
	m.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.command.Start(); err != nil {
		return nil, fmt.Errorf("start dockerd: %w", err)
	}
	go func() {
		_ = m.command.Wait()
		close(m.ended)
	}()
	for began := time.Now(); ; {
		if _, err := os.Stat(socket(dir)); err == nil {
			return m, nil
		}
		select {
		case <-m.ended:
			return nil, fmt.Errorf("start dockerd: it ended: see %s", said.Name())
		case <-ctx.Done():
			m.stop()
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if time.Since(began) > dockerdStart {
			m.stop()
			return nil, fmt.Errorf("start dockerd: it was not ready after %s: see %s", dockerdStart, said.Name())
		}
	}
}

func socket(dir string) string { return filepath.Join(dir, "docker.sock") }

// claim takes the first free /16 of 10.100.0.0 to 10.249.0.0, as the sandboxes of integration/cluster do. The name of the veth interface
// is the claim: the kernel refuses a second one.
func (m *machine) claim(ctx context.Context) error {
	inside, err := m.inside()
	if err != nil {
		return err
	}
	routes, err := output(ctx, "ip", "-4", "-o", "route", "show", "table", "all")
	if err != nil {
		return err
	}
	for k := 249; k >= 100; k-- {
		if strings.Contains("\n"+routes, fmt.Sprintf("\n10.%d.", k)) || strings.Contains(routes, fmt.Sprintf(" 10.%d.", k)) {
			continue
		}
		veth := fmt.Sprintf("shiplog%d", k)
		if _, err := output(ctx, "ip", "link", "add", "name", veth, "type", "veth", "peer", "name", "outside", "netns", inside); err != nil {
			if strings.Contains(err.Error(), "File exists") {
				continue
			}
			return err
		}
		m.veth = veth
		m.clients = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(k), 1, 0}), 24)
		m.routes = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(k), 2, 0}), 24)
		m.outside = netip.AddrFrom4([4]byte{10, byte(k), 1, 254})
		return nil
	}
	return errors.New("none of 10.100.0.0/16 to 10.249.0.0/16 is free: remove clusters or routes that use them")
}

// join makes this machine a neighbour of the servers on the network of clients.
func (m *machine) join(ctx context.Context, bridge string) error {
	inside, err := m.inside()
	if err != nil {
		return err
	}
	for _, command := range [][]string{
		{"nsenter", "--target", inside, "--net", "ip", "link", "set", "outside", "master", bridge, "up"},
		{"ip", "address", "add", fmt.Sprintf("%s/%d", m.outside, m.clients.Bits()), "dev", m.veth},
		{"ip", "link", "set", m.veth, "up"},
	} {
		if _, err := output(ctx, command[0], command[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// mount makes a filesystem of a size in a file, mounts it at a directory inside, and returns the directory as seen from outside. What is synced
// there is synced on the disk under the file.
func (m *machine) mount(ctx context.Context, directory string, size int64) (string, error) {
	inside, err := m.inside()
	if err != nil {
		return "", err
	}
	disk := directory + ".disk"
	if err := errors.Join(os.MkdirAll(directory, 0o700), os.WriteFile(disk, nil, 0o600), os.Truncate(disk, size)); err != nil {
		return "", err
	}
	for _, command := range [][]string{
		{"mkfs.ext4", "-q", "-m", "0", disk}, // nothing is set aside for root, who the servers are
		{"nsenter", "--target", inside, "--mount", "mount", "-o", "loop", disk, directory},
	} {
		if _, err := output(ctx, command[0], command[1:]...); err != nil {
			return "", err
		}
	}
	return filepath.Join("/proc", inside, "root", directory), nil
}

// inside is the process id of dockerd as seen from outside.
func (m *machine) inside() (string, error) {
	unshare := strconv.Itoa(m.command.Process.Pid)
	children, err := os.ReadFile(filepath.Join("/proc", unshare, "task", unshare, "children"))
	if err != nil {
		return "", fmt.Errorf("find dockerd: %w", err)
	}
	child := strings.TrimSpace(string(children))
	if child == "" {
		return "", errors.New("find dockerd: it has ended")
	}
	return child, nil
}

// stop ends everything inside at once.
func (m *machine) stop() {
	_ = m.command.Process.Kill()
	<-m.ended
	if m.veth != "" {
		// The kernel removes it too, but some time later; whoever looks right after stop should not see it.
		_, _ = output(context.Background(), "ip", "link", "delete", m.veth)
	}
	groups, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup/*", cgroupParent))
	for _, group := range append(groups, filepath.Join("/sys/fs/cgroup", cgroupParent)) {
		_ = os.Remove(group) // another cluster may use it
	}
}

func output(ctx context.Context, name string, arguments ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, arguments...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(arguments, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
