package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shiplog.dev/cmd/internal/process"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/index"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/narrate"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide"
	"shiplog.dev/services/planner/rules"
)

// explained are the kinds that completion offers.
var explained = []string{"pod", "cloneset", "imagepulljob", "imagelistpulljob", "containerrecreaterequest", "nodeimage", "node"}

// why explains what happened to a Pod, or why something has not happened.
func why() *cobra.Command {
	var read reading
	var at string
	var notUpdated bool
	command := &cobra.Command{
		Use: "why KIND/NAME", Short: "Explain what happened to a Pod, or why a rollout is not done",
		Long: `Explain what happened to a Pod: for each thing the chain of causes, from the person who asked for it over the rule that fired,
with its numbers, to the API write, its outcome and what followed. Works for Pods that are long gone.

For any other object, for example an image job or a node: what changed and by whom, what was commanded for its sake, what became of that, and
what its rules hold back.

For a CloneSet, and for a Pod with --not-updated, explain what has not happened: which rule holds it back, and what would
release it. The rules themselves are asked, on the world as the log gives it at that moment; no cluster is needed.

Moments are ` + history.Forms + `.`,
		Example: `  shiplog why pod/web-x7k2p -n shop
  shiplog why pod/web-x7k2p --not-updated
  shiplog why cloneset/web
  shiplog why imagepulljob/warm-up
  shiplog why node/worker-3 --at -10m
  shiplog why cloneset/web --at 14:03 --log nats://nats:4222`,
		Args: objectArguments,
		RunE: func(command *cobra.Command, arguments []string) error {
			target, err := read.target(arguments)
			if err != nil {
				return err
			}
			log, err := read.open(command.Context())
			if err != nil {
				return err
			}
			defer log.Close()
			moment, err := log.moment("at", at)
			if err != nil {
				return err
			}
			switch {
			case target.Resource == world.ResourcePods:
				return whyPod(command, &read, log, moment, target, notUpdated)
			case target.Resource == world.ResourceCloneSets && !notUpdated:
				return whyWorkload(command, &read, log, moment, target)
			}
			if notUpdated {
				return process.Usage(fmt.Errorf("--not-updated is about a Pod, not %s", target))
			}
			return whyObject(command, &read, log, moment, target)
		},
	}
	read.bind(command, "json", "yaml")
	command.Flags().StringVar(&at, "at", "", "as of this `MOMENT`; default: the end of the log")
	command.Flags().BoolVar(&notUpdated, "not-updated", false, "explain why the Pod is not updated")
	command.Flags().BoolVar(&read.noIndex, "no-index", false, "read the whole log, however long it is, and keep nothing in the user's cache directory")
	command.ValidArgsFunction = read.completeObjects(explained...)
	return command
}

// ownerOf finds the CloneSet that controlled a Pod, the last of that name; "/": nobody did, "": the log does not know the Pod.
func ownerOf(command *cobra.Command, log *opened, at history.Moment, pod history.Target) (owner string, _ error) {
	err := log.Each(command.Context(), history.Span{Past: true, To: at}, func(record journal.Record) error {
		if ref, about := history.ObjectOf(record.Entry); !about || !pod.Is(ref) {
			return nil
		}
		change, err := world.Decode(record.Sequence, record.Time, record.Entry)
		if err != nil {
			return err
		}
		if seen, is := change.Object().(*world.Pod); is {
			owner = seen.Owner.Kind() + "/" + seen.Owner.Name()
		}
		return nil
	})
	return owner, err
}

// managed returns the name of the CloneSet that an owner is.
func managed(read *reading, pod history.Target, owner string) (string, error) {
	kind, name, _ := strings.Cut(owner, "/")
	switch {
	case owner == "":
		return "", read.unknown(pod)
	case kind != "CloneSet":
		return "", nothing{fmt.Errorf("%s is not managed by Shiplog: its owner is %s (shiplog tail %s shows what the log has of it)", pod, strings.Trim(owner, "/"), pod)}
	}
	return name, nil
}

// storyOf tells what happened to a Pod.
func storyOf(command *cobra.Command, read *reading, log *opened, at history.Moment, pod history.Target) (story narrate.Story, _ error) {
	owner, err := ownerOf(command, log, at, pod)
	if err != nil {
		return story, err
	}
	name, err := managed(read, pod, owner)
	if err != nil {
		return story, err
	}
	account := narrate.NewAccount(pod.Namespace, name)
	if err := log.Each(command.Context(), history.Span{Past: true, To: at}, func(record journal.Record) error {
		if !account.Concerns(record.Entry) {
			return nil
		}
		return account.Show(record)
	}); err != nil {
		return story, err
	}
	return account.Story(pod.Name), nil
}

