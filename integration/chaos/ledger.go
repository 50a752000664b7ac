package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"shiplog.dev/integration/testbed"
)

// ledger matches the commands of the log with the writes in the API server's audit log.
type ledger struct {
	observer *observer
	audit    *testbed.AuditLog
	witness  *witness
	people   *people

	read     int // entries taken
	commands map[uint64]*account
	// byPod are the commands on each Pod, in order.
	byPod map[string][]*account
	// strangers are writes that no command explains, until it turns out that the log had just not been read that far.
	strangers []testbed.Audit
	// outages are when the API server was killed: what it did then may be missing in its audit log.
	outages []time.Time
	// restores are when etcd was put back.
	restores []time.Time
	since    time.Time
	missed   map[string]bool // reported already
}

// account is one command and what came of it.
type account struct {
	entry
	what    string // verb and object
	outcome *entry
	writes  []testbed.Audit // those that the API server did
	unsure  bool            // the API server gave up on a write, as when whoever asked was gone, and may have done it all the same
	uid     string          // of the object that a create made
}

func newLedger(observer *observer, audit *testbed.AuditLog, witness *witness, people *people) *ledger {
	return &ledger{observer: observer, audit: audit, witness: witness, people: people, commands: map[uint64]*account{},
		byPod: map[string][]*account{}, since: time.Now(), missed: map[string]bool{}}
}

func (l *ledger) take() error {
	for _, e := range l.observer.since(l.read) {
		l.read++
		if verb := e.verb(); verb != "" {
			a := &account{entry: e, what: fmt.Sprintf("%s %s %s/%s", verb, e.Resource, e.Namespace, e.Name)}
			l.commands[e.Sequence] = a
			if e.Resource == "pods" {
				l.byPod[e.Name] = append(l.byPod[e.Name], a)
			}
		}
		if e.Entry.Outcome != nil {
			if a := l.commands[e.cause()]; a != nil && a.outcome == nil {
				a.outcome = &e
				a.uid = e.Entry.Outcome.Object.UID
			}
		}
	}
	lines, err := l.audit.Next()
	if err != nil {
		return err
	}
	l.strangers = append(l.strangers, lines...)
	return nil
}

// unfinished says which command has no outcome yet; empty: none.
func (l *ledger) unfinished() (string, error) {
	if err := l.take(); err != nil {
		return "", err
	}
	for sequence, a := range l.commands {
		if a.outcome == nil {
			return fmt.Sprintf("command %d (%s) has no outcome", sequence, a.what), nil
		}
	}
	return "", nil
}

// decided returns when the newest command for a Pod, of those that could be the reason of what happened to it, entered the log; or the
// moment itself when there is none.
func (l *ledger) decided(pod, uid string, before time.Time) time.Time {
	at := before
	for _, a := range l.byPod[pod] {
		if a.received.After(before.Add(time.Second)) && a.Time.After(before.Add(time.Second)) {
			break
		}
		if a.verb() != "create" {
			at = before
			for _, t := range []time.Time{a.received, a.Time} {
				if t.Before(at) {
					at = t
				}
			}
		}
	}
	return at
}

// underWay is how long a command may lack its outcome once everything has settled: some follow only then, such as the last report of a status and
// the end of a revision that nobody needs.
const underWay = 5 * time.Second

// check returns what is wrong with what happened since the last check. What has only just been commanded is left to the next one.
func (l *ledger) check() ([]string, error) {
	if err := l.take(); err != nil {
		return nil, err
	}
	var wrong []string
	for _, line := range l.strangers {
		if !line.Writes() || line.Received.Before(l.since) {
			continue
		}
		if line.ResponseStatus.Code >= 500 {
			if a := l.commands[commandOf(line)]; a != nil {
				a.unsure = true
			}
		}
		if line.ResponseStatus.Code >= 300 {
			continue
		}
		if strings.HasPrefix(line.UserAgent, "shiplog-executor") {
			if why := l.assign(line); why != "" {
				wrong = append(wrong, why)
			}
			continue
		}
		if line.ObjectRef.Resource != "pods" || line.ObjectRef.Namespace != namespace || line.ObjectRef.Subresource != "" {
			continue
		}
		if line.Verb == "create" {
			wrong = append(wrong, fmt.Sprintf("%s: Pod %s was created by %s", clock(line.Received), line.ObjectRef.Name, line.UserAgent))
		}
	}
	l.strangers = nil
	for sequence, a := range l.commands {
		if a.outcome == nil && time.Since(a.received) < underWay {
			continue
		}
		wrong = append(wrong, l.judge(sequence, a)...)
		delete(l.commands, sequence)
	}
	wrong = append(wrong, l.explain()...)
	return wrong, nil
}

// commandOf is the command that a request names; 0: it names none.
func commandOf(line testbed.Audit) uint64 {
	parts := strings.Split(line.AuditID, "-")
	if len(parts) != 3 || parts[0] != "shiplog" {
		return 0
	}
	sequence, _ := strconv.ParseUint(parts[1], 10, 64)
	return sequence
}

