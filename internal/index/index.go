// Package index keeps what happened to every Pod of a long log, so that asking about one of them does not read all of the
// log. It holds the accounts of all workloads (package narrate) as of a position, and goes on from there when the log has grown.
//
// It is a cache in a file of its own, for one log and one version of the program. Before it is used it is held against the log: the
// log must be the one that it was made of, and must still have the entry up to which it was made, unchanged. If it does not hold, or
// cannot be read, it is made anew. Deleting it costs the time to make it again and nothing else.
package index

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"google.golang.org/protobuf/proto"

	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/narrate"
	"shiplog.dev/internal/world"
)

// Worth is how many entries a log has at the least for which an index is worth its file: fewer are read in less than a second.
const Worth = 20_000

var (
	bucketMeta      = []byte("meta")      // "covered": covered
	bucketWorkloads = []byte("workloads") // NAMESPACE/NAME: narrate.Kept
	bucketUIDs      = []byte("uids")      // UID of a workload: NAMESPACE/NAME
	bucketPods      = []byte("pods")      // NAMESPACE/NAME: pod
	buckets         = [][]byte{bucketMeta, bucketWorkloads, bucketUIDs, bucketPods}
	keyCovered      = []byte("covered")
)

// covered says what of a log an index holds.
type covered struct {
	// First is the oldest entry that the log had when what is older was forgotten last.
	First uint64
	// Last is the entry up to which everything is in the index, Digest that of the entry and its time.
	Last   uint64
	Digest string
	// Settling workloads change by time alone.
	Settling []world.Ref
}

// pod is what is known of the Pods of one name.
type pod struct {
	// Owner is KIND/NAME of the newest controller; "/": it had none.
	Owner   string
	Stories []narrate.KeptStory
}

// Index is an index that holds everything up to the end of its log.
type Index struct {
	db      *bbolt.DB
	encoder *zstd.Encoder
	decoder *zstd.Decoder
	covered covered
}

// Open opens the index of a log, below a directory, makes it if it is not there or does not hold, and brings it up to the end of the
// log. version names the program: another version words things in another way. progress is told how much of the log is read,
// now and then. While another process has the index open, Open waits for it.
func Open(ctx context.Context, log *history.Log, directory, version string, progress func(done, of uint64)) (*Index, error) {
	name := sha256.Sum256([]byte(log.Identity + "\n" + version))
	path := filepath.Join(directory, hex.EncodeToString(name[:12])+".index")
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, fmt.Errorf("keep an index of the log: %w", err)
	}
	x, err := open(ctx, path)
	if err == nil {
		if err = x.extend(ctx, log, progress); err == nil {
			return x, nil
		}
		x.Close()
	}
	if ctx.Err() != nil || !errors.Is(err, errStale) && !damaged(err) {
		return nil, fmt.Errorf("keep an index of the log in %s: %w", path, err)
	}
	if err = os.Remove(path); err == nil {
		x, err = open(ctx, path)
	}
	if err == nil {
		if err = x.extend(ctx, log, progress); err != nil {
			x.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make an index of the log in %s: %w", path, err)
	}
	return x, nil
}

// pack writes the file anew, without the room that making it left in it.
func (x *Index) pack() error {
	path := x.db.Path()
	packed, err := bbolt.Open(path+".new", 0o600, nil)
	if err != nil {
		return err
	}
	defer os.Remove(path + ".new")
	if err := errors.Join(bbolt.Compact(packed, x.db, 1<<20), packed.Close(), os.Rename(path+".new", path), x.db.Close()); err != nil {
		return err
	}
	x.db, err = bbolt.Open(path, 0o600, nil)
	return err
}

// errStale: the index is not of this log as it is now.
var errStale = errors.New("the index does not belong to the log as it is")

// damaged says whether an error means that the file is no index, or one that is broken.
func damaged(err error) bool {
	return errors.Is(err, berrors.ErrInvalid) || errors.Is(err, berrors.ErrChecksum) || errors.Is(err, berrors.ErrVersionMismatch) || errors.Is(err, errBroken)
}

// errBroken: a value of the index cannot be read.
var errBroken = errors.New("the index is damaged")

