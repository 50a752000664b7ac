package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

// trimPauses are the times after the start at which a process that is to stay small lets go of what it needed only to start.
var trimPauses = []time.Duration{5 * time.Second, time.Minute}

// staySmall keeps the memory of a process that mostly waits near what it works with: it collects garbage early, and gives
// back what the start took. Most of that is this program itself: every service's packages are set up at the start, which reads
// much of a large file that an agent never looks at again.
func staySmall(ctx context.Context) {
	debug.SetGCPercent(25)
	for _, pause := range trimPauses {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		debug.FreeOSMemory()
		forgetProgram()
	}
}

// forgetProgram drops the pages of the program's file from this process. They are never written, so whatever is needed is
// read again from the page cache.
func forgetProgram() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uintptr
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil {
			continue
		}
		if strings.HasSuffix(lines.Text(), " "+program) && mode[1] == '-' {
			_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, from, to-from, syscall.MADV_DONTNEED) // at worst nothing is gained
		}
	}
}
