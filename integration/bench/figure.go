package main

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
)

// figure is one line of a table of budgets.
type figure struct {
	What  string  `json:"what"`
	Floor float64 `json:"floor,omitempty"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Ratio of value and floor; where there is a floor, the budget is of the ratio.
	Ratio float64 `json:"ratio,omitempty"`
	// AtMost or AtLeast is the budget; neither: there is none.
	AtMost  *float64 `json:"atMost,omitempty"`
	AtLeast *float64 `json:"atLeast,omitempty"`
}

func (f figure) atMost(budget float64) figure  { f.AtMost = &budget; return f }
func (f figure) atLeast(budget float64) figure { f.AtLeast = &budget; return f }

// budget says what the figure may be; empty: anything.
func (f figure) budget() string {
	switch {
	case f.AtMost != nil:
		return "at most " + short(*f.AtMost)
	case f.AtLeast != nil:
		return "at least " + short(*f.AtLeast)
	}
	return ""
}

// verdict says whether the budget holds; empty: there is none.
func (f figure) verdict() string {
	judged := f.Value
	if f.Floor > 0 {
		judged = f.Ratio
	}
	switch {
	case f.AtMost == nil && f.AtLeast == nil:
		return ""
	case f.AtMost != nil && judged > *f.AtMost, f.AtLeast != nil && judged < *f.AtLeast:
		return "no"
	}
	return "yes"
}

// figures are the lines of a run, and where they go.
type figures struct {
	jsonFile string
	lines    []figure
}

func (f *figures) add(line figure) { f.lines = append(f.lines, line) }

// print shows the lines, and writes them to the file that was asked for.
func (f *figures) print(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "WHAT\tFLOOR\tSHIPLOG\tUNIT\tRATIO\tBUDGET\tHOLDS")
	for _, line := range f.lines {
		floor, ratio := "", ""
		if line.Floor > 0 {
			floor, ratio = short(line.Floor), short(line.Ratio)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", line.What, floor, short(line.Value), line.Unit, ratio, line.budget(), line.verdict())
	}
	if err := table.Flush(); err != nil || f.jsonFile == "" {
		return err
	}
	return save(measured{Figures: f.lines}, f.jsonFile)
}

// measured is what the benches of images and of a long log leave.
type measured struct {
	Figures []figure `json:"figures"`
}

// short is a number with three digits that count, and thousands set apart.
func short(value float64) string {
	switch magnitude := max(value, -value); {
	case value == float64(int64(value)) && magnitude < 1000, magnitude >= 100 && magnitude < 1000:
		return strconv.FormatFloat(value, 'f', 0, 64)
	case magnitude >= 1000:
		digits := strconv.FormatFloat(value, 'f', 0, 64)
		for at := len(digits) - 3; at > 0 && digits[at-1] != '-'; at -= 3 {
			digits = digits[:at] + "," + digits[at:]
		}
		return digits
	case magnitude >= 10:
		return strconv.FormatFloat(value, 'f', 1, 64)
	case magnitude >= 1:
		return strconv.FormatFloat(value, 'f', 2, 64)
	}
	return strconv.FormatFloat(value, 'g', 2, 64)
}
