package main

import (
	"encoding/json"
	"io"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"shiplog.dev/internal/journal"
)

// printJSON writes one entry as one line of JSON.
func printJSON(out io.Writer, record journal.Record) error {
	entry, err := protojson.Marshal(record.Entry)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(struct {
		Sequence uint64          `json:"sequence"`
		Time     time.Time       `json:"time"`
		Subject  string          `json:"subject"`
		Entry    json.RawMessage `json:"entry"`
	}{record.Sequence, record.Time, record.Subject, entry})
}
