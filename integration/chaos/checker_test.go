package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"shiplog.dev/integration/testbed"
)

// story is what a log and an audit log say, and what was seen.
type story struct {
	t        *testing.T
	observer *observer
	people   *people
	witness  *witness
	ledger   *ledger
	audit    *os.File
	began    time.Time
}

func tell(t *testing.T) *story {
	dir := t.TempDir()
	audit, err := os.Create(filepath.Join(dir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { audit.Close() })
	s := &story{t: t, observer: &observer{}, people: newPeople(nil, nil), audit: audit}
	s.witness = newWitness(nil, s.people)
	s.ledger = newLedger(s.observer, (&testbed.Cluster{Dir: dir}).AuditLog(), s.witness, s.people)
	s.began = time.Now()
	return s
}

// command enters the log, and its outcome.
func (s *story) command(sequence uint64, verb, pod, uid, result string) {
	s.begin(sequence, verb, pod, uid, 0)
	s.outcome(sequence, fmt.Sprintf(`{"result":"RESULT_%s"}`, result))
}

// create is a Pod that is made as it should be.
func (s *story) create(sequence uint64, pod string) {
	s.command(sequence, "create", pod, "", "APPLIED")
	s.write("shiplog-executor", fmt.Sprintf("shiplog-%d-1", sequence), "create", pod)
	s.see(pod, true, false)
}

// refused is a command that enters the log, and is refused for a reason.
func (s *story) refused(sequence uint64, verb, pod, uid, code string, unsure bool) {
	s.begin(sequence, verb, pod, uid, 0)
	s.outcome(sequence, fmt.Sprintf(`{"result":"RESULT_REFUSED","reason":{"code":%q},"unsure":%t}`, code, unsure))
}

func (s *story) outcome(sequence uint64, outcome string) {
	s.read(fmt.Sprintf(`{"sequence":%d,"time":%q,"type":"outcome","entry":{"cause":"%d","outcome":%s}}`,
		sequence+1, time.Now().Format(time.RFC3339Nano), sequence, outcome), 0)
}

// begin has a command enter the log some time ago.
func (s *story) begin(sequence uint64, verb, pod, uid string, ago time.Duration) {
	s.read(fmt.Sprintf(`{"sequence":%d,"time":%q,"type":"command","namespace":"chaos","resource":"pods","name":%q,"entry":{"command":{%q:{},"object":{"uid":%q}}}}`,
		sequence, time.Now().Add(-ago).Format(time.RFC3339Nano), pod, verb, uid), ago)
}

// read has the observer read an entry some time ago.
func (s *story) read(line string, ago time.Duration) {
	var e entry
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		s.t.Fatal(err)
	}
	e.received = time.Now().Add(-ago)
	s.observer.take(e)
}

// write is done by the API server.
func (s *story) write(agent, id, verb, pod string) { s.answer(200, agent, id, verb, pod) }

// answer is given by the API server to a write.
func (s *story) answer(code int, agent, id, verb, pod string) {
	at := time.Now().Format(time.RFC3339Nano)
	fmt.Fprintf(s.audit, `{"auditID":%q,"verb":%q,"requestURI":"/","userAgent":%q,"objectRef":{"resource":"pods","namespace":"chaos","name":%q},"responseStatus":{"code":%d},"requestReceivedTimestamp":%q,"stageTimestamp":%q}`+"\n",
		id, verb, agent, pod, code, at, at)
}

func (s *story) see(name string, ready, deleted bool) {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	s.witness.see(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Image: "nginx:1"}}},
		Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Image: "docker.io/library/nginx:1"}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}},
	}, deleted)
}

