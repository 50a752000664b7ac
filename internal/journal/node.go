package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"google.golang.org/protobuf/proto"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
)

// Errors of Node and Nodes.
var (
	// ErrSettled: the log holds an outcome of the command, or heard of the call meanwhile; nothing was appended.
	ErrSettled = errors.New("the call is settled already")
	// ErrRefused: the intake does not take an agent's word, and never will.
	ErrRefused = errors.New("the word was refused")
)

// Node is the log as the agent of one node has it: the commands for that node, and an intake that takes the agent's word. An
// agent reads and writes nothing else.
type Node interface {
	// Commands returns the commands for the node that are not done, under the terms of Journal.Commands. It waits for an intake
	// that admits the node.
	Commands(ctx context.Context) (Work, error)
	// Say offers one word (NodeObserved, CallObserved or Outcome) to the intake and returns once the log holds it. Saying it
	// again is harmless. Errors: ErrRefused; ErrTooLarge; ErrUnavailable, after which it may be said again.
	Say(ctx context.Context, word *shiplogv1.Entry) (Said, error)
	// Alive says that the agent lives, and returns the sequence of the newest fact about its node's runtime (0: none). Errors:
	// those of Say.
	Alive(ctx context.Context) (uint64, error)
	// Credentials asks for what the Secrets of a command to pull an image hold for it, sealed so that only the asker can read
	// it. Errors: those of Say.
	Credentials(ctx context.Context, request CredentialsRequest) (SealedCredentials, error)
	Close() error
}

// CredentialsRequest is an agent's question for the credentials of one pull.
type CredentialsRequest struct {
	// Command is the sequence of the command to pull.
	Command uint64 `json:"command"`
	// Key is the public half of a curve key (nkeys) of which only the asker has the other half.
	Key string `json:"key"`
}

// SealedCredentials answer it.
type SealedCredentials struct {
	// Sealed is sealed from the curve key Sender to that of the question.
	Sealed []byte `json:"sealed,omitempty"`
	Sender string `json:"sender,omitempty"`
	// Missing are Secrets that do not exist, Malformed those that cannot be read, each NAMESPACE/NAME.
	Missing   []string `json:"missing,omitempty"`
	Malformed []string `json:"malformed,omitempty"`
}

// Said is the intake's answer to a word.
type Said struct {
	// Sequence at which the log holds the word, or an equal one.
	Sequence uint64 `json:"sequence,omitempty"`
	// Begun is who said before that the call of this command runs; empty: nobody.
	Begun string `json:"begun,omitempty"`
}

// Nodes is the part of a log that stands between the agents of nodes and everybody else.
type Nodes interface {
	// Join returns the log as the agent of a node has it.
	Join(ctx context.Context, node string) (Node, error)
	// Admit lets the agent of a node take its commands.
	Admit(ctx context.Context, node string) error
	// Identify lets agents connect that who knows, until ctx ends, and then returns nil. Errors of who: ErrRefused, or that it cannot
	// be told now. Errors: ErrUnavailable.
	Identify(ctx context.Context, who func(context.Context, Proof) (Identity, error)) error
	// Hear hands what agents say to an intake, until ctx ends, and then returns nil. Intakes share the words. Errors:
	// ErrUnavailable.
	Hear(ctx context.Context, intake Intake) error
	// Calls returns the commands for all nodes that are not done, under the terms of Commands, up to 65,536 at a time.
	Calls(ctx context.Context, name string) (Work, error)
	// At returns the entry at a position, or nil if there is none any more.
	At(ctx context.Context, sequence uint64) (*Record, error)
	// LastOfCall returns the newest CallObserved of a command for a node, and its outcome; nil where the log holds none.
	LastOfCall(ctx context.Context, node string, command uint64) (word, outcome *Record, err error)
	// AppendWord stores a CallObserved, or the outcome of a call, if the log holds no outcome of the command, and returns its
	// sequence. Errors: ErrSettled, and those of Journal.Append.
	AppendWord(ctx context.Context, word *shiplogv1.Entry) (uint64, error)
	// AppendSilence stores the outcome of a call if the newest CallObserved of the command is at heard (0: there is none), and
	// returns its sequence. Errors: those of AppendWord.
	AppendSilence(ctx context.Context, outcome *shiplogv1.Entry, heard uint64) (uint64, error)
}

