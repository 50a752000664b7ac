//go:build unix

package embedded

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lockName is the file in a directory by whose lock one process has it.
const lockName = "shiplog.lock"

// fileLock is an exclusive lock on a file.
type fileLock struct{ file *os.File }

// lockFile opens path and holds an exclusive lock on it until the lock is closed or the process ends.
func lockFile(path string) (*fileLock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &fileLock{f}, nil
}

// Close gives the lock back. Closing the file alone would keep it for as long as a child of this process has the file too, which each
// child has between its fork and its exec.
func (l *fileLock) Close() error {
	return errors.Join(syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN), l.file.Close())
}
