package scenario

import (
	"fmt"
	"strings"
	"time"

	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/narrate"
	"shiplog.dev/internal/world"
)

// account is what the tools tell about the CloneSet web.
func (c *cluster) account() *narrate.Account {
	account := narrate.NewAccount("default", "web")
	for _, r := range c.entries {
		if !account.Concerns(r.entry) {
			continue
		}
		if err := account.Show(journal.Record{Sequence: r.sequence, Time: r.time, Entry: r.entry}); err != nil {
			c.t.Fatal(err)
		}
	}
	return account
}

func (c *cluster) tellWhy(pod string) string {
	var out strings.Builder
	account := c.account()
	life := account.Find(c.real(pod))
	if life == nil {
		return "unknown\n"
	}
	fmt.Fprintf(&out, "%s is %s %s\n", pod, life.Now().State, life.Trouble)
	for _, chain := range narrate.Chains(account.Story(c.real(pod)).Steps) {
		fmt.Fprintf(&out, "%s at %s\n", chain.Title, chain.At().Format(time.TimeOnly))
		for _, link := range chain.Links {
			fmt.Fprintf(&out, "  %3d %s %-8s %s\n", link.Sequence, link.Time.Format(time.TimeOnly), link.Role, link.Text)
		}
	}
	return c.alias(out.String())
}

func (c *cluster) tellTimeline() string {
	var out strings.Builder
	view := c.account().View(history.Moment{}, 0)
	for _, step := range view.Steps {
		if step.Tick || step.Verb == world.Wake {
			continue
		}
		fmt.Fprintf(&out, "%3d %s %s", step.Sequence, step.Time.Format(time.TimeOnly), step.What)
		if step.Code != "" {
			fmt.Fprintf(&out, "  %s: %s  %s", step.Code, step.Why, step.Outcome)
		}
		out.WriteByte('\n')
	}
	for _, sample := range view.Curve {
		fmt.Fprintf(&out, "%s %d of %d available, %d wanted, %d to stay\n", sample.From.Format(time.TimeOnly), sample.Available, sample.Pods, sample.Wanted, sample.Floor)
	}
	return c.alias(out.String())
}
