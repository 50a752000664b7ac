package node

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

const cniPlugins = "/usr/lib/cni"

// Busybox is the static binary that images are made of.
const Busybox = "/bin/busybox"

// programs are what a node needs of the machine, with the Debian packages that have them.
var programs = []struct{ path, pkg string }{
	{"containerd", "containerd"},
	{"runc", "runc"},
	{cniPlugins + "/bridge", "containernetworking-plugins"},
	{Busybox, "busybox-static"},
	{"iptables", "iptables"},
	{"ip", "iproute2"},
	{"nsenter", "util-linux"},
	{"mount", "mount"},
}

// Prepare makes sure that real nodes can run here, and installs what is missing. Its error says why they cannot.
func Prepare(ctx context.Context, say func(format string, args ...any)) error {
	if runtime.GOOS != "linux" {
		return errors.New("real nodes need Linux")
	}
	if os.Geteuid() != 0 {
		return errors.New("real nodes need root")
	}
	missing := missingPackages()
	if len(missing) == 0 {
		return nil
	}
	list := strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("real nodes need the programs of the Debian packages %s, and there is no apt-get to install them: install them by hand", list)
	}
	say("installing %s with apt-get", list)
	if err := apt(ctx, append([]string{"install"}, missing...)...); err != nil {
		// The usual reason is a list of packages that is too old, or none.
		if err := apt(ctx, "update"); err != nil {
			return err
		}
		if err := apt(ctx, append([]string{"install"}, missing...)...); err != nil {
			return err
		}
	}
	if left := missingPackages(); len(left) > 0 {
		return fmt.Errorf("installed %s, but the programs of %s are still not found: check that PATH has /usr/sbin", list, strings.Join(left, " "))
	}
	return nil
}

func missingPackages() []string {
	var missing []string
	for _, p := range programs {
		if _, err := exec.LookPath(p.path); err != nil || p.path == Busybox && !static(p.path) {
			missing = append(missing, p.pkg)
		}
	}
	return missing
}

// static tells whether a program runs without libraries: Debian has another package with a busybox that does not, and
// images have nothing but it.
func static(path string) bool {
	file, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	for _, part := range file.Progs {
		if part.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

func apt(ctx context.Context, args ...string) error {
	command := exec.CommandContext(ctx, "apt-get", append([]string{"-y", "-qq", "--no-install-recommends"}, args...)...)
	command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
