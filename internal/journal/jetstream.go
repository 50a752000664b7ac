package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

const (
	// duplicates is the window in which the server recognises an entry that it has. What comes again later is stored again;
	// the fold ignores it.
	duplicates = 2 * time.Minute
	// answerWait is for how long a publication waits for its acknowledgement, tryWait for how long a question waits for its
	// answer before it is asked again.
	answerWait = 5 * time.Second
	tryWait    = 2 * time.Second
	// retryWait is the first pause between tries; it doubles up to retryWaitMax.
	retryWait    = 20 * time.Millisecond
	retryWaitMax = time.Second
	// reconnectWait is the pause between attempts to reach an external server.
	reconnectWait = 250 * time.Millisecond

	metaClusterUID = "shiplog.dev/cluster-uid"
)

// logStream is a Journal on one JetStream stream.
type logStream struct {
	options Options
	name    string
	server  *embedded // nil for an external server
	nc      *nats.Conn
	js      jetstream.JetStream
	stream  jetstream.Stream
	views   jetstream.ObjectStore

	// inflight bounds what has been published and not acknowledged; see flightBytes.
	inflight *semaphore.Weighted
	// commands is held while commands are published: the server refuses two checks of one fence at a time.
	commands sync.Mutex
	// compacting is held by Compact.
	compacting sync.Mutex

	closing   context.Context
	closeOnce func()
}

var _ Journal = (*logStream)(nil)

// Open opens the log, creates it if it does not exist, and brings its limits up to date. Errors: ErrOtherCluster,
// ErrUnavailable, or that of starting the embedded server.
func Open(ctx context.Context, options Options) (Journal, error) {
	o, err := options.complete()
	if err != nil {
		return nil, err
	}
	j := &logStream{options: o, name: streamName(o.Cluster), inflight: semaphore.NewWeighted(flightBytes)}
	var end context.CancelFunc
	j.closing, end = context.WithCancel(context.Background())
	remove := func() {}
	if o.AsIs && o.Directory != "" {
		if j.options.Directory, remove, err = scratchCopy(o.Directory); err != nil {
			end()
			return nil, err
		}
	}
	j.closeOnce = sync.OnceFunc(func() {
		end()
		if j.nc != nil {
			j.nc.Close()
		}
		if j.server != nil {
			j.server.stop()
		}
		remove()
	})
	if err := j.open(ctx); err != nil {
		j.closeOnce()
		return nil, err
	}
	return j, nil
}

func (j *logStream) open(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, max(j.options.Patience, serverStart))
	defer cancel()
	if err := j.connect(); err != nil {
		return err
	}
	if j.js, err = jetstream.New(j.nc,
		jetstream.WithPublishAsyncMaxPending(2*flightBytes/flightLeast),
		jetstream.WithPublishAsyncTimeout(answerWait),
		jetstream.WithDefaultTimeout(answerWait)); err != nil {
		return err
	}
	doing := "open the stream " + j.name
	if err := j.patiently(ctx, doing, j.openStream); err != nil {
		return err
	}
	return j.patiently(ctx, "open the compacted views of "+j.name, j.openViews)
}

func (j *logStream) connect() error {
	log := j.options.Log
	o := []nats.Option{
		nats.Name("shiplog"),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectWait/5, reconnectWait/5),
		// Nothing is kept for after a reconnection: what is sent after a loss must not overtake what was lost.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if j.closing.Err() == nil {
				log.Warn().Err(err).Msg("the connection to the log is lost")
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { log.Info().Msg("the connection to the log is back") }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Debug().Err(err).Msg("the connection to the log reports an error")
		}),
	}
	url := j.options.URL
	if url == "" {
		s, err := startServer(j.options)
		if err != nil {
			return err
		}
		j.server = s
		o = append(o, nats.InProcessServer(s), nats.Token(s.token))
	}
	nc, err := nats.Connect(url, o...)
	if err != nil {
		return fmt.Errorf("open the log at %s: %w: %w", url, ErrUnavailable, err)
	}
	j.nc = nc
	return nil
}

// openStream creates the stream or changes what differs from the options. Deny-purge is asked for but the server drops it
// on a stream that may hold schedules.
func (j *logStream) openStream(ctx context.Context) error {
	o := j.options
	prefix := root + "." + encodeToken(o.Cluster) + "."
	want := jetstream.StreamConfig{
		Name:               j.name,
		Description:        "Shiplog: every observation, decision and effect of one cluster",
		Storage:            jetstream.FileStorage,
		Retention:          jetstream.LimitsPolicy,
		Discard:            jetstream.DiscardOld,
		MaxAge:             o.Retention,
		MaxBytes:           cmpZero(o.MaxBytes, -1),
		Replicas:           o.Replicas,
		Duplicates:         duplicates,
		Compression:        jetstream.S2Compression,
		DenyDelete:         true,
		AllowRollup:        true,
		AllowDirect:        o.Replicas == 1, // a follower may answer a direct get from the past
		AllowAtomicPublish: true,
		AllowMsgSchedules:  true,
	}
	if o.Retention > 0 && o.Retention < duplicates {
		want.Duplicates = o.Retention
	}
	for _, space := range []string{spaceFact + ".>", spaceVouch, spaceCommand + ".>", spaceWish + ".>", spaceWake + ".>",
		spaceTick + ".>", spaceOutcome + ".>", spaceFence + ".>", spaceSeal + ".>", spaceNode + ".>", spaceEvent + ".>"} {
		want.Subjects = append(want.Subjects, prefix+space)
	}
	stream, err := j.js.Stream(ctx, j.name)
	if errors.Is(err, jetstream.ErrStreamNotFound) && o.AsIs {
		return fmt.Errorf("%w: there is no log of cluster %q", ErrNoLog, o.Cluster)
	}
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if o.ClusterUID != "" {
			want.Metadata = map[string]string{metaClusterUID: o.ClusterUID}
		}
		j.stream, err = j.js.CreateStream(ctx, want)
		return err
	}
	if err != nil {
		return err
	}
	j.stream = stream
	have := stream.CachedInfo().Config
	want.Metadata = own(have.Metadata)
	switch uid := have.Metadata[metaClusterUID]; {
	case o.ClusterUID == "" || uid == o.ClusterUID:
	case uid == "":
		want.Metadata[metaClusterUID] = o.ClusterUID
	default:
		return fmt.Errorf("%w: it belongs to cluster %s, this is cluster %s", ErrOtherCluster, uid, o.ClusterUID)
	}
	if o.AsIs {
		return nil
	}
	if have.MaxAge == want.MaxAge && have.MaxBytes == want.MaxBytes && have.Replicas == want.Replicas && have.Duplicates == want.Duplicates &&
		have.AllowDirect == want.AllowDirect && slices.Equal(have.Subjects, want.Subjects) && maps.Equal(own(have.Metadata), want.Metadata) {
		return nil
	}
	j.stream, err = j.js.UpdateStream(ctx, want)
	return err
}

