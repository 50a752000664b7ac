package nodeagent

import (
	"context"
	"fmt"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// stopContainer stops a container (container-restart R17). One that has stopped, or is gone, is as wanted.
func (c *call) stopContainer(ctx context.Context, stop *shiplogv1.StopContainer) *shiplogv1.Outcome {
	err := c.patiently(ctx, func(ctx context.Context) error {
		return c.runtime.Stop(ctx, stop.GetContainerId(), stop.GetGrace().AsDuration())
	})
	switch {
	case err == nil:
		return &shiplogv1.Outcome{}
	case context.Cause(ctx) == errStopped:
		return refused(stopped, fmt.Errorf("stopping container %s is stopped", stop.GetContainerId()))
	case ctx.Err() != nil:
		return refused(timedOut, fmt.Errorf("stopping container %s took too long: %w", stop.GetContainerId(), err))
	}
	return refused(failed, err)
}
