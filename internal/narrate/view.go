package narrate

import (
	"slices"
	"time"

	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
)

// View is a part of an account: one rollout, or what happened since a time.
type View struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	From      time.Time `json:"from"`
	To        time.Time `json:"to"`
	Steps     []*Step   `json:"steps"`
	// Lives of the Pods that were there at any time of the view, in the order in which they came.
	Lives []*Life `json:"pods"`
	// Limits that held, the first one from before the view or at its beginning.
	Limits []Limit `json:"limits"`
	// Curve of how many Pods there were.
	Curve []Sample `json:"curve"`
}

// Sample counts Pods from a time on.
type Sample struct {
	From time.Time `json:"from"`
	Pods int       `json:"pods"`
	// Available Pods are ready, and have been so for minReadySeconds.
	Available int `json:"available"`
	// Floor is how many were to stay available: the replicas less maxUnavailable, once there have been as many. Pods that
	// are still being added are not missed.
	Floor int `json:"floor"`
	// Wanted is the replicas.
	Wanted int `json:"wanted"`

	reached bool // there have been as many as the floor asks for
}

// View cuts an account at a moment (zero: its beginning) and to one generation (0: all).
func (a *Account) View(since history.Moment, generation int64) View {
	view := View{Namespace: a.Workload.Namespace, Name: a.Workload.Name}
	for _, step := range a.Steps {
		if !since.After(journal.Record{Sequence: step.Sequence, Time: step.Time}) && (generation == 0 || step.Generation == generation) {
			view.Steps = append(view.Steps, step)
		}
	}
	if len(view.Steps) == 0 {
		return view
	}
	view.From, view.To = view.Steps[0].Time, view.Steps[len(view.Steps)-1].Time
	next := slices.IndexFunc(a.Steps, func(s *Step) bool { return generation != 0 && s.Generation > generation })
	if next >= 0 {
		view.To = a.Steps[next].Time
	} else if len(a.Unwell()) > 0 || len(a.Open()) > 0 {
		view.To = a.End // it still goes on
	}
	// A step at the very end must be seen.
	if pad := view.To.Sub(view.From) / 40; next < 0 {
		view.To = view.To.Add(max(pad, 500*time.Millisecond))
	}
	for _, life := range a.Lives {
		if life.Spans[0].From.Before(view.To) && (life.Gone.IsZero() || life.Gone.After(view.From)) {
			view.Lives = append(view.Lives, life)
		}
	}
	for i, limit := range a.Limits {
		if limit.From.Before(view.To) && (i == len(a.Limits)-1 || a.Limits[i+1].From.After(view.From)) {
			view.Limits = append(view.Limits, limit)
		}
	}
	view.Curve = curve(view.Lives, a.Limits, view.From, view.To)
	return view
}

// curve counts Pods at every time at which their number, or what is wanted of it, changed.
func curve(lives []*Life, limits []Limit, from, to time.Time) []Sample {
	type change struct {
		at              time.Time
		pods, available int
		limit           *Limit
	}
	var changes []change
	for i := range limits {
		changes = append(changes, change{at: limits[i].From, limit: &limits[i]})
	}
	for _, life := range lives {
		available := 0
		for i, span := range life.Spans {
			now := 0
			if span.State == Ready {
				now = 1
			}
			one := change{at: span.From, available: now - available}
			if i == 0 {
				one.pods = 1
			}
			changes = append(changes, one)
			available = now
		}
		if !life.Gone.IsZero() {
			changes = append(changes, change{at: life.Gone, pods: -1, available: -available})
		}
	}
	slices.SortStableFunc(changes, func(a, b change) int { return a.at.Compare(b.at) })
	now, target := Sample{From: from}, 0
	out := []Sample{now}
	for i, change := range changes {
		if change.at.After(to) {
			break
		}
		if change.limit != nil {
			target, now.Wanted = max(change.limit.Replicas-change.limit.MaxUnavailable, 0), change.limit.Replicas
		}
		now.Pods, now.Available = now.Pods+change.pods, now.Available+change.available
		if i < len(changes)-1 && changes[i+1].at.Equal(change.at) {
			continue // what changes at one moment is one change
		}
		now.Floor = min(target, max(now.Floor, now.Available))
		now.reached = now.Floor == target
		switch last := &out[len(out)-1]; {
		case !change.at.After(from):
			*last = now
		case now.Pods != last.Pods || now.Available != last.Available || now.Floor != last.Floor || now.Wanted != last.Wanted:
			now.From = change.at
			out = append(out, now)
		}
	}
	return out
}