// Intake takes what agents say. Its functions are called from several goroutines; that a word names the node that said it
// is for them to check.
type Intake struct {
	// Word takes a word of the agent of a node. An error that is ErrRefused tells the agent never to say it again.
	Word func(ctx context.Context, node string, word *shiplogv1.Entry) (Said, error)
	// Alive answers the sign of life of an agent with the sequence of the newest fact about its node's runtime.
	Alive func(ctx context.Context, node string) (uint64, error)
	// Credentials answers an agent's question; nil: no Secret is read.
	Credentials func(ctx context.Context, node string, request CredentialsRequest) (SealedCredentials, error)
	// Heard is told of every sign of life, whoever answers it.
	Heard func(node string)
}

const (
	// What an agent says, or asks, the intake hears at node.NODE.say.VERB and node.NODE.ask.VERB, which the log does not hold.
	partSay         = "say"
	verbWord        = "word"
	verbAlive       = "alive"
	partAsk         = "ask"
	verbCredentials = "credentials"

	// maxCalls is how many commands for nodes are open at once.
	maxCalls = 1 << 16
	// nodePulse is how often the log gives an agent that waits for commands a sign of life.
	nodePulse = 15 * time.Second
	// A consumer that no agent asks for nodeForgotten goes. One that is made begins nodeLookBack in the past: what is older has
	// an outcome.
	nodeForgotten = 24 * time.Hour
	nodeLookBack  = time.Hour
	// sayWait is how long an agent waits for an answer.
	sayWait = 5 * time.Second
	// hearingLimit is how many words one intake handles at once; hearingMessages and hearingBytes is what waits for it.
	hearingLimit    = 64
	hearingMessages = 4096
	hearingBytes    = 64 << 20
	intakeQueue     = "intake"
)

// answer is how an intake answers an agent: JSON.
type answer struct {
	Said
	Credentials *SealedCredentials `json:"credentials,omitempty"`
	// Refused and Busy say why there is no other answer: for good, or for now.
	Refused string `json:"refused,omitempty"`
	Busy    string `json:"busy,omitempty"`
}

func (a answer) err() error {
	switch {
	case a.Refused != "":
		return fmt.Errorf("%w: %s", ErrRefused, a.Refused)
	case a.Busy != "":
		return fmt.Errorf("%w: the intake says: %s", ErrUnavailable, a.Busy)
	}
	return nil
}

// or returns the answer unless there was an error, and then one that says so.
func (a answer) or(err error) answer {
	switch {
	case errors.Is(err, ErrRefused):
		return answer{Refused: strings.TrimPrefix(err.Error(), ErrRefused.Error()+": ")} // which the agent says again
	case err != nil:
		return answer{Busy: "it cannot be done now"}
	}
	return a
}

// answer lets the intake answer what the agent of a node says or asks.
func (i Intake) answer(ctx context.Context, node, part, verb string, data []byte) answer {
	refuse := func(why string) answer { return answer{}.or(fmt.Errorf("%w: %s", ErrRefused, why)) }
	switch {
	case part == partSay && verb == verbWord:
		word := new(shiplogv1.Entry)
		if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, word); err != nil {
			return refuse("it is no entry")
		}
		said, err := i.Word(ctx, node, word)
		return answer{Said: said}.or(err)
	case part == partSay && verb == verbAlive:
		newest, err := i.Alive(ctx, node)
		return answer{Said: Said{Sequence: newest}}.or(err)
	case part == partAsk && verb == verbCredentials && i.Credentials != nil:
		var request CredentialsRequest
		if err := json.Unmarshal(data, &request); err != nil {
			return refuse("it is no question")
		}
		sealed, err := i.Credentials(ctx, node, request)
		return answer{Credentials: &sealed}.or(err)
	}
	return refuse("nobody knows " + verb)
}

// nodeConsumer is the name under which the agent of a node takes its commands.
func nodeConsumer(node string) string { return "node-" + nameOf(node) }

func (j *logStream) Admit(ctx context.Context, node string) error {
	doing := "let the agent of node " + node + " take its commands"
	bounded, cancel := context.WithTimeout(ctx, j.patience)
	defer cancel()
	return j.patiently(bounded, doing, func(ctx context.Context) error {
		_, err := j.stream.Consumer(ctx, nodeConsumer(node))
		if !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return err
		}
		since := time.Now().Add(-nodeLookBack)
		_, err = j.stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
			Durable:           nodeConsumer(node),
			Description:       "Shiplog: commands for the agent of node " + node,
			FilterSubject:     j.subject(spaceNode + "." + encodeToken(node) + "." + partCommand + ".>"),
			DeliverPolicy:     jetstream.DeliverByStartTimePolicy,
			OptStartTime:      &since,
			AckPolicy:         jetstream.AckExplicitPolicy,
			AckWait:           ackWait,
			MaxAckPending:     maxHeld,
			MaxDeliver:        -1,
			InactiveThreshold: nodeForgotten,
		})
		return err
	})
}

