// Package process is what Shiplog's programs have in common: how one ends, what it says, and the services in it, which run until
// one fails, with an endpoint that tells how they are. It knows nothing of what they do.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes; see also Coded.
const (
	exitFailed = 1
	exitUsage  = 2
)

// Coded is an error that ends a program with an exit code of its own.
type Coded interface {
	error
	ExitCode() int
}

// usageError is a mistake on the command line.
type usageError struct{ error }

func (usageError) ExitCode() int   { return exitUsage }
func (u usageError) Unwrap() error { return u.error }

// Usage marks an error as a mistake on the command line.
func Usage(err error) error { return usageError{err} }

// Main runs a program's command until it ends, a signal comes, or a second one ends it at once. It does not return.
func Main(command *cobra.Command) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	command.SilenceUsage, command.SilenceErrors = true, true
	command.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return Usage(err) })
	err := command.ExecuteContext(ctx)
	stop()
	if err == nil {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, command.Name()+":", err)
	if coded := Coded(nil); errors.As(err, &coded) {
		os.Exit(coded.ExitCode())
	}
	os.Exit(exitFailed)
}

// NoArguments refuses arguments.
func NoArguments(_ *cobra.Command, arguments []string) error {
	if len(arguments) > 0 {
		return Usage(fmt.Errorf("unexpected argument %q", arguments[0]))
	}
	return nil
}

// Version of this program, from the build; "devel" when it was built from a work tree.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

// Writer names an instance of a service in the entries that it appends.
func Writer(service string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%s-%d", service, host, os.Getpid())
}