// indexedStoryOf is storyOf as of the end of the log, without reading all of it.
func indexedStoryOf(read *reading, index *index.Index, pod history.Target) (story narrate.Story, _ error) {
	owner, err := index.Owner(pod.Namespace, pod.Name)
	if err != nil {
		return story, err
	}
	name, err := managed(read, pod, owner)
	if err != nil {
		return story, err
	}
	return index.Story(narrate.NewAccount(pod.Namespace, name).Workload, pod.Name)
}

func whyPod(command *cobra.Command, read *reading, log *opened, at history.Moment, pod history.Target, notUpdated bool) error {
	if notUpdated {
		owner, err := ownerOf(command, log, at, pod)
		if err != nil {
			return err
		}
		name, err := managed(read, pod, owner)
		if err != nil {
			return err
		}
		return whyNotUpdated(command, read, log, at, pod, narrate.NewAccount(pod.Namespace, name))
	}
	var story narrate.Story
	kept, err := read.index(command, log, at)
	switch {
	case err != nil:
		return err
	case kept != nil:
		defer kept.Close()
		story, err = indexedStoryOf(read, kept, pod)
	default:
		story, err = storyOf(command, read, log, at, pod)
	}
	if err != nil {
		return err
	}
	life, chains := story.Life, narrate.Chains(story.Steps)
	if life == nil {
		return read.unknown(pod)
	}
	if read.output != "" {
		return print(command.OutOrStdout(), read.output, struct {
			Pod      string          `json:"pod"`
			Workload string          `json:"workload"`
			Life     *narrate.Life   `json:"life"`
			Chains   []narrate.Chain `json:"chains"`
		}{pod.Name, story.Workload.Name, life, chains})
	}
	out := command.OutOrStdout()
	state := string(life.Now().State) + " since " + log.when(life.Now().From)
	if !life.Gone.IsZero() {
		state = "gone since " + log.when(life.Gone)
	}
	if life.Trouble != "" && life.Gone.IsZero() {
		state += ": " + life.Trouble
	}
	fmt.Fprintf(out, "%s of cloneset/%s in %s, %s\n", pod, story.Workload.Name, pod.Namespace, state)
	for _, chain := range chains {
		fmt.Fprintf(out, "\n%s at %s\n", chain.Title, log.when(chain.At()))
		printLinks(out, chain.Links)
	}
	return nil
}

func printLinks(out io.Writer, links []narrate.Link) {
	position := uint64(0)
	for _, link := range links {
		where := fmt.Sprintf("%8d  %s", link.Sequence, clock(link.Time))
		if link.Sequence == position {
			where = strings.Repeat(" ", len(where))
		}
		position = link.Sequence
		fmt.Fprintf(out, "  %s  %-8s  %s\n", where, link.Role, link.Text)
	}
}

// when shows a time absolutely and relatively.
func (o *opened) when(at time.Time) string {
	against := "ago"
	if !o.Live {
		against = "before the end of the log"
	}
	return fmt.Sprintf("%s (%s %s)", at.Local().Format(time.DateTime), narrate.Duration(o.end.Sub(at)), against)
}

// asked is the answer of the rules to a world, and the account up to there.
type asked struct {
	account  *narrate.Account
	decision decide.Decision
	problem  string // why nothing at all is decided; empty: the rules answered
}

// ask folds the log up to a moment and lets the rules explain.
func ask(command *cobra.Command, read *reading, log *opened, at history.Moment, target history.Target, account *narrate.Account) (asked, error) {
	w, err := log.worldAt(command.Context(), at, account.Workload.Namespace, account.Show)
	if err != nil {
		return asked{}, err
	}
	if account.UID == "" || w.CloneSet(account.Workload) == nil && account.Deleted.IsZero() {
		return asked{}, read.unknown(target)
	}
	out := asked{account: account}
	switch {
	case !account.Deleted.IsZero():
		out.problem = "the CloneSet is gone since " + log.when(account.Deleted)
	case w.Fence() == 0:
		out.problem = "no planner has ever raised a fence in this log: is one running?"
	case !w.Trusted(account.Workload):
		out.problem = fmt.Sprintf("nothing is decided before the watcher vouches for its facts after fence %d: is it running?", w.Fence())
	default:
		out.decision = rules.Explain(w, account.Workload)
	}
	return out, nil
}

