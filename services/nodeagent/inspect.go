package nodeagent

import (
	"context"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/envhash"
	"shiplog.dev/services/nodeagent/cri"
)

// inspect reads what Pod status does not say of a container (pod-probe B3, B4). Values of its environment stay here.
func (c *call) inspect(ctx context.Context, inspect *shiplogv1.InspectContainer) *shiplogv1.Outcome {
	names := inspect.GetEnvironment()
	var found cri.Details
	err := c.patiently(ctx, func(ctx context.Context) (err error) {
		found, err = c.runtime.Inspect(ctx, inspect.GetContainerId(), len(names) > 0)
		return err
	})
	if err != nil {
		return c.ended(ctx, "inspecting container "+inspect.GetContainerId(), failed, err)
	}
	variables := make([]envhash.Variable, len(names))
	for i, name := range names { // sorted
		variables[i] = envhash.Variable{Name: name, Value: found.Environment[name]}
	}
	return &shiplogv1.Outcome{Found: &shiplogv1.Outcome_InspectedContainer{InspectedContainer: &shiplogv1.InspectedContainer{
		PlainHash: found.PlainHash, EnvironmentHash: envhash.Of(variables), RestartCount: found.Restarts,
	}}}
}
