package narrate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide/cloneset"
)

// Step is one thing that happened to a workload.
type Step struct {
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	// Generation of the workload that the step belongs to.
	Generation int64 `json:"generation"`
	// What happened, in words: an edit, a command, a change of a Pod.
	What string `json:"what"`
	// Pod that it happened to, by name; empty: the workload, or something else of it.
	Pod string `json:"pod,omitempty"`
	// Edit, where the step is one.
	Edit *Edit `json:"edit,omitempty"`
	// State that a Pod is in from here on, where it changed.
	State State `json:"state,omitempty"`
	// Ours: the step only shows what a command of ours did.
	Ours bool `json:"-"`
	// Tick: time has passed that a rule waited for.
	Tick bool `json:"tick,omitempty"`

	// Verb of a command: create, patch, delete or wake; Code and Why are its reason, and Cause the position that it was decided at.
	Verb  world.Verb `json:"verb,omitempty"`
	Code  string     `json:"reason,omitempty"`
	Why   string     `json:"why,omitempty"`
	Cause uint64     `json:"cause,omitempty"`
	// Rollout of a command, by the generation that it serves.
	Rollout string `json:"rollout,omitempty"`
	// Writer that decided.
	Writer string `json:"writer,omitempty"`
	// Outcome of a command and the position of its entry; empty while it is under way.
	Outcome         string `json:"outcome,omitempty"`
	OutcomeSequence uint64 `json:"outcomeSequence,omitempty"`
	// Refused: the outcome was a no.
	Refused bool `json:"refused,omitempty"`

	command *shiplogv1.Command
	// because is what led to a command: the edit that it serves, and what happened last before it was decided.
	because []cause
}

type cause struct {
	role Role
	step *Step
}

// Command is what a step commanded; nil: the step is no command.
func (s *Step) Command() *shiplogv1.Command { return s.command }

// Edit is a change of a workload by somebody.
type Edit struct {
	Generation int64 `json:"generation"`
	// Who made it: the field manager. Empty: unknown.
	Who string `json:"who,omitempty"`
	// User who made it, where admission saw the edit; of several who tried at once, all of them. Empty: unknown.
	User string `json:"user,omitempty"`
	// Created: the workload is new.
	Created     bool         `json:"created,omitempty"`
	Differences []Difference `json:"differences,omitempty"`
	Images      string       `json:"images"`
	Replicas    int          `json:"replicas"`

	what string // "cloneset/web is edited"
}

// Life is one Pod of a workload from its first fact to its last.
type Life struct {
	Name string    `json:"name"`
	UID  types.UID `json:"uid"`
	// Spans in order, without gaps.
	Spans []Span `json:"spans"`
	// Gone is when the Pod was gone; zero: it is there.
	Gone         time.Time `json:"gone,omitzero"`
	GoneSequence uint64    `json:"goneSequence,omitempty"`
	// Trouble is what kept it from being ready when it was last seen; empty: nothing did.
	Trouble string `json:"trouble,omitempty"`

	version  uint64    // of the newest fact
	settles  time.Time // when time alone makes it available; zero: nothing to wait for
	failure  string    // what it was last said to fail of
	restarts int
	leaving  bool // a delete of ours is under way or was applied
}

// Span is a part of a Pod's life in one state, with one revision.
type Span struct {
	State    State     `json:"state"`
	From     time.Time `json:"from"`
	Sequence uint64    `json:"sequence"`
	Revision string    `json:"revision"`
	Images   string    `json:"images"`
	Note     string    `json:"note,omitempty"`
}

// Now is the newest span.
func (l *Life) Now() Span { return l.Spans[len(l.Spans)-1] }

// Limit is what the spec asked for from a time on.
type Limit struct {
	From time.Time `json:"from"`
	cloneset.Limits
}

// Account tells what happened to one CloneSet, from the entries it is shown in order.
type Account struct {
	// Workload and its UID; empty: it has not been seen.
	Workload world.Ref
	UID      types.UID
	// Deleted is when the workload was gone; zero: it is there.
	Deleted time.Time
	Steps   []*Step
	Lives   []*Life
	Limits  []Limit
	// End is the time of the newest entry shown.
	End      time.Time
	Sequence uint64

	generation int64
	seen       seen
	edits      []*Step          // by people
	news       []*Step          // what was not commanded, the newest of it
	open       map[uint64]*Step // commands without outcome, by their positions
	lives      map[types.UID]*Life
	named      map[string]*Life // those that are there
	newest     map[string]*Life
	settling   []*Life
	wishes     map[string]string // why a tick was asked for, by identity
	creates    map[string]bool   // Pods that commands under way create, by name
	admitted   []Admission       // the newest of the workload
}

