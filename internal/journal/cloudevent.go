package journal

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/api/rolloutevent"
)

const (
	eventType   = "dev.shiplog.rollout."
	eventSource = "/shiplog/clusters/"
)

// cloudEvent is a rollout event as subscribers see it: CloudEvents 1.0, JSON format. The attributes after DataSchema are
// extensions. CloudEvents' integers end at 2^31, so positions are strings.
type cloudEvent struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject"`
	Time            time.Time       `json:"time"`
	DataContentType string          `json:"datacontenttype"`
	DataSchema      string          `json:"dataschema"`
	Cause           string          `json:"cause"`
	Rollout         string          `json:"rollout"`
	Kind            string          `json:"kind"`
	Writer          string          `json:"writer,omitempty"`
	WriterVersion   string          `json:"writerversion,omitempty"`
	Data            json.RawMessage `json:"data"`
}

// EventID returns the identity of a rollout event. The time in it keeps a log that is begun anew from giving an id again.
func EventID(entry *shiplogv1.Entry) string {
	event := entry.GetRolloutEvent()
	return fmt.Sprintf("%d.%d.%x", entry.GetCause(), event.GetIndex(), event.GetTime().AsTime().UnixMilli())
}

// CloudEvent returns a rollout event as the log of cluster holds it.
func CloudEvent(cluster string, entry *shiplogv1.Entry) ([]byte, error) {
	event := entry.GetRolloutEvent()
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(cloudEvent{
		SpecVersion: "1.0", ID: EventID(entry), Source: eventSource + url.PathEscape(cluster), Type: eventType + event.GetType(),
		Subject: apiPath(event.GetWorkload()), Time: event.GetTime().AsTime(),
		DataContentType: "application/json", DataSchema: rolloutevent.Schema(event.GetType()),
		Cause: strconv.FormatUint(entry.GetCause(), 10), Rollout: entry.GetRollout(), Kind: event.GetKind(),
		Writer: entry.GetWriter(), WriterVersion: entry.GetWriterVersion(), Data: event.GetData(),
	})
	if err != nil {
		return nil, fmt.Errorf("encode a rollout event of %s: %w", entry.GetWriter(), err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// decodeEvent is the inverse of CloudEvent.
func decodeEvent(data []byte) (*shiplogv1.Entry, error) {
	var c cloudEvent
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("no CloudEvent: %w", err)
	}
	if c.SpecVersion != "1.0" {
		return nil, fmt.Errorf("specversion %q: 1.0 is read", c.SpecVersion)
	}
	kind, ours := strings.CutPrefix(c.Type, eventType)
	if !ours {
		return nil, fmt.Errorf("type %q: does not begin with %s", c.Type, eventType)
	}
	cause, err := strconv.ParseUint(c.Cause, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("cause %q: not a position", c.Cause)
	}
	parts := strings.Split(c.ID, ".")
	if len(parts) != 3 || parts[0] != c.Cause {
		return nil, fmt.Errorf("id %q: does not begin with the cause %s", c.ID, c.Cause)
	}
	index, err := strconv.ParseUint(parts[1], 10, 32)
	if err != nil {
		return nil, fmt.Errorf("id %q: no index after the cause", c.ID)
	}
	workload, err := parseAPIPath(c.Subject)
	if err != nil {
		return nil, fmt.Errorf("subject %q: %w", c.Subject, err)
	}
	workload.Uid, _, _ = strings.Cut(c.Rollout, "/")
	return &shiplogv1.Entry{
		Writer: c.Writer, WriterVersion: c.WriterVersion, Cause: cause, Rollout: c.Rollout, Skippable: true,
		Kind: &shiplogv1.Entry_RolloutEvent{RolloutEvent: &shiplogv1.RolloutEvent{
			Index: uint32(index), Type: kind, Kind: c.Kind, Workload: workload, Time: timestamppb.New(c.Time), Data: c.Data,
		}},
	}, nil
}

// apiPath is the path of an object at the API server.
func apiPath(o *shiplogv1.ObjectRef) string {
	path := "/api/" + o.GetVersion()
	if o.GetGroup() != "" {
		path = "/apis/" + o.GetGroup() + "/" + o.GetVersion()
	}
	if o.GetNamespace() != "" {
		path += "/namespaces/" + url.PathEscape(o.GetNamespace())
	}
	return path + "/" + o.GetResource() + "/" + url.PathEscape(o.GetName())
}

func parseAPIPath(path string) (*shiplogv1.ObjectRef, error) {
	parts := strings.Split(path, "/")
	for i, part := range parts {
		var err error
		if parts[i], err = url.PathUnescape(part); err != nil {
			return nil, err
		}
	}
	o := new(shiplogv1.ObjectRef)
	switch {
	case len(parts) > 3 && parts[0] == "" && parts[1] == "apis":
		o.Group, o.Version, parts = parts[2], parts[3], parts[4:]
	case len(parts) > 2 && parts[0] == "" && parts[1] == "api":
		o.Version, parts = parts[2], parts[3:]
	default:
		return nil, errors.New("not the path of an object at the API server")
	}
	if len(parts) == 4 && parts[0] == "namespaces" {
		o.Namespace, parts = parts[1], parts[2:]
	}
	if len(parts) != 2 {
		return nil, errors.New("not the path of an object at the API server")
	}
	o.Resource, o.Name = parts[0], parts[1]
	return o, nil
}
