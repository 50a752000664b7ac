package nodeagent

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

func TestStep(t *testing.T) {
	t.Parallel()
	had, has := &shiplogv1.NodeObserved{RuntimeName: "had"}, &shiplogv1.NodeObserved{RuntimeName: "has"}
	now := time.Unix(1000, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for name, c := range map[string]struct {
		state state
		want  action
	}{
		"first":        {state{seen: has}, action{has, time.Second, 10 * time.Second}},
		"changed":      {state{seen: has, reported: had}, action{has, time.Second, 10 * time.Second}},
		"changed late": {state{seen: has, reported: had, reportedAt: ago(time.Second)}, action{has, time.Second, 10 * time.Second}},
		"too soon":     {state{seen: has, reported: had, reportedAt: ago(300 * time.Millisecond)}, action{nil, 700 * time.Millisecond, 700 * time.Millisecond}},
		"the same":     {state{seen: has, reported: has, reportedAt: ago(0)}, action{nil, 200 * time.Millisecond, 10 * time.Second}},
		"refused":      {state{seen: has, reported: had, refused: has}, action{nil, 200 * time.Millisecond, 10 * time.Second}},
		"no answer":    {state{reported: had, failures: 1}, action{nil, 250 * time.Millisecond, 250 * time.Millisecond}},
		"none again":   {state{reported: had, failures: 3}, action{nil, time.Second, time.Second}},
		"none at all":  {state{reported: had, failures: 1 << 40}, action{nil, 10 * time.Second, 10 * time.Second}},
	} {
		c.state.now = now
		got := step(c.state, standard)
		if !proto.Equal(got.report, c.want.report) || got.notBefore != c.want.notBefore || got.notAfter != c.want.notAfter {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