// Admission is who asked for a change of a workload.
type Admission struct {
	UID        types.UID
	Generation int64
	Operation  string
	User       string
}

// maxAdmitted bounds the admissions that are remembered for edits that come after them.
const maxAdmitted = 64

// seen is the newest fact of the workload.
type seen struct {
	Version uint64
	// JSON of the object; empty: it is not there.
	JSON []byte
}

// maxNews bounds what a decision may have followed from: as many steps may come between a decision and the last of its commands.
const maxNews = 16 << 10

// NewAccount starts the account of a CloneSet.
func NewAccount(namespace, name string) *Account {
	return &Account{
		Workload: world.Ref{Group: world.GroupKruise, Resource: world.ResourceCloneSets, Namespace: namespace, Name: name},
		open:     map[uint64]*Step{}, lives: map[types.UID]*Life{}, named: map[string]*Life{}, newest: map[string]*Life{}, wishes: map[string]string{}, creates: map[string]bool{},
	}
}

// Show takes the next entry. An error means that the entry cannot be understood.
func (a *Account) Show(record journal.Record) error {
	var change world.Change
	if record.Entry.GetObjectObserved() != nil && a.Concerns(record.Entry) {
		var err error
		if change, err = world.Decode(record.Sequence, record.Time, record.Entry); err != nil {
			return err
		}
	}
	return a.ShowDecoded(record, change)
}

// ShowDecoded is Show for one who has read the entry already; of entries that are no facts the change may be zero.
func (a *Account) ShowDecoded(record journal.Record, change world.Change) error {
	a.Pass(record)
	entry := record.Entry
	switch kind := entry.GetKind().(type) {
	case *shiplogv1.Entry_ObjectObserved:
		switch object := change.Object().(type) {
		case *world.CloneSet:
			if world.RefOf(kind.ObjectObserved.GetObject()) == a.Workload {
				return a.edited(record, object, kind.ObjectObserved)
			}
		case *world.Pod:
			a.changed(record, object)
		}
	case *shiplogv1.Entry_ObjectDeleted:
		version, err := strconv.ParseUint(kind.ObjectDeleted.GetResourceVersion(), 10, 64)
		if err != nil {
			return fmt.Errorf("entry %d: the version of a deletion: %w", record.Sequence, err)
		}
		a.gone(record, world.RefOf(kind.ObjectDeleted.GetObject()), version)
	case *shiplogv1.Entry_Admitted:
		a.admit(kind.Admitted)
	case *shiplogv1.Entry_Command:
		if a.UID == "" || world.WorkloadOf(entry.GetRollout()) != a.UID {
			return nil
		}
		a.command(record, kind.Command)
	case *shiplogv1.Entry_Outcome:
		a.outcome(record, kind.Outcome)
	case *shiplogv1.Entry_Ticked:
		if why, ours := a.wishes[kind.Ticked.GetId()]; ours {
			a.add(record, &Step{What: "a tick: " + why, Tick: true})
			delete(a.wishes, kind.Ticked.GetId())
		}
	}
	return nil
}

// Pass takes note of the time of an entry that concerns the workload, or that may have ended a wait.
func (a *Account) Pass(record journal.Record) {
	a.End, a.Sequence = record.Time, record.Sequence
	a.settle(record)
}

func (a *Account) add(record journal.Record, step *Step) {
	step.Sequence, step.Time, step.Generation = record.Sequence, record.Time, a.generation
	a.Steps = append(a.Steps, step)
	switch {
	case step.Edit != nil && !step.Ours:
		a.edits = append(a.edits, step)
		fallthrough
	case step.Verb == "":
		if a.news = append(a.news, step); len(a.news) == 2*maxNews {
			a.news = slices.Delete(a.news, 0, maxNews)
		}
	}
}

// Concerns says whether an entry may be about the workload, before anything of it is decoded.
func (a *Account) Concerns(entry *shiplogv1.Entry) bool {
	ref, about := history.ObjectOf(entry)
	switch {
	case !about:
		return entry.GetTicked() != nil
	case ref.Namespace != a.Workload.Namespace:
		return false
	case ref.Resource == world.ResourceCloneSets:
		return ref == a.Workload
	}
	return entry.GetObjectObserved() == nil || ref.Resource == world.ResourcePods
}

