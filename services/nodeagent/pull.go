package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/nats-io/nkeys"

	shiplogv1 "shiplog.dev/api/proto/shiplog/v1"
	"shiplog.dev/internal/journal"
	"shiplog.dev/internal/keyring"
	"shiplog.dev/services/nodeagent/cri"
)

// annotationPuller tells the runtime's plugins who pulls (image-pull R48).
const annotationPuller = "apps.kruise.io/pulling-image-by"

// pull lets the runtime have an image (image-pull R46 to R50, D1, D9, D11).
func (c *call) pull(ctx context.Context, pull *shiplogv1.PullImage) *shiplogv1.Outcome {
	image := pull.GetImage()
	found := &shiplogv1.PulledImage{}
	err := c.find(ctx, pull, found)
	if err == nil && !found.Present {
		var held held
		if held, err = c.credentials(ctx, pull); err == nil {
			found.MissingSecrets = held.missing
			quiet := c.tell(ctx, pull.GetImage())
			err = held.explain(c.obtain(ctx, pull, held.credentials, found))
			quiet()
		}
	}
	outcome := &shiplogv1.Outcome{}
	switch {
	case err == nil:
	case context.Cause(ctx) == errStopped:
		outcome = refused(stopped, fmt.Errorf("pulling image %s is stopped", image))
	case over(ctx):
		outcome = refused(timedOut, fmt.Errorf("pulling image %s is canceled: %w", image, err))
	default:
		outcome = refused(pullFailed, err)
	}
	if err == nil || len(found.MissingSecrets) > 0 {
		outcome.Found = &shiplogv1.Outcome_PulledImage{PulledImage: found}
	}
	return outcome
}

// find asks whether the runtime has the image already, if that will do.
func (c *call) find(ctx context.Context, pull *shiplogv1.PullImage, found *shiplogv1.PulledImage) error {
	if pull.GetAlways() {
		return nil
	}
	return c.patiently(ctx, func(ctx context.Context) (err error) {
		found.ImageId, err = c.runtime.Image(ctx, pull.GetImage())
		found.Present = err == nil && found.ImageId != ""
		return err
	})
}

// obtain pulls with each credential in turn until one is good for it; without any, as nobody. If all fail, the error is that of all.
func (c *call) obtain(ctx context.Context, pull *shiplogv1.PullImage, credentials []keyring.Credential, found *shiplogv1.PulledImage) error {
	annotations := map[string]string{}
	maps.Copy(annotations, pull.GetAnnotations())
	annotations[annotationPuller] = "kruise-daemon"
	try := func(credential *keyring.Credential) error {
		return c.patiently(ctx, func(ctx context.Context) (err error) {
			found.ImageId, err = c.runtime.Pull(ctx, pull.GetImage(), pull.GetLabels(), annotations, credential)
			return err
		})
	}
	if len(credentials) == 0 {
		return try(nil)
	}
	var failures []string
	for i := range credentials {
		err := try(&credentials[i])
		if err == nil || over(ctx) {
			return err
		}
		failures = append(failures, without(text(err), credentials[i]))
	}
	if len(failures) == 1 {
		return errors.New(failures[0])
	}
	return fmt.Errorf("each of %d credentials failed: %s", len(failures), strings.Join(failures, "; "))
}

// tell says how far a pull is whenever that is known and changed, until the function that it returns is called.
func (c *call) tell(ctx context.Context, image string) (quiet func()) {
	ctx, cancel := context.WithCancel(ctx)
	var telling sync.WaitGroup
	telling.Go(func() {
		said := &shiplogv1.CallObserved{State: shiplogv1.CallObserved_STATE_RUNNING}
		for sleep(ctx, c.pace.progress) {
			done, total, err := c.runtime.Progress(ctx, image)
			if errors.Is(err, cri.ErrNoProgress) {
				return
			}
			if err != nil || total == 0 || done == said.BytesDone && total == said.BytesTotal {
				continue
			}
			now := &shiplogv1.CallObserved{State: said.State, BytesDone: done, BytesTotal: total}
			_, err = c.options.Log.Say(ctx, c.sign(&shiplogv1.Entry{Kind: &shiplogv1.Entry_CallObserved{CallObserved: now}}))
			switch {
			case errors.Is(err, journal.ErrRefused):
				return
			case err == nil:
				said = now
			}
		}
	})
	return func() {
		cancel()
		telling.Wait()
	}
}

// without returns a text in which nothing of a credential stands.
func without(text string, credential keyring.Credential) string {
	for _, secret := range []string{credential.Password, credential.Auth, credential.IdentityToken, credential.RegistryToken} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "[redacted]")
		}
	}
	return text
}

// held is what there is to pull an image with.
type held struct {
	credentials []keyring.Credential
	missing     []*shiplogv1.SecretRef
	// trouble says what could not be read.
	trouble []string
}

// explain adds to the error of a pull what else went wrong.
func (h held) explain(err error) error {
	if err == nil || len(h.trouble) == 0 {
		return err
	}
	return fmt.Errorf("%s (%s)", text(err), strings.Join(h.trouble, "; "))
}

// credentials asks for what the Secrets of the command hold, and then the node's own providers.
func (c *call) credentials(ctx context.Context, pull *shiplogv1.PullImage) (held, error) {
	var h held
	if len(pull.GetPullSecrets()) > 0 {
		if err := c.ask(ctx, pull, &h); err != nil {
			return h, err
		}
	}
	if c.options.Providers == nil {
		return h, nil
	}
	named, err := reference.ParseNormalizedNamed(pull.GetImage())
	if err != nil {
		return h, fmt.Errorf("image %q: %w", pull.GetImage(), err)
	}
	found, err := c.options.Providers.Lookup(ctx, named.Name())
	if err != nil {
		h.trouble = append(h.trouble, err.Error())
	}
	h.credentials = append(h.credentials, found...)
	return h, nil
}

// ask asks an executor for what the Secrets hold. The key that opens the answer lives as long as the question.
func (c *call) ask(ctx context.Context, pull *shiplogv1.PullImage, h *held) error {
	key, err := nkeys.CreateCurveKeys()
	if err != nil {
		return fmt.Errorf("make a key for credentials: %w", err)
	}
	defer key.Wipe()
	public, err := key.PublicKey()
	if err != nil {
		return fmt.Errorf("make a key for credentials: %w", err)
	}
	request := journal.CredentialsRequest{Command: c.sequence, Key: public}
	var answer journal.SealedCredentials
	for failures := 1; ; failures++ {
		answer, err = c.options.Log.Credentials(ctx, request)
		if err == nil {
			break
		}
		if errors.Is(err, journal.ErrRefused) || !sleep(ctx, backoff(c.pace, failures)) {
			return fmt.Errorf("ask for the credentials: %w", err)
		}
	}
	for _, secret := range pull.GetPullSecrets() {
		for _, missing := range answer.Missing {
			if missing == secret.GetNamespace()+"/"+secret.GetName() {
				h.missing = append(h.missing, secret)
			}
		}
	}
	for _, malformed := range answer.Malformed {
		h.trouble = append(h.trouble, "Secret "+malformed+" cannot be read")
	}
	if len(answer.Sealed) > 0 {
		h.credentials, err = keyring.Open(answer.Sealed, answer.Sender, key)
	}
	return err
}
