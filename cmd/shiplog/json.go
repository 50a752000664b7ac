package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/narrate"
)

// entryJSON is one entry for pipes: what one selects by stands in front, the whole entry behind.
type entryJSON struct {
	Sequence  uint64         `json:"sequence"`
	Time      time.Time      `json:"time"`
	Type      string         `json:"type"`
	Namespace string         `json:"namespace,omitempty"`
	Resource  string         `json:"resource,omitempty"`
	Name      string         `json:"name,omitempty"`
	Reason    string         `json:"reason,omitempty"`
	Text      string         `json:"text"`
	Subject   string         `json:"subject"`
	Entry     map[string]any `json:"entry"`
}

// printEntry writes one entry as one line of JSON.
func printEntry(out io.Writer, record journal.Record) error {
	entry, err := tree(record.Entry)
	if err != nil {
		return fmt.Errorf("write entry %d as JSON: %w", record.Sequence, err)
	}
	ref, _ := history.ObjectOf(record.Entry)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(entryJSON{
		record.Sequence, record.Time, history.TypeOf(record.Entry), ref.Namespace, ref.Resource, ref.Name, history.ReasonOf(record.Entry),
		narrate.Entry(record.Entry), record.Subject, entry,
	})
}

// tree is an entry as protobuf writes it in JSON, but with the objects inside as the JSON that they are.
func tree(entry *shiplogv1.Entry) (map[string]any, error) {
	data, err := protojson.Marshal(entry)
	if err != nil {
		return nil, err
	}
	var out map[string]any
	if err := json.Unmarshal(data, &out); err != nil {
		return nil, err
	}
	if observed := entry.GetObjectObserved(); observed != nil {
		setJSON(out["objectObserved"], observed.GetJson())
	}
	if command := entry.GetCommand(); command != nil {
		held, _ := out["command"].(map[string]any)
		setJSON(held["create"], command.GetCreate().GetJson())
		setJSON(held["patch"], command.GetPatch().GetJson())
	}
	if event, is := out["rolloutEvent"].(map[string]any); is {
		event["data"] = json.RawMessage(entry.GetRolloutEvent().GetData())
	}
	return out, nil
}

func setJSON(message any, object []byte) {
	if held, is := message.(map[string]any); is && json.Valid(object) {
		held["json"] = json.RawMessage(object)
	}
}