// assign gives a write of the executor to the command that it names.
func (l *ledger) assign(line testbed.Audit) string {
	sequence := commandOf(line)
	if sequence == 0 {
		return fmt.Sprintf("%s: the executor's %s of %s names no command: %q", clock(line.Received), line.Verb, line.ObjectRef.Name, line.AuditID)
	}
	a := l.commands[sequence]
	if a == nil {
		return fmt.Sprintf("%s: the executor's %s of %s %s names command %d, which is not in the log, or was done before",
			clock(line.Received), line.Verb, line.ObjectRef.Resource, line.ObjectRef.Name, sequence)
	}
	if a.verb() != line.Verb || a.Resource != line.ObjectRef.Resource || a.Name != line.ObjectRef.Name && line.ObjectRef.Name != "" {
		return fmt.Sprintf("%s: the executor's %s of %s is not what command %d says: %s", clock(line.Received), line.Verb, line.ObjectRef.Name, sequence, a.what)
	}
	a.writes = append(a.writes, line)
	return ""
}

// judge returns what is wrong with one command.
func (l *ledger) judge(sequence uint64, a *account) (wrong []string) {
	say := func(format string, arguments ...any) {
		wrong = append(wrong, fmt.Sprintf("command %d (%s, %s): ", sequence, a.what, a.Reason)+fmt.Sprintf(format, arguments...))
	}
	if a.outcome == nil {
		say("there is no outcome")
		return wrong
	}
	applied := a.outcome.Entry.Outcome.Result == "RESULT_APPLIED"
	switch verb := a.verb(); {
	case verb == "create" && len(a.writes) > 1 && !l.undone(a.writes):
		say("it was done %d times: %s", len(a.writes), times(a.writes))
	case verb == "create" && applied && len(a.writes) == 0 && !a.unsure && !l.outage(a):
		say("it was applied, and the API server knows nothing of it")
	case !applied && len(a.writes) > 0 && !l.untold(a) && !l.outage(a):
		say("it was done at %s, and its outcome is %s", times(a.writes), a.outcome.Entry.Outcome.Result)
	}
	return wrong
}

// untold says that nobody could tell the executor what had come of its write: the outcome says so, and either there was no answer until
// the executor's patience ended, or the Pod was gone when it asked again.
func (l *ledger) untold(a *account) bool {
	if !a.outcome.Entry.Outcome.Unsure {
		return false
	}
	l.witness.mu.Lock()
	defer l.witness.mu.Unlock()
	return a.outcome.Entry.Outcome.Reason.Code == "Unavailable" || a.verb() == "patch" && l.witness.gone[a.Entry.Command.Object.UID]
}

// undone says whether etcd was put back between writes, so that the earlier ones have not happened.
func (l *ledger) undone(writes []testbed.Audit) bool {
	for i, write := range writes[1:] {
		if !slices.ContainsFunc(l.restores, func(at time.Time) bool { return at.After(writes[i].Received) && at.Before(write.Answered) }) {
			return false
		}
	}
	return true
}

// outage says whether the audit log may lack what was done for a command.
func (l *ledger) outage(a *account) bool {
	for _, at := range append(l.outages, l.restores...) {
		if !at.Before(a.Time.Add(-2*time.Minute)) && !at.After(a.outcome.received.Add(5*time.Second)) {
			return true
		}
	}
	return false
}

// explain returns which Pods came or went without a reason.
func (l *ledger) explain() (wrong []string) {
	l.witness.mu.Lock()
	defer l.witness.mu.Unlock()
	created, deleted := map[string]bool{}, map[string]bool{}
	for name, accounts := range l.byPod {
		for _, a := range accounts {
			switch a.verb() {
			case "create":
				created[name] = true
			case "delete":
				deleted[a.Entry.Command.Object.UID] = true
			}
		}
	}
	for uid, name := range l.witness.created {
		if !created[name] && !l.witness.excused[uid] && !l.missed[uid] {
			l.missed[uid] = true
			wrong = append(wrong, fmt.Sprintf("Pod %s (%s) was created, and no command says so", name, uid))
		}
	}
	for uid := range l.witness.gone {
		name := l.witness.created[uid]
		set := name[:max(0, strings.LastIndexByte(name, '-'))]
		if !deleted[uid] && !l.witness.excused[uid] && !l.people.deleted(uid, set) && !l.missed[uid+"-"] {
			l.missed[uid+"-"] = true
			wrong = append(wrong, fmt.Sprintf("Pod %s (%s) went, and no command says so", name, uid))
		}
	}
	return wrong
}

func times(lines []testbed.Audit) string {
	var out []string
	for _, line := range lines {
		out = append(out, clock(line.Received)+" ("+line.AuditID+")")
	}
	return strings.Join(out, ", ")
}

func clock(at time.Time) string { return at.Local().Format("15:04:05.000") }
