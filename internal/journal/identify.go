package journal

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// Audience that the token of an agent is for.
const Audience = "shiplog"

// Proof is what the agent of a node shows when it connects. Exactly one is set.
type Proof struct {
	// Token that the node's kubelet gave it.
	Token string
	// Key is the public half of a key that it has proven to hold.
	Key string
}

// Identity is who an agent turned out to be.
type Identity struct {
	Node string
	// UID of the Node object; empty: nobody knows.
	UID string
	// Until is when it has to show its proof again, at the latest; zero: in an hour.
	Until time.Time
}

// Agents live in an account of their own, which holds no stream. What they may use of the log's account is imported there, so
// the server chooses the subjects of all answers. In the log's account an agent could ask for an answer at a subject of
// the stream, where the server would store it: permissions bind what a client publishes, not where it wants answers.
const agentAccount = "SHIPLOG_AGENTS"

// calloutSubject is where the servers ask who a client is.
const calloutSubject = "$SYS.REQ.USER.AUTH"

const (
	// identityLife is for how long an agent is let in, at most.
	identityLife = time.Hour
	// identifyWait bounds finding out who one is, of which the server is told too; identifyLimit is how many at a time.
	identifyWait  = 5 * time.Second
	identifyLimit = 32
	// refusalDelay lets another executor answer first that knows what this one does not.
	refusalDelay = 500 * time.Millisecond
	// agentSubscriptions is how many subscriptions an agent may have: one for answers, one for commands, and some to spare.
	agentSubscriptions = 16
)

// agentService is a part of the log that agents may ask: subjects of which each agent may use those of its own node.
type agentService struct {
	// subject in the account of the log, and as it is known in that of the agents.
	subject, as string
	// many says that one question has several answers.
	many bool
}

// agentServices returns what the account of the agents imports from that of a log.
func agentServices(cluster string) []agentService {
	stream, node, api := streamName(cluster), root+"."+encodeToken(cluster)+"."+spaceNode+".*.", agentAPI(cluster)
	return []agentService{
		{subject: node + partSay + ".*", as: node + partSay + ".*"},
		{subject: node + partAsk + ".*", as: node + partAsk + ".*"},
		{subject: "$JS.API.CONSUMER.INFO." + stream + ".*", as: api + ".CONSUMER.INFO." + stream + ".*"},
		{subject: "$JS.API.CONSUMER.MSG.NEXT." + stream + ".*", as: api + ".CONSUMER.MSG.NEXT." + stream + ".*", many: true},
		{subject: "$JS.ACK." + stream + ".>", as: "$JS.ACK." + stream + ".>"},
	}
}

// agentAPI stands for $JS.API in the account of the agents, where that is the server's word that the account has no streams.
func agentAPI(cluster string) string { return root + "." + encodeToken(cluster) + ".js" }

// agentInbox is where the agent of a node hears answers.
func agentInbox(cluster, node string) string {
	return "_INBOX." + root + "." + encodeToken(cluster) + "." + encodeToken(node)
}

// agentPermissions are all that the agent of a node may do.
func agentPermissions(cluster, node string) jwt.Permissions {
	stream, consumer, api, own := streamName(cluster), nodeConsumer(node), agentAPI(cluster), root+"."+encodeToken(cluster)+"."+spaceNode+"."+encodeToken(node)+"."
	return jwt.Permissions{
		Pub: jwt.Permission{Allow: jwt.StringList{
			own + partSay + "." + verbWord, own + partSay + "." + verbAlive, own + partAsk + "." + verbCredentials,
			api + ".CONSUMER.INFO." + stream + "." + consumer, api + ".CONSUMER.MSG.NEXT." + stream + "." + consumer,
			"$JS.ACK." + stream + "." + consumer + ".>",
		}},
		Sub: jwt.Permission{Allow: jwt.StringList{agentInbox(cluster, node) + ".>"}},
	}
}

// Identify lets agents connect that who knows, until ctx ends, and then returns nil. Errors of who: ErrRefused says that the
// proof is none; others, that it cannot be told now.
func (j *logStream) Identify(ctx context.Context, who func(context.Context, Proof) (Identity, error)) error {
	if j.issuer == nil {
		<-ctx.Done() // the servers are not told to ask
		return nil
	}
	j.who.Store(&who)
	defer j.who.CompareAndSwap(&who, nil)
	select {
	case <-ctx.Done():
		return nil
	case <-j.closing.Done():
		return fmt.Errorf("identify agents: %w: %w", ErrUnavailable, nats.ErrConnectionClosed)
	}
}