func (j *logStream) Calls(ctx context.Context, name string) (Work, error) {
	return j.share(ctx, name, spaceNode+".*."+partCommand+".>", "commands for nodes", maxCalls, ackWait)
}

func (j *logStream) Hear(ctx context.Context, intake Intake) error {
	fail := func(err error) error { return fmt.Errorf("hear the agents: %w: %w", ErrUnavailable, err) }
	slots := make(chan struct{}, hearingLimit)
	for range hearingLimit {
		slots <- struct{}{}
	}
	agents := j.subject(spaceNode + ".*.")
	for _, part := range []string{partSay, partAsk} {
		words, err := j.nc.QueueSubscribe(agents+part+".*", intakeQueue, func(msg *nats.Msg) {
			node, part, verb, err := said(msg.Subject)
			if err != nil || strings.HasPrefix(msg.Reply, root+".") {
				return // nobody who may say it says it so, or wants an answer among the entries
			}
			<-slots
			go func() {
				defer func() { slots <- struct{}{} }()
				ctx, cancel := context.WithTimeout(ctx, sayWait)
				defer cancel()
				if data, err := json.Marshal(intake.answer(ctx, node, part, verb, msg.Data)); err == nil {
					_ = msg.Respond(data) // an answer that is lost is asked for again
				}
			}()
		})
		if err != nil {
			return fail(err)
		}
		defer words.Unsubscribe()
		if err := words.SetPendingLimits(hearingMessages, hearingBytes); err != nil {
			return fail(err)
		}
	}
	lives, err := j.nc.Subscribe(agents+partSay+"."+verbAlive, func(msg *nats.Msg) {
		if node, _, _, err := said(msg.Subject); err == nil {
			intake.Heard(node)
		}
	})
	if err != nil {
		return fail(err)
	}
	defer lives.Unsubscribe()
	select {
	case <-ctx.Done():
		return nil
	case <-j.closing.Done():
		return fail(nats.ErrConnectionClosed)
	}
}

// said returns who says or asks what by a subject shiplog.CLUSTER.node.NODE.PART.VERB.
func said(subject string) (node, part, verb string, err error) {
	tokens := splitSubject(subject)
	if len(tokens) != 6 {
		return "", "", "", fmt.Errorf("subject %q: six tokens expected", subject)
	}
	node, err = decodeToken(tokens[3])
	return node, tokens[4], tokens[5], err
}

func (j *logStream) At(ctx context.Context, sequence uint64) (*Record, error) {
	return j.get(ctx, fmt.Sprintf("read entry %d", sequence), func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
		return j.stream.GetMsg(ctx, sequence)
	})
}

func (j *logStream) LastOfCall(ctx context.Context, node string, command uint64) (word, outcome *Record, err error) {
	if word, err = j.last(ctx, callOf(j.options.Cluster, node, partFact, command)); err != nil {
		return nil, nil, err
	}
	outcome, err = j.last(ctx, callOf(j.options.Cluster, node, partOutcome, command))
	return word, outcome, err
}

// callOf is where the facts about the call of a command, or its outcome, stand.
func callOf(cluster, node, part string, command uint64) Address {
	return Address{Cluster: cluster, Space: spaceNode, Node: node, Part: part, Verb: verbCall, Target: sequenceToken(command)}
}

func (j *logStream) AppendWord(ctx context.Context, word *shiplogv1.Entry) (uint64, error) {
	m, node, err := composeWord(j.options.Cluster, word)
	if err != nil {
		return 0, err
	}
	return j.appendIf(ctx, m, callOf(j.options.Cluster, node, partOutcome, word.GetCause()), 0)
}

func (j *logStream) AppendSilence(ctx context.Context, outcome *shiplogv1.Entry, heard uint64) (uint64, error) {
	m, node, err := composeWord(j.options.Cluster, outcome)
	if err != nil {
		return 0, err
	}
	return j.appendIf(ctx, m, callOf(j.options.Cluster, node, partFact, outcome.GetCause()), heard)
}