func (a *Account) gone(record journal.Record, ref world.Ref, version uint64) {
	if ref == a.Workload {
		if a.seen.JSON == nil || a.seen.Version > version {
			return
		}
		a.seen, a.Deleted = seen{Version: version}, record.Time
		what := workloadName(ref) + " is gone"
		if user := a.asker(a.UID, "DELETE", a.generation); user != "" {
			what += ", deleted by " + user
		}
		a.add(record, &Step{What: what})
		return
	}
	life := a.named[ref.Name]
	if ref.Group != "" || ref.Resource != world.ResourcePods || ref.Namespace != a.Workload.Namespace || life == nil || life.version > version {
		return
	}
	delete(a.named, ref.Name)
	life.Gone, life.GoneSequence = record.Time, record.Sequence
	a.settles(life, time.Time{})
	text := ""
	if life.Now().State != Terminating {
		text = " without having been terminating"
	}
	a.add(record, &Step{What: "pod/" + ref.Name + " is gone" + text, Pod: ref.Name, Ours: life.leaving})
}

func workloadName(ref world.Ref) string { return "cloneset/" + ref.Name }

func (a *Account) edited(record journal.Record, set *world.CloneSet, fact *shiplogv1.ObjectObserved) error {
	if set.Version <= a.seen.Version {
		return nil
	}
	before, again := a.seen.JSON, set.UID != a.UID
	a.seen = seen{set.Version, fact.GetJson()}
	if !again && set.Generation <= a.generation {
		return nil
	}
	a.UID, a.generation, a.Deleted = set.UID, set.Generation, time.Time{}
	edit := &Edit{Generation: set.Generation, Who: Who(fact.GetLastChange()), Created: again && before == nil && set.Generation == 1, Replicas: 1}
	var images []string
	for _, container := range set.Spec.Template.Spec.Containers {
		images = append(images, container.Image)
	}
	edit.Images = strings.Join(images, ", ")
	if set.Spec.Replicas != nil {
		edit.Replicas = int(*set.Spec.Replicas)
	}
	if limits, ok := cloneset.LimitsOf(set); ok {
		a.Limits = append(a.Limits, Limit{record.Time, limits})
	}
	what := "is edited"
	switch {
	case edit.Created:
		what = "is created"
	case before == nil:
		what = "is first seen"
		edit.Who = ""
	default:
		var err error
		if edit.Differences, err = Differences(before, fact.GetJson(), false); err != nil {
			return err
		}
		edit.Who = whoEdited(fact.GetLastChange(), edit.Differences)
	}
	edit.what = workloadName(a.Workload) + " " + what
	if before != nil || edit.Created {
		operation := "UPDATE"
		if edit.Created {
			operation = "CREATE"
		}
		edit.User = a.asker(set.UID, operation, set.Generation)
	}
	a.add(record, &Step{What: edit.String(), Edit: edit, Ours: ours(edit.Who)})
	return nil
}

// String words the edit: what, by whom, and what it changed.
func (e *Edit) String() string {
	text := e.what
	switch {
	case e.User != "" && e.Who != "":
		text += " by " + e.User + " with " + e.Who
	case e.User != "" || e.Who != "":
		text += " by " + e.User + e.Who
	}
	return fmt.Sprintf("%s: generation %d, %s", text, e.Generation, e.Summary())
}

// admit takes note of who asked for a change. It may come after the change itself: admission does not wait for the log.
func (a *Account) admit(admitted *shiplogv1.Admitted) {
	if world.RefOf(admitted.GetObject()) != a.Workload {
		return
	}
	if a.admitted = append(a.admitted, Admission{types.UID(admitted.GetObject().GetUid()), admitted.GetGeneration(), admitted.GetOperation(), admitted.GetUser()}); len(a.admitted) > maxAdmitted {
		a.admitted = a.admitted[1:]
	}
	if len(a.edits) == 0 || string(a.UID) != admitted.GetObject().GetUid() || admitted.GetOperation() == "DELETE" {
		return
	}
	if step := a.edits[len(a.edits)-1]; step.Edit.what != "" && step.Edit.Generation == admitted.GetGeneration() {
		step.Edit.User = a.asker(a.UID, admitted.GetOperation(), admitted.GetGeneration())
		step.What = step.Edit.String()
	}
}