// answerCallouts answers the servers' questions who a client is that they do not know.
func (j *logStream) answerCallouts() error {
	slots := make(chan struct{}, identifyLimit)
	_, err := j.nc.Subscribe(calloutSubject, func(msg *nats.Msg) {
		select {
		case slots <- struct{}{}:
		default:
			return // the client comes again
		}
		go func() {
			defer func() { <-slots }()
			if answer, err := j.callout(string(msg.Data)); err == nil {
				_ = msg.Respond([]byte(answer))
			}
		}()
	})
	return err
}

// callout answers one question. Errors: it is none, or there is no answer.
func (j *logStream) callout(question string) (string, error) {
	asked, err := jwt.DecodeAuthorizationRequestClaims(question)
	if err != nil {
		return "", err
	}
	answer := jwt.NewAuthorizationResponseClaims(asked.UserNkey)
	answer.Audience = asked.Server.ID
	ctx, cancel := context.WithTimeout(j.closing, identifyWait)
	defer cancel()
	identity, err := j.identify(ctx, asked)
	if err == nil {
		answer.Jwt, err = j.passport(asked.UserNkey, identity)
	}
	if err != nil {
		j.options.Log.Warn().Err(err).Str("from", asked.ClientInformation.Host).Str("name", asked.ClientInformation.Name).Msg("a client that says it is a node's agent is not let in")
		j.tried("connect")
		answer.Error = "shiplog does not let it in: " + err.Error()
		select {
		case <-ctx.Done():
		case <-time.After(refusalDelay):
		}
	}
	return answer.Encode(j.issuer)
}

// identify finds out who a client is.
func (j *logStream) identify(ctx context.Context, asked *jwt.AuthorizationRequestClaims) (Identity, error) {
	proof := Proof{Token: asked.ConnectOptions.Token, Key: asked.ConnectOptions.Nkey}
	if proof.Key != "" {
		proof.Token = ""
		if err := proven(proof.Key, asked.ConnectOptions.SignedNonce, asked.ClientInformation.Nonce); err != nil {
			return Identity{}, err
		}
		if node, own := j.joined.Load(proof.Key); own {
			return Identity{Node: node.(string)}, nil
		}
	}
	who := j.who.Load()
	switch {
	case proof == Proof{}:
		return Identity{}, fmt.Errorf("%w: it shows neither a token nor a key", ErrRefused)
	case who == nil:
		return Identity{}, fmt.Errorf("%w: nobody here can tell who it is", ErrUnavailable)
	}
	return (*who)(ctx, proof)
}

// proven says whether a signature of the server's nonce is by the key.
func proven(key, signature, nonce string) error {
	public, err := nkeys.FromPublicKey(key)
	if err != nil || !nkeys.IsValidPublicUserKey(key) {
		return fmt.Errorf("%w: the key is no user's", ErrRefused)
	}
	signed, err := base64.RawURLEncoding.DecodeString(signature)
	if err == nil {
		err = public.Verify([]byte(nonce), signed)
	}
	if err != nil || nonce == "" {
		return fmt.Errorf("%w: it does not prove that it holds its key", ErrRefused)
	}
	return nil
}

// passport is what the server is told of an agent.
func (j *logStream) passport(userKey string, identity Identity) (string, error) {
	if identity.Node == "" {
		return "", errors.New("it is of no node")
	}
	user := jwt.NewUserClaims(userKey)
	user.Name, user.Audience = "nodeagent/"+identity.Node, agentAccount
	user.Permissions = agentPermissions(j.options.Cluster, identity.Node)
	user.Subs = agentSubscriptions
	until := time.Now().Add(identityLife)
	if given := identity.Until; !given.IsZero() && given.Before(until) {
		until = given
	}
	user.Expires = until.Unix()
	return user.Encode(j.issuer)
}

// tried tells who counts that somebody tried what he may not.
func (j *logStream) tried(what string) {
	if j.options.Refused != nil {
		j.options.Refused(what)
	}
}
