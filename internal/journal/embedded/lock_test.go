//go:build unix

package embedded

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"
)

// TestLockIsGivenBack: also while a child that is about to be something else has the file.
func TestLockIsGivenBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	first, err := lockFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = lockFile(path); !errors.Is(err, ErrInUse) {
		t.Fatalf("a second time: %v", err)
	}
	inChild, err := syscall.Dup(int(first.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(inChild)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := lockFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}