// whyJSON is the answer of why for pipes.
type whyJSON struct {
	Workload string           `json:"workload"`
	Position uint64           `json:"position"`
	Time     time.Time        `json:"time"`
	Done     bool             `json:"done"`
	Problem  string           `json:"problem,omitempty"`
	Asked    *narrate.Step    `json:"asked,omitempty"`
	Standing *decide.Standing `json:"standing,omitempty"`
	Held     []decide.Hold    `json:"held"`
	UnderWay []*narrate.Step  `json:"underWay"`
	Unwell   []*narrate.Life  `json:"notAvailable"`
}

func (a asked) json(held []decide.Hold) whyJSON {
	return whyJSON{
		Workload: a.account.Workload.Name, Position: a.account.Sequence, Time: a.account.End, Problem: a.problem, Asked: a.account.Asked(),
		Done:     a.decision.Standing != nil && a.decision.Standing.Done() && len(held) == 0,
		Standing: a.decision.Standing, Held: held, UnderWay: a.account.Open(), Unwell: a.account.Unwell(),
	}
}

func whyWorkload(command *cobra.Command, read *reading, log *opened, at history.Moment, target history.Target) error {
	answer, err := ask(command, read, log, at, target, narrate.NewAccount(target.Namespace, target.Name))
	if err != nil {
		return err
	}
	held := narrate.Merge(answer.decision.Held)
	if read.output != "" {
		return print(command.OutOrStdout(), read.output, answer.json(held))
	}
	out := command.OutOrStdout()
	printAsked(out, log, answer.account)
	if answer.problem != "" {
		fmt.Fprintf(out, "\n%s\n", answer.problem)
		return nil
	}
	standing := answer.decision.Standing
	if standing != nil {
		fmt.Fprintf(out, "%d of %d Pods, %d available (%d may be unavailable), %d of %d updated, %d of these available\n",
			standing.Pods, standing.Wanted, standing.Available, standing.MaxUnavailable, standing.Updated, standing.WantedUpdated, standing.UpdatedAvailable)
		if standing.Done() && len(held) == 0 {
			fmt.Fprintf(out, "\nDone: nothing is left to do.\n")
			return nil
		}
		if standing.Done() {
			fmt.Fprintf(out, "\nDone, as far as the spec wants it.\n")
		} else {
			fmt.Fprintf(out, "\nNot done.\n")
		}
	}
	printHeld(out, held)
	printRest(out, log, answer, answer.account.Unwell())
	return nil
}

func printAsked(out io.Writer, log *opened, account *narrate.Account) {
	fmt.Fprintf(out, "cloneset/%s in %s", account.Workload.Name, account.Workload.Namespace)
	if edit := account.Asked(); edit != nil {
		fmt.Fprintf(out, ", generation %d since %s\n%8d  %s  %s\n", edit.Generation, log.when(edit.Time), edit.Sequence, clock(edit.Time), edit.What)
		return
	}
	fmt.Fprintln(out)
}

func printHeld(out io.Writer, held []decide.Hold) {
	for _, hold := range held {
		fmt.Fprintf(out, "\n  %s: %s\n", hold.Code, hold.Message)
		line := func(what, text string) { fmt.Fprintf(out, "    %-11s %s\n", what, text) }
		if len(hold.Pods) > 0 {
			line("holds back", narrate.Names(hold.Pods))
		}
		if len(hold.By) > 0 {
			line("waits for", narrate.Names(hold.By))
		}
		if hold.Until != nil {
			line("until", hold.Until.Local().Format(time.TimeOnly))
		}
		if hold.Release != "" {
			line("released by", hold.Release)
		}
	}
}

// printRest shows what the holds rest on: Pods that are not available, and commands under way or due.
func printRest(out io.Writer, log *opened, answer asked, pods []*narrate.Life) {
	const most = 10
	if len(pods) > 0 {
		fmt.Fprintln(out, "\n  Not available:")
		for i, life := range pods {
			if i == most {
				fmt.Fprintf(out, "    and %d more (shiplog timeline cloneset/%s)\n", len(pods)-most, answer.account.Workload.Name)
				break
			}
			now := life.Now()
			text := fmt.Sprintf("    pod/%s  %s since %s, %s", life.Name, now.State, clock(now.From), now.Images)
			if life.Trouble != "" {
				text += ": " + life.Trouble
			}
			fmt.Fprintln(out, text)
		}
	}
	printOpen(out, answer.account.Open())
	printDue(out, answer.decision, answer.account.Sequence)
}

