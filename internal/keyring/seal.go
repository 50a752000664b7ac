package keyring

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nkeys"
)

// Seal returns credentials as only the holder of a curve key can read them, and the public half of the key, made for it and
// forgotten, that seals them.
func Seal(found []Credential, to string) (sealed []byte, sender string, _ error) {
	fail := func(err error) ([]byte, string, error) { return nil, "", fmt.Errorf("seal credentials: %w", err) }
	key, err := nkeys.CreateCurveKeys()
	if err != nil {
		return fail(err)
	}
	defer key.Wipe()
	plain, err := json.Marshal(found)
	if err != nil {
		return fail(err)
	}
	defer clear(plain)
	if sender, err = key.PublicKey(); err != nil {
		return fail(err)
	}
	if sealed, err = key.Seal(plain, to); err != nil {
		return fail(err)
	}
	return sealed, sender, nil
}

// Open reads what was sealed by a sender to a curve key. Its errors quote nothing.
func Open(sealed []byte, sender string, key nkeys.KeyPair) ([]Credential, error) {
	plain, err := key.Open(sealed, sender)
	if err != nil {
		return nil, errors.New("the sealed credentials cannot be opened")
	}
	defer clear(plain)
	var found []Credential
	if json.Unmarshal(plain, &found) != nil {
		return nil, errors.New("what was sealed are no credentials")
	}
	return found, nil
}
