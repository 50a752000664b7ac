package bundle

import (
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protodelim"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
)

// Bundle is a bundle that is read. It reads like a log that nobody writes any more.
type Bundle struct {
	Index
	// Digest of the index, and so of everything.
	Digest string

	path    string
	archive *zip.ReadCloser
	members map[string]*zip.File
	decoder *zstd.Decoder
}

// Open opens a bundle. Errors: ErrDamaged, or that of reading the file.
func Open(path string) (*Bundle, error) {
	b := &Bundle{path: path, members: map[string]*zip.File{}}
	var err error
	if b.archive, err = zip.OpenReader(path); err != nil {
		return nil, fmt.Errorf("read the bundle %s: %w: %w", path, ErrDamaged, err)
	}
	for _, member := range b.archive.File {
		b.members[member.Name] = member
	}
	if err := b.readIndex(); err != nil {
		b.archive.Close()
		return nil, err
	}
	return b, nil
}

func (b *Bundle) readIndex() error {
	data, err := b.member(indexName, maxIndex)
	if err != nil {
		return err
	}
	written, err := b.member(digestName, 1<<10)
	if err != nil {
		return err
	}
	if b.Digest = digestOf(data); b.Digest != strings.TrimSpace(string(written)) {
		return b.damaged("its index is not as it was written")
	}
	if err := json.Unmarshal(data, &b.Index); err != nil {
		return b.damaged("its index: %v", err)
	}
	switch {
	case b.Format != format:
		return fmt.Errorf("read the bundle %s: its format is %d, this version reads %d", b.path, b.Format, format)
	case len(b.Chunks) > maxChunks:
		return b.damaged("%d chunks, at most %d are read", len(b.Chunks), maxChunks)
	}
	b.decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxChunk))
	return err
}

func (b *Bundle) damaged(format string, args ...any) error {
	return fmt.Errorf("read the bundle %s: %w: %s", b.path, ErrDamaged, fmt.Sprintf(format, args...))
}

func (b *Bundle) member(name string, limit int64) ([]byte, error) {
	member := b.members[name]
	if member == nil {
		return nil, b.damaged("%s is missing (is it a bundle of shiplog export?)", name)
	}
	in, err := member.Open()
	if err != nil {
		return nil, b.damaged("%s: %v", name, err)
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(in, limit+1))
	switch {
	case err != nil:
		return nil, b.damaged("%s: %v", name, err)
	case int64(len(data)) > limit:
		return nil, b.damaged("%s is larger than %d bytes", name, limit)
	}
	return data, nil
}

// records of a chunk, whole and as they were written.
func (b *Bundle) records(chunk Chunk) ([]journal.Record, error) {
	packed, err := b.member(chunk.Name, maxChunk)
	if err != nil {
		return nil, err
	}
	if digestOf(packed) != chunk.SHA256 {
		return nil, b.damaged("%s is not as it was written", chunk.Name)
	}
	data, err := b.decoder.DecodeAll(packed, nil)
	if err != nil {
		return nil, b.damaged("%s: %v", chunk.Name, err)
	}
	in := bufio.NewReader(bytes.NewReader(data))
	var out []journal.Record
	last := uint64(0)
	for {
		var recorded shiplogv1.Recorded
		err := protodelim.UnmarshalOptions{MaxSize: maxEntry}.UnmarshalFrom(in, &recorded)
		if errors.Is(err, io.EOF) && len(out) == chunk.Entries {
			return out, nil
		}
		entry := recorded.GetEntry()
		switch {
		case err != nil:
			return nil, b.damaged("%s after %d entries: %v", chunk.Name, len(out), err)
		case recorded.GetSequence() <= last || recorded.GetSequence() < chunk.First || recorded.GetSequence() > chunk.Last:
			return nil, b.damaged("%s: entry %d is out of order", chunk.Name, recorded.GetSequence())
		case entry == nil, entry.GetKind() == nil && !entry.GetSkippable():
			return nil, fmt.Errorf("read the bundle %s: %w: entry %d is of a kind that this version does not know", b.path, journal.ErrUndecodable, recorded.GetSequence())
		}
		last = recorded.GetSequence()
		record := journal.Record{Sequence: last, Time: recorded.GetTime().AsTime(), Entry: entry}
		if subject, err := journal.SubjectOf(b.Cluster, 1, entry); err == nil {
			record.Subject = subject
		}
		out = append(out, record)
	}
}

// State says which positions there are.
func (b *Bundle) State(context.Context) (journal.State, error) {
	return journal.State{Identity: "bundle " + b.Digest, FirstSequence: b.First, LastSequence: b.Last, Compacted: b.ExactFrom}, nil
}

// Read returns a reader from a place on. Compacted begins with what counted before the window.
func (b *Bundle) Read(_ context.Context, from journal.From) (journal.Reader, error) {
	switch {
	case from.Compacted:
		from = journal.From{}
	case from.Time.IsZero():
		from.Sequence = max(from.Position(), b.First)
	default:
		from.Sequence = b.First
	}
	r := &reader{bundle: b, from: from}
	for _, chunk := range b.Chunks {
		if chunk.Last >= from.Sequence && !chunk.To.Before(from.Time) {
			r.chunks = append(r.chunks, chunk)
		}
	}
	return r, nil
}

// Close lets go of the file.
func (b *Bundle) Close() error { return b.archive.Close() }

type reader struct {
	bundle *Bundle
	from   journal.From
	chunks []Chunk
}

// Next returns what is left of the next chunk. At the end it waits for ctx: nothing will come any more.
func (r *reader) Next(ctx context.Context) ([]journal.Record, error) {
	for len(r.chunks) > 0 && ctx.Err() == nil {
		records, err := r.bundle.records(r.chunks[0])
		if err != nil {
			return nil, err
		}
		r.chunks = r.chunks[1:]
		for i, record := range records {
			if record.Sequence >= r.from.Sequence && !record.Time.Before(r.from.Time) {
				return records[i:], nil
			}
		}
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

func (r *reader) Close() {}

// Compacted is the position up to which what counts stands in front.
func (r *reader) Compacted() uint64 { return r.bundle.ExactFrom }
