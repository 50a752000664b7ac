// Package redact takes out of entries what others need not see: the values of env entries, annotations whose keys match a
// pattern, what is known of Secrets, and the names of users. The same value becomes the same placeholder everywhere, so that what was equal stays
// equal, and rules, which compare values and read none of these, decide as they did. It reads and writes no file.
package redact

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/world"
	"shiplog.dev/services/planner/decide/cloneset"
)

// Annotations are the patterns of keys whose values are replaced unless others are given; "*" stands for anything, "/" too.
var Annotations = []string{"kubectl.kubernetes.io/last-applied-configuration", "*password*", "*secret*", "*token*", "*credential*", "*apikey*", "*api-key*"}

const (
	// ownEnv begins the names of env entries that rules read and that hold no secret (launch priority).
	ownEnv = "KRUISE_"
	// shortest is how long a value must be, in bytes, to be looked for inside sentences; shorter ones would hit by chance.
	shortest = 5
	// mostValues bounds how many values are looked for inside sentences.
	mostValues = 2000
	// maxCollisions is how many names are tried for a revision.
	maxCollisions = 32
)

// Redactor replaces values. It must be shown the entries in order. It is not safe for concurrent use.
type Redactor struct {
	key      []byte
	patterns []string
	// values that were replaced, with what, old and new in turn, for sentences that quote them.
	values []string
	known  map[string]bool
	inText *strings.Replacer
	// renamed are the hashes of revisions, which follow from templates: a redacted template has another hash, and the revision
	// that is created for it another name.
	renamed *strings.Replacer
	names   []string
}

// New returns a redactor. Placeholders depend on the key: without it nobody can tell whether a guessed value is right, so it
// should be random and forgotten. Errors: a pattern that is malformed.
func New(key []byte, annotations []string) (*Redactor, error) {
	for _, pattern := range annotations {
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, fmt.Errorf("pattern of annotations %q: %w", pattern, err)
		}
	}
	return &Redactor{key: key, patterns: annotations, known: map[string]bool{}}, nil
}

// Entry returns an entry without what is to be hidden. The one given is not changed.
func (r *Redactor) Entry(entry *shiplogv1.Entry) (*shiplogv1.Entry, error) {
	out := proto.CloneOf(entry)
	var err error
	switch kind := out.GetKind().(type) {
	case *shiplogv1.Entry_ObjectObserved:
		seen := kind.ObjectObserved
		seen.Json, err = r.object(seen.GetObject(), seen.GetJson())
		r.ref(seen.GetObject())
	case *shiplogv1.Entry_ObjectDeleted:
		r.ref(kind.ObjectDeleted.GetObject())
	case *shiplogv1.Entry_Admitted:
		kind.Admitted.User = r.user(kind.Admitted.GetUser())
		r.ref(kind.Admitted.GetObject())
	case *shiplogv1.Entry_Command:
		command := kind.Command
		switch effect := command.GetEffect().(type) {
		case *shiplogv1.Command_Create:
			before := effect.Create.GetJson()
			if effect.Create.Json, err = r.object(command.GetObject(), before); err == nil && command.GetObject().GetResource() == world.ResourceRevisions {
				r.rename(command.GetObject().GetName(), before, effect.Create.Json)
				effect.Create.Json = []byte(r.name(string(effect.Create.Json)))
			}
		case *shiplogv1.Command_Patch:
			effect.Patch.Json, err = r.object(command.GetObject(), effect.Patch.GetJson())
		}
		r.ref(command.GetObject())
		r.ref(command.GetNeeds())
		r.reason(command.GetReason())
	case *shiplogv1.Entry_RolloutEvent:
		event := kind.RolloutEvent
		event.Data, err = r.object(event.GetWorkload(), event.GetData())
	case *shiplogv1.Entry_Outcome:
		r.ref(kind.Outcome.GetObject())
		r.reason(kind.Outcome.GetReason())
	}
	if err != nil {
		return nil, fmt.Errorf("redact an entry of %s: %w", entry.GetWriter(), err)
	}
	return out, nil
}

// Foresee takes note of an entry that Entry will be shown later: a rollout event may name a revision before it is created.
func (r *Redactor) Foresee(entry *shiplogv1.Entry) error {
	command := entry.GetCommand()
	before := command.GetCreate().GetJson()
	if len(before) == 0 || command.GetObject().GetResource() != world.ResourceRevisions {
		return nil
	}
	after, err := r.object(command.GetObject(), before)
	if err != nil {
		return fmt.Errorf("redact an entry of %s: %w", entry.GetWriter(), err)
	}
	r.rename(command.GetObject().GetName(), before, after)
	return nil
}

func (r *Redactor) ref(ref *shiplogv1.ObjectRef) {
	if ref != nil {
		ref.Name = r.name(ref.GetName())
	}
}

func (r *Redactor) reason(reason *shiplogv1.Reason) {
	if reason != nil {
		reason.Message = r.name(r.text(reason.GetMessage()))
	}
}

