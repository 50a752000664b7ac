package journal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"

	"github.com/klauspost/compress/s2"
)

// A compacted view in storage is an S2 stream of: viewMagic; for each record a frame of its length in bytes (uvarint, never
// 0), sequence (uvarint), time (Unix nanoseconds, varint), length of the subject (uvarint), subject, entry; then 0, the number of
// records (uvarint) and the CRC-32C of everything before it (4 bytes, little endian). Sequences rise.
const viewMagic = "shiplog view 1\n"

var (
	errView    = errors.New("the compacted view is damaged")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// viewWriter writes one view.
type viewWriter struct {
	out   *s2.Writer
	sum   hash.Hash32
	frame []byte
	count uint64
}

func newViewWriter(w io.Writer) (*viewWriter, error) {
	v := &viewWriter{out: s2.NewWriter(w, s2.WriterConcurrency(1)), sum: crc32.New(castagnoli)}
	return v, v.write([]byte(viewMagic))
}

func (v *viewWriter) write(p []byte) error {
	v.sum.Write(p)
	_, err := v.out.Write(p)
	return err
}

func (v *viewWriter) put(m raw) error {
	body := binary.AppendUvarint(v.frame[:0], m.sequence)
	body = binary.AppendVarint(body, m.time.UnixNano())
	body = binary.AppendUvarint(body, uint64(len(m.subject)))
	body = append(append(body, m.subject...), m.data...)
	v.frame = body
	if err := v.write(binary.AppendUvarint(nil, uint64(len(body)))); err != nil {
		return err
	}
	v.count++
	return v.write(body)
}

// close ends the view; without it the view is incomplete and readView says so.
func (v *viewWriter) close() error {
	if err := v.write(binary.AppendUvarint([]byte{0}, v.count)); err != nil {
		return err
	}
	if _, err := v.out.Write(binary.LittleEndian.AppendUint32(nil, v.sum.Sum32())); err != nil {
		return err
	}
	return v.out.Close()
}

// readView calls each for the records of a view, in order, and returns its error, or errView if the view is not complete and
// whole. What each was given before such an error is as it was written, up to a damage that no checksum sees.
func readView(r io.Reader, each func(raw) error) error {
	v := &viewReader{in: bufio.NewReaderSize(s2.NewReader(r), 64<<10), sum: crc32.New(castagnoli)}
	magic := make([]byte, len(viewMagic))
	if err := v.full(magic); err != nil {
		return fmt.Errorf("%w: %w", errView, err)
	}
	if string(magic) != viewMagic {
		return fmt.Errorf("%w: it does not begin as one", errView)
	}
	var count, last uint64
	for {
		m, err := v.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: after %d records: %w", errView, count, err)
		}
		if m.sequence <= last {
			return fmt.Errorf("%w: sequence %d after %d", errView, m.sequence, last)
		}
		last = m.sequence
		count++
		if err := each(m); err != nil {
			return err
		}
	}
	written, err := binary.ReadUvarint(v)
	if err != nil || written != count {
		return fmt.Errorf("%w: %d records, it should have %d: %v", errView, count, written, err)
	}
	sum := v.sum.Sum32()
	var stored [4]byte
	if err := v.full(stored[:]); err != nil || binary.LittleEndian.Uint32(stored[:]) != sum {
		return fmt.Errorf("%w: its checksum is wrong: %v", errView, err)
	}
	if _, err := v.in.ReadByte(); err != io.EOF {
		return fmt.Errorf("%w: it goes on after its end: %v", errView, err)
	}
	return nil
}

type viewReader struct {
	in  *bufio.Reader
	sum hash.Hash32
}

func (v *viewReader) full(p []byte) error {
	_, err := io.ReadFull(v.in, p)
	v.sum.Write(p)
	return err
}

// ReadByte serves binary.ReadUvarint.
func (v *viewReader) ReadByte() (byte, error) {
	b, err := v.in.ReadByte()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	v.sum.Write([]byte{b})
	return b, err
}

// next returns the next record, or io.EOF at the mark that ends them.
func (v *viewReader) next() (raw, error) {
	size, err := binary.ReadUvarint(v)
	switch {
	case err != nil:
		return raw{}, err
	case size == 0:
		return raw{}, io.EOF
	case size > maxEntry+maxSubject+3*binary.MaxVarintLen64:
		return raw{}, fmt.Errorf("a record of %d bytes", size)
	}
	body := make([]byte, size)
	if err := v.full(body); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return raw{}, err
	}
	var m raw
	var n int
	short := errors.New("a record is cut off")
	if m.sequence, n = binary.Uvarint(body); n <= 0 {
		return raw{}, short
	}
	body = body[n:]
	nanoseconds, n := binary.Varint(body)
	if n <= 0 {
		return raw{}, short
	}
	m.time = time.Unix(0, nanoseconds).UTC()
	body = body[n:]
	length, n := binary.Uvarint(body)
	if n <= 0 || length > uint64(len(body)-n) {
		return raw{}, short
	}
	body = body[n:]
	m.subject, m.data = string(body[:length]), body[length:]
	return m, nil
}