// SampleAt returns the sample of a time.
func (v *View) SampleAt(at time.Time) Sample {
	for _, sample := range slices.Backward(v.Curve) {
		if !sample.From.After(at) {
			return sample
		}
	}
	return Sample{}
}

// Lowest returns, of the times at which there were fewer available Pods than before, the one that was the furthest below, or
// the least above, how many were to stay available; false: there was none.
func (v *View) Lowest() (lowest Sample, any bool) {
	for i, sample := range v.Curve {
		fell := i > 0 && sample.Available < v.Curve[i-1].Available
		if sample.reached && fell && (!any || sample.Available-sample.Floor < lowest.Available-lowest.Floor) {
			lowest, any = sample, true
		}
	}
	return lowest, any
}

// Piece is a part of an axis. Where nothing happened for long the axis is broken: a long time takes little room.
type Piece struct {
	From, To time.Time
	// Start and Width as shares of the whole axis.
	Start, Width float64
	Broken       bool
}

// Axis maps times to places between 0 and 1.
type Axis []Piece

// Axis returns an axis for the view, broken where nothing happened for long.
func (v *View) Axis() Axis {
	times := []time.Time{v.From, v.To}
	add := func(at time.Time) {
		if at.After(v.From) && at.Before(v.To) {
			times = append(times, at)
		}
	}
	for _, step := range v.Steps {
		if step.Verb != "wake" {
			add(step.Time)
		}
	}
	for _, sample := range v.Curve {
		add(sample.From)
	}
	slices.SortFunc(times, time.Time.Compare)
	busy := time.Duration(0)
	for i := 1; i < len(times); i++ {
		if gap := times[i].Sub(times[i-1]); gap <= time.Minute {
			busy += gap
		}
	}
	longest := max(5*time.Second, busy/2)
	var axis Axis
	total := 0.0
	for i := 1; i < len(times); i++ {
		gap := times[i].Sub(times[i-1])
		piece := Piece{From: times[i-1], To: times[i], Start: total, Width: gap.Seconds()}
		if gap > longest {
			piece.Broken, piece.Width = true, longest.Seconds()/5
		}
		total += piece.Width
		if last := len(axis) - 1; last >= 0 && !piece.Broken && !axis[last].Broken {
			axis[last].To, axis[last].Width = piece.To, axis[last].Width+piece.Width
			continue
		}
		axis = append(axis, piece)
	}
	for i := range axis {
		axis[i].Start, axis[i].Width = axis[i].Start/total, axis[i].Width/total
	}
	return axis
}

// Place of a time, cut to the axis.
func (a Axis) Place(at time.Time) float64 {
	for _, piece := range a {
		if at.Before(piece.To) {
			return piece.Start + piece.Width*max(0, at.Sub(piece.From).Seconds()/piece.To.Sub(piece.From).Seconds())
		}
	}
	return 1
}

// Time at a place.
func (a Axis) Time(place float64) time.Time {
	for _, piece := range a {
		if place < piece.Start+piece.Width {
			return piece.From.Add(time.Duration((place - piece.Start) / piece.Width * float64(piece.To.Sub(piece.From))))
		}
	}
	return a[len(a)-1].To
}

// steps between the marks of an axis that people can read.
var marks = []time.Duration{
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second,
	30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour,
}

// Marks are round times to write at the axis, about as many as asked for.
func (a Axis) Marks(about int) []time.Time {
	seconds := 0.0 // of the whole axis, were it as fine as in its pieces that are not broken
	for _, piece := range a {
		if !piece.Broken && piece.Width > 0 {
			seconds = piece.To.Sub(piece.From).Seconds() / piece.Width
			break
		}
	}
	step := marks[len(marks)-1]
	for _, mark := range marks {
		if mark.Seconds()*float64(about) >= seconds {
			step = mark
			break
		}
	}
	var out []time.Time
	for _, piece := range a {
		if piece.Broken {
			continue
		}
		for at := piece.From.Truncate(step); !at.After(piece.To); at = at.Add(step) {
			if !at.Before(piece.From) {
				out = append(out, at)
			}
		}
	}
	return out
}