// TestChecker: each thing that must not happen is found, and what may happen is not.
func TestChecker(t *testing.T) {
	for _, c := range []struct {
		what, want string // a part of the complaint; empty: none
		happens    func(*story)
	}{
		{"a create", "", func(s *story) { s.create(1, "web-a") }},
		{"a create, twice", "done 2 times", func(s *story) {
			s.command(1, "create", "web-a", "", "APPLIED")
			s.write("shiplog-executor", "shiplog-1-1", "create", "web-a")
			s.write("shiplog-executor", "shiplog-1-2", "create", "web-a")
		}},
		{"a create that was never made", "knows nothing of it", func(s *story) { s.command(1, "create", "web-a", "", "APPLIED") }},
		{"a create that was made for somebody who was gone", "", func(s *story) {
			s.command(1, "create", "web-a", "", "APPLIED")
			s.answer(504, "shiplog-executor", "shiplog-1-1", "create", "web-a")
		}},
		{"a create that was refused and counts as made", "knows nothing of it", func(s *story) {
			s.command(1, "create", "web-a", "", "APPLIED")
			s.answer(409, "shiplog-executor", "shiplog-1-1", "create", "web-a")
		}},
		{"a write without a command", "not in the log", func(s *story) { s.write("shiplog-executor", "shiplog-7-1", "delete", "web-a") }},
		{"a write that names no command", "names no command", func(s *story) { s.write("shiplog-executor", "0815", "delete", "web-a") }},
		{"a write of another object", "is not what command 1 says", func(s *story) {
			s.command(1, "delete", "web-a", "uid-web-a", "APPLIED")
			s.write("shiplog-executor", "shiplog-1-1", "delete", "web-b")
		}},
		{"a refused command that was done", "its outcome is RESULT_REFUSED", func(s *story) {
			s.command(1, "create", "web-a", "", "REFUSED")
			s.write("shiplog-executor", "shiplog-1-1", "create", "web-a")
		}},
		{"a patch whose answer was lost, of a Pod that is gone", "", func(s *story) {
			s.create(1, "web-a")
			s.refused(3, "patch", "web-a", "uid-web-a", "NotFound", true)
			s.write("shiplog-executor", "shiplog-3-1", "patch", "web-a")
			s.see("web-a", true, true)
			s.people.removed["uid-web-a"] = true
		}},
		{"a patch that is said to be lost, of a Pod that is there", "its outcome is RESULT_REFUSED", func(s *story) {
			s.refused(1, "patch", "web-a", "uid-web-a", "NotFound", true)
			s.write("shiplog-executor", "shiplog-1-1", "patch", "web-a")
		}},
		{"a patch that counts as surely not done, of a Pod that is gone", "its outcome is RESULT_REFUSED", func(s *story) {
			s.create(1, "web-a")
			s.refused(3, "patch", "web-a", "uid-web-a", "NotFound", false)
			s.write("shiplog-executor", "shiplog-3-1", "patch", "web-a")
			s.see("web-a", true, true)
			s.people.removed["uid-web-a"] = true
		}},
		{"a patch without any answer", "", func(s *story) {
			s.refused(1, "patch", "web-a", "uid-web-a", "Unavailable", true)
			s.write("shiplog-executor", "shiplog-1-1", "patch", "web-a")
		}},
		{"a command without an outcome", "there is no outcome", func(s *story) { s.begin(1, "delete", "web-a", "uid-web-a", 2*underWay) }},
		{"a command that was given a moment ago", "", func(s *story) { s.begin(1, "delete", "web-a", "uid-web-a", 0) }},
		{"a Pod from nowhere", "was created, and no command says so", func(s *story) { s.see("web-a", true, false) }},
		{"a Pod made by a stranger", "was created by stranger", func(s *story) { s.write("stranger", "0815", "create", "web-a") }},
		{"a Pod that vanished", "went, and no command says so", func(s *story) {
			s.create(1, "web-a")
			s.see("web-a", true, true)
		}},
		{"a Pod deleted by hand", "", func(s *story) {
			s.create(1, "web-a")
			s.people.removed["uid-web-a"] = true
			s.see("web-a", true, true)
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := tell(t)
			c.happens(s)
			wrong, err := s.ledger.check()
			if err != nil {
				t.Fatal(err)
			}
			if all := strings.Join(wrong, "\n"); c.want == "" && all != "" || !strings.Contains(all, c.want) {
				t.Errorf("it says %q, want %q", all, c.want)
			}
		})
	}
}

// TestBudgets: three Pods, of which one may be unavailable.
func TestBudgets(t *testing.T) {
	for _, c := range []struct {
		what    string
		byHand  bool // the first Pod to go is deleted by people
		early   bool // and long before the second
		deletes int
		broken  bool
	}{
		{"one goes", false, false, 1, false},
		{"two go", false, false, 2, true},
		{"one goes while people delete another", true, false, 2, false},
		{"one goes long after people deleted another", true, true, 2, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := tell(t)
			s.people.sets = []*cloneSet{{name: "web", maxUnavailable: 1}}
			s.people.changes["web"] = []change{{time.Now().Add(-time.Hour), 3}}
			for _, name := range []string{"web-a", "web-b", "web-c"} {
				s.see(name, true, false)
			}
			for i, name := range []string{"web-a", "web-b"}[:c.deletes] {
				s.people.removed["uid-"+name] = i == 0 && c.byHand
				s.see(name, true, true)
				if i == 0 && c.early {
					s.witness.history[len(s.witness.history)-1].at = time.Now().Add(-time.Minute)
				}
			}
			if broken := s.witness.budgets(s.ledger.decided); (len(broken) > 0) != c.broken {
				t.Errorf("it says %q", broken)
			}
		})
	}
}
