package object

import (
	"bytes"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// ownManager is how the field managers of this program's writes begin.
const ownManager = "shiplog"

// Manager is the field manager of what commands write. The API server takes it from the executor's user agent.
const Manager = "shiplog-executor"

// lastChange is the newest entry of managedFields that is not about the status. Its fields are raw JSON strings, quotes
// included, that point into the object.
type lastChange struct {
	manager, operation, subresource, time, scaledBy []byte
	// written is when a command wrote the object last, its status included.
	written []byte
}

// read walks managedFields at i and returns where they end. Entries that are not objects are passed over.
func (l *lastChange) read(raw []byte, i int) (int, error) {
	return Elements(raw, i, func(start int) (int, error) {
		if start >= len(raw) || raw[start] != '{' {
			return Skip(raw, start)
		}
		var one lastChange
		end, err := Members(raw, start, func(name []byte, at int) (int, error) {
			end, err := Skip(raw, at)
			if err != nil {
				return 0, err
			}
			switch string(name) {
			case "manager":
				one.manager = raw[at:end]
			case "operation":
				one.operation = raw[at:end]
			case "subresource":
				one.subresource = raw[at:end]
			case "time":
				one.time = raw[at:end]
			}
			return end, nil
		})
		if string(one.subresource) == `"scale"` {
			l.scaledBy = one.manager // who changes them otherwise takes them from this manager, and its entry goes
		}
		if err == nil && text(one.manager) == Manager && bytes.Compare(one.time, l.written) > 0 {
			l.written = one.time
		}
		if err == nil && one.newerThan(l) {
			one.scaledBy, one.written = l.scaledBy, l.written
			*l = one
		}
		return end, err
	})
}

// newerThan compares times, which are all written in one way and in UTC. Of two in one second the one that is not ours counts.
func (l *lastChange) newerThan(held *lastChange) bool {
	if string(l.subresource) == `"status"` || string(l.subresource) == `"scale"` && l.time == nil {
		return false
	}
	order := bytes.Compare(l.time, held.time)
	return order > 0 || held.manager == nil || order == 0 && held.ours() && !l.ours()
}

func (l *lastChange) ours() bool { return strings.HasPrefix(text(l.manager), ownManager) }

func (l *lastChange) message() *shiplogv1.LastChange {
	if text(l.manager) == "" && l.scaledBy == nil {
		return nil
	}
	out := &shiplogv1.LastChange{Manager: text(l.manager), Operation: text(l.operation), Subresource: text(l.subresource), ScaledBy: text(l.scaledBy)}
	if at := parseTime(l.time); !at.IsZero() {
		out.Time = timestamppb.New(at)
	}
	return out
}

// parseTime reads a raw JSON string; zero: it is no time.
func parseTime(raw []byte) time.Time {
	at, err := time.Parse(time.RFC3339, text(raw))
	if err != nil {
		return time.Time{}
	}
	return at
}

// text takes the quotes off a raw JSON string. Managers with escapes in their names keep them.
func text(raw []byte) string {
	if len(raw) < 2 || raw[0] != '"' {
		return ""
	}
	return strings.ToValidUTF8(string(raw[1:len(raw)-1]), "\uFFFD")
}
