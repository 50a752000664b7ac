// Package readahead decodes entries on all cores, for those who fold many of them: decoding an object costs ten times what folding
// it does, and one entry's decoding does not depend on another's.
package readahead

import (
	"runtime"
	"sync"

	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/world"
)

// alone is how many entries are decoded faster by one core than by several.
const alone = 16

// Decode decodes entries, in their order. The error is that of the first entry that cannot be decoded (world.Decode).
func Decode(records []journal.Record) ([]world.Change, error) {
	changes, errs := make([]world.Change, len(records)), make([]error, len(records))
	decode := func(from, step int) {
		for i := from; i < len(records); i += step {
			changes[i], errs[i] = world.Decode(records[i].Sequence, records[i].Time, records[i].Entry)
		}
	}
	if workers := runtime.GOMAXPROCS(0); len(records) <= alone || workers == 1 {
		decode(0, 1)
	} else {
		var group sync.WaitGroup
		for worker := range workers {
			group.Go(func() { decode(worker, workers) })
		}
		group.Wait()
	}
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return changes, nil
}