// own returns the metadata that the server has not put there itself.
func own(metadata map[string]string) map[string]string {
	ours := map[string]string{}
	for k, v := range metadata {
		if !strings.HasPrefix(k, "_nats.") {
			ours[k] = v
		}
	}
	return ours
}

// patiently calls f until it succeeds, fails for a reason that will stay, or ctx ends.
func (j *logStream) patiently(ctx context.Context, doing string, f func(context.Context) error) error {
	wait := retryWait
	for {
		// A cluster without a leader does not answer at all: every try has its own end.
		try, cancel := context.WithTimeout(ctx, tryWait)
		err := f(try)
		cancel()
		if err == nil {
			return nil
		}
		if errors.Is(err, ErrOtherCluster) || errors.Is(err, ErrGap) {
			return fmt.Errorf("%s: %w", doing, err)
		}
		var api *jetstream.APIError
		if errors.As(err, &api) && api.Code != 503 {
			return fmt.Errorf("%s: %w", doing, err)
		}
		if errors.Is(err, nats.ErrConnectionClosed) {
			return unavailable(ctx, doing, err)
		}
		if !j.pause(ctx, &wait) {
			return unavailable(ctx, doing, err)
		}
	}
}

// pause waits before another try, longer each time; false: ctx or the journal ended.
func (j *logStream) pause(ctx context.Context, wait *time.Duration) bool {
	t := time.NewTimer(*wait)
	defer t.Stop()
	*wait = min(*wait*2, retryWaitMax)
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	case <-j.closing.Done():
		return false
	}
}

func (j *logStream) subject(space string) string {
	return root + "." + encodeToken(j.options.Cluster) + "." + space
}

func (j *logStream) LastOutcome(ctx context.Context, object *shiplogv1.ObjectRef) (*Record, error) {
	return j.last(ctx, Address{Cluster: j.options.Cluster, Space: spaceOutcome, Object: object})
}

func (j *logStream) LastOfNode(ctx context.Context, node string) (*Record, error) {
	return j.last(ctx, Address{Cluster: j.options.Cluster, Space: spaceNode, Node: node})
}

// last returns the newest entry at an address, or nil.
func (j *logStream) last(ctx context.Context, at Address) (*Record, error) {
	subject := at.String()
	var found *jetstream.RawStreamMsg
	bounded, cancel := context.WithTimeout(ctx, j.options.Patience)
	defer cancel()
	err := j.patiently(bounded, "read the last entry at "+subject, func(ctx context.Context) (err error) {
		found, err = j.stream.GetLastMsgForSubject(ctx, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		return err
	})
	if err != nil || found == nil {
		return nil, err
	}
	entry, err := decode(found.Sequence, found.Subject, found.Data)
	if err != nil {
		return nil, err
	}
	return &Record{Sequence: found.Sequence, Time: found.Time, Subject: found.Subject, Size: len(found.Data), Entry: entry}, nil
}

func (j *logStream) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	var info *jetstream.StreamInfo
	bounded, cancel := context.WithTimeout(ctx, j.options.Patience)
	defer cancel()
	err := j.patiently(bounded, "look at the stream "+j.name, func(ctx context.Context) (err error) {
		info, err = j.stream.Info(ctx)
		return err
	})
	return info, err
}

func (j *logStream) State(ctx context.Context) (State, error) {
	info, err := j.info(ctx)
	if err != nil {
		return State{}, err
	}
	s := State{URL: j.options.URL, FirstSequence: info.State.FirstSeq, LastSequence: info.State.LastSeq, Bytes: info.State.Bytes, MaxBytes: uint64(max(info.Config.MaxBytes, 0)), MaxAge: info.Config.MaxAge}
	if j.server != nil && j.options.Listen != "" {
		s.URL = j.server.address()
	}
	views, err := j.listViews(ctx)
	if err != nil {
		return State{}, err
	}
	if len(views) > 0 {
		s.Compacted = views[0].at
		s.Missing = missing(s.Compacted, s.FirstSequence)
	}
	return s, nil
}

func (j *logStream) Close() error {
	j.closeOnce()
	return nil
}

func cmpZero(v, otherwise int64) int64 {
	if v == 0 {
		return otherwise
	}
	return v
}
