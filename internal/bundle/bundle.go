// Package bundle is a part of a log in a file: to send it, to keep it with a postmortem, to read it where no cluster is. It
// decides neither what goes into a bundle nor what its entries mean.
//
// A bundle is a zip archive. Its members entries/NNNNNN.zst hold the entries in order, each one a zstd frame of Recorded
// messages (api/proto/shiplog/v1/bundle.proto), each of them after its length as a varint; bundle.json is the index, and
// bundle.sha256 its digest in hexadecimal. The index holds the digest of every other member, so that one digest covers all.
package bundle

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/types/known/timestamppb"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
)

const (
	format     = 1
	indexName  = "bundle.json"
	digestName = "bundle.sha256"

	// A chunk ends at either of these.
	chunkRecords = 4096
	chunkBytes   = 8 << 20

	// Limits of what is read: a bundle may come from anybody.
	maxIndex  = 64 << 20
	maxEntry  = 16 << 20
	maxChunk  = chunkBytes + maxEntry
	maxChunks = 1 << 17
)

// ErrDamaged: a bundle is not whole, or not as it was written.
var ErrDamaged = errors.New("the bundle is damaged")

// Index says what a bundle holds.
type Index struct {
	Format int `json:"format"`
	// Cluster in the subjects of the log that it comes from.
	Cluster string `json:"cluster"`
	// First and Last are the positions of the window. Entries before First are those that still counted there.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	// From and To are the times of the first and the last entry of the window.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// ExactFrom is the position from which on folding gives the world as it was: before it something is not there.
	ExactFrom uint64 `json:"exactFrom"`
	// Namespace and Rollout that it was cut to; empty: it was not. Of other entries only their positions are there, and only
	// where something was decided.
	Namespace string `json:"namespace,omitempty"`
	Rollout   string `json:"rollout,omitempty"`
	// Redacted: values are replaced by placeholders.
	Redacted bool `json:"redacted"`
	// Version of the program that wrote it.
	Version string `json:"version"`
	// Entries of each type.
	Entries map[string]int `json:"entries"`
	Chunks  []Chunk        `json:"chunks"`
}

// Cut says whether entries of the window were left out.
func (i Index) Cut() bool { return i.Namespace != "" || i.Rollout != "" }

// Chunk is one member of the archive.
type Chunk struct {
	Name    string    `json:"name"`
	First   uint64    `json:"first"`
	Last    uint64    `json:"last"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
	Entries int       `json:"entries"`
	SHA256  string    `json:"sha256"`
}

// Writer writes a bundle.
type Writer struct {
	archive *zip.Writer
	encoder *zstd.Encoder
	chunk   Chunk
	body    bytes.Buffer
	chunks  []Chunk
}

// NewWriter begins a bundle.
func NewWriter(w io.Writer) (*Writer, error) {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return &Writer{archive: zip.NewWriter(w), encoder: encoder}, nil
}

// Put adds an entry; sequences must rise.
func (w *Writer) Put(record journal.Record) error {
	if w.chunk.Entries == 0 {
		w.chunk.First, w.chunk.From = record.Sequence, record.Time
	}
	w.chunk.Last, w.chunk.To = record.Sequence, record.Time
	w.chunk.Entries++
	if _, err := protodelim.MarshalTo(&w.body, &shiplogv1.Recorded{Sequence: record.Sequence, Time: timestamppb.New(record.Time), Entry: record.Entry}); err != nil {
		return fmt.Errorf("write entry %d into the bundle: %w", record.Sequence, err)
	}
	if w.chunk.Entries == chunkRecords || w.body.Len() >= chunkBytes {
		return w.flush()
	}
	return nil
}

func (w *Writer) flush() error {
	if w.chunk.Entries == 0 {
		return nil
	}
	packed := w.encoder.EncodeAll(w.body.Bytes(), nil)
	w.chunk.Name, w.chunk.SHA256 = fmt.Sprintf("entries/%06d.zst", len(w.chunks)+1), digestOf(packed)
	if err := w.store(w.chunk.Name, packed); err != nil {
		return err
	}
	w.chunks = append(w.chunks, w.chunk)
	w.chunk = Chunk{}
	w.body.Reset()
	return nil
}

func (w *Writer) store(name string, data []byte) error {
	member, err := w.archive.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
	if err == nil {
		_, err = member.Write(data)
	}
	if err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	return nil
}

// Close ends the bundle with its index and returns its digest.
func (w *Writer) Close(index Index) (digest string, err error) {
	if err := w.flush(); err != nil {
		return "", err
	}
	index.Format, index.Chunks = format, w.chunks
	data, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return "", err
	}
	digest = digestOf(data)
	if err := errors.Join(w.store(indexName, data), w.store(digestName, []byte(digest+"\n")), w.archive.Close()); err != nil {
		return "", fmt.Errorf("write the bundle: %w", err)
	}
	return digest, nil
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
