package journal

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// viewsKept is how many compacted views there are: the newest, and one to fall back to.
	viewsKept = 2
	// viewWait bounds writing one view.
	viewWait = 10 * time.Minute
	// chunksAhead is how many chunks of 128 kB are fetched ahead.
	chunksAhead = 64

	metaStream = "shiplog.dev/stream-created"
)

// view is one compacted view: an object named by its position, 20 digits.
type view struct {
	at     uint64 // 0: no view
	object *jetstream.ObjectInfo
}

// missing is how many positions there are between a view and the first entry of the log.
func missing(at, first uint64) uint64 {
	if at == 0 || first <= at+1 {
		return 0
	}
	return first - at - 1
}

// openViews opens the bucket and removes views that are not of this stream's past: those of a stream of the same name that
// was deleted, and those that reach beyond the end of a log that was rolled back.
func (j *logStream) openViews(ctx context.Context) (err error) {
	j.views, err = j.js.ObjectStore(ctx, bucketName(j.options.Cluster))
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		j.views, err = j.js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{
			Bucket:      bucketName(j.options.Cluster),
			Description: "Shiplog: compacted views of the log",
			Storage:     jetstream.FileStorage,
			Replicas:    j.options.Replicas,
		})
		return err
	}
	if err != nil {
		return err
	}
	info, err := j.stream.Info(ctx)
	if err != nil {
		return err
	}
	objects, err := j.objects(ctx)
	if err != nil {
		return err
	}
	for _, o := range objects {
		at, _ := strconv.ParseUint(o.Name, 10, 64)
		if o.Metadata[metaStream] == created(info) && at <= info.State.LastSeq {
			continue
		}
		j.options.Log.Warn().Uint64("compacted", at).Uint64("last", info.State.LastSeq).
			Msg("a compacted view reaches beyond the log, which was rolled back or replaced; the view is removed")
		if err := j.removeView(ctx, view{at, o}); err != nil {
			return err
		}
	}
	return nil
}

func created(info *jetstream.StreamInfo) string { return info.Created.UTC().Format(time.RFC3339Nano) }

func (j *logStream) objects(ctx context.Context) ([]*jetstream.ObjectInfo, error) {
	objects, err := j.views.List(ctx)
	if errors.Is(err, jetstream.ErrNoObjectsFound) {
		return nil, nil
	}
	return objects, err
}

// listViews returns the views, newest first, whole or not.
func (j *logStream) listViews(ctx context.Context) ([]view, error) {
	var views []view
	bounded, cancel := context.WithTimeout(ctx, j.patience)
	defer cancel()
	err := j.patiently(bounded, "list the compacted views", func(ctx context.Context) error {
		objects, err := j.objects(ctx)
		views = views[:0]
		for _, o := range objects {
			if at, err := strconv.ParseUint(o.Name, 10, 64); err == nil && at > 0 {
				views = append(views, view{at, o})
			}
		}
		return err
	})
	slices.SortFunc(views, func(a, b view) int { return cmp.Compare(b.at, a.at) })
	return views, err
}

// newestView returns the newest view that is whole and not after last; at is 0 if there is none.
func (j *logStream) newestView(ctx context.Context, last uint64) (view, error) {
	views, err := j.listViews(ctx)
	if err != nil {
		return view{}, err
	}
	for _, v := range views {
		if v.at > last {
			continue
		}
		err := v.each(ctx, j, func(raw) error { return nil })
		if err == nil {
			return v, nil
		}
		if ctx.Err() != nil || j.closing.Err() != nil || !j.nc.IsConnected() {
			return view{}, unavailable(ctx, "check the compacted view "+v.object.Name, err)
		}
		j.options.Log.Warn().Err(err).Uint64("compacted", v.at).Msg("a compacted view cannot be used; the one before it is tried")
	}
	return view{}, nil
}

// each calls f for the records of the view, in order.
func (v view) each(ctx context.Context, j *logStream, f func(raw) error) error {
	if v.at == 0 {
		return nil
	}
	chunks, err := j.openChunks(ctx, v.object)
	if err == nil {
		defer chunks.it.Stop()
		err = readView(chunks, f)
	}
	if err != nil {
		return fmt.Errorf("compacted view at %d: %w", v.at, err)
	}
	return nil
}

// chunks reads the content of an object, one message after the other. The store's own Get waits for ever for a chunk that
// is missing, and cannot be interrupted.
type chunks struct {
	ctx      context.Context
	it       jetstream.MessagesContext
	patience time.Duration
	left     uint32 // chunks still to come
	data     []byte
}

func (j *logStream) openChunks(ctx context.Context, object *jetstream.ObjectInfo) (*chunks, error) {
	stream, err := j.js.Stream(ctx, "OBJ_"+object.Bucket)
	if err != nil {
		return nil, err
	}
	subject := "$O." + object.Bucket + ".C." + object.NUID
	// The stream's leader knows how many there are; a consumer may live on a follower that does not have them yet.
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(subject))
	if err != nil {
		return nil, err
	}
	if held := info.State.Subjects[subject]; held < uint64(object.Chunks) {
		return nil, fmt.Errorf("%w: %d of its %d chunks are there", errView, held, object.Chunks)
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}})
	if err != nil {
		return nil, err
	}
	it, err := consumer.Messages(jetstream.PullMaxMessages(chunksAhead), jetstream.PullExpiry(pullLife), jetstream.PullHeartbeat(pullPulse))
	if err != nil {
		return nil, err
	}
	return &chunks{ctx: ctx, it: it, patience: j.patience, left: object.Chunks}, nil
}

