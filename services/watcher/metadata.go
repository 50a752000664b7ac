package watcher

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"shiplog.dev/internal/object"
)

// asMetadata asks for a list of nothing but metadata, in the API server's protobuf.
const asMetadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

// Field numbers of k8s.io/apimachinery: runtime.Unknown, PartialObjectMetadataList, PartialObjectMetadata, ListMeta and
// ObjectMeta. Only what a proof compares is decoded; managedFields alone would cost several times as much.
const (
	unknownRaw     = 2
	listMetadata   = 1
	listItems      = 2
	itemMetadata   = 1
	listMetaRV     = 2
	listMetaNext   = 3
	objectName     = 1
	objectSpace    = 3
	objectUID      = 5
	objectRevision = 6
)

var protobufPrefix = []byte("k8s\x00")

// versions is what a consistent read found.
type versions struct {
	// at is the resource version of the list.
	at      uint64
	text    string
	objects map[place]state
}

// add decodes one page and returns where the next one starts.
func (l *versions) add(body []byte) (next string, err error) {
	raw, ok := bytes.CutPrefix(body, protobufPrefix)
	if !ok {
		return "", errors.New("the answer is not the API server's protobuf")
	}
	err = fields(raw, func(number protowire.Number, list []byte) error {
		if number != unknownRaw {
			return nil
		}
		return fields(list, func(number protowire.Number, value []byte) error {
			switch number {
			case listMetadata:
				return fields(value, func(number protowire.Number, value []byte) error {
					switch number {
					case listMetaRV:
						l.text = string(value)
					case listMetaNext:
						next = string(value)
					}
					return nil
				})
			case listItems:
				return l.item(value)
			}
			return nil
		})
	})
	if err == nil {
		l.at, err = object.Version(l.text)
	}
	return next, err
}

func (l *versions) item(raw []byte) error {
	return fields(raw, func(number protowire.Number, metadata []byte) error {
		if number != itemMetadata {
			return nil
		}
		var at place
		var uid, revision string
		err := fields(metadata, func(number protowire.Number, value []byte) error {
			switch number {
			case objectName:
				at.name = string(value)
			case objectSpace:
				at.namespace = string(value)
			case objectUID:
				uid = string(value)
			case objectRevision:
				revision = string(value)
			}
			return nil
		})
		if err != nil {
			return err
		}
		version, err := object.Version(revision)
		if err != nil {
			return fmt.Errorf("object %s/%s: %w", at.namespace, at.name, err)
		}
		l.objects[at] = state{uid: uid, version: version}
		return nil
	})
}

// fields calls each with every field of the message that has a length: strings, bytes and messages.
func fields(message []byte, each func(number protowire.Number, value []byte) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		if kind != protowire.BytesType {
			n = protowire.ConsumeFieldValue(number, kind, message)
			if n < 0 {
				return protowire.ParseError(n)
			}
			message = message[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		if err := each(number, value); err != nil {
			return err
		}
	}
	return nil
}
