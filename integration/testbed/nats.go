package testbed

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// NATSCluster is three NATS servers in containers, which replicate.
type NATSCluster struct {
	Servers []NATSServer
	dir     string
	program string
	process *Process
}

// NATSServer is one of them.
type NATSServer struct {
	Name    string `json:"name"`
	URL     string `json:"url"`
	Monitor string `json:"monitor"`
}

// StartNATSCluster starts servers that sync whatever they store, with their data below store. What it says goes to out. It needs root
// and Debian's docker.io, and ends with this process.
func StartNATSCluster(ctx context.Context, dir, store string, out io.Writer) (*NATSCluster, error) {
	program, err := Program("shiplog-natscluster")
	if err != nil {
		return nil, err
	}
	server, err := Program("nats-server")
	if err != nil {
		return nil, err
	}
	c := &NATSCluster{dir: dir, program: program}
	if c.process, err = Start(program, out, "up", "--dir", dir, "--store", store, "--nats-server", server); err != nil {
		return nil, err
	}
	for {
		data, err := os.ReadFile(filepath.Join(dir, "natscluster.json"))
		if err == nil {
			return c, json.Unmarshal(data, c)
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), c.Down())
		case <-c.process.Done():
			return nil, fmt.Errorf("start three NATS servers: %w: %s", c.process.err, c.process.Output())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Down ends the servers.
func (c *NATSCluster) Down() error { return c.process.Stop() }

// URL names all servers.
func (c *NATSCluster) URL() string {
	var urls []string
	for _, s := range c.Servers {
		urls = append(urls, s.URL)
	}
	return strings.Join(urls, ",")
}

// Names of all servers.
func (c *NATSCluster) Names() []string {
	var names []string
	for _, s := range c.Servers {
		names = append(names, s.Name)
	}
	return names
}

// Do does something to servers: start, kill, wipe, pause, resume, cut, cut-routes or join; shiplog-natscluster --help says more.
func (c *NATSCluster) Do(ctx context.Context, what string, names ...string) error {
	out, err := exec.CommandContext(ctx, c.program, append([]string{what, "--dir", c.dir}, names...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", what, strings.Join(names, ", "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Unwell says which server has not caught up with the others, and why; empty: all have.
func (c *NATSCluster) Unwell(ctx context.Context) string {
	for _, s := range c.Servers {
		if _, err := s.ask(ctx, "/healthz"); err != nil {
			return fmt.Sprintf("%s is not well: %v", s.Name, err)
		}
	}
	return ""
}

// Disabled returns the servers that run and store nothing any more, since they could not write.
func (c *NATSCluster) Disabled(ctx context.Context) (names []string) {
	for _, s := range c.Servers {
		if _, err := s.ask(ctx, "/healthz?js-enabled-only=true"); err != nil {
			names = append(names, s.Name)
		}
	}
	return names
}

// Leader returns the server that leads a stream; empty: none does, as far as anybody says.
func (c *NATSCluster) Leader(ctx context.Context, stream string) string {
	for _, s := range c.Servers {
		data, err := s.ask(ctx, "/jsz?streams=true")
		if err != nil {
			continue
		}
		var answer struct {
			Accounts []struct {
				Streams []struct {
					Name    string `json:"name"`
					Cluster struct {
						Leader string `json:"leader"`
					} `json:"cluster"`
				} `json:"stream_detail"`
			} `json:"account_details"`
		}
		if json.Unmarshal(data, &answer) != nil {
			continue
		}
		for _, account := range answer.Accounts {
			for _, one := range account.Streams {
				if one.Name == stream && one.Cluster.Leader != "" {
					return one.Cluster.Leader
				}
			}
		}
	}
	return ""
}

// ask asks the monitoring of a server; everything but 200 is an error.
func (s NATSServer) ask(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Monitor+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, 4<<20))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, strings.TrimSpace(string(data)))
	}
	return data, err
}

// Under returns the server that a process is connected to; empty: to none. The kernel is asked, which knows whatever the process was told.
func (c *NATSCluster) Under(p *Process) (string, error) {
	held := map[string]bool{}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.Pid()))
	if err != nil {
		return "", err
	}
	for _, file := range files {
		if target, err := os.Readlink(file); err == nil {
			held[target] = true
		}
	}
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", p.Pid()))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(table)) {
		const remote, state, inode, established = 2, 3, 9, "01"
		fields := strings.Fields(line)
		if len(fields) <= inode || fields[state] != established || !held["socket:["+fields[inode]+"]"] {
			continue
		}
		for _, s := range c.Servers {
			if "nats://"+address(fields[remote]) == s.URL {
				return s.Name, nil
			}
		}
	}
	return "", nil
}

// address makes one of "0B01F90A:107E", the address in the machine's order of bytes; empty: it is none.
func address(text string) string {
	ip, port, _ := strings.Cut(text, ":")
	bytes, err := hex.DecodeString(ip + port)
	if err != nil || len(bytes) != 6 {
		return ""
	}
	var four [4]byte
	binary.NativeEndian.PutUint32(four[:], binary.BigEndian.Uint32(bytes))
	return netip.AddrPortFrom(netip.AddrFrom4(four), binary.BigEndian.Uint16(bytes[4:])).String()
}
