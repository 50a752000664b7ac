package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"time"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/integration/testbed"
	"shiplog.dev/internal/journal"
)

// learn reads the log from where it was read last to a position.
func (c *cell) learn(ctx context.Context, upTo uint64) error {
	lines, err := c.ours.audit.since(c.study.heard)
	if err != nil {
		return err
	}
	c.study.hear(lines)
	log, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer log.Close()
	from := c.study.read + 1
	c.study.read = upTo
	return each(ctx, log, from, upTo, func(records []journal.Record) error {
		for _, record := range records {
			c.study.note(record)
		}
		return nil
	})
}

// sumUp says of each job what the log took for it and how long each stage was, and how fast the log folds.
func (c *cell) sumUp(ctx context.Context) error {
	s := c.study
	for i := range c.result.Jobs {
		job := &c.result.Jobs[i]
		job.Entries, job.Bytes, job.Stages = s.entries[job.Name], s.bytes[job.Name], s.stages[job.Name]
	}
	if c.result.Idle != nil {
		c.result.Idle.Stages = s.stages[idleJob]
	}
	log, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer log.Close()
	say("folding %d entries", s.read)
	return c.fold(ctx, log)
}

// each hands over the records from one position to another.
func each(ctx context.Context, log journal.Journal, from, upTo uint64, take func([]journal.Record) error) error {
	if from > upTo {
		return nil
	}
	reader, err := log.Read(ctx, journal.From{Sequence: from})
	if err != nil {
		return err
	}
	defer reader.Close()
	for last := uint64(0); last < upTo; {
		records, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		for i, record := range records {
			if record.Sequence > upTo {
				return take(records[:i])
			}
			last = record.Sequence
		}
		if err := take(records); err != nil {
			return err
		}
	}
	return nil
}

// study is what is learnt of a log while it is read.
type study struct {
	windows  []window // of the log, one for each round of each job
	read     uint64   // up to which entry
	heard    int      // lines of the audit log
	recorded recording
	entries  map[string]map[string]int
	bytes    map[string]map[string]int
	stages   map[string][]stage
	// changes are the requests that changed a CloneSet's spec, by its name, in order; those before the ones of interest are dropped.
	changes map[string][]testbed.Audit
	// requests are our writes, by the command that they carried out.
	requests map[string]testbed.Audit
	facts    map[string]seen // of a rollout, "UID/GENERATION": the first fact of that generation
	under    map[uint64]*underWay
}

// seen is the first fact of a changed spec.
type seen struct {
	at, changed time.Time
	job         string
}

// underWay is a write that has no outcome yet.
type underWay struct {
	job   string
	at    time.Time // of the command
	fact  seen
	timed bool // it is to a Pod, and follows from the change of the spec alone
	write write
}

func newStudy() *study {
	return &study{
		recorded: recording{}, entries: map[string]map[string]int{}, bytes: map[string]map[string]int{},
		stages: map[string][]stage{}, changes: map[string][]testbed.Audit{}, requests: map[string]testbed.Audit{}, facts: map[string]seen{}, under: map[uint64]*underWay{},
	}
}

// expect has the entries of a round counted.
func (s *study) expect(w window) {
	s.windows = append(s.windows, w)
	if s.entries[w.job] == nil {
		s.entries[w.job], s.bytes[w.job] = map[string]int{}, map[string]int{}
	}
}

// hear takes the next lines of the audit log.
func (s *study) hear(lines []testbed.Audit) {
	s.heard += len(lines)
	for _, line := range lines {
		switch {
		case line.ObjectRef.Resource == "clonesets" && line.ObjectRef.Subresource == "" && line.Writes() && !line.Ours() && line.ResponseStatus.Code < 300:
			name := line.ObjectRef.Name
			s.changes[name] = append(s.changes[name], line)
		case strings.HasPrefix(line.AuditID, "shiplog-") && line.ObjectRef.Resource == "pods" && line.Writes():
			parts := strings.Split(line.AuditID, "-")
			if _, known := s.requests[parts[1]]; !known && len(parts) == 3 {
				s.requests[parts[1]] = line
			}
		}
	}
}

// windowOf returns the round that an entry belongs to.
func (s *study) windowOf(sequence uint64) (window, bool) {
	for _, w := range s.windows {
		if sequence > w.after && sequence <= w.upTo {
			return w, true
		}
	}
	return window{}, false
}

