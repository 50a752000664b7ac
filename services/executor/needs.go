package executor

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/singleflight"
	"k8s.io/apimachinery/pkg/util/cache"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
)

const (
	// lacking: what the command needs is not there, and will not be.
	lacking = "Lacking"
	// presentFor is for how long an object that was made or seen counts as there; maxPresent is how many do at once.
	presentFor = time.Second
	maxPresent = maxHeld
)

// present remembers objects that were there a moment ago: thousands of commands may need the same one.
type present struct {
	seen  *cache.LRUExpireCache
	looks singleflight.Group
}

func newPresent() *present { return &present{seen: cache.NewLRUExpireCache(maxPresent)} }

func (p *present) note(ref *shiplogv1.ObjectRef) { p.seen.Add(key(ref), nil, presentFor) }

func (p *present) forget(ref *shiplogv1.ObjectRef) { p.seen.Remove(key(ref)) }

func (p *present) has(ref *shiplogv1.ObjectRef) bool {
	_, seen := p.seen.Get(key(ref))
	return seen
}

// look has one of those who need an object at the same time look for it, for all of them.
func (p *present) look(ref *shiplogv1.ObjectRef, find func() sight) sight {
	found, _, _ := p.looks.Do(key(ref), func() (any, error) { return find(), nil })
	return found.(sight)
}

// lack is the verdict on a command while what it needs is not there: it is tried again until the command that makes the object
// was refused. Nil: nothing is lacking. The error is that of the log.
func (e *executor) lack(ctx context.Context, c *call, task *journal.Task) (*verdict, error) {
	needed := c.command.GetNeeds()
	if needed == nil || e.present.has(needed) {
		return nil, nil
	}
	now := e.present.look(needed, func() sight { return c.lookAt(ctx, needed) })
	switch {
	case !now.known:
		return &now.verdict, nil
	case now.object != nil:
		e.present.note(needed)
		return nil, nil
	}
	last, err := e.options.Journal.LastOutcome(ctx, needed)
	if err != nil {
		return nil, fmt.Errorf("read the last outcome for what the command needs: %w", err)
	}
	v := verdict{reason: reason(lacking, fmt.Sprintf("%s %s, which the command needs, is not there", needed.GetResource(), needed.GetName()))}
	// A refusal from before the decision is not of the command that was to make it.
	if last != nil && last.Sequence > task.Entry.GetCause() && last.Entry.GetOutcome().GetResult() == shiplogv1.Outcome_RESULT_REFUSED {
		why := last.Entry.GetOutcome().GetReason()
		v = refused(reason(lacking, fmt.Sprintf("%s: %s: %s", v.reason.GetMessage(), why.GetCode(), why.GetMessage())), nil)
	}
	return &v, nil
}