func open(ctx context.Context, path string) (x *Index, err error) {
	defer func() {
		if broken := recover(); broken != nil { // bbolt panics on some damages
			x, err = nil, fmt.Errorf("%w: %v", errBroken, broken)
		}
	}()
	x = &Index{}
	for {
		x.db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 200 * time.Millisecond})
		if !errors.Is(err, berrors.ErrTimeout) || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if x.encoder, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1)); err != nil {
		return nil, err
	}
	if x.decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1)); err != nil {
		return nil, err
	}
	isNew := false
	err = x.db.View(func(tx *bbolt.Tx) error {
		isNew = tx.Bucket(bucketMeta) == nil
		return nil
	})
	if err == nil && isNew {
		err = x.db.Update(func(tx *bbolt.Tx) error {
			for _, name := range buckets {
				if _, err := tx.CreateBucketIfNotExists(name); err != nil {
					return err
				}
			}
			return nil
		})
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // it is in use: see Remove
	if err == nil {
		_, err = x.get(bucketMeta, string(keyCovered), &x.covered)
	}
	if err != nil {
		x.Close()
		return nil, err
	}
	return x, nil
}

// Close lets go of the index.
func (x *Index) Close() error { return x.db.Close() }

// Owner returns KIND/NAME of the newest controller of a Pod, "/" for one that had none, and "" for a Pod that the log does not know.
func (x *Index) Owner(namespace, name string) (string, error) {
	var held pod
	_, err := x.get(bucketPods, namespace+"/"+name, &held)
	return held.Owner, err
}

// Story returns what happened to a Pod of a workload; one without a Life if the log does not say.
func (x *Index) Story(workload world.Ref, name string) (narrate.Story, error) {
	var held pod
	if _, err := x.get(bucketPods, workload.Namespace+"/"+name, &held); err != nil {
		return narrate.Story{}, err
	}
	for _, kept := range held.Stories {
		if kept.Workload == workload {
			return kept.Bring(), nil
		}
	}
	return narrate.Story{Workload: workload}, nil
}

// get reads a value; false: there is none.
func (x *Index) get(bucket []byte, key string, into any) (found bool, err error) {
	defer func() {
		if broken := recover(); broken != nil {
			err = fmt.Errorf("%w: %v", errBroken, broken)
		}
	}()
	err = x.db.View(func(tx *bbolt.Tx) error {
		packed := tx.Bucket(bucket).Get([]byte(key))
		if packed == nil {
			return nil
		}
		found = true
		data, err := x.decoder.DecodeAll(packed, nil)
		if err == nil {
			err = json.Unmarshal(data, into)
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w", errBroken, key, err)
		}
		return nil
	})
	return found, err
}

func (x *Index) put(tx *bbolt.Tx, bucket []byte, key string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return tx.Bucket(bucket).Put([]byte(key), x.encoder.EncodeAll(data, nil))
}

// digestOf tells an entry, at its place and time, from any other.
func digestOf(record journal.Record) (string, error) {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(record.Entry)
	sum := sha256.Sum256(fmt.Appendf(data, "%d %d", record.Sequence, record.Time.UnixNano()))
	return hex.EncodeToString(sum[:]), err
}

// forget drops the Pods and workloads that are gone and of which the log has nothing any more.
func (x *Index) forget(first uint64) error {
	return x.db.Update(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketPods).Cursor()
		for key, packed := cursor.First(); key != nil; key, packed = cursor.Next() {
			var held pod
			data, err := x.decoder.DecodeAll(packed, nil)
			if err == nil {
				err = json.Unmarshal(data, &held)
			}
			if err != nil {
				return fmt.Errorf("%w: %s: %w", errBroken, key, err)
			}
			gone := true
			for _, story := range held.Stories {
				gone = gone && story.Life != nil && story.Life.GoneSequence > 0 && story.Life.GoneSequence < first
			}
			if gone && len(held.Stories) > 0 {
				if err := cursor.Delete(); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Remove deletes indexes below a directory that were not used for a while: those of logs that are gone, and of other versions.
func Remove(directory string, unusedFor time.Duration) {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && strings.HasSuffix(entry.Name(), ".index") && time.Since(info.ModTime()) > unusedFor {
			_ = os.Remove(filepath.Join(directory, entry.Name()))
		}
	}
}