// note takes the next record of the log.
func (s *study) note(record journal.Record) {
	w, measured := s.windowOf(record.Sequence)
	if measured {
		kind := kindOf(record.Entry)
		s.entries[w.job][kind]++
		s.bytes[w.job][kind] += record.Size
	}
	switch kind := record.Entry.GetKind().(type) {
	case *shiplogv1.Entry_ObjectObserved:
		s.observe(record, kind.ObjectObserved, w.job)
	case *shiplogv1.Entry_Command:
		ref := kind.Command.GetObject()
		if !measured || strings.HasPrefix(ref.GetName(), smallName) != (w.job == idleJob) {
			return
		}
		made := write{path: pathOf(ref), name: ref.GetName(), pod: ref.GetResource() == "pods", uid: ref.GetUid()}
		u := &underWay{job: w.job, at: record.Time, write: made}
		switch effect := kind.Command.GetEffect().(type) {
		case *shiplogv1.Command_Create:
			u.write.create, u.timed = effect.Create.GetJson(), w.job == jobCreate
			u.write.owner = ownerOf(u.write.create)
		case *shiplogv1.Command_Patch:
			u.write.patch, u.timed = effect.Patch, effect.Patch.GetSubresource() == ""
		case *shiplogv1.Command_Delete:
			u.write.delete, u.timed = effect.Delete, true
		default:
			return
		}
		u.timed = u.timed && made.pod
		u.fact = s.facts[record.Entry.GetRollout()]
		s.under[record.Sequence] = u
		s.recorded[w] = append(s.recorded[w], u.write)
	case *shiplogv1.Entry_Outcome:
		s.end(record, kind.Outcome)
	}
}

// ownerOf is the UID of the owner that an object's JSON names; empty: it has none.
func ownerOf(data []byte) string {
	var object struct {
		Metadata struct{ OwnerReferences []struct{ UID string } }
	}
	if json.Unmarshal(data, &object) != nil || len(object.Metadata.OwnerReferences) == 0 {
		return ""
	}
	return object.Metadata.OwnerReferences[0].UID
}

// pathOf is where the API server has the objects of a kind.
func pathOf(ref *shiplogv1.ObjectRef) string {
	if ref.GetGroup() == "" {
		return path.Join("/api", ref.GetVersion(), "namespaces", ref.GetNamespace(), ref.GetResource())
	}
	return path.Join("/apis", ref.GetGroup(), ref.GetVersion(), "namespaces", ref.GetNamespace(), ref.GetResource())
}

// observe remembers when the log first held a changed spec, and when the API server had received the change.
func (s *study) observe(record journal.Record, fact *shiplogv1.ObjectObserved, job string) {
	ref := fact.GetObject()
	if ref.GetResource() != "clonesets" {
		return
	}
	rollout := fmt.Sprintf("%s/%d", ref.GetUid(), generationOf(fact.GetJson()))
	if _, known := s.facts[rollout]; known {
		return
	}
	held := seen{at: record.Time, job: job}
	changes := s.changes[ref.GetName()]
	for len(changes) > 0 && changes[0].Received.Before(record.Time) {
		held.changed, changes = changes[0].Received, changes[1:]
	}
	s.changes[ref.GetName()] = changes
	s.facts[rollout] = held
}

// end measures the stages of a write.
func (s *study) end(record journal.Record, outcome *shiplogv1.Outcome) {
	u := s.under[record.Entry.GetCause()]
	if u == nil {
		return
	}
	delete(s.under, record.Entry.GetCause())
	request, known := s.requests[fmt.Sprint(record.Entry.GetCause())]
	if !u.timed || !known || u.fact.job != u.job || u.fact.changed.IsZero() || outcome.GetResult() != shiplogv1.Outcome_RESULT_APPLIED {
		return
	}
	stages := s.stages[u.job]
	if stages == nil {
		stages = newStages()
		s.stages[u.job] = stages
	}
	for i, took := range []time.Duration{
		u.fact.at.Sub(u.fact.changed), u.at.Sub(u.fact.at), request.Received.Sub(u.at), record.Time.Sub(request.Received), request.Received.Sub(u.fact.changed),
	} {
		stages[i].add(took)
	}
}

// kindOf is what an entry counts as.
func kindOf(entry *shiplogv1.Entry) string {
	switch entry.GetKind().(type) {
	case *shiplogv1.Entry_ObjectObserved, *shiplogv1.Entry_ObjectDeleted:
		return "facts"
	case *shiplogv1.Entry_Command:
		return "commands"
	case *shiplogv1.Entry_Outcome:
		return "outcomes"
	case *shiplogv1.Entry_RolloutEvent:
		return "rollout events"
	}
	return "other"
}