func (c *chunks) Read(p []byte) (int, error) {
	for len(c.data) == 0 {
		if c.left == 0 {
			return 0, io.EOF
		}
		ctx, cancel := context.WithTimeout(c.ctx, c.patience)
		msg, err := c.it.Next(jetstream.NextContext(ctx))
		cancel()
		if err != nil {
			return 0, err
		}
		c.data = msg.Data()
		c.left--
	}
	n := copy(p, c.data)
	c.data = c.data[n:]
	return n, nil
}

func (j *logStream) Compact(ctx context.Context, at uint64, live func(sequence uint64) bool) error {
	j.compacting.Lock()
	defer j.compacting.Unlock()
	doing := fmt.Sprintf("compact the log at %d", at)
	ctx, cancel := context.WithTimeout(ctx, viewWait)
	defer cancel()
	info, err := j.info(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	before, err := j.newestView(ctx, info.State.LastSeq)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	switch {
	case at == 0 || at > info.State.LastSeq:
		return fmt.Errorf("%s: the log ends at %d", doing, info.State.LastSeq)
	case at < before.at:
		return fmt.Errorf("%s: it is compacted up to %d", doing, before.at)
	}
	if err := j.removeScraps(ctx); err != nil {
		return unavailable(ctx, doing, err)
	}
	body, w := io.Pipe()
	go func() { w.CloseWithError(j.compactInto(ctx, w, before, at, live, info.State.FirstSeq)) }()
	stored, err := j.views.Put(ctx, jetstream.ObjectMeta{
		Name:     fmt.Sprintf("%020d", at),
		Metadata: map[string]string{metaStream: created(info)},
	}, body)
	body.CloseWithError(errors.New("the view is not wanted any more"))
	if err != nil {
		return unavailable(ctx, doing, err)
	}
	// The older views go only once the new one has been read back.
	if err := (view{at, stored}).each(ctx, j, func(raw) error { return nil }); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	views, err := j.listViews(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	for _, old := range views[min(viewsKept, len(views)):] {
		if err := j.removeView(ctx, old); err != nil {
			return unavailable(ctx, doing, err)
		}
	}
	return nil
}

// compactInto writes a view at position at: what is live of the view before it and of the log in between.
func (j *logStream) compactInto(ctx context.Context, w io.Writer, before view, at uint64, live func(uint64) bool, first uint64) error {
	out, err := newViewWriter(w)
	if err != nil {
		return err
	}
	keep := func(m raw) error {
		if m.sequence == at || live(m.sequence) {
			return out.put(m)
		}
		return nil
	}
	if err := before.each(ctx, j, keep); err != nil {
		return err
	}
	if n := missing(before.at, first); n > 0 {
		j.options.Log.Warn().Uint64("compacted", before.at).Uint64("missing", n).Msg("entries left the log before they were compacted")
	}
	if before.at < at && first <= at {
		feed, err := j.openFeed(ctx, before.at+1, time.Time{})
		if err != nil {
			return err
		}
		defer feed.close()
		for {
			m, own, err := feed.nextWithin(ctx, j.patience)
			if err != nil {
				return err
			}
			if !own && m.sequence <= at {
				if err := keep(m); err != nil {
					return err
				}
			}
			if m.sequence >= at {
				break
			}
		}
	}
	return out.close()
}

// removeView removes every trace of a view; the store's own Delete leaves a mark behind for ever.
func (j *logStream) removeView(ctx context.Context, v view) error {
	bucket := bucketName(j.options.Cluster)
	stream, err := j.js.Stream(ctx, "OBJ_"+bucket)
	if err != nil {
		return err
	}
	meta := "$O." + bucket + ".M." + base64.URLEncoding.EncodeToString([]byte(v.object.Name))
	if err := stream.Purge(ctx, jetstream.WithPurgeSubject(meta)); err != nil {
		return err
	}
	return stream.Purge(ctx, jetstream.WithPurgeSubject("$O."+bucket+".C."+v.object.NUID))
}

// removeScraps removes what processes that ended while they wrote a view left behind.
func (j *logStream) removeScraps(ctx context.Context) error {
	bucket := bucketName(j.options.Cluster)
	prefix := "$O." + bucket + ".C."
	stream, err := j.js.Stream(ctx, "OBJ_"+bucket)
	if err != nil {
		return err
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(prefix+">"))
	if err != nil || len(info.State.Subjects) == 0 {
		return err
	}
	objects, err := j.objects(ctx)
	if err != nil {
		return err
	}
	for subject := range info.State.Subjects {
		nuid := strings.TrimPrefix(subject, prefix)
		if slices.ContainsFunc(objects, func(o *jetstream.ObjectInfo) bool { return o.NUID == nuid }) {
			continue
		}
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
			return err
		}
	}
	return nil
}
