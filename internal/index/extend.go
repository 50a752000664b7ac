package index

import (
	"context"
	"maps"
	"slices"

	"go.etcd.io/bbolt"
	"k8s.io/apimachinery/pkg/types"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/history"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/narrate"
	"shiplog.dev/internal/readahead"
	"shiplog.dev/internal/world"
)

const (
	// batch is how many entries are read before they are decoded together.
	batch = 512
	// maxDirty bounds the steps that wait to be written.
	maxDirty = 300_000
)

// builder reads entries on top of what the index holds.
type builder struct {
	*Index
	accounts map[world.Ref]*narrate.Account
	uids     map[types.UID]world.Ref
	pods     map[world.Ref]*known
	settling map[world.Ref]bool
	dirty    int
	last     journal.Record
}

// known is a Pod's name in memory.
type known struct {
	owner   string
	stories []*narrate.Story
	dirty   bool
}

// extend brings the index up to the end of the log. Errors: errStale, if it is not of this log.
func (x *Index) extend(ctx context.Context, log *history.Log, progress func(done, of uint64)) error {
	if x.covered.Last > log.Last || x.covered.Last > 0 && x.covered.Last < log.First {
		return errStale
	}
	b := &builder{Index: x, settling: map[world.Ref]bool{}}
	b.begin()
	for _, ref := range x.covered.Settling {
		b.settling[ref] = true
	}
	span := history.Span{Past: true}
	if x.covered.Last > 0 {
		span = history.Span{From: history.Moment{Sequence: x.covered.Last}}
	}
	var records []journal.Record
	isNew, unchecked, read := x.covered.Last == 0, x.covered.Last > 0, 0
	flush := func() error {
		changes, err := readahead.Decode(records)
		if err != nil {
			return err
		}
		for i, record := range records {
			if err := b.show(record, changes[i]); err != nil {
				return err
			}
		}
		if read += len(records); read%(32*batch) == 0 {
			progress(b.last.Sequence, log.Last)
		}
		records = records[:0]
		if b.dirty > maxDirty {
			return b.write(log)
		}
		return nil
	}
	err := log.Each(ctx, span, func(record journal.Record) error {
		if unchecked {
			unchecked = false
			if digest, err := digestOf(record); err != nil || record.Sequence != x.covered.Last || digest != x.covered.Digest {
				return errStale
			}
			return nil
		}
		if records = append(records, record); len(records) == batch {
			return flush()
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	if err == nil && b.last.Sequence > 0 {
		err = b.write(log)
	}
	if err == nil && isNew {
		err = x.pack()
	}
	if err == nil && log.First > x.covered.First+(log.Last-log.First)/10 {
		if err = x.forget(log.First); err == nil {
			x.covered.First = log.First
			err = x.db.Update(func(tx *bbolt.Tx) error { return x.put(tx, bucketMeta, string(keyCovered), x.covered) })
		}
	}
	return err
}

func (b *builder) begin() {
	b.accounts, b.uids, b.pods, b.dirty = map[world.Ref]*narrate.Account{}, map[types.UID]world.Ref{}, map[world.Ref]*known{}, 0
}

// show tells every account that an entry concerns.
func (b *builder) show(record journal.Record, change world.Change) error {
	b.last = record
	ref, about := history.ObjectOf(record.Entry)
	var told []world.Ref
	var pod *known
	var err error
	isPod := about && ref.Group == "" && ref.Resource == world.ResourcePods
	if isPod {
		if pod, err = b.pod(ref); err != nil {
			return err
		}
		for _, story := range pod.stories {
			told = append(told, story.Workload)
		}
	}
	belongs := func(uid types.UID) error {
		workload, err := b.workload(uid)
		if err == nil && workload.Name != "" {
			told = append(told, workload)
		}
		return err
	}
	switch record.Entry.GetKind().(type) {
	case *shiplogv1.Entry_ObjectObserved:
		switch object := change.Object().(type) {
		case *world.CloneSet:
			told = append(told, ref)
			b.uids[object.UID] = ref
		case *world.Pod:
			pod.owner = object.Owner.Kind() + "/" + object.Owner.Name()
			err = belongs(object.Owner.UID())
		}
	case *shiplogv1.Entry_ObjectDeleted, *shiplogv1.Entry_Admitted:
		if ref.Group == world.GroupKruise && ref.Resource == world.ResourceCloneSets {
			told = append(told, ref)
		}
	case *shiplogv1.Entry_Command, *shiplogv1.Entry_Outcome, *shiplogv1.Entry_Ticked:
		err = belongs(world.WorkloadOf(record.Entry.GetRollout()))
	}
	if err != nil {
		return err
	}
	shown := map[world.Ref]bool{}
	for _, workload := range told {
		if shown[workload] {
			continue
		}
		shown[workload] = true
		account, err := b.account(workload)
		if err == nil && account.Concerns(record.Entry) {
			err = account.ShowDecoded(record, change)
			b.take(account)
		}
		if err != nil {
			return err
		}
	}
	for workload := range b.settling {
		if shown[workload] {
			continue
		}
		account, err := b.account(workload)
		if err != nil {
			return err
		}
		if account.Concerns(record.Entry) {
			account.Pass(record)
			b.take(account)
		}
	}
	if pod != nil {
		pod.dirty = true // outcomes and states change without a step
	}
	return nil
}

// take gives new steps to their Pods.
func (b *builder) take(account *narrate.Account) {
	for _, step := range account.Take() {
		if step.Pod == "" {
			continue
		}
		pod := b.pods[podRef(account.Workload.Namespace, step.Pod)]
		story := b.story(pod, account, step.Pod)
		story.Steps = append(story.Steps, step)
		pod.dirty = true
		b.dirty++
	}
	if account.Settling() {
		b.settling[account.Workload] = true
	} else {
		delete(b.settling, account.Workload)
	}
}

// story of a Pod that an account has told something about.
func (b *builder) story(pod *known, account *narrate.Account, name string) *narrate.Story {
	life := account.Find(name)
	for _, story := range pod.stories {
		if story.Workload == account.Workload {
			story.Life = life
			return story
		}
	}
	story := &narrate.Story{Workload: account.Workload, Life: life}
	pod.stories = append(pod.stories, story)
	return story
}

func podRef(namespace, name string) world.Ref {
	return world.Ref{Resource: world.ResourcePods, Namespace: namespace, Name: name}
}

// pod brings what is known of a Pod's name into memory, and into the accounts that tell of it.
func (b *builder) pod(ref world.Ref) (*known, error) {
	if held := b.pods[ref]; held != nil {
		return held, nil
	}
	var kept pod
	if _, err := b.get(bucketPods, ref.Namespace+"/"+ref.Name, &kept); err != nil {
		return nil, err
	}
	out := &known{owner: kept.Owner}
	b.pods[ref] = out
	for _, one := range kept.Stories {
		story := one.Bring()
		out.stories = append(out.stories, &story)
		account, err := b.account(story.Workload)
		if err != nil {
			return nil, err
		}
		account.Remember(story)
	}
	return out, nil
}

// account brings the account of a workload into memory.
func (b *builder) account(ref world.Ref) (*narrate.Account, error) {
	if held := b.accounts[ref]; held != nil {
		return held, nil
	}
	var kept narrate.Kept
	found, err := b.get(bucketWorkloads, ref.Namespace+"/"+ref.Name, &kept)
	if err != nil {
		return nil, err
	}
	account := narrate.NewAccount(ref.Namespace, ref.Name)
	if found {
		account = narrate.Resume(kept)
	}
	b.accounts[ref] = account
	for _, name := range kept.Settling {
		if _, err := b.pod(podRef(ref.Namespace, name)); err != nil {
			return nil, err
		}
	}
	return account, nil
}

// workload finds a workload by its UID; one without a name: there is none.
func (b *builder) workload(uid types.UID) (ref world.Ref, err error) {
	if uid == "" {
		return ref, nil
	}
	if held, is := b.uids[uid]; is {
		return held, nil
	}
	if _, err = b.get(bucketUIDs, string(uid), &ref); err == nil {
		b.uids[uid] = ref
	}
	return ref, err
}

// write puts what has changed into the file, in one transaction with how far it goes, and lets go of it in memory.
func (b *builder) write(log *history.Log) error {
	digest, err := digestOf(b.last)
	if err != nil {
		return err
	}
	covered := covered{First: b.covered.First, Last: b.last.Sequence, Digest: digest}
	if covered.First == 0 {
		covered.First = log.First
	}
	for ref := range b.settling {
		covered.Settling = append(covered.Settling, ref)
	}
	err = b.db.Update(func(tx *bbolt.Tx) error {
		for _, ref := range slices.SortedFunc(maps.Keys(b.pods), world.CompareRefs) {
			known := b.pods[ref]
			if !known.dirty {
				continue
			}
			kept := pod{Owner: known.owner}
			for _, story := range known.stories {
				kept.Stories = append(kept.Stories, story.Keep())
			}
			if err := b.put(tx, bucketPods, ref.Namespace+"/"+ref.Name, kept); err != nil {
				return err
			}
		}
		for ref, account := range b.accounts {
			if err := b.put(tx, bucketWorkloads, ref.Namespace+"/"+ref.Name, account.Keep()); err != nil {
				return err
			}
		}
		for uid, ref := range b.uids {
			if err := b.put(tx, bucketUIDs, string(uid), ref); err != nil {
				return err
			}
		}
		return b.put(tx, bucketMeta, string(keyCovered), covered)
	})
	if err != nil {
		return err
	}
	b.covered = covered
	b.begin()
	return nil
}
