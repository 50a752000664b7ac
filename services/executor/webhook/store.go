package webhook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// Store keeps certificates, so that replicas share them and they outlive a restart.
type Store interface {
	// Load returns what is kept; nothing kept is no error.
	Load(ctx context.Context) (Certificates, error)
	// Save replaces what Load returned. ErrChanged: somebody else did so meanwhile.
	Save(ctx context.Context, certificates Certificates) error
}

// ErrChanged says that what was loaded is no longer what is kept: load again.
var ErrChanged = errors.New("changed meanwhile")

// Names under which the parts are kept (install-and-config R15).
const (
	authorityFile    = "ca-cert.pem"
	authorityKeyFile = "ca-key.pem"
	certificateFile  = "cert.pem"
	keyFile          = "key.pem"
)

func (c Certificates) files() map[string][]byte {
	return map[string][]byte{authorityFile: c.Authorities, authorityKeyFile: c.AuthorityKey, certificateFile: c.Certificate, keyFile: c.Key}
}

func certificatesOf(files map[string][]byte) Certificates {
	return Certificates{Authorities: files[authorityFile], AuthorityKey: files[authorityKeyFile], Certificate: files[certificateFile], Key: files[keyFile]}
}

// Memory keeps certificates as long as the process lives.
type Memory struct{ certificates Certificates }

// Load returns what Save was given.
func (m *Memory) Load(context.Context) (Certificates, error) { return m.certificates, nil }

// Save keeps them.
func (m *Memory) Save(_ context.Context, certificates Certificates) error {
	m.certificates = certificates
	return nil
}

// Directory keeps certificates in files that only their owner reads.
type Directory string

// Load reads the files.
func (d Directory) Load(context.Context) (Certificates, error) {
	files := map[string][]byte{}
	for name := range (Certificates{}).files() {
		raw, err := os.ReadFile(filepath.Join(string(d), name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Certificates{}, fmt.Errorf("read the webhook's certificates: %w", err)
		}
		files[name] = raw
	}
	return certificatesOf(files), nil
}

// Save writes the files. One process owns the directory, so nobody else changes them.
func (d Directory) Save(_ context.Context, certificates Certificates) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("keep the webhook's certificates: %w", err)
	}
	for name, raw := range certificates.files() {
		if err := os.WriteFile(filepath.Join(string(d), name), raw, 0o600); err != nil {
			return fmt.Errorf("keep the webhook's certificates: %w", err)
		}
	}
	return nil
}

// Secret keeps certificates in a Secret, as OpenKruise does: that of an earlier installation goes on to be used.
type Secret struct {
	Client typedcorev1.SecretInterface
	Name   string
	loaded *corev1.Secret
}

// Load reads the Secret.
func (s *Secret) Load(ctx context.Context) (Certificates, error) {
	secret, err := s.Client.Get(ctx, s.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		s.loaded = nil
		return Certificates{}, nil
	case err != nil:
		return Certificates{}, fmt.Errorf("read Secret %s with the webhook's certificates: %w", s.Name, err)
	}
	s.loaded = secret
	return certificatesOf(secret.Data), nil
}

// Save writes the Secret.
func (s *Secret) Save(ctx context.Context, certificates Certificates) error {
	data := certificates.files()
	data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey] = certificates.Certificate, certificates.Key
	var err error
	if s.loaded == nil {
		s.loaded, err = s.Client.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: s.Name}, Data: data}, metav1.CreateOptions{})
	} else {
		next := s.loaded.DeepCopy()
		if next.Data == nil {
			next.Data = map[string][]byte{}
		}
		maps.Copy(next.Data, data)
		s.loaded, err = s.Client.Update(ctx, next, metav1.UpdateOptions{})
	}
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return fmt.Errorf("keep the webhook's certificates in Secret %s: %w", s.Name, ErrChanged)
	case err != nil:
		return fmt.Errorf("keep the webhook's certificates in Secret %s: %w", s.Name, err)
	}
	return nil
}
