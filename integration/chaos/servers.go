package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"shiplog.dev/integration/testbed"
)

// stream is the one that holds the log.
const stream = "SHIPLOG"

// layCluster is layServices on three NATS servers that replicate, each in a container.
func (c *campaign) layCluster(ctx context.Context, s *system) (err error) {
	said, err := os.Create(filepath.Join(c.options.dir, "logs", "natscluster.log"))
	if err != nil {
		return err
	}
	starting, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	// On a real disk, not below s.dir: what the servers say they have synced is to be synced.
	if s.servers, err = testbed.StartNATSCluster(starting, filepath.Join(c.options.dir, "natscluster"), filepath.Join(c.options.dir, "store"), said); err != nil {
		return errors.Join(err, said.Close())
	}
	s.url = func() (string, error) { return s.servers.URL(), nil }
	return c.addServices(s, s.servers.URL(), "--durability=strict", "--max-log-bytes", logSize)
}

// canRunServers says whether there is what the layout cluster needs. On a machine that decides about changes it has to be there.
func canRunServers() bool {
	_, err := exec.LookPath("dockerd")
	return err == nil || os.Getenv("CI") == "true"
}

var serverFaults = []fault{
	{"kill-server", onServers, 0, 10 * time.Second, killedServers(anyServer)},
	{"kill-stream-leader", onServers, 0, 10 * time.Second, killedServers(streamLeader)},
	{"kill-all-servers", onServers, 0, 10 * time.Second, killedServers(allServers)},
	{"wipe-server", onServers, 0, 10 * time.Second, wipedServer},
	{"full-disk-server", onServers, 3 * time.Second, 20 * time.Second, fullDisks(anyServer)},
	{"full-disk-stream-leader", onServers, 3 * time.Second, 20 * time.Second, fullDisks(streamLeader)},
	{"full-disk-all-servers", onServers, 3 * time.Second, 20 * time.Second, fullDisks(allServers)},
	{"pause-server", onServers, time.Second, time.Minute, stoppedServer("pause", "resume", anyServer)},
	{"pause-stream-leader", onServers, time.Second, time.Minute, stoppedServer("pause", "resume", streamLeader)},
	{"cut-server", onServers, 3 * time.Second, time.Minute, stoppedServer("cut", "join", anyServer)},
	{"cut-planner", onServers, 3 * time.Second, time.Minute, stoppedServer("cut-routes", "join", serverUnder(leader))},
	{"cut-standby", onServers, 3 * time.Second, time.Minute, stoppedServer("cut-routes", "join", serverUnder(standby))},
}

var onServers = []string{"cluster"}

// aims chooses the servers that a fault hits, and says who else is meant; no server: there is none now.
type aims func(context.Context, *act) (names []string, whose string)

func anyServer(_ context.Context, a *act) ([]string, string) {
	names := a.system.servers.Names()
	return names[a.choose(len(names)):][:1], ""
}

func allServers(_ context.Context, a *act) ([]string, string) { return a.system.servers.Names(), "" }

func streamLeader(ctx context.Context, a *act) ([]string, string) {
	if name := a.system.servers.Leader(ctx, stream); name != "" {
		return []string{name}, ""
	}
	return nil, ""
}

// serverUnder is the server that a part is connected to. Cut off from the other servers it is the minority, with the part on it.
func serverUnder(pick picks) aims {
	return func(_ context.Context, a *act) ([]string, string) {
		p := pick(a.system)
		if p == nil || p.now() == nil {
			return nil, ""
		}
		name, err := a.system.servers.Under(p.now())
		if err != nil || name == "" {
			return nil, ""
		}
		return []string{name}, " under " + p.name
	}
}

// killedServers ends servers at once, and starts them again later.
func killedServers(aim aims) func(context.Context, *act) (func(context.Context) error, string, error) {
	return stoppedServer("kill", "start", aim)
}

// stoppedServer does something to servers, and undoes it later.
func stoppedServer(begin, end string, aim aims) func(context.Context, *act) (func(context.Context) error, string, error) {
	return func(ctx context.Context, a *act) (func(context.Context) error, string, error) {
		names, whose := aim(ctx, a)
		if len(names) == 0 {
			return nil, "nobody", nil
		}
		if err := a.system.servers.Do(ctx, begin, names...); err != nil {
			return nil, "", err
		}
		hit := names[0] + whose
		if len(names) > 1 {
			hit = fmt.Sprint("all ", len(names))
		}
		return func(ctx context.Context) error { return a.system.servers.Do(ctx, end, names...) }, hit, nil
	}
}

// fullDisks fills the disks of servers. Those that could not write store nothing any more until they are started again, which is not done
// before there is room: nats-server 2.15 that starts on a full disk loses what it has.
func fullDisks(aim aims) func(context.Context, *act) (func(context.Context) error, string, error) {
	return func(ctx context.Context, a *act) (func(context.Context) error, string, error) {
		free, hit, err := stoppedServer("fill", "free", aim)(ctx, a)
		if free == nil {
			return nil, hit, err
		}
		return func(ctx context.Context) error {
			if err := free(ctx); err != nil {
				return err
			}
			names := a.system.servers.Disabled(ctx)
			if len(names) == 0 {
				return nil
			}
			return errors.Join(a.system.servers.Do(ctx, "kill", names...), a.system.servers.Do(ctx, "start", names...))
		}, hit, nil
	}
}

// wipedServer ends a server and takes away what it has stored. While another one is behind, that would take what only the two had.
func wipedServer(ctx context.Context, a *act) (func(context.Context) error, string, error) {
	for began := time.Now(); a.system.servers.Unwell(ctx) != ""; {
		if ctx.Err() != nil || time.Since(began) > time.Minute {
			return nil, "nobody", ctx.Err()
		}
		pause(ctx, 100*time.Millisecond)
	}
	end, hit, err := killedServers(anyServer)(ctx, a)
	if err != nil {
		return nil, "", err
	}
	return end, hit, a.system.servers.Do(ctx, "wipe", hit)
}

// choose returns a number below n that follows from the seed and the round.
func (a *act) choose(n int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.choices.IntN(n)
}

// ofServers says that a fault hits NATS servers. There is one of them at a time: two servers of three are no majority without the third.
func ofServers(f fault) bool { return slices.Equal(f.on, onServers) }
