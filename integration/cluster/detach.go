package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// reportFD is where a detached supervisor writes its progress for the command that started it, which leaves when told
// that the cluster is ready. A pipe, so that neither has to ask: it closes if the supervisor ends.
const reportFD = 3

// ready is the last line of a report.
const ready = "READY"

// Detach starts a supervisor with the given arguments in the background and passes its progress on until its cluster is
// ready. The arguments must make it call Reporter.
func Detach(ctx context.Context, self string, args []string, dir string, say func(format string, args ...any)) error {
	if err := Usable(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the cluster's directory: %w", err)
	}
	// The supervisor claims the directory itself; until then this marks it as a cluster's.
	mark, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("mark the cluster's directory: %w", err)
	}
	mark.Close()
	log, err := os.OpenFile(filepath.Join(dir, supervisorLog), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the supervisor's log: %w", err)
	}
	defer log.Close()
	reader, writer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe to the supervisor: %w", err)
	}
	defer reader.Close()
	command := exec.Command(self, args...)
	command.Stdout, command.Stderr = log, log
	command.ExtraFiles = []*os.File{writer}
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start the supervisor: %w", err)
	}
	writer.Close()
	interrupted := context.AfterFunc(ctx, func() { _ = command.Process.Signal(syscall.SIGTERM) })
	defer interrupted()

	for lines := bufio.NewScanner(reader); lines.Scan(); {
		if lines.Text() == ready {
			return command.Process.Release()
		}
		say("%s", lines.Text())
	}
	if err := command.Wait(); err != nil {
		return fmt.Errorf("the supervisor ended before the cluster was ready (its log: %s)", log.Name())
	}
	return errors.Join(ctx.Err(), fmt.Errorf("the supervisor ended before the cluster was ready (its log: %s)", log.Name()))
}

// Reporter makes a detached supervisor's say, which also reports to the command that started it, and the function to
// call once the cluster is ready.
func Reporter(say func(format string, args ...any)) (both func(format string, args ...any), done func()) {
	report := os.NewFile(reportFD, "report")
	syscall.CloseOnExec(reportFD) // or the children would keep the pipe open
	both = func(format string, args ...any) {
		say(format, args...)
		// A failed write means that nobody listens any more. That is fine.
		_, _ = report.WriteString(strings.TrimSpace(fmt.Sprintf(format, args...)) + "\n")
	}
	return both, func() {
		_, _ = report.WriteString(ready + "\n")
		report.Close()
	}
}
