// Package keytest is a security key in software, for tests: it answers as a
// browser with a key does (ES256, no attestation).
package keytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"
)

// Key is a security key with one credential.
type Key struct {
	// Origin is what the browser says of the page.
	Origin string
	// Counter is the signature counter of the last answer.
	Counter uint32
	// Extensions are the outputs of extensions that the browser reports.
	Extensions map[string]any
	ID         []byte
	private    *ecdsa.PrivateKey
}

// New makes a key for pages of an origin.
func New(origin string) (*Key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	k := &Key{Origin: origin, Extensions: map[string]any{}, ID: make([]byte, 32), private: private}
	rand.Read(k.ID) // never fails
	return k, nil
}

var encode = base64.RawURLEncoding.EncodeToString

// flags of authenticator data (section 6.1).
const (
	userPresent  = 1 << 0
	attestedData = 1 << 6
)

func (k *Key) authenticatorData(rp string, flags byte) []byte {
	k.Counter++
	hash := sha256.Sum256([]byte(rp))
	return binary.BigEndian.AppendUint32(append(hash[:], flags), k.Counter)
}

func (k *Key) client(kind, challenge string) ([]byte, error) {
	return json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": k.Origin, "crossOrigin": false})
}

func (k *Key) answer(response map[string]any) (string, error) {
	text, err := json.Marshal(map[string]any{
		"id": encode(k.ID), "rawId": encode(k.ID), "type": "public-key", "response": response, "clientExtensionResults": k.Extensions,
	})
	return string(text), err
}

// Create answers the options of a registration.
func (k *Key) Create(options []byte) (string, error) {
	var o struct {
		PublicKey struct {
			Challenge string
			RP        struct{ ID string }
		}
	}
	if err := json.Unmarshal(options, &o); err != nil {
		return "", fmt.Errorf("options of a registration: %w", err)
	}
	point, err := k.private.PublicKey.Bytes() // 4, x, y
	if err != nil {
		return "", fmt.Errorf("key: %w", err)
	}
	// RFC 9052 and RFC 9053: an EC2 key for ES256 on P-256.
	public, err := webauthncbor.Marshal(map[int]any{1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]})
	if err != nil {
		return "", fmt.Errorf("public key: %w", err)
	}
	data := k.authenticatorData(o.PublicKey.RP.ID, userPresent|attestedData)
	data = append(data, make([]byte, 16)...) // AAGUID
	data = binary.BigEndian.AppendUint16(data, uint16(len(k.ID)))
	data = append(append(data, k.ID...), public...)
	object, err := webauthncbor.Marshal(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": data})
	if err != nil {
		return "", fmt.Errorf("attestation object: %w", err)
	}
	client, err := k.client("webauthn.create", o.PublicKey.Challenge)
	if err != nil {
		return "", err
	}
	return k.answer(map[string]any{"clientDataJSON": encode(client), "attestationObject": encode(object), "transports": []string{"usb"}})
}

// Get answers the options of a proof.
func (k *Key) Get(options []byte) (string, error) {
	var o struct {
		PublicKey struct{ Challenge, RPID string }
	}
	if err := json.Unmarshal(options, &o); err != nil {
		return "", fmt.Errorf("options of a proof: %w", err)
	}
	client, err := k.client("webauthn.get", o.PublicKey.Challenge)
	if err != nil {
		return "", err
	}
	data := k.authenticatorData(o.PublicKey.RPID, userPresent)
	hash := sha256.Sum256(client)
	digest := sha256.Sum256(append(append([]byte{}, data...), hash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, k.private, digest[:])
	if err != nil {
		return "", fmt.Errorf("signature: %w", err)
	}
	return k.answer(map[string]any{"clientDataJSON": encode(client), "authenticatorData": encode(data), "signature": encode(signature)})
}
