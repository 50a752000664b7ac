package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
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
	// openWait is how long a server may take until it has the stream that it keeps.
	openWait = 10 * time.Second
	// reconnectWait is the pause between attempts to reach an external server.
	reconnectWait = 250 * time.Millisecond

	metaClusterUID = "shiplog.dev/cluster-uid"
)

// logStream is a Journal on one JetStream stream.
type logStream struct {
	link
	options Options
	name    string
	server  Server // nil for an external one
	// issuer signs what the servers are told of agents; nil: this process lets none in.
	issuer nkeys.KeyPair
	// who identifies agents; nil: nobody does.
	who atomic.Pointer[func(context.Context, Proof) (Identity, error)]
	// joined holds the nodes whose agents joined in this process, by their keys.
	joined sync.Map
	stream jetstream.Stream
	views  jetstream.ObjectStore

	// inflight bounds what has been published and not acknowledged; see flightBytes.
	inflight *semaphore.Weighted
	// commands is held while commands are published: the server refuses two checks of one fence at a time.
	commands sync.Mutex
	// answers are those to streams of messages, at inbox and below.
	answers chan *nats.Msg
	inbox   string
	// compacting is held by Compact.
	compacting sync.Mutex

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
	j := &logStream{link: link{patience: o.Patience}, options: o, name: streamName(o.Cluster), inflight: semaphore.NewWeighted(flightBytes)}
	var end context.CancelFunc
	j.closing, end = context.WithCancel(context.Background())
	j.closeOnce = sync.OnceFunc(func() {
		end()
		if j.nc != nil {
			j.nc.Close()
		}
		if j.server != nil {
			j.server.Stop()
		}
	})
	if err := j.open(ctx); err != nil {
		j.closeOnce()
		return nil, err
	}
	return j, nil
}

func (j *logStream) open(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, max(j.options.Patience, openWait))
	defer cancel()
	if err := j.connect(); err != nil {
		return err
	}
	doing := "open the stream " + j.name
	if err := j.patiently(ctx, doing, j.openStream); err != nil {
		return err
	}
	return j.patiently(ctx, "open the compacted views of "+j.name, j.openViews)
}

func (j *logStream) connect() (err error) {
	url := j.options.URL
	var own []nats.Option
	if len(j.options.CalloutSeed) > 0 {
		if j.issuer, err = nkeys.FromSeed(j.options.CalloutSeed); err != nil {
			return fmt.Errorf("read the key by which agents are let in: %w", err)
		}
	}
	if url == "" {
		s, o := j.options.Server, j.options
		for _, one := range agentServices(o.Cluster) {
			s.Share(agentAccount, one.subject, one.as, one.many)
		}
		if err := s.Start(o.Durability == Strict, o.AsIs, o.Log, o.Refused); err != nil {
			return err
		}
		j.server, j.issuer = s, s.Issuer()
		own = append(own, nats.InProcessServer(s), nats.UserInfo(s.Login()))
	}
	if err := j.dial(url, j.options.Log, own...); err != nil {
		return fmt.Errorf("open the log at %s: %w", anonymous(url), err)
	}
	j.inbox, j.answers = j.nc.NewInbox(), make(chan *nats.Msg, 2*MaxCommands)
	if _, err := j.nc.ChanSubscribe(j.inbox+".>", j.answers); err != nil {
		return unavailable(context.Background(), "listen for the answers of the log at "+anonymous(url), err)
	}
	if j.issuer == nil {
		return nil
	}
	if err := j.answerCallouts(); err != nil {
		return fmt.Errorf("let agents into the log at %s: %w", anonymous(url), err)
	}
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
		Compression:        compression(o),
		DenyDelete:         true,
		AllowRollup:        true,
		AllowDirect:        o.Replicas == 1, // a follower may answer a direct get from the past
		AllowAtomicPublish: true,
		AllowBatchPublish:  true,
		AllowMsgSchedules:  true,
	}
	if o.Retention > 0 && o.Retention < duplicates {
		want.Duplicates = o.Retention
	}
	for _, space := range []string{spaceFact + ".>", spaceAdmit + ".>", spaceVouch, spaceCommand + ".>", spaceWish + ".>", spaceWake + ".>",
		spaceTick + ".>", spaceOutcome + ".>", spaceFence + ".>", spaceSeal + ".>", spaceEvent + ".>", spaceAlarm + ".>",
		// Not all of a node's: what its agent says becomes an entry only when it has been checked.
		spaceNode + ".*." + partCommand + ".>", spaceNode + ".*." + partFact + ".>", spaceNode + ".*." + partOutcome + ".>"} {
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
		have.AllowDirect == want.AllowDirect && have.AllowBatchPublish == want.AllowBatchPublish &&
		have.Compression == want.Compression && slices.Equal(have.Subjects, want.Subjects) && maps.Equal(own(have.Metadata), want.Metadata) {
		return nil
	}
	j.stream, err = j.js.UpdateStream(ctx, want)
	return err
}

