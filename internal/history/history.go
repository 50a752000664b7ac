// Package history reads a log after the fact: it finds the log (a running instance, a stopped one, a NATS server, or a bundle in
// a file), finds moments in it, walks through a span of entries, selects some of them, and knows every object as it was at a position. It
// appends nothing, decides nothing and words nothing.
package history

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"shiplog.dev/internal/bundle"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/journal/embedded"
)

// AddressFile, below a state directory, holds the address at which the log of a running instance can be reached.
const AddressFile = "nats.url"

// source is what a log must offer to be read.
type source interface {
	Read(ctx context.Context, from journal.From) (journal.Reader, error)
	State(ctx context.Context) (journal.State, error)
	Close() error
}

// Log is a log that is only read.
type Log struct {
	source
	// Live: whoever appends may still do so.
	Live bool
	// First and Last are the positions between which the log had entries when it was opened. Last is 0 for an empty log.
	First, Last uint64
	// ExactFrom is the position from which on folding, past included, gives the world as it was; before it entries are missing
	// that counted. Last: nowhere.
	ExactFrom uint64
	// Bundle says what a bundle holds; nil: it is no bundle.
	Bundle *bundle.Bundle
	// Identity tells the log from others; its copies have the same.
	Identity string
}

// Open opens the log of a cluster, given the URL of a NATS server, the state directory of an instance, running or stopped, or
// a bundle. Of a stopped instance it reads a copy, so that looking changes nothing. The error says what else to give.
func Open(ctx context.Context, where, cluster string) (*Log, error) {
	found, live, err := open(ctx, where, cluster)
	if err != nil {
		return nil, err
	}
	state, err := found.State(ctx)
	if err != nil {
		found.Close()
		return nil, fmt.Errorf("read the log of %s: %w", where, err)
	}
	log := &Log{source: found, Live: live, First: max(state.FirstSequence, 1), Last: state.LastSequence, Identity: state.Identity}
	switch log.Bundle, _ = found.(*bundle.Bundle); {
	case log.First == 1:
	case state.Compacted >= log.First-1:
		log.ExactFrom = state.Compacted
	default:
		log.ExactFrom = log.Last
	}
	return log, nil
}

func open(ctx context.Context, where, cluster string) (_ source, live bool, _ error) {
	options := journal.Options{Cluster: cluster, AsIs: true}
	if strings.Contains(where, "://") {
		options.URL = where
		log, err := journal.Open(ctx, options)
		return log, true, err
	}
	if info, err := os.Stat(where); err == nil && info.Mode().IsRegular() {
		log, err := bundle.Open(where)
		return log, false, err
	}
	if _, err := os.Stat(filepath.Join(where, "log")); err != nil {
		return nil, false, fmt.Errorf("read the log of %s: not a state directory (give one, the URL of a NATS server, or a bundle, with --log): %w", where, err)
	}
	options.Server = &embedded.Server{Directory: filepath.Join(where, "log")}
	log, err := journal.Open(ctx, options)
	if !errors.Is(err, embedded.ErrInUse) {
		return log, false, err
	}
	address, err := os.ReadFile(filepath.Join(where, AddressFile))
	if err != nil || strings.TrimSpace(string(address)) == "" {
		return nil, false, fmt.Errorf("read the log of %s: a running instance holds it and does not let others in (--nats-listen)", where)
	}
	options.Server, options.URL = nil, strings.TrimSpace(string(address))
	log, err = journal.Open(ctx, options)
	return log, true, err
}

// Span is a part of a log.
type Span struct {
	// From is the first moment; zero: the beginning.
	From Moment
	// To is the last moment, itself included; zero: the end of the log as it was when it was opened.
	To Moment
	// Past, with no From, begins with what is known from before the oldest entry: the newest compacted view has the entries
	// that still count.
	Past bool
	// Follow waits at the end for more, until ctx ends; To is ignored.
	Follow bool
}

// Each shows the entries of a span in order. It ends without error when ctx does while following. An error of show ends it.
func (l *Log) Each(ctx context.Context, span Span, show func(journal.Record) error) error {
	if span.Past && span.From == (Moment{}) && l.First > 1 {
		if err := l.past(ctx, span, show); err != nil {
			return err
		}
	}
	if !span.Follow {
		// A reader waits at the end of the log, so it is only asked for what is there.
		newest, err := l.Newest(ctx)
		if err != nil || newest.Sequence == 0 || span.From.After(newest) {
			return err
		}
	}
	from := journal.From{Sequence: max(span.From.Sequence, l.First)}
	if !span.From.Time.IsZero() {
		from = journal.From{Time: span.From.Time}
	}
	reader, err := l.Read(ctx, from)
	if err != nil {
		return err
	}
	defer reader.Close()
	for {
		records, err := reader.Next(ctx)
		if errors.Is(err, context.Canceled) && span.Follow {
			return nil
		}
		if err != nil {
			return err
		}
		for _, record := range records {
			if !span.Follow && (record.Sequence > l.Last || span.To.Before(record)) {
				return nil
			}
			if err := show(record); err != nil {
				return err
			}
			if !span.Follow && record.Sequence == l.Last {
				return nil
			}
		}
	}
}

// past shows the entries of the compacted view that have left the log. They counted at every position since.
func (l *Log) past(ctx context.Context, span Span, show func(journal.Record) error) error {
	reader, err := l.Read(ctx, journal.From{Compacted: true})
	if err != nil {
		return err
	}
	defer reader.Close()
	for {
		records, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		for _, record := range records {
			if record.Sequence >= l.First || span.To.Before(record) {
				return nil
			}
			if err := show(record); err != nil {
				return err
			}
		}
	}
}

// Newest returns the last entry that the log had when it was opened; the zero Record for an empty log.
func (l *Log) Newest(ctx context.Context) (journal.Record, error) {
	if l.Last < l.First {
		return journal.Record{}, nil
	}
	reader, err := l.Read(ctx, journal.From{Sequence: l.Last})
	if err != nil {
		return journal.Record{}, err
	}
	defer reader.Close()
	records, err := reader.Next(ctx)
	if err != nil {
		return journal.Record{}, err
	}
	return records[0], nil
}
