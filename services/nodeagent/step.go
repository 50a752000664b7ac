package nodeagent

import (
	"time"

	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// pace says how often things happen.
type pace struct {
	// period is the time between two looks that nothing prompted; settle the least between two that something did.
	period, settle time.Duration
	// apart is the least time between two facts.
	apart time.Duration
	// After a failure the next try waits retry, then twice as long each time, up to retryMax.
	retry, retryMax time.Duration
	// beat is the time between two signs of life.
	beat time.Duration
	// progress is the time between two words about how far a pull is.
	progress time.Duration
}

var standard = pace{
	beat: 15 * time.Second, period: 10 * time.Second, settle: 200 * time.Millisecond, apart: time.Second, retry: 250 * time.Millisecond, retryMax: 10 * time.Second,
	progress: 3 * time.Second,
}

// state is all that a step depends on.
type state struct {
	now time.Time
	// seen is what the runtime has; nil: it did not answer.
	seen *shiplogv1.NodeObserved
	// failures is how often, in a row, the runtime did not answer.
	failures int
	// reported is the newest fact of this node in the log; nil: there is none. refused is one that the log will never take.
	reported, refused *shiplogv1.NodeObserved
	// sequence of reported.
	sequence uint64
	// reportedAt is when this process last appended; zero: not yet.
	reportedAt time.Time
}

// action is what to do now, and when to look again: at notAfter, or earlier if something prompts it, but never before
// notBefore. Both count from now.
type action struct {
	// report is the fact to append; nil: none.
	report              *shiplogv1.NodeObserved
	notBefore, notAfter time.Duration
}

// step decides. It is pure.
func step(s state, p pace) action {
	if s.seen == nil {
		wait := backoff(p, s.failures)
		return action{notBefore: wait, notAfter: wait}
	}
	if proto.Equal(s.seen, s.reported) || s.refused != nil && proto.Equal(s.seen, s.refused) {
		return action{notBefore: p.settle, notAfter: p.period}
	}
	if early := p.apart - s.now.Sub(s.reportedAt); !s.reportedAt.IsZero() && early > 0 {
		return action{notBefore: early, notAfter: early}
	}
	return action{report: s.seen, notBefore: p.apart, notAfter: p.period}
}

// backoff returns how long to wait after so many failures in a row, at least one.
func backoff(p pace, failures int) time.Duration {
	wait := p.retry
	for range failures - 1 {
		if wait *= 2; wait >= p.retryMax {
			return p.retryMax
		}
	}
	return wait
}
