package nodeagent

import (
	"context"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// stopContainer stops a container (container-restart R17). One that has stopped, or is gone, is as wanted.
func (c *call) stopContainer(ctx context.Context, stop *shiplogv1.StopContainer) *shiplogv1.Outcome {
	err := c.patiently(ctx, func(ctx context.Context) error {
		return c.runtime.Stop(ctx, stop.GetContainerId(), stop.GetGrace().AsDuration())
	})
	if err != nil {
		return c.ended(ctx, "stopping container "+stop.GetContainerId(), failed, err)
	}
	return &shiplogv1.Outcome{}
}
