package main

import (
	"slices"
	"time"

	"shiplog.dev/integration/testbed"
)

// audit remembers the API server's audit log.
type audit struct {
	log   *testbed.AuditLog
	lines []testbed.Audit
}

// since returns the finished requests that were received after mark, in the order in which they finished.
func (l *audit) since(mark time.Time) ([]testbed.Audit, error) {
	next, err := l.log.Next()
	if err != nil {
		return nil, err
	}
	l.lines = append(l.lines, next...)
	var out []testbed.Audit
	for _, line := range l.lines {
		if line.Received.After(mark) {
			out = append(out, line)
		}
	}
	return out, nil
}

// written counts write requests; those of Kubernetes Events are not among all.
type written struct{ all, pods, events int }

// writes counts our write requests after mark, refused ones included.
func (b *bench) writes(mark time.Time) (written, error) {
	var out written
	lines, err := b.audit.since(mark)
	for _, a := range lines {
		if !a.Ours() || !a.Writes() {
			continue
		}
		switch a.ObjectRef.Resource {
		case "events":
			out.events++
			continue
		case "pods":
			out.pods++
		}
		out.all++
	}
	return out, err
}

// delays returns, for each spec change of a CloneSet after mark, the time until the API server received our first write to a
// Pod: since it answered the change, and since it received the change.
func (b *bench) delays(mark time.Time, name string) (sinceAnswer, sinceRequest []time.Duration, err error) {
	lines, err := b.audit.since(mark)
	if err != nil {
		return nil, nil, err
	}
	slices.SortFunc(lines, func(x, y testbed.Audit) int { return x.Received.Compare(y.Received) })
	var change *testbed.Audit
	for i, a := range lines {
		switch {
		case a.ObjectRef.Resource == "clonesets" && a.ObjectRef.Name == name && a.Verb == "patch" && !a.Ours():
			change = &lines[i]
		case a.ObjectRef.Resource == "pods" && a.Ours() && a.Writes() && change != nil:
			sinceAnswer = append(sinceAnswer, a.Received.Sub(change.Answered))
			sinceRequest = append(sinceRequest, a.Received.Sub(change.Received))
			change = nil
		}
	}
	slices.Sort(sinceAnswer)
	slices.Sort(sinceRequest)
	return sinceAnswer, sinceRequest, nil
}
