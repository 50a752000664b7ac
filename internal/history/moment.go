package history

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"shiplog.dev/internal/journal"
)

// Moment is a place in a log: a position or a time. The zero Moment is none.
type Moment struct {
	Sequence uint64
	Time     time.Time
}

// Before says whether an entry came after the moment. No entry comes after the zero Moment.
func (m Moment) Before(record journal.Record) bool {
	return m.Sequence > 0 && record.Sequence > m.Sequence || !m.Time.IsZero() && record.Time.After(m.Time)
}

// After says whether the moment lies after an entry.
func (m Moment) After(record journal.Record) bool {
	return m.Sequence > record.Sequence || m.Time.After(record.Time)
}

// Forms of a moment, for help texts.
const Forms = "a position (1234), a time ago (-2h), a time of day (14:03, 14:03:22), or a date and time (2026-01-15 14:03, RFC 3339)"

// layouts of a time of day and of a date, most precise first.
var (
	clocks = []string{"15:04:05.999999999", "15:04"}
	dates  = []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"}
)

// ParseMoment reads a moment as people write it. end is the latest moment that can be meant, in the zone that is meant:
// times ago count back from it, and a time of day is the newest one that is not after it. An empty text is the zero Moment.
func ParseMoment(text string, end time.Time) (Moment, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return Moment{}, nil
	}
	if sequence, err := strconv.ParseUint(strings.TrimPrefix(text, "#"), 10, 64); err == nil && sequence > 0 {
		return Moment{Sequence: sequence}, nil
	}
	if ago, err := time.ParseDuration(strings.TrimPrefix(text, "-")); err == nil {
		return Moment{Time: end.Add(-ago)}, nil
	}
	for _, layout := range clocks {
		if clock, err := time.Parse(layout, text); err == nil {
			day := time.Date(end.Year(), end.Month(), end.Day(), clock.Hour(), clock.Minute(), clock.Second(), clock.Nanosecond(), end.Location())
			if day.After(end) {
				day = day.AddDate(0, 0, -1)
			}
			return Moment{Time: day}, nil
		}
	}
	for _, layout := range dates {
		if at, err := time.ParseInLocation(layout, text, end.Location()); err == nil {
			return Moment{Time: at}, nil
		}
	}
	return Moment{}, fmt.Errorf("%q is no moment: give %s", text, Forms)
}