// name puts in the new hashes of revisions.
func (r *Redactor) name(text string) string {
	if r.renamed == nil {
		return text
	}
	return r.renamed.Replace(text)
}

// text replaces values that a sentence quotes.
func (r *Redactor) text(text string) string {
	if r.inText == nil {
		if len(r.values) == 0 {
			return text
		}
		r.inText = strings.NewReplacer(r.values...)
	}
	return r.inText.Replace(text)
}

// user returns a placeholder for the name of a user. Those of the system say nothing of a person, and stay.
func (r *Redactor) user(name string) string {
	if strings.HasPrefix(name, "system:") {
		return name
	}
	return "user-" + r.digest(name)
}

func (r *Redactor) digest(value string) string {
	mac := hmac.New(sha256.New, r.key)
	mac.Write([]byte(value))
	return hex.EncodeToString(mac.Sum(nil)[:6])
}

func (r *Redactor) placeholder(value string) string {
	out := "redacted-" + r.digest(value)
	if len(value) >= shortest && !r.known[value] && len(r.values) < 2*mostValues {
		r.known[value] = true
		r.values = append(r.values, value, out)
		r.inText = nil
	}
	return out
}

// rename notes the hash that a redacted revision has.
func (r *Redactor) rename(name string, before, after []byte) {
	was, is := revisionData(before), revisionData(after)
	if bytes.Equal(was, is) {
		return
	}
	for collisions := range int32(maxCollisions) {
		if old := cloneset.Hash(was, collisions); strings.HasSuffix(name, "-"+old) && !slices.Contains(r.names, old) {
			r.names = append(r.names, old, cloneset.Hash(is, collisions))
			r.renamed = strings.NewReplacer(r.names...)
			return
		}
	}
}

func revisionData(object []byte) []byte {
	var wire struct {
		Data json.RawMessage `json:"data"`
	}
	_ = json.Unmarshal(object, &wire) // it has just been read
	return wire.Data
}

// object redacts the JSON of an object, or a patch of one.
func (r *Redactor) object(ref *shiplogv1.ObjectRef, data []byte) ([]byte, error) {
	if len(data) == 0 {
		return data, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return nil, fmt.Errorf("read the JSON of %s: %w", world.RefOf(ref), err)
	}
	if object, is := tree.(map[string]any); is && ref.GetGroup() == "" && ref.GetResource() == "secrets" {
		for field, value := range object {
			if field != "metadata" && field != "kind" && field != "apiVersion" {
				whole, _ := json.Marshal(value)
				object[field] = r.placeholder(string(whole))
			}
		}
	}
	out, err := json.Marshal(r.value("", tree))
	return []byte(r.name(string(out))), err
}

// value redacts what is below a field.
func (r *Redactor) value(field string, value any) any {
	switch value := value.(type) {
	case map[string]any:
		for key, child := range value {
			switch text, is := child.(string); {
			case field == "annotations" && is:
				value[key] = r.annotation(key, text)
			case key == "message" && is:
				value[key] = r.text(text)
			default:
				value[key] = r.value(key, child)
			}
		}
		r.jsonPatch(value)
		return value
	case []any:
		for i, child := range value {
			if variable, is := child.(map[string]any); is && field == "env" {
				r.variable(variable)
			}
			value[i] = r.value(field, child)
		}
		return value
	}
	return value
}

func (r *Redactor) variable(variable map[string]any) {
	name, _ := variable["name"].(string)
	if text, is := variable["value"].(string); is && text != "" && !strings.HasPrefix(name, ownEnv) {
		variable["value"] = r.placeholder(text)
	}
}

// jsonPatch redacts an operation of RFC 6902 on an env entry or an annotation.
func (r *Redactor) jsonPatch(operation map[string]any) {
	at, _ := operation["path"].(string)
	text, is := operation["value"].(string)
	if _, op := operation["op"].(string); !op || !is {
		return
	}
	if _, key, below := strings.Cut(at, "/annotations/"); below {
		operation["value"] = r.annotation(strings.NewReplacer("~1", "/", "~0", "~").Replace(key), text)
	} else if strings.Contains(at, "/env/") && strings.HasSuffix(at, "/value") {
		operation["value"] = r.placeholder(text)
	}
}

// annotation redacts the value of an annotation: all of it if the key matches, else what is inside if it is JSON.
func (r *Redactor) annotation(key, text string) string {
	for _, pattern := range r.patterns {
		if matches(pattern, key) {
			return r.placeholder(text)
		}
	}
	if len(text) == 0 || text[0] != '{' && text[0] != '[' {
		return text
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var tree any
	if decoder.Decode(&tree) != nil {
		return text
	}
	before, _ := json.Marshal(tree)
	if after, err := json.Marshal(r.value("", tree)); err == nil && !bytes.Equal(before, after) {
		return string(after)
	}
	return text
}

// matches is path.Match on lower case, but "*" also stands for slashes.
func matches(pattern, key string) bool {
	flat := strings.NewReplacer("/", "\x00")
	is, _ := path.Match(flat.Replace(strings.ToLower(pattern)), flat.Replace(strings.ToLower(key)))
	return is
}
