package cri

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// envWait bounds asking a container for its environment (pod-probe B4).
const envWait = 3 * time.Second

// Details are what Pod status does not say of a container.
type Details struct {
	// PlainHash is the kubelet's hash of the container's spec. 0: it left none.
	PlainHash uint64
	// Restarts is how many containers of this name the Pod had before, by the kubelet's count.
	Restarts uint32
	// Environment that the container was started with, by name.
	Environment map[string]string
}

// Inspect returns details of a container. Its environment is what the runtime remembers of it, else what the container itself
// says, if it runs and has the program for it (pod-probe B3, B4, D15, D16). Without environment that is not asked for.
func (c *Client) Inspect(ctx context.Context, id string, environment bool) (Details, error) {
	answer, err := c.runtime.ContainerStatus(ctx, &runtimev1.ContainerStatusRequest{ContainerId: id, Verbose: environment})
	if err != nil {
		return Details{}, fmt.Errorf("ask for container %s: %w", id, err)
	}
	var found Details
	annotations := answer.GetStatus().GetAnnotations()
	if hash, err := strconv.ParseUint(annotations[annotationHash], 16, 64); err == nil {
		found.PlainHash = hash
	}
	if attempt, err := strconv.ParseUint(annotations[annotationAttempt], 10, 32); err == nil {
		found.Restarts = uint32(attempt)
	}
	if !environment {
		return found, nil
	}
	if found.Environment = recorded(answer.GetInfo()); found.Environment == nil {
		found.Environment, err = c.environment(ctx, id)
	}
	return found, err
}

// recorded returns the environment that a runtime's own account of a container holds, or nil.
func recorded(info map[string]string) map[string]string {
	var account struct {
		RuntimeSpec *struct {
			Process struct{ Env []string }
		}
	}
	if json.Unmarshal([]byte(info["info"]), &account) != nil || account.RuntimeSpec == nil {
		return nil
	}
	return variables(account.RuntimeSpec.Process.Env)
}

// environment asks the container. Values with line breaks need a program that ends them with NUL.
func (c *Client) environment(ctx context.Context, id string) (map[string]string, error) {
	ask := func(separator string, command ...string) (map[string]string, error) {
		ctx, cancel := context.WithTimeout(ctx, envWait)
		defer cancel()
		result, err := c.Exec(ctx, id, command)
		if err != nil {
			return nil, err
		}
		if result.Code != 0 {
			return nil, fmt.Errorf("%s ends with exit code %d", strings.Join(command, " "), result.Code)
		}
		return variables(strings.Split(string(result.Stdout), separator)), nil
	}
	found, err := ask("\x00", "env", "-0")
	if err != nil && !Unavailable(err) {
		found, err = ask("\n", "env")
	}
	if err != nil {
		return nil, fmt.Errorf("ask container %s for its environment: %w", id, err)
	}
	return found, nil
}

// variables reads NAME=VALUE; of several values of a name the last counts.
func variables(lines []string) map[string]string {
	out := make(map[string]string, len(lines))
	for _, line := range lines {
		if name, value, is := strings.Cut(line, "="); is {
			out[name] = value
		}
	}
	return out
}

// Executed is what became of a program in a container.
type Executed struct {
	Code int32
	// Stdout and Stderr, at most 16 MiB each.
	Stdout, Stderr []byte
}

// Exec runs a program in a container to its end, or until ctx ends, when the runtime kills it. It waits for a runtime that is
// away, and starts the program at most once: after an error it may have run.
func (c *Client) Exec(ctx context.Context, id string, command []string) (Executed, error) {
	request := &runtimev1.ExecSyncRequest{ContainerId: id, Cmd: command}
	if end, bounded := ctx.Deadline(); bounded {
		request.Timeout = int64((time.Until(end) + time.Second - 1) / time.Second)
	}
	answer, err := c.runtime.ExecSync(ctx, request, waitForRuntime)
	if err != nil {
		return Executed{}, err
	}
	return Executed{answer.GetExitCode(), bytes.Clone(answer.GetStdout()), bytes.Clone(answer.GetStderr())}, nil
}

// Address returns the IP address of the Pod of a container; empty: it has that of the node.
func (c *Client) Address(ctx context.Context, id string) (string, error) {
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("ask for the address of the Pod of container %s: %w", id, err)
	}
	list, err := c.runtime.ListContainers(ctx, &runtimev1.ListContainersRequest{Filter: &runtimev1.ContainerFilter{Id: id}})
	if err != nil {
		return fail(err)
	}
	if len(list.GetContainers()) != 1 {
		return fail(status.Error(codes.NotFound, "the container is gone"))
	}
	answer, err := c.runtime.PodSandboxStatus(ctx, &runtimev1.PodSandboxStatusRequest{PodSandboxId: list.GetContainers()[0].GetPodSandboxId()})
	if err != nil {
		return fail(err)
	}
	sandbox := answer.GetStatus()
	if sandbox.GetLinux().GetNamespaces().GetOptions().GetNetwork() == runtimev1.NamespaceMode_NODE {
		return "", nil
	}
	if sandbox.GetNetwork().GetIp() == "" {
		return fail(status.Error(codes.FailedPrecondition, "the Pod has none"))
	}
	return sandbox.GetNetwork().GetIp(), nil
}
