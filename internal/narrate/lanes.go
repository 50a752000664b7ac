package narrate

import (
	"fmt"
	"strings"
	"time"
)

// Looks of states in a terminal: a character, and a colour of the 256.
var looks = map[State]struct {
	sign   rune
	colour int
}{
	Starting: {'░', 245}, Ready: {'█', 35}, Settling: {'▓', 71}, Held: {'h', 179}, Updating: {'▒', 214}, NotReady: {'▁', 203}, Failing: {'x', 196},
	Terminating: {'·', 240}, Finished: {'-', 240},
}

// urgency is the order in which states win a column that they share.
var urgency = []State{Failing, Updating, NotReady, Terminating, Starting, Held, Settling, Ready, Finished}

// bars from empty to full.
var bars = []rune(" ▁▂▃▄▅▆▇█")

// Lanes draws a view for a terminal of a width in columns: how many Pods were available over time, and a lane for each Pod.
func Lanes(v View, width int, colours bool) string {
	var out strings.Builder
	axis := v.Axis()
	label := len("available")
	for _, life := range v.Lives {
		label = max(label, len(life.Name))
	}
	columns := max(width-label-2, 20)
	newest := ""
	for _, life := range v.Lives {
		newest = life.Now().Revision // the youngest Pod has it, unless a partition keeps it old
	}
	paint := func(sign rune, colour int) string {
		if !colours || sign == ' ' {
			return string(sign)
		}
		return fmt.Sprintf("\x1b[38;5;%dm%c\x1b[0m", colour, sign)
	}
	row := func(name string, cell func(column int) string) {
		fmt.Fprintf(&out, "%-*s  ", label, name)
		for column := range columns {
			out.WriteString(cell(column))
		}
		out.WriteByte('\n')
	}
	row("available", func(column int) string {
		sample := v.least(axis, column, columns)
		colour := 35
		if sample.Available < sample.Floor {
			colour = 196
		}
		full := len(bars) - 1
		return paint(bars[min(sample.Available*full/max(sample.Wanted, 1), full)], colour)
	})
	for _, life := range v.Lives {
		row(life.Name, func(column int) string {
			span, there := life.in(axis, column, columns)
			if !there {
				return " "
			}
			look := looks[span.State]
			if span.State == Ready && newest != "" && span.Revision != newest {
				look.sign, look.colour = '▄', 67
			}
			return paint(look.sign, look.colour)
		})
	}
	// The axis: a mark and the time of day, where there is room.
	line := []rune(strings.Repeat(" ", columns))
	free := 0
	for _, at := range axis.Marks(columns / 14) {
		column := min(int(axis.Place(at)*float64(columns)), columns-1)
		text := []rune("|" + at.Local().Format(time.TimeOnly))
		if column < free || column+len(text) > columns {
			continue
		}
		copy(line[column:], text)
		free = column + len(text) + 1
	}
	fmt.Fprintf(&out, "%-*s  %s\n", label, "", strings.TrimRight(string(line), " "))
	for _, piece := range axis {
		if piece.Broken {
			fmt.Fprintf(&out, "%-*s  nothing happened from %s to %s: drawn shorter\n", label, "", piece.From.Local().Format(time.TimeOnly), piece.To.Local().Format(time.TimeOnly))
		}
	}
	fmt.Fprintf(&out, "%-*s  ░ starting  ▒ updating in place  ▁ not ready  x failing  ▓ ready, not available  h held  █ available  ▄ available, other revision  · terminating\n", label, "")
	if lowest, any := v.Lowest(); any {
		fmt.Fprintf(&out, "%-*s  at the lowest %d of %d Pods were available (%s); %d were to stay\n", label, "", lowest.Available, lowest.Wanted,
			lowest.From.Local().Format(time.TimeOnly), lowest.Floor)
	}
	return out.String()
}

// bounds are the times of a column.
func bounds(axis Axis, column, columns int) (from, to time.Time) {
	return axis.Time(float64(column) / float64(columns)), axis.Time(float64(column+1) / float64(columns))
}

// least is the sample with the fewest available Pods in a column.
func (v *View) least(axis Axis, column, columns int) Sample {
	from, to := bounds(axis, column, columns)
	least := v.SampleAt(from)
	for _, sample := range v.Curve {
		if sample.From.After(from) && sample.From.Before(to) && sample.Available < least.Available {
			least = sample
		}
	}
	return least
}

// in returns the span of the most urgent state of a Pod in a column.
func (l *Life) in(axis Axis, column, columns int) (out Span, there bool) {
	from, to := bounds(axis, column, columns)
	rank := len(urgency)
	for i, span := range l.Spans {
		end := l.Gone
		if i < len(l.Spans)-1 {
			end = l.Spans[i+1].From
		}
		if !span.From.Before(to) || !end.IsZero() && !end.After(from) {
			continue
		}
		for r, state := range urgency {
			if state == span.State && r <= rank {
				out, rank, there = span, r, true
			}
		}
	}
	return out, there
}