// asker is the user who was admitted with a change; empty: nobody knows. Of several who tried to make the same one, at most one did, and
// nothing says which: all of them.
func (a *Account) asker(uid types.UID, operation string, generation int64) string {
	var users []string
	for _, admission := range a.admitted {
		if admission.UID == uid && admission.Operation == operation && (operation == "CREATE" || admission.Generation == generation) && !slices.Contains(users, admission.User) {
			users = append(users, admission.User)
		}
	}
	return strings.Join(users, " or ")
}

// Summary says what an edit changed, in one line.
func (e *Edit) Summary() string {
	if len(e.Differences) == 0 {
		return fmt.Sprintf("replicas %d, %s", e.Replicas, e.Images)
	}
	var out []string
	for i, difference := range e.Differences {
		if i == 3 && len(e.Differences) > 4 {
			return strings.Join(out, "; ") + fmt.Sprintf("; and %d fields more", len(e.Differences)-i)
		}
		out = append(out, strings.TrimPrefix(strings.TrimPrefix(difference.String(), "spec."), "template.spec."))
	}
	return strings.Join(out, "; ")
}

// ours says whether a field manager is this program.
func ours(manager string) bool { return strings.HasPrefix(manager, "shiplog") }

// whoEdited is Who, but where nothing but the replicas changed, whoever scaled.
func whoEdited(change *shiplogv1.LastChange, differences []Difference) string {
	if change.GetScaledBy() != "" && len(differences) == 1 && differences[0].Path == "spec.replicas" {
		return change.GetScaledBy() + " (scale)"
	}
	return Who(change)
}

// Who words who changed an object last; empty: unknown.
func Who(change *shiplogv1.LastChange) string {
	if change == nil {
		return ""
	}
	if change.GetSubresource() != "" {
		return change.GetManager() + " (" + change.GetSubresource() + ")"
	}
	return change.GetManager()
}

func (a *Account) changed(record journal.Record, pod *world.Pod) {
	life := a.lives[pod.UID]
	if life == nil && (a.UID == "" || pod.Owner.UID() != a.UID) || life != nil && (pod.Version <= life.version || !life.Gone.IsZero()) {
		return
	}
	fact := podFact{pod}
	isNew := life == nil
	if isNew {
		life = &Life{Name: pod.Name, UID: pod.UID}
		a.live(life)
	}
	life.version = pod.Version
	var was Span
	if !isNew {
		was = life.Now()
	}
	before := was.State
	now, availableAt := fact.state(was, a.minReady())
	if now == Ready && availableAt.After(record.Time) {
		now = Settling
		a.settles(life, availableAt)
	} else {
		a.settles(life, time.Time{})
	}
	trouble := ""
	switch now {
	case Ready, Settling:
	case Held:
		trouble = fact.held()
	default:
		trouble = fact.trouble()
	}
	a.tell(record, life, fact, before, now, trouble)
	life.Trouble, life.restarts = trouble, fact.restarts()
	span := Span{State: now, From: record.Time, Sequence: record.Sequence, Revision: pod.Labels.Get(revisionLabel), Images: fact.images(), Note: trouble}
	if !isNew {
		held := &life.Spans[len(life.Spans)-1]
		if held.State == span.State && held.Revision == span.Revision {
			if span.Note != "" {
				held.Note = span.Note
			}
			return
		}
	}
	life.Spans = append(life.Spans, span)
}

