// Package sandbox gives the real nodes of one cluster a small machine of their own: a process, mount and network
// namespace. That is what makes several clusters on one machine possible (each has its own iptables rules and
// bridges) and what makes cleaning up certain: when the sandbox's first process dies, the kernel ends everything
// inside, shims and containers too, and with the last process go the mounts, bridges and rules.
// On the machine outside it leaves one veth interface and one route while it lives, and nothing after that.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"shiplog.dev/integration/cluster/process"
)

// InitCommand is the hidden command of the binary that runs Init.
const InitCommand = "sandbox-init"

// private are the directories that programs inside insist on and that must not be shared between clusters. Each
// gets a file system of its own, in memory: they hold sockets and records of containers, nothing big.
var private = []string{"/run/containerd", "/run/netns", "/var/lib/cni", "/var/log/containers", "/var/log/pods"}

// Sandbox is a running sandbox.
type Sandbox struct {
	// Net is the /16 that belongs to this sandbox alone, routed to it.
	Net netip.Prefix
	// Gateway is the machine outside, as seen from inside.
	Gateway netip.Addr

	process *process.Process
	veth    string // its end outside
}

// Start makes a sandbox and connects it with the machine.
func Start(ctx context.Context, self, logDir string) (*Sandbox, error) {
	p, err := process.Start(process.Spec{
		Name:       "sandbox",
		Args:       []string{self, InitCommand},
		LogDir:     logDir,
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
	})
	if err != nil {
		return nil, err
	}
	s := &Sandbox{process: p}
	if err := s.connect(ctx); err != nil {
		s.Stop()
		return nil, fmt.Errorf("connect the sandbox of the nodes with this machine: %w", err)
	}
	return s, nil
}

// connect takes the first free /16 of 10.100.0.0 to 10.249.0.0. The veth's name is the claim on it: the kernel
// refuses a second one of the same name and takes the name back when the sandbox is gone.
func (s *Sandbox) connect(ctx context.Context) error {
	if err := s.process.WaitHealthy(ctx, 10*time.Second, s.initialised); err != nil {
		return err
	}
	routes, err := output(ctx, "ip", "-4", "-o", "route", "show", "table", "all")
	if err != nil {
		return err
	}
	pid := strconv.Itoa(s.process.PID())
	for k := 100; k < 250; k++ {
		if strings.Contains(routes, fmt.Sprintf(" 10.%d.", k)) || strings.Contains(routes, fmt.Sprintf("\n10.%d.", k)) {
			continue
		}
		veth := fmt.Sprintf("shiplog%d", k)
		if _, err := output(ctx, "ip", "link", "add", "name", veth, "type", "veth", "peer", "name", "outside", "netns", pid); err != nil {
			if strings.Contains(err.Error(), "File exists") {
				continue
			}
			return err
		}
		s.veth = veth
		s.Net = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(k), 0, 0}), 16)
		s.Gateway = netip.AddrFrom4([4]byte{10, byte(k), 255, 1})
		inner := netip.AddrFrom4([4]byte{10, byte(k), 255, 2}).String()
		return errors.Join(
			run(ctx, "ip", "address", "add", s.Gateway.String()+"/30", "dev", veth),
			run(ctx, "ip", "link", "set", veth, "up"),
			run(ctx, "ip", "route", "add", s.Net.String(), "via", inner, "dev", veth),
			s.Run(ctx, "ip", "link", "set", "lo", "up"),
			s.Run(ctx, "ip", "address", "add", inner+"/30", "dev", "outside"),
			s.Run(ctx, "ip", "link", "set", "outside", "up"),
			s.Run(ctx, "ip", "route", "add", "default", "via", s.Gateway.String()),
			// Pods talk to Pods of other nodes and to the machine through the sandbox as a router.
			s.Run(ctx, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"),
		)
	}
	return errors.New("none of 10.100.0.0/16 to 10.249.0.0/16 is free: remove clusters or routes that use them")
}

// initialised tells by its last act (see Init) that the first process has made its mounts.
func (s *Sandbox) initialised(ctx context.Context) error {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", s.process.PID()))
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(string(name)); got != readyName {
		return fmt.Errorf("the sandbox is still %q", got)
	}
	return nil
}

// Node is the address and subnet of the n-th node, counted from 1.
func (s *Sandbox) Node(n int) (netip.Addr, netip.Prefix) {
	net := s.Net.Addr().As4()
	net[2] = byte(n)
	subnet := netip.PrefixFrom(netip.AddrFrom4(net), 24)
	return subnet.Addr().Next(), subnet
}

// Pods is the range of all nodes' subnets.
func (s *Sandbox) Pods() netip.Prefix { return netip.PrefixFrom(s.Net.Addr(), 17) }

// Services is the range for cluster IPs; they work from outside too.
func (s *Sandbox) Services() netip.Prefix {
	net := s.Net.Addr().As4()
	net[2] = 128
	return netip.PrefixFrom(netip.AddrFrom4(net), 18)
}

// Inside is the command that runs args inside the sandbox. It stays outside as the parent of the program, which is killed
// when it is.
func (s *Sandbox) Inside(args ...string) []string {
	return append([]string{"nsenter", "--target", strconv.Itoa(s.process.PID()), "--mount", "--net", "--pid", "--",
		"setpriv", "--pdeathsig", "KILL", "--"}, args...)
}

// Run runs a command inside the sandbox to its end.
func (s *Sandbox) Run(ctx context.Context, args ...string) error {
	inside := s.Inside(args...)
	return run(ctx, inside[0], inside[1:]...)
}

// Done is closed when the sandbox has ended, and everything in it.
func (s *Sandbox) Done() <-chan struct{} { return s.process.Done() }

// Ended describes an end that nobody asked for.
func (s *Sandbox) Ended() error { return s.process.Ended() }

// Stop ends everything inside at once.
func (s *Sandbox) Stop() {
	s.process.Kill()
	if s.veth != "" {
		// The kernel removes it too, but some time later; whoever looks right after Stop should not see it.
		_, _ = output(context.Background(), "ip", "link", "delete", s.veth)
	}
}

const readyName = "sandbox-ready"

// Init is the life of a sandbox's first process: it makes the mounts private, then takes over and reaps the
// processes whose parents have ended, as containerd's shims do. It returns only an error.
func Init() error {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	// Nothing mounted inside may show outside; inside, volumes must reach containers, hence shared.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts inside the sandbox: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc for the sandbox: %w", err)
	}
	for _, dir := range private {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make a mount point: %w", err)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount a private %s: %w", dir, err)
		}
	}
	if err := os.WriteFile("/proc/self/comm", []byte(readyName), 0); err != nil {
		return fmt.Errorf("tell that the sandbox is ready: %w", err)
	}
	for range children {
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != nil || pid <= 0 {
				break // none that has ended
			}
		}
	}
	return errors.New("the sandbox's first process stopped hearing of its children")
}

func run(ctx context.Context, name string, args ...string) error {
	_, err := output(ctx, name, args...)
	return err
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
