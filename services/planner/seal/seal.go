// Package seal computes the digests by which a log shows that it is as it was written: for the planner, which appends them, and
// for whoever verifies them. It reads entries and appends nothing.
package seal

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
)

// leaf is what counts of one entry: position, time and content.
type leaf struct {
	sequence uint64
	time     int64 // Unix nanoseconds
	content  [sha256.Size]byte
}

// Chain collects entries since the last seal, 48 bytes for each. Its zero value is empty.
type Chain struct{ leaves []leaf }

// Add takes the next entry.
func (c *Chain) Add(record journal.Record) {
	c.leaves = append(c.leaves, leaf{record.Sequence, record.Time.UnixNano(), contentOf(record.Entry)})
}

// contentOf is the digest of an entry.
func contentOf(entry *shiplogv1.Entry) [sha256.Size]byte {
	// What was decoded can be encoded.
	data, _ := proto.MarshalOptions{Deterministic: true}.Marshal(entry)
	return sha256.Sum256(data)
}

// Len is how many entries there are.
func (c *Chain) Len() int { return len(c.leaves) }

// Last is the position of the newest entry; 0: there is none.
func (c *Chain) Last() uint64 {
	if len(c.leaves) == 0 {
		return 0
	}
	return c.leaves[len(c.leaves)-1].sequence
}

// Sum returns the digest of the entries after one position up to another, in continuation of the seal before (nil: none), and
// how many there are.
func (c *Chain) Sum(before *shiplogv1.Sealed, after, upTo uint64) (digest []byte, entries uint64) {
	hash := sha256.New()
	hash.Write(before.GetDigest())
	var number [16]byte
	for _, one := range c.leaves {
		if one.sequence <= after || one.sequence > upTo {
			continue
		}
		binary.BigEndian.PutUint64(number[:8], one.sequence)
		binary.BigEndian.PutUint64(number[8:], uint64(one.time))
		hash.Write(number[:])
		hash.Write(one.content[:])
		entries++
	}
	return hash.Sum(nil), entries
}

// Forget drops what is sealed.
func (c *Chain) Forget(upTo uint64) {
	i, _ := slices.BinarySearchFunc(c.leaves, upTo+1, func(one leaf, sequence uint64) int { return cmp.Compare(one.sequence, sequence) })
	c.leaves = slices.Delete(c.leaves, 0, i)
}
