package nodeagent

import (
	"context"
	"fmt"
	"maps"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// annotationPuller tells the runtime's plugins who pulls (image-pull R48).
const annotationPuller = "apps.kruise.io/pulling-image-by"

// pull lets the runtime have an image (image-pull R46 to R48, D1).
func (c *call) pull(ctx context.Context, pull *shiplogv1.PullImage) *shiplogv1.Outcome {
	image := pull.GetImage()
	var id string
	present := false
	err := c.patiently(ctx, func(ctx context.Context) (err error) {
		if !pull.GetAlways() {
			if id, err = c.runtime.Image(ctx, image); id != "" || err != nil {
				present = id != ""
				return err
			}
		}
		annotations := map[string]string{}
		maps.Copy(annotations, pull.GetAnnotations())
		annotations[annotationPuller] = "kruise-daemon"
		id, err = c.runtime.Pull(ctx, image, pull.GetLabels(), annotations)
		return err
	})
	switch {
	case err == nil:
		return &shiplogv1.Outcome{Found: &shiplogv1.Outcome_PulledImage{PulledImage: &shiplogv1.PulledImage{ImageId: id, Present: present}}}
	case context.Cause(ctx) == errStopped:
		return refused(stopped, fmt.Errorf("pulling image %s is stopped", image))
	case ctx.Err() != nil:
		return refused(timedOut, fmt.Errorf("pulling image %s is canceled: %w", image, err))
	}
	return refused(pullFailed, err)
}
