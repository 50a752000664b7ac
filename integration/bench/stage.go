package main

import (
	"encoding/json"
	"math"
	"slices"
	"time"
)

// stage is a part of the way from a change of a spec to a write, as a histogram.
type stage struct {
	Name string `json:"name"`
	// Counts of durations, by the bounds above them; the last is of those beyond all bounds.
	Counts []int `json:"counts"`
	// Of all durations, in milliseconds.
	P50 float64 `json:"p50ms"`
	P99 float64 `json:"p99ms"`
	Max float64 `json:"maxms"`

	took []time.Duration
}

// bounds of the buckets, in milliseconds.
var bounds = []float64{0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000}

// newStages are the stages in their order; the last is of all up to the write.
func newStages() []stage {
	return []stage{
		{Name: "API server takes the change → fact in the log"},
		{Name: "fact → command in the log"},
		{Name: "command → API server takes the write"},
		{Name: "write → outcome in the log"},
		{Name: "from the change to the write"},
	}
}

func (s *stage) add(took time.Duration) { s.took = append(s.took, took) }

// MarshalJSON writes what the durations come to.
func (s stage) MarshalJSON() ([]byte, error) {
	type plain stage
	if len(s.took) > 0 {
		sorted := slices.Sorted(slices.Values(s.took))
		ms := func(i int) float64 { return math.Round(float64(sorted[i])/1e4) / 100 }
		s.P50, s.P99, s.Max = ms((len(sorted)-1)/2), ms((len(sorted)-1)*99/100), ms(len(sorted)-1)
		s.Counts = make([]int, len(bounds)+1)
		for _, took := range sorted {
			i, _ := slices.BinarySearch(bounds, float64(took)/float64(time.Millisecond))
			s.Counts[i]++
		}
	}
	return json.Marshal(plain(s))
}

func generationOf(object []byte) int64 {
	var held struct {
		Metadata struct{ Generation int64 }
	}
	_ = json.Unmarshal(object, &held) // 0 is no generation
	return held.Metadata.Generation
}