// composeWord prepares a word about a call for the log, and returns its node.
func composeWord(cluster string, word *shiplogv1.Entry) (message, string, error) {
	node := word.GetCallObserved().GetNode()
	if node == "" {
		node = word.GetOutcome().GetNode()
	}
	if node == "" || word.GetCause() == 0 {
		return message{}, "", errors.New("append a word about a call: it names no node, or no command")
	}
	m, err := compose(cluster, 1, word)
	return m, node, err
}

// appendIf stores a message if the newest entry at an address is at a sequence (0: there is none). An outcome that the log
// recognises as one it has is settled too.
func (j *logStream) appendIf(ctx context.Context, m message, at Address, sequence uint64) (uint64, error) {
	msg := m.msg()
	doing := "append a word at " + m.subject
	if err := j.fits(msg); err != nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, sequenceToken(sequence))
	msg.Header.Set(jetstream.ExpectedLastSubjSeqSubjHeader, at.String())
	bounded, cancel := context.WithTimeout(ctx, j.patience)
	defer cancel()
	wait := retryWait
	for {
		stored, duplicate, err := j.ask(bounded, msg)
		if err == nil {
			if duplicate {
				return 0, fmt.Errorf("%s: %w: by the entry at %d", doing, ErrSettled, stored)
			}
			return stored, nil
		}
		var api *jetstream.APIError
		if errors.As(err, &api) && (api.ErrorCode == codeWrongLast || api.ErrorCode == codeWrongLastConstant) {
			// A replicated stream answers so while an earlier message is being agreed on, too. The newest entry tells which.
			last, lerr := j.last(bounded, at)
			if lerr != nil {
				return 0, fmt.Errorf("%s: %w", doing, lerr)
			}
			if newest := sequenceOf(last); newest != sequence || api.ErrorCode == codeWrongLast {
				return 0, fmt.Errorf("%s: %w: by the entry at %d", doing, ErrSettled, newest)
			}
		} else if known := classify(err); !errors.Is(known, ErrUnavailable) {
			return 0, fmt.Errorf("%s: %w", doing, known)
		}
		if !j.pause(bounded, &wait) {
			return 0, unavailable(ctx, doing, err)
		}
	}
}

func sequenceOf(record *Record) uint64 {
	if record == nil {
		return 0
	}
	return record.Sequence
}

// Join connects anew: an agent is somebody else, in this process too, with a key made for it. Only of an external server that does not
// ask this process who agents are it uses the connection's own name and password.
func (j *logStream) Join(_ context.Context, node string) (Node, error) {
	if j.issuer == nil {
		return join(j.options, node, "")
	}
	key, err := nkeys.CreateUser()
	if err != nil {
		return nil, fmt.Errorf("make a key for the agent of node %s: %w", node, err)
	}
	public, err := key.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("make a key for the agent of node %s: %w", node, err)
	}
	j.joined.Store(public, node)
	own := []nats.Option{nats.Nkey(public, key.Sign)}
	if j.server != nil {
		own = append(own, nats.InProcessServer(j.server))
	}
	o := j.options
	o.URL = anonymous(o.URL)
	return join(o, node, agentAPI(o.Cluster), own...)
}

// anonymous returns addresses without names and passwords.
func anonymous(addresses string) string {
	out := strings.Split(addresses, ",")
	for i, one := range out {
		if address, err := url.Parse(strings.TrimSpace(one)); err == nil && address.User != nil {
			address.User = nil
			out[i] = address.String()
		}
	}
	return strings.Join(out, ",")
}

// Credential is what an agent proves with who it is. At most one is set; neither: the server asks nobody who it is.
type Credential struct {
	// TokenFile holds the token that the kubelet keeps fresh. It is read at each connection.
	TokenFile string
	// Seed is that of a user's key.
	Seed []byte
}

