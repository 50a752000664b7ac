package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// audit is what is read of one line of the API server's audit log.
type audit struct {
	Verb      string `json:"verb"`
	UserAgent string `json:"userAgent"`
	ObjectRef struct {
		Resource    string `json:"resource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
		Subresource string `json:"subresource"`
	} `json:"objectRef"`
	ResponseStatus struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
	Received time.Time `json:"requestReceivedTimestamp"`
	Answered time.Time `json:"stageTimestamp"`
}

func (a audit) writes() bool {
	switch a.Verb {
	case "create", "update", "patch", "delete", "deletecollection":
		return true
	}
	return false
}

// ours says whether a request came from a service of Shiplog.
func (a audit) ours() bool { return strings.HasPrefix(a.UserAgent, "shiplog-") }

// auditLog reads the API server's audit log as it grows.
type auditLog struct {
	path  string
	read  int64 // bytes read so far
	lines []audit
}

// since returns the finished requests that were received after mark, in the order in which they finished.
func (l *auditLog) since(mark time.Time) ([]audit, error) {
	file, err := os.Open(l.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if _, err := file.Seek(l.read, io.SeekStart); err != nil {
		return nil, err
	}
	reader := bufio.NewReaderSize(file, 1<<16)
	for {
		text, err := reader.ReadBytes('\n')
		if err == io.EOF {
			break // what is there of the last line is read next time
		}
		if err != nil {
			return nil, err
		}
		l.read += int64(len(text))
		var line audit
		if json.Unmarshal(text, &line) == nil {
			l.lines = append(l.lines, line)
		}
	}
	var out []audit
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
		if !a.ours() || !a.writes() {
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
	slices.SortFunc(lines, func(x, y audit) int { return x.Received.Compare(y.Received) })
	var change *audit
	for i, a := range lines {
		switch {
		case a.ObjectRef.Resource == "clonesets" && a.ObjectRef.Name == name && a.Verb == "patch" && !a.ours():
			change = &lines[i]
		case a.ObjectRef.Resource == "pods" && a.ours() && a.writes() && change != nil:
			sinceAnswer = append(sinceAnswer, a.Received.Sub(change.Answered))
			sinceRequest = append(sinceRequest, a.Received.Sub(change.Received))
			change = nil
		}
	}
	slices.Sort(sinceAnswer)
	slices.Sort(sinceRequest)
	return sinceAnswer, sinceRequest, nil
}
