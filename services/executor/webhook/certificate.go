package webhook

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

// Terms of certificates (install-and-config R16, R17).
const (
	validFor = 10 * 365 * 24 * time.Hour
	// renewBefore its end a serving certificate is replaced.
	renewBefore = 180 * 24 * time.Hour
	// authorityKeptFor: an authority that is valid for less makes no more certificates.
	authorityKeptFor = 365 * 24 * time.Hour
	authorityName    = "webhook-cert-ca"
	keyBits          = 2048
)

// Certificates are PEM: an authority of our own, and what it signed for the server.
type Certificates struct {
	// Authorities whose signature clients shall trust: the one that signs, then the one before while it is valid, so that
	// another replica that still serves with its certificate is trusted too.
	Authorities  []byte
	AuthorityKey []byte
	Certificate  []byte
	Key          []byte
}

// issue returns certificates by which the server is known under the given names, the present ones where they will do, and
// whether they are new.
func issue(present Certificates, names []string, now time.Time) (Certificates, bool, error) {
	authorities, signer := present.authorities(now)
	if len(authorities) > 0 && present.serves(authorities, names, now) {
		return present, false, nil
	}
	next := present
	if len(authorities) == 0 || signer == nil || authorities[0].NotAfter.Before(now.Add(authorityKeptFor)) {
		key, err := rsa.GenerateKey(rand.Reader, keyBits)
		if err != nil {
			return Certificates{}, false, fmt.Errorf("make the key of the webhook's authority: %w", err)
		}
		template := &x509.Certificate{
			Subject: pkix.Name{CommonName: authorityName}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		}
		raw, authority, err := sign(template, template, key.Public(), key, now)
		if err != nil {
			return Certificates{}, false, err
		}
		next.Authorities = encode("CERTIFICATE", raw)
		if len(authorities) > 0 {
			next.Authorities = append(next.Authorities, encode("CERTIFICATE", authorities[0].Raw)...)
		}
		next.AuthorityKey = encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
		authorities, signer = []*x509.Certificate{authority}, key
	}
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return Certificates{}, false, fmt.Errorf("make the key of the webhook's certificate: %w", err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: names[0]}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	raw, _, err := sign(template, authorities[0], key.Public(), signer, now)
	if err != nil {
		return Certificates{}, false, err
	}
	next.Certificate, next.Key = encode("CERTIFICATE", raw), encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	return next, true, nil
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer, now time.Time) ([]byte, *x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, fmt.Errorf("draw the serial number of a certificate: %w", err)
	}
	// Clocks of the machines may differ a little.
	template.SerialNumber, template.NotBefore, template.NotAfter = serial, now.Add(-time.Hour), now.Add(validFor)
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, nil, fmt.Errorf("sign the certificate of %s: %w", template.Subject.CommonName, err)
	}
	certificate, err := x509.ParseCertificate(raw)
	return raw, certificate, err
}

// authorities are those that are valid, the one that signs first, and its key; nil where it cannot sign.
func (c Certificates) authorities(now time.Time) ([]*x509.Certificate, crypto.Signer) {
	var valid []*x509.Certificate
	for rest := c.Authorities; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if certificate, err := x509.ParseCertificate(block.Bytes); err == nil && certificate.IsCA && now.Before(certificate.NotAfter) {
			valid = append(valid, certificate)
		}
	}
	if len(valid) == 0 {
		return nil, nil
	}
	key, err := parseKey(c.AuthorityKey)
	if err != nil || !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(valid[0].PublicKey) {
		return valid, nil
	}
	return valid, key
}

// parseKey reads a private key in either form.
func parseKey(raw []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, is := key.(*rsa.PrivateKey)
	if !is {
		return nil, errors.New("not an RSA key")
	}
	return signer, nil
}

// serves says whether the certificate is good for all names, and for a while yet.
func (c Certificates) serves(authorities []*x509.Certificate, names []string, now time.Time) bool {
	pair, err := tls.X509KeyPair(c.Certificate, c.Key)
	if err != nil || pair.Leaf == nil || pair.Leaf.NotAfter.Before(now.Add(renewBefore)) {
		return false
	}
	roots := x509.NewCertPool()
	for _, authority := range authorities {
		roots.AddCert(authority)
	}
	return !slices.ContainsFunc(names, func(name string) bool {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now})
		return err != nil
	})
}

func (c Certificates) equal(other Certificates) bool {
	return bytes.Equal(c.Authorities, other.Authorities) && bytes.Equal(c.Certificate, other.Certificate) && bytes.Equal(c.Key, other.Key)
}

func encode(kind string, raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw})
}
