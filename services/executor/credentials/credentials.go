// Package credentials hands the credentials for one pull to the agent that was commanded to make it, sealed so that nobody on the
// way can read them. It reads the Secrets which that command names, when it is asked, and keeps nothing of them.
package credentials

import (
	"context"
	"errors"
	"fmt"

	"github.com/distribution/reference"
	"github.com/nats-io/nkeys"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/keyring"
)

// maxSecrets is how many Secrets of one command are read.
const maxSecrets = 64

// Clerk answers agents.
type Clerk struct {
	client kubernetes.Interface
	log    journal.Nodes
}

// New returns a Clerk.
func New(client kubernetes.Interface, log journal.Nodes) *Clerk {
	return &Clerk{client: client, log: log}
}

func refuse(why string, arguments ...any) (journal.SealedCredentials, error) {
	return journal.SealedCredentials{}, fmt.Errorf("%w: %s", journal.ErrRefused, fmt.Sprintf(why, arguments...))
}

// Answer seals what the Secrets of a pull hold for its image. The answer is for one pull: an attempt more asks anew. Errors:
// journal.ErrRefused, if the node has no such pull to make; that the log or the API server did not answer. None quotes a Secret.
func (c *Clerk) Answer(ctx context.Context, node string, request journal.CredentialsRequest) (journal.SealedCredentials, error) {
	pull, err := c.open(ctx, node, request.Command)
	if err != nil {
		return journal.SealedCredentials{}, err
	}
	named, err := reference.ParseNormalizedNamed(pull.GetImage())
	if err != nil {
		return refuse("%q is no image", pull.GetImage())
	}
	if !nkeys.IsValidPublicCurveKey(request.Key) {
		return refuse("there is no curve key to seal for")
	}
	var answer journal.SealedCredentials
	var found []keyring.Credential
	for _, secret := range pull.GetPullSecrets()[:min(len(pull.GetPullSecrets()), maxSecrets)] {
		name := secret.GetNamespace() + "/" + secret.GetName()
		held, err := c.client.CoreV1().Secrets(secret.GetNamespace()).Get(ctx, secret.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			answer.Missing = append(answer.Missing, name)
			continue
		}
		if err != nil {
			return journal.SealedCredentials{}, fmt.Errorf("read Secret %s for a pull: %w", name, err)
		}
		ring, err := read(held)
		if err != nil {
			answer.Malformed = append(answer.Malformed, name)
		}
		found = append(found, ring.Lookup(named.Name())...)
	}
	if len(found) == 0 {
		return answer, nil
	}
	answer.Sealed, answer.Sender, err = keyring.Seal(found, request.Key)
	return answer, err
}

// open returns the pull of a command that the node has to make and has not ended.
func (c *Clerk) open(ctx context.Context, node string, command uint64) (*shiplogv1.PullImage, error) {
	record, err := c.log.At(ctx, command)
	if err != nil && !errors.Is(err, journal.ErrUndecodable) {
		return nil, err
	}
	if err != nil || record == nil || record.Entry.GetCommand().GetNode() != node || record.Entry.GetCommand().GetPullImage() == nil {
		return nil, fmt.Errorf("%w: entry %d is no command for node %s to pull an image", journal.ErrRefused, command, node)
	}
	word, outcome, err := c.log.LastOfCall(ctx, node, command)
	if err != nil {
		return nil, err
	}
	if outcome != nil || word == nil || word.Entry.GetCallObserved().GetState() != shiplogv1.CallObserved_STATE_RUNNING {
		return nil, fmt.Errorf("%w: the pull of entry %d is not being made", journal.ErrRefused, command)
	}
	return record.Entry.GetCommand().GetPullImage(), nil
}

// read reads a Secret; what of it can be read.
func read(secret *corev1.Secret) (*keyring.Keyring, error) {
	switch secret.Type {
	case corev1.SecretTypeDockerConfigJson:
		return keyring.ParseConfig(secret.Data[corev1.DockerConfigJsonKey])
	case corev1.SecretTypeDockercfg:
		return keyring.ParseLegacy(secret.Data[corev1.DockerConfigKey])
	}
	return &keyring.Keyring{}, fmt.Errorf("its type is %s", secret.Type)
}
