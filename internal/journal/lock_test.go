//go:build unix

package journal

import (
	"path/filepath"
	"syscall"
	"testing"
)

// TestLockIsGivenBack: also while a child that is about to be something else has the file.
func TestLockIsGivenBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	first, err := lockFile(path)
	check(t, err)
	_, err = lockFile(path)
	wantError(t, err, ErrInUse)
	inChild, err := syscall.Dup(int(first.file.Fd()))
	check(t, err)
	defer syscall.Close(inChild)
	check(t, first.Close())
	second, err := lockFile(path)
	check(t, err)
	check(t, second.Close())
}
