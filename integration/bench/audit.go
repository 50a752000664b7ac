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

// now reads what was written, and returns how many requests have been finished until now.
func (l *audit) now() (int, error) {
	next, err := l.log.Next()
	l.lines = append(l.lines, next...)
	return len(l.lines), err
}

// since returns the requests that were finished after the first so many.
func (l *audit) since(mark int) ([]testbed.Audit, error) {
	end, err := l.now()
	return l.lines[min(mark, end):], err
}

// tells says whether a request writes a Kubernetes Event.
func tells(a testbed.Audit) bool { return a.ObjectRef.Resource == "events" }

// writes counts our write requests after a mark by what was written, for example "patch pods/status", refused ones included, Events aside.
func (c *cluster) writes(mark int) (map[string]int, error) {
	out := map[string]int{}
	lines, err := c.audit.since(mark)
	for _, a := range lines {
		if !a.Ours() || !a.Writes() || tells(a) {
			continue
		}
		what := a.Verb + " " + a.ObjectRef.Resource
		if a.ObjectRef.Subresource != "" {
			what += "/" + a.ObjectRef.Subresource
		}
		out[what]++
	}
	return out, err
}

// quietFor is how long our last write is ago; those of Events count where that is asked for.
func (c *cluster) quietFor(events bool) (time.Duration, error) {
	if _, err := c.audit.now(); err != nil {
		return 0, err
	}
	for _, a := range slices.Backward(c.audit.lines) {
		if a.Ours() && a.Writes() && (events || !tells(a)) {
			return time.Since(a.Answered), nil
		}
	}
	return time.Hour, nil
}

// delays returns, for each change of a CloneSet's spec after mark, the time until the API server received the first write to a Pod by
// those who react: since it answered the change, and since it received it. Sorted.
func (c *cluster) delays(mark int, name string, reacts func(testbed.Audit) bool) (sinceAnswer, sinceRequest []time.Duration, err error) {
	lines, err := c.audit.since(mark)
	if err != nil {
		return nil, nil, err
	}
	lines = slices.Clone(lines)
	slices.SortFunc(lines, func(x, y testbed.Audit) int { return x.Received.Compare(y.Received) })
	var change *testbed.Audit
	for i, a := range lines {
		switch {
		case a.ObjectRef.Resource == "clonesets" && a.ObjectRef.Name == name && a.Verb == "patch" && !a.Ours():
			change = &lines[i]
		case a.ObjectRef.Resource == "pods" && reacts(a) && a.Writes() && change != nil:
			sinceAnswer = append(sinceAnswer, a.Received.Sub(change.Answered))
			sinceRequest = append(sinceRequest, a.Received.Sub(change.Received))
			change = nil
		}
	}
	slices.Sort(sinceAnswer)
	slices.Sort(sinceRequest)
	return sinceAnswer, sinceRequest, nil
}
