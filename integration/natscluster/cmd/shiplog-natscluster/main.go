// Command shiplog-natscluster runs three NATS servers in containers and makes them fail.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"shiplog.dev/integration/natscluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := rootCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "shiplog-natscluster:", err)
		os.Exit(1)
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "shiplog-natscluster",
		Short: "Three NATS servers in containers that can be killed, wiped, paused and cut off, and their disks filled",
		Example: `  shiplog-natscluster up --dir /tmp/n --nats-server bin/nats-server &
  shiplog-natscluster kill --dir /tmp/n nats-1 nats-2 nats-3
  shiplog-natscluster start --dir /tmp/n nats-1 nats-2 nats-3`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(upCommand(),
		serversCommand("start", "Start servers that are down", (*natscluster.Cluster).Start),
		serversCommand("kill", "End servers at once", (*natscluster.Cluster).Kill),
		serversCommand("wipe", "Delete what servers that are down have stored", func(c *natscluster.Cluster, _ context.Context, s natscluster.Server) error { return c.Wipe(s) }),
		serversCommand("fill", "Leave no room on the disks of servers", func(c *natscluster.Cluster, _ context.Context, s natscluster.Server) error { return c.Fill(s) }),
		serversCommand("free", "Make room again on disks that were filled", func(c *natscluster.Cluster, _ context.Context, s natscluster.Server) error { return c.Free(s) }),
		serversCommand("pause", "Stop servers where they are", (*natscluster.Cluster).Pause),
		serversCommand("resume", "Let paused servers go on", (*natscluster.Cluster).Resume),
		serversCommand("cut", "Cut servers off from everybody", func(c *natscluster.Cluster, ctx context.Context, s natscluster.Server) error {
			return c.Cut(ctx, s, false)
		}),
		serversCommand("cut-routes", "Cut servers off from the other servers only", func(c *natscluster.Cluster, ctx context.Context, s natscluster.Server) error {
			return c.Cut(ctx, s, true)
		}),
		serversCommand("join", "Put servers back on the networks that they were cut off from", (*natscluster.Cluster).Join),
	)
	return root
}

func upCommand() *cobra.Command {
	var o natscluster.Options
	command := &cobra.Command{
		Use: "up --dir DIR", Short: "Start dockerd and the servers, and keep them until interrupted", Args: cobra.NoArgs,
		Long: `Starts a dockerd of its own and three servers in it, which sync whatever they store. DIR/natscluster.json says where they are, and
appears when they are well. Linux, root and Debian's docker.io are needed. Everything ends with this process, however that ends.`,
		RunE: func(command *cobra.Command, _ []string) (err error) {
			for _, path := range []*string{&o.Dir, &o.Store, &o.Program} {
				if *path == "" {
					*path = filepath.Join(o.Dir, "store")
				}
				if *path, err = filepath.Abs(*path); err != nil {
					return err
				}
			}
			if entries, err := os.ReadDir(o.Dir); err == nil && len(entries) > 0 {
				return fmt.Errorf("%s is not empty: choose a new directory", o.Dir)
			}
			if err := os.MkdirAll(o.Dir, 0o755); err != nil {
				return err
			}
			c, err := natscluster.Up(command.Context(), o)
			if err != nil {
				return err
			}
			defer c.Down()
			select {
			case <-command.Context().Done():
				return nil
			case <-c.Ended():
				return errors.New("dockerd ended by itself: see " + filepath.Join(o.Dir, "dockerd.log"))
			}
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.Dir, "dir", "", "new `DIRECTORY` for everything but data")
	flags.StringVar(&o.Store, "store", "", "`DIRECTORY` for the servers' disks (default: DIR/store)")
	flags.StringVar(&o.Program, "nats-server", "bin/nats-server", "`FILE` of a statically linked nats-server")
	flags.Int64Var(&o.MaxFile, "max-file", 1<<30, "how many `BYTES` a server may store; its disk is as large")
	_ = command.MarkFlagRequired("dir")
	return command
}

// serversCommand does something to the servers that are named, to all at once.
func serversCommand(name, short string, do func(*natscluster.Cluster, context.Context, natscluster.Server) error) *cobra.Command {
	var dir string
	command := &cobra.Command{
		Use: name + " --dir DIR SERVER...", Short: short, Args: cobra.MinimumNArgs(1),
		Example: "  shiplog-natscluster " + name + " --dir /tmp/n nats-2",
		RunE: func(command *cobra.Command, names []string) error {
			c, err := natscluster.Attach(command.Context(), dir)
			if err != nil {
				return err
			}
			var chosen []natscluster.Server
			for _, name := range names {
				s, err := c.Named(strings.TrimSpace(name))
				if err != nil {
					return err
				}
				chosen = append(chosen, s)
			}
			errs := make([]error, len(chosen))
			var all sync.WaitGroup
			for i, s := range chosen {
				all.Go(func() { errs[i] = do(c, command.Context(), s) })
			}
			all.Wait()
			return errors.Join(errs...)
		},
	}
	command.Flags().StringVar(&dir, "dir", "", "`DIRECTORY` of the cluster")
	_ = command.MarkFlagRequired("dir")
	return command
}
