package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
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
	Close() error
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
	// Heard is told of every sign of life, whoever answers it.
	Heard func(node string)
}

const (
	// What an agent says is asked of the intake at node.NODE.say.VERB, which the log does not hold.
	partSay   = "say"
	verbWord  = "word"
	verbAlive = "alive"

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
	// Refused and Busy say why the word was not taken: for good, or for now.
	Refused string `json:"refused,omitempty"`
	Busy    string `json:"busy,omitempty"`
}

func (a answer) said() (Said, error) {
	switch {
	case a.Refused != "":
		return Said{}, fmt.Errorf("%w: %s", ErrRefused, a.Refused)
	case a.Busy != "":
		return Said{}, fmt.Errorf("%w: the intake says: %s", ErrUnavailable, a.Busy)
	}
	return a.Said, nil
}

func answerOf(said Said, err error) answer {
	switch {
	case errors.Is(err, ErrRefused):
		return answer{Refused: err.Error()}
	case err != nil:
		return answer{Busy: "the log does not take it now"}
	}
	return answer{Said: said}
}

// answer lets the intake answer what the agent of a node says.
func (i Intake) answer(ctx context.Context, node, verb string, data []byte) answer {
	switch verb {
	case verbWord:
		word := new(shiplogv1.Entry)
		if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, word); err != nil {
			return answerOf(Said{}, fmt.Errorf("%w: it is no entry", ErrRefused))
		}
		return answerOf(i.Word(ctx, node, word))
	case verbAlive:
		newest, err := i.Alive(ctx, node)
		return answerOf(Said{Sequence: newest}, err)
	}
	return answerOf(Said{}, fmt.Errorf("%w: nobody knows %q", ErrRefused, verb))
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
	return j.share(ctx, name, spaceNode+".*."+partCommand+".>", "commands for nodes", maxCalls)
}

func (j *logStream) Hear(ctx context.Context, intake Intake) error {
	fail := func(err error) error { return fmt.Errorf("hear the agents: %w: %w", ErrUnavailable, err) }
	slots := make(chan struct{}, hearingLimit)
	for range hearingLimit {
		slots <- struct{}{}
	}
	say := j.subject(spaceNode + ".*." + partSay + ".")
	words, err := j.nc.QueueSubscribe(say+"*", intakeQueue, func(msg *nats.Msg) {
		node, verb, err := said(msg.Subject)
		if err != nil {
			return // nobody who may say it says it so
		}
		<-slots
		go func() {
			defer func() { slots <- struct{}{} }()
			ctx, cancel := context.WithTimeout(ctx, sayWait)
			defer cancel()
			if data, err := json.Marshal(intake.answer(ctx, node, verb, msg.Data)); err == nil {
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
	lives, err := j.nc.Subscribe(say+verbAlive, func(msg *nats.Msg) {
		if node, _, err := said(msg.Subject); err == nil {
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

// said returns who says what by a subject shiplog.CLUSTER.node.NODE.say.VERB.
func said(subject string) (node, verb string, err error) {
	tokens := splitSubject(subject)
	if len(tokens) != 6 {
		return "", "", fmt.Errorf("subject %q: six tokens expected", subject)
	}
	node, err = decodeToken(tokens[3])
	return node, tokens[5], err
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

// Join connects anew: an agent is somebody else, in this process too.
func (j *logStream) Join(ctx context.Context, node string) (Node, error) {
	var own []nats.Option
	if j.server != nil {
		own = append(own, nats.InProcessServer(j.server), nats.Token(j.server.token))
	}
	return join(j.options, node, own...)
}

// OpenNode opens the log at options.URL as the agent of a node has it. It waits neither for the server nor for an intake.
func OpenNode(_ context.Context, options Options, node string) (Node, error) {
	o, err := options.complete()
	if err != nil {
		return nil, err
	}
	return join(o, node, nats.RetryOnFailedConnect(true))
}

func join(o Options, node string, own ...nats.Option) (Node, error) {
	n := &nodeLink{link: link{patience: o.Patience}, stream: streamName(o.Cluster), node: node,
		say: root + "." + encodeToken(o.Cluster) + "." + spaceNode + "." + encodeToken(node) + "." + partSay + "."}
	n.closing, n.end = context.WithCancel(context.Background())
	if err := n.dial(o.URL, o.Log, own...); err != nil {
		n.end()
		return nil, fmt.Errorf("open the log at %s as the agent of node %s: %w", o.URL, node, err)
	}
	return n, nil
}

// nodeLink is a Node over NATS.
type nodeLink struct {
	link
	stream, node, say string
	end               context.CancelFunc
}

func (n *nodeLink) Commands(ctx context.Context) (Work, error) {
	if _, err := n.Alive(ctx); err != nil { // who hears that admits the node
		return nil, err
	}
	return n.take(ctx, "take the commands for node "+n.node, func(ctx context.Context) (jetstream.Consumer, error) {
		return n.js.Consumer(ctx, n.stream, nodeConsumer(n.node))
	}, func(context.Context) (uint64, error) { return 0, nil }, nodePulse) // an agent may not ask where the log ends
}

func (n *nodeLink) Say(ctx context.Context, word *shiplogv1.Entry) (Said, error) {
	data, err := proto.Marshal(word)
	if err != nil {
		return Said{}, fmt.Errorf("encode a word: %w", err)
	}
	return n.request(ctx, verbWord, data)
}

func (n *nodeLink) Alive(ctx context.Context) (uint64, error) {
	said, err := n.request(ctx, verbAlive, nil)
	return said.Sequence, err
}

func (n *nodeLink) request(ctx context.Context, verb string, data []byte) (Said, error) {
	fail := func(err error) (Said, error) {
		return Said{}, fmt.Errorf("say something of node %s: %w", n.node, err)
	}
	if limit := n.nc.MaxPayload(); limit > 0 && int64(len(data)) > limit {
		return fail(fmt.Errorf("%w: %d bytes, the server takes %d", ErrTooLarge, len(data), limit))
	}
	asked, cancel := context.WithTimeout(ctx, sayWait)
	defer cancel()
	reply, err := n.nc.RequestWithContext(asked, n.say+verb, data)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrUnavailable, err))
	}
	var a answer
	if err := json.Unmarshal(reply.Data, &a); err != nil {
		return fail(fmt.Errorf("%w: the answer is none", ErrUnavailable))
	}
	s, err := a.said()
	if err != nil {
		return fail(err)
	}
	return s, nil
}

func (n *nodeLink) Close() error {
	n.end()
	n.nc.Close()
	return nil
}