// printOpen shows commands that have no outcome.
func printOpen(out io.Writer, open []*narrate.Step) {
	const most = 10
	if len(open) > 0 {
		fmt.Fprintln(out, "\n  Under way, no outcome yet:")
		for i, step := range open {
			if i == most {
				fmt.Fprintf(out, "    and %d more\n", len(open)-most)
				break
			}
			fmt.Fprintf(out, "    %8d  %s  %s  %s: %s\n", step.Sequence, clock(step.Time), step.What, step.Code, step.Why)
		}
	}
}

// due are the commands of a decision, wishes for ticks left out.
func due(decision decide.Decision) (out []string) {
	for _, next := range decision.Commands {
		if next.GetWakeAt() == nil {
			out = append(out, narrate.Command(next))
		}
	}
	return out
}

func printDue(out io.Writer, decision decide.Decision, position uint64) {
	if due := due(decision); len(due) > 0 {
		fmt.Fprintf(out, "\n  Due: the rules command this on the world of position %d, and no planner had said so by then:\n    %s\n", position, strings.Join(due, "\n    "))
	}
}

// holdsOn picks the holds on a Pod, then those on the Pods that it waits for, and returns the names of these.
func holdsOn(all []decide.Hold, pod string) (held []decide.Hold, by []string) {
	for _, hold := range all {
		if len(hold.Pods) == 0 && len(hold.By) == 0 || slices.Contains(hold.Pods, pod) || len(hold.Pods) == 0 && slices.Contains(hold.By, pod) {
			held = append(held, hold)
			by = append(by, hold.By...)
		}
	}
	of := func(hold decide.Hold) []string {
		if len(hold.Pods) > 0 {
			return hold.Pods
		}
		return hold.By
	}
	for _, hold := range all {
		if !slices.Contains(of(hold), pod) && slices.ContainsFunc(of(hold), func(name string) bool { return slices.Contains(by, name) }) {
			held = append(held, hold)
		}
	}
	return held, by
}

func whyNotUpdated(command *cobra.Command, read *reading, log *opened, at history.Moment, pod history.Target, account *narrate.Account) error {
	answer, err := ask(command, read, log, at, pod, account)
	if err != nil {
		return err
	}
	life := account.Find(pod.Name)
	if life == nil {
		return read.unknown(pod)
	}
	held, by := holdsOn(narrate.Merge(answer.decision.Held), pod.Name)
	if read.output != "" {
		return print(command.OutOrStdout(), read.output, answer.json(held))
	}
	out := command.OutOrStdout()
	now := life.Now()
	printAsked(out, log, account)
	standing := answer.decision.Standing
	switch {
	case !life.Gone.IsZero():
		fmt.Fprintf(out, "\n%s is gone since %s (shiplog why %s says why).\n", pod, log.when(life.Gone), pod)
		return nil
	case answer.problem != "":
		fmt.Fprintf(out, "\n%s\n", answer.problem)
		return nil
	case standing != nil && now.Revision == standing.Revision:
		fmt.Fprintf(out, "\n%s is updated: it has revision %s, %s, and is %s", pod, now.Revision, now.Images, now.State)
		if life.Trouble != "" {
			fmt.Fprint(out, ": ", life.Trouble)
		}
		fmt.Fprintln(out, ".")
		return nil
	}
	wants := ""
	if standing != nil {
		wants = ", revision " + standing.Revision + " is wanted"
	}
	fmt.Fprintf(out, "\n%s is not updated: it has revision %s (%s)%s.\n", pod, now.Revision, now.Images, wants)
	if len(held) == 0 {
		fmt.Fprintln(out, "Nothing holds it back.")
	}
	printHeld(out, held)
	var others []*narrate.Life
	for _, unwell := range account.Unwell() {
		if unwell.Name == pod.Name || slices.Contains(by, unwell.Name) {
			others = append(others, unwell)
		}
	}
	printRest(out, log, answer, others)
	return nil
}
