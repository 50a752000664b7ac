package embedded

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/minio/highwayhash"
)

// scratchCopy copies the directory of an embedded log that nobody uses to a temporary one, where no limit applies and no
// tick falls due: a server that opened the directory itself would drop what has outlived the retention and append the ticks
// that are overdue, and whoever only wants to look must change nothing. remove deletes the copy. Errors: ErrInUse.
func scratchCopy(directory string) (scratch string, remove func(), err error) {
	fail := func(err error) (string, func(), error) {
		return "", nil, fmt.Errorf("copy the log of %s, to read it without changing it: %w", directory, err)
	}
	lock, err := lockFile(filepath.Join(directory, lockName))
	if err != nil {
		return fail(err)
	}
	defer lock.Close()
	if scratch, err = os.MkdirTemp("", "shiplog-read-"); err != nil {
		return fail(err)
	}
	remove = func() { os.RemoveAll(scratch) }
	// Consumers are left out: nobody takes work from a copy.
	err = filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() == "obs" {
			return fs.SkipDir
		}
		inside, err := filepath.Rel(directory, path)
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir():
			return os.MkdirAll(filepath.Join(scratch, inside), 0o700)
		case entry.Type().IsRegular() && entry.Name() != lockName:
			return copyFile(path, filepath.Join(scratch, inside))
		}
		return nil
	})
	if err == nil {
		err = withoutLimits(scratch)
	}
	if err != nil {
		remove()
		return fail(err)
	}
	return scratch, remove, nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = out.ReadFrom(in) // lets the kernel share blocks where the file system can
	return errors.Join(err, out.Close())
}

// withoutLimits takes the limits and the schedules out of the configuration of every stream below a directory, which the
// server keeps in meta.inf with a HighwayHash under the stream's name in meta.sum.
func withoutLimits(directory string) error {
	metas, err := filepath.Glob(filepath.Join(directory, "jetstream", "*", "streams", "*", "meta.inf"))
	if err != nil {
		return err
	}
	for _, meta := range metas {
		data, err := os.ReadFile(meta)
		if err != nil {
			return err
		}
		var config map[string]json.RawMessage
		if err := json.Unmarshal(data, &config); err != nil {
			return fmt.Errorf("%s: %w", meta, err)
		}
		config["max_age"], config["max_bytes"], config["max_msgs"] = json.RawMessage("0"), json.RawMessage("-1"), json.RawMessage("-1")
		config["allow_msg_schedules"] = json.RawMessage("false")
		if data, err = json.Marshal(config); err != nil {
			return err
		}
		key := sha256.Sum256([]byte(filepath.Base(filepath.Dir(meta))))
		sum := highwayhash.Sum64(data, key[:])
		var text [8]byte
		for i := range text {
			text[i] = byte(sum >> (8 * i)) // the server writes it little endian
		}
		if err := os.WriteFile(meta, data, 0o600); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(meta), "meta.sum"), []byte(hex.EncodeToString(text[:])), 0o600); err != nil {
			return err
		}
	}
	return nil
}