// tell adds the step for a change of a Pod, if it is one that people want to know.
func (a *Account) tell(record journal.Record, life *Life, fact podFact, before, now State, trouble string) {
	name := "pod/" + life.Name
	step := &Step{Pod: life.Name, State: now}
	restarted := before != "" && fact.restarts() > life.restarts
	detail := ""
	if trouble != "" {
		detail = ": " + trouble
	}
	switch {
	case before == "":
		step.What, step.Ours = name+" exists", a.creates[life.Name]
		delete(a.creates, life.Name)
	case now == Terminating && before != Terminating:
		step.What, step.Ours = name+" is terminating", life.leaving
		if disruption := fact.disruption(); disruption != "" {
			step.What += ": " + disruption
		} else if !life.leaving {
			step.What += ": deleted by somebody else, not by Shiplog"
		}
	case now == Terminating:
		return
	case (now == Ready || now == Settling) && before != Ready && before != Settling:
		step.What = name + " is ready"
		if restarted {
			step.What = fmt.Sprintf("%s restarted with %s and is ready", name, fact.images())
		}
		if now == Settling {
			step.What += fmt.Sprintf(", available at %s", life.settles.Local().Format(time.TimeOnly))
		}
	case now == Held && before != Held && before != Updating && before != Starting:
		step.What = fmt.Sprintf("%s is held: %s", name, fact.held())
	case now == Failing && (before != Failing || trouble != "" && failure(trouble) != life.failure):
		step.What = name + " is failing" + detail
		life.failure = failure(trouble)
	case now == Finished && before != Finished:
		step.What = name + " has finished: " + fact.Phase
	case now == NotReady && before != NotReady, before == Ready && now == Starting:
		step.What = name + " is not ready" + detail
	case restarted:
		step.What = fmt.Sprintf("%s restarted a container, %s", name, fact.images())
	default:
		return
	}
	a.add(record, step)
}

// failure is what a trouble is about, without the numbers that rise with every attempt, and the same during an attempt and
// between two.
func failure(trouble string) string {
	what, _, _ := strings.Cut(trouble, ",")
	return strings.NewReplacer("ErrImagePull", "ImagePullBackOff", "ended: Error", "CrashLoopBackOff").Replace(what)
}

func (a *Account) minReady() int32 {
	if len(a.Limits) == 0 {
		return 0
	}
	return a.Limits[len(a.Limits)-1].MinReadySeconds
}

// settles takes note of when time alone makes a Pod available; the zero time: nothing is to be waited for.
func (a *Account) settles(life *Life, at time.Time) {
	if life.settles.IsZero() != at.IsZero() {
		if at.IsZero() {
			a.settling = slices.DeleteFunc(a.settling, func(other *Life) bool { return other == life })
		} else {
			a.settling = append(a.settling, life)
		}
	}
	life.settles = at
}

// settle lets the time that has passed make Pods available.
func (a *Account) settle(record journal.Record) {
	for i := 0; i < len(a.settling); {
		life := a.settling[i]
		if life.settles.After(record.Time) {
			i++
			continue
		}
		span := life.Now()
		span.State, span.From, span.Note = Ready, life.settles, ""
		life.Spans = append(life.Spans, span)
		a.settles(life, time.Time{})
		a.add(record, &Step{Pod: life.Name, State: Ready, What: fmt.Sprintf("pod/%s is available: ready for minReadySeconds %d", life.Name, a.minReady())})
	}
}

func (a *Account) command(record journal.Record, command *shiplogv1.Command) {
	step := &Step{
		What: Effect(command), Code: command.GetReason().GetCode(), Why: command.GetReason().GetMessage(), Cause: record.Entry.GetCause(),
		Rollout: record.Entry.GetRollout(), Writer: record.Entry.GetWriter(), command: command,
	}
	object := world.RefOf(command.GetObject())
	if object.Resource == world.ResourcePods && object.Group == "" {
		step.Pod = object.Name
	}
	switch effect := command.GetEffect().(type) {
	case *shiplogv1.Command_Create:
		step.Verb = world.Create
		if step.Pod != "" {
			a.creates[step.Pod] = true
		}
	case *shiplogv1.Command_Patch:
		step.Verb = world.Patch
	case *shiplogv1.Command_Delete:
		step.Verb = world.Delete
		if life := a.named[step.Pod]; life != nil {
			life.leaving = true
		}
	case *shiplogv1.Command_WakeAt:
		step.Verb = world.Wake
		a.wishes[effect.WakeAt.GetId()] = step.Why
	}
	if step.Verb != world.Wake {
		a.open[record.Sequence] = step
	}
	if step.Pod != "" {
		step.because = a.causes(step)
	}
	a.add(record, step)
}

func (a *Account) outcome(record journal.Record, outcome *shiplogv1.Outcome) {
	step := a.open[record.Entry.GetCause()]
	if step == nil {
		return
	}
	delete(a.open, step.Sequence)
	step.Outcome, step.OutcomeSequence = Outcome(outcome), record.Sequence
	step.Refused = outcome.GetResult() == shiplogv1.Outcome_RESULT_REFUSED
	if life := a.named[step.Pod]; step.Refused && step.Verb == world.Delete && life != nil {
		life.leaving = false
	}
}
