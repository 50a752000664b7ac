package webhook

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes/fake"
)

var names = []string{"kruise-webhook-service.kruise-system.svc", "localhost"}

func issued(t *testing.T, present Certificates, names []string, now time.Time) (Certificates, bool) {
	t.Helper()
	certificates, fresh, err := issue(present, names, now)
	if err != nil {
		t.Fatal(err)
	}
	if authorities, _ := certificates.authorities(now); !certificates.serves(authorities, names, now) {
		t.Error("the certificate does not serve")
	}
	return certificates, fresh
}

// install-and-config R16, R17.
func TestCertificatesAreRenewedInTime(t *testing.T) {
	now := time.Now()
	first, fresh := issued(t, Certificates{}, names, now)
	if !fresh {
		t.Error("nothing is good enough")
	}
	if again, fresh := issued(t, first, names, now.Add(24*time.Hour)); fresh || !again.equal(first) {
		t.Error("renewed after a day")
	}
	// Another name needs another certificate, not another authority.
	moved, fresh := issued(t, first, []string{"10.0.0.7", "localhost"}, now)
	if !fresh || !bytes.Equal(moved.Authorities, first.Authorities) || bytes.Equal(moved.Certificate, first.Certificate) {
		t.Error("want a new certificate of the same authority")
	}
	// Near its end both are replaced; the authority that signed what other replicas still serve with stays trusted.
	late := now.Add(validFor - renewBefore + time.Hour)
	next, fresh := issued(t, first, names, late)
	authorities, _ := next.authorities(late)
	if !fresh || len(authorities) != 2 || !first.serves(authorities, names, now) {
		t.Errorf("fresh %v, %d authorities", fresh, len(authorities))
	}
	// Once it has ended, it is trusted no more.
	after := now.Add(validFor + time.Hour)
	if authorities, _ := next.authorities(after); len(authorities) != 1 {
		t.Errorf("%d authorities after the end of the first", len(authorities))
	}
}

func TestDamagedCertificatesAreReplaced(t *testing.T) {
	now := time.Now()
	good, _ := issued(t, Certificates{}, names, now)
	other, _ := issued(t, Certificates{}, names, now)
	for name, spoil := range map[string]func(*Certificates){
		"no key":                 func(c *Certificates) { c.Key = nil },
		"another's key":          func(c *Certificates) { c.Key = other.Key },
		"no authority":           func(c *Certificates) { c.Authorities = nil },
		"another's authority":    func(c *Certificates) { c.Authorities = other.Authorities },
		"rubbish":                func(c *Certificates) { c.Authorities, c.Certificate = []byte("x"), []byte("y") },
		"lost key of authority":  func(c *Certificates) { c.AuthorityKey, c.Certificate = nil, nil },
		"wrong key of authority": func(c *Certificates) { c.AuthorityKey, c.Certificate = other.AuthorityKey, nil },
	} {
		t.Run(name, func(t *testing.T) {
			spoilt := good
			spoil(&spoilt)
			if _, fresh := issued(t, spoilt, names, now); !fresh {
				t.Error("kept")
			}
		})
	}
}

// install-and-config R15: replicas that start at once end up with the same certificates.
func TestReplicasShareASecret(t *testing.T) {
	client := fake.NewClientset().CoreV1().Secrets("kruise-system")
	one, two := &Secret{Client: client, Name: "kruise-webhook-certs"}, &Secret{Client: client, Name: "kruise-webhook-certs"}
	for _, s := range []*Secret{one, two} {
		if kept, err := s.Load(t.Context()); err != nil || len(kept.Key) > 0 {
			t.Fatal(kept, err)
		}
	}
	first, _ := issued(t, Certificates{}, names, time.Now())
	second, _ := issued(t, Certificates{}, names, time.Now())
	if err := one.Save(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if err := two.Save(t.Context(), second); !errors.Is(err, ErrChanged) {
		t.Fatalf("the second replica was told %v", err)
	}
	w := &Webhook{options: Options{Store: two}, names: names}
	if err := w.renew(t.Context()); err != nil || !w.held().equal(first) {
		t.Errorf("the second replica serves with its own: %v", err)
	}
	secret := one.loaded
	keys := []string{}
	for key := range secret.Data {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	if want := []string{"ca-cert.pem", "ca-key.pem", "cert.pem", "key.pem", "tls.crt", "tls.key"}; !slices.Equal(keys, want) {
		t.Errorf("keys are %v, want %v", keys, want)
	}
}

func TestDirectoryKeepsCertificates(t *testing.T) {
	store := Directory(t.TempDir() + "/webhook")
	w := &Webhook{options: Options{Store: store}, names: names}
	if err := w.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := &Webhook{options: Options{Store: store}, names: names}
	if err := again.renew(t.Context()); err != nil || !again.held().equal(w.held()) {
		t.Errorf("a restart makes new ones: %v", err)
	}
}