// compression of the log's blocks. A server that was killed takes back the end of a replicated stream, to append it anew from what the
// servers had agreed on; nats-server 2.15 damages a compressed block at that, and the whole stream is stuck when all of them were.
func compression(o Options) jetstream.StoreCompression {
	if o.Replicas > 1 {
		return jetstream.NoCompression
	}
	return jetstream.S2Compression
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

func (j *logStream) subject(space string) string {
	return root + "." + encodeToken(j.options.Cluster) + "." + space
}

func (j *logStream) LastOutcome(ctx context.Context, object *shiplogv1.ObjectRef) (*Record, error) {
	return j.last(ctx, Address{Cluster: j.options.Cluster, Space: spaceOutcome, Object: object})
}

func (j *logStream) LastFact(ctx context.Context, object *shiplogv1.ObjectRef) (*Record, error) {
	return j.last(ctx, Address{Cluster: j.options.Cluster, Space: spaceFact, Object: object})
}

func (j *logStream) LastOfNode(ctx context.Context, node string) (*Record, error) {
	return j.last(ctx, runtimeOf(j.options.Cluster, node))
}

// runtimeOf is where the facts about a node's runtime stand.
func runtimeOf(cluster, node string) Address {
	return Address{Cluster: cluster, Space: spaceNode, Node: node, Part: partFact, Verb: verbRuntime}
}

// last returns the newest entry at an address, or nil.
func (j *logStream) last(ctx context.Context, at Address) (*Record, error) {
	subject := at.String()
	return j.get(ctx, "read the last entry at "+subject, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
		return j.stream.GetLastMsgForSubject(ctx, subject)
	})
}

// get returns the entry that find finds, or nil.
func (j *logStream) get(ctx context.Context, doing string, find func(context.Context) (*jetstream.RawStreamMsg, error)) (*Record, error) {
	var found *jetstream.RawStreamMsg
	bounded, cancel := context.WithTimeout(ctx, j.patience)
	defer cancel()
	err := j.patiently(bounded, doing, func(ctx context.Context) (err error) {
		found, err = find(ctx)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		return err
	})
	if err != nil || found == nil {
		return nil, err
	}
	if err := whole(found.Sequence, found.Subject, found.Data, found.Header); err != nil {
		return nil, err
	}
	return raw{sequence: found.Sequence, time: found.Time, subject: found.Subject, data: found.Data}.record()
}

func (j *logStream) info(ctx context.Context, options ...jetstream.StreamInfoOpt) (*jetstream.StreamInfo, error) {
	var info *jetstream.StreamInfo
	bounded, cancel := context.WithTimeout(ctx, j.patience)
	defer cancel()
	err := j.patiently(bounded, "look at the stream "+j.name, func(ctx context.Context) (err error) {
		info, err = j.ledInfo(ctx, options...)
		return err
	})
	return info, err
}

// ledInfo asks once. A server that is cut off from the others describes the stream nevertheless, as it was: that is no answer.
func (j *logStream) ledInfo(ctx context.Context, options ...jetstream.StreamInfoOpt) (*jetstream.StreamInfo, error) {
	info, err := j.stream.Info(ctx, options...)
	if err == nil && info.Cluster != nil && info.Cluster.Leader == "" {
		err = errors.New("no server leads the stream")
	}
	return info, err
}

func (j *logStream) State(ctx context.Context) (State, error) {
	info, err := j.info(ctx)
	if err != nil {
		return State{}, err
	}
	s := State{URL: j.options.URL, Identity: fmt.Sprintf("%s of %d", j.name, info.Created.UnixNano()), FirstSequence: info.State.FirstSeq, LastSequence: info.State.LastSeq, Bytes: info.State.Bytes, MaxBytes: uint64(max(info.Config.MaxBytes, 0)), MaxAge: info.Config.MaxAge}
	if j.server != nil {
		s.URL = j.server.Address()
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