// OpenNode opens the log at options.URL as the agent of a node has it. It waits neither for the server nor for an intake.
func OpenNode(_ context.Context, options Options, node string, credential Credential) (Node, error) {
	o, err := options.complete()
	if err != nil {
		return nil, err
	}
	own := []nats.Option{nats.RetryOnFailedConnect(true)}
	api := agentAPI(o.Cluster)
	switch {
	case len(credential.Seed) > 0:
		key, err := nkeys.FromSeed(credential.Seed)
		if err != nil {
			return nil, fmt.Errorf("read the key of the agent of node %s: %w", node, err)
		}
		public, err := key.PublicKey()
		if err != nil || !nkeys.IsValidPublicUserKey(public) {
			return nil, fmt.Errorf("read the key of the agent of node %s: it is not the seed of a user's key", node)
		}
		own = append(own, nats.Nkey(public, key.Sign))
	case credential.TokenFile != "":
		own = append(own, nats.TokenHandler(func() string {
			token, err := os.ReadFile(credential.TokenFile)
			if err != nil {
				o.Log.Warn().Err(err).Msg("the token that says which node this is cannot be read")
			}
			return strings.TrimSpace(string(token))
		}))
	default:
		api = ""
	}
	return join(o, node, api, own...)
}

// join connects as the agent of a node. The API of JetStream is at api; empty: where it is by default.
func join(o Options, node, api string, own ...nats.Option) (Node, error) {
	n := &nodeLink{link: link{patience: o.Patience, api: api}, stream: streamName(o.Cluster), node: node,
		own: root + "." + encodeToken(o.Cluster) + "." + spaceNode + "." + encodeToken(node) + "."}
	n.closing, n.end = context.WithCancel(context.Background())
	own = append(own, nats.Name("shiplog nodeagent "+node), nats.CustomInboxPrefix(agentInbox(o.Cluster, node)),
		nats.PingInterval(nodePulse),
		nats.IgnoreAuthErrorAbort()) // who is not let in now may be later: the token changes, executors come and go
	if err := n.dial(o.URL, o.Log, own...); err != nil {
		n.end()
		return nil, fmt.Errorf("open the log at %s as the agent of node %s: %w", anonymous(o.URL), node, err)
	}
	return n, nil
}

// nodeLink is a Node over NATS.
type nodeLink struct {
	link
	stream, node string
	// own is the beginning of all subjects of the node.
	own string
	end context.CancelFunc
}

func (n *nodeLink) Commands(ctx context.Context) (Work, error) {
	if _, err := n.Alive(ctx); err != nil { // who hears that admits the node
		return nil, err
	}
	return n.take(ctx, "take the commands for node "+n.node, keepAlive, func(ctx context.Context) (jetstream.Consumer, error) {
		return n.js.Consumer(ctx, n.stream, nodeConsumer(n.node))
	}, func(context.Context) (uint64, error) { return 0, nil }, func() time.Duration { return nodePulse }) // an agent may not ask where the log ends
}

func (n *nodeLink) Say(ctx context.Context, word *shiplogv1.Entry) (Said, error) {
	data, err := proto.Marshal(word)
	if err != nil {
		return Said{}, fmt.Errorf("encode a word: %w", err)
	}
	a, err := n.request(ctx, partSay, verbWord, data)
	return a.Said, err
}

func (n *nodeLink) Alive(ctx context.Context) (uint64, error) {
	a, err := n.request(ctx, partSay, verbAlive, nil)
	return a.Sequence, err
}

func (n *nodeLink) Credentials(ctx context.Context, request CredentialsRequest) (SealedCredentials, error) {
	data, err := json.Marshal(request)
	if err != nil {
		return SealedCredentials{}, fmt.Errorf("encode a question: %w", err)
	}
	a, err := n.request(ctx, partAsk, verbCredentials, data)
	if err != nil || a.Credentials == nil {
		return SealedCredentials{}, err
	}
	return *a.Credentials, nil
}

func (n *nodeLink) request(ctx context.Context, part, verb string, data []byte) (answer, error) {
	fail := func(err error) (answer, error) {
		return answer{}, fmt.Errorf("say something of node %s: %w", n.node, err)
	}
	if limit := n.nc.MaxPayload(); limit > 0 && int64(len(data)) > limit {
		return fail(fmt.Errorf("%w: %d bytes, the server takes %d", ErrTooLarge, len(data), limit))
	}
	asked, cancel := context.WithTimeout(ctx, sayWait)
	defer cancel()
	reply, err := n.nc.RequestWithContext(asked, n.own+part+"."+verb, data)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrUnavailable, err))
	}
	var a answer
	if err := json.Unmarshal(reply.Data, &a); err != nil {
		return fail(fmt.Errorf("%w: the answer is none", ErrUnavailable))
	}
	if err := a.err(); err != nil {
		return fail(err)
	}
	return a, nil
}

func (n *nodeLink) Close() error {
	n.end()
	n.nc.Close()
	return nil
}
