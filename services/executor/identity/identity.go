// Package identity finds out which node an agent is of: by the token that the node's kubelet gave it, which the API server
// reviews, or by a key that somebody listed. It grants nothing; the journal does, for that node only.
package identity

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"shiplog.dev/internal/journal"
)

const (
	// DefaultServiceAccount is the one of OpenKruise's daemon.
	DefaultServiceAccount = "kruise-system/kruise-daemon"

	// What the API server says of a token that is bound to a Pod, or to a Node.
	claimNodeName = "authentication.kubernetes.io/node-name"
	claimNodeUID  = "authentication.kubernetes.io/node-uid"

	maxToken = 16 << 10
)

// Options of New. Config is required.
type Options struct {
	Config *rest.Config
	// ServiceAccount of the agents, NAMESPACE/NAME; empty: DefaultServiceAccount.
	ServiceAccount string
	// Keys are nodes by the public keys of their agents.
	Keys map[string]string
	// Registry takes the metrics; nil: none.
	Registry prometheus.Registerer
}

// Checker knows agents.
type Checker struct {
	client  kubernetes.Interface
	account string
	keys    map[string]string
	checks  *prometheus.CounterVec
}

// New returns a Checker. Errors: the service account is not NAMESPACE/NAME, or the configuration cannot be used.
func New(options Options) (*Checker, error) {
	account := options.ServiceAccount
	if account == "" {
		account = DefaultServiceAccount
	}
	namespace, name, is := strings.Cut(account, "/")
	if !is || namespace == "" || name == "" {
		return nil, fmt.Errorf("the node agents' service account %q is not of the form NAMESPACE/NAME", account)
	}
	client, err := kubernetes.NewForConfig(options.Config)
	if err != nil {
		return nil, fmt.Errorf("set up the reviews of node agents' tokens: %w", err)
	}
	return &Checker{
		client: client, account: "system:serviceaccount:" + namespace + ":" + name, keys: options.Keys,
		checks: promauto.With(options.Registry).NewCounterVec(prometheus.CounterOpts{
			Name: "shiplog_identity_checks_total",
			Help: "Node agents that connected, by result: known, refused (the proof is none), failed (the API server did not answer).",
		}, []string{"result"}),
	}, nil
}

// Identify returns whose proof this is. Errors: journal.ErrRefused, or that the API server did not answer. No error quotes a proof.
func (c *Checker) Identify(ctx context.Context, proof journal.Proof) (journal.Identity, error) {
	identity, err := c.identify(ctx, proof)
	switch {
	case err == nil:
		c.checks.WithLabelValues("known").Inc()
	case errors.Is(err, journal.ErrRefused):
		c.checks.WithLabelValues("refused").Inc()
	default:
		c.checks.WithLabelValues("failed").Inc()
	}
	return identity, err
}

func refuse(why string, arguments ...any) (journal.Identity, error) {
	return journal.Identity{}, fmt.Errorf("%w: %s", journal.ErrRefused, fmt.Sprintf(why, arguments...))
}

func (c *Checker) identify(ctx context.Context, proof journal.Proof) (journal.Identity, error) {
	if proof.Key != "" {
		node, known := c.keys[proof.Key]
		if !known {
			return refuse("the key %s is not listed", proof.Key)
		}
		return journal.Identity{Node: node}, nil
	}
	if len(proof.Token) > maxToken {
		return refuse("the token is too long")
	}
	review, err := c.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: proof.Token, Audiences: []string{journal.Audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return journal.Identity{}, fmt.Errorf("have the API server review a node agent's token: %w", err)
	}
	status := review.Status
	if !status.Authenticated || !slices.Contains(status.Audiences, journal.Audience) {
		return refuse("the API server does not know its token, or it is not for the audience %q", journal.Audience)
	}
	if status.User.Username != c.account {
		return refuse("its token is of %s, not of %s", status.User.Username, c.account)
	}
	node, uid := status.User.Extra[claimNodeName], status.User.Extra[claimNodeUID]
	if len(node) != 1 || node[0] == "" || len(uid) != 1 || uid[0] == "" {
		return refuse("its token is not bound to a Pod on a node")
	}
	return journal.Identity{Node: node[0], UID: uid[0], Until: expiry(proof.Token)}, nil
}

// expiry reads when a token that the API server knows ends; zero: it does not say.
func expiry(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	var says struct {
		Exp int64 `json:"exp"`
	}
	if err != nil || json.Unmarshal(claims, &says) != nil || says.Exp == 0 {
		return time.Time{}
	}
	return time.Unix(says.Exp, 0)
}

// ReadKeys reads lines NODE PUBLICKEY; empty ones and those that begin with # are skipped. Errors name the line.
func ReadKeys(from io.Reader) (map[string]string, error) {
	keys := map[string]string{}
	scanner := bufio.NewScanner(from)
	for line := 1; scanner.Scan(); line++ {
		text := strings.TrimSpace(scanner.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		fields := strings.Fields(text)
		if len(fields) != 2 || !nkeys.IsValidPublicUserKey(fields[1]) {
			return nil, fmt.Errorf("line %d is not a node and the public key (U...) of its agent", line)
		}
		if keys[fields[1]] != "" {
			return nil, fmt.Errorf("line %d lists a key twice", line)
		}
		keys[fields[1]] = fields[0]
	}
	return keys, scanner.Err()
}
