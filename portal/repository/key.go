package repository

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/bulwarkhq/bulwark/atomicfile"
)

const (
	// keyBits: the oldest rpm that we serve (4.11 of RHEL 7) knows RSA only.
	keyBits    = 4096
	maxKeyFile = 256 << 10
)

// Key signs packages and indexes. On disk it is encrypted with a passphrase
// that is kept in another file, which may be on another medium.
type Key struct {
	entity *openpgp.Entity
	now    func() time.Time
}

// signingConfig makes signatures that every rpm and apt in use can read: no
// notations, RSA with SHA-256, the same bytes for the same input and time.
func signingConfig(now func() time.Time) *packet.Config {
	deterministic := false
	return &packet.Config{
		DefaultHash: crypto.SHA256, RSABits: keyBits, Algorithm: packet.PubKeyAlgoRSA, Time: now,
		NonDeterministicSignaturesViaNotation: &deterministic,
	}
}

// OpenKey reads the key of path, which passphraseFile opens; when neither is
// there, both are made.
func OpenKey(path, passphraseFile, name string, now func() time.Time) (*Key, error) {
	text, err := atomicfile.Read(path, maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path, passphraseFile, name, now)
	}
	if err != nil {
		return nil, fmt.Errorf("repository key: %w", err)
	}
	pass, err := atomicfile.Read(passphraseFile, 4<<10)
	if err != nil {
		return nil, fmt.Errorf("repository key: the passphrase of %s: %w", path, err)
	}
	list, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(text))
	if err != nil || len(list) != 1 || list[0].PrivateKey == nil {
		return nil, fmt.Errorf("repository key %s: want one private OpenPGP key, armored: %w", path, errors.Join(err))
	}
	e := list[0]
	if e.PrivateKey.Encrypted {
		if err := e.DecryptPrivateKeys(bytes.TrimSpace(pass)); err != nil {
			return nil, fmt.Errorf("repository key %s: the passphrase in %s does not open it: %w", path, passphraseFile, err)
		}
	}
	if _, ok := e.SigningKey(now()); !ok {
		return nil, fmt.Errorf("repository key %s: it cannot sign (expired, revoked, or made for something else)", path)
	}
	return &Key{entity: e, now: now}, nil
}

func makeKey(path, passphraseFile, name string, now func() time.Time) (*Key, error) {
	cfg := signingConfig(now)
	e, err := openpgp.NewEntity(name, "package signing", "", cfg)
	if err != nil {
		return nil, fmt.Errorf("repository key: %w", err)
	}
	e.Subkeys = nil // it never decrypts anything
	pass, err := atomicfile.Read(passphraseFile, 4<<10)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		var b [32]byte
		rand.Read(b[:]) // never fails
		pass = []byte(base64.RawURLEncoding.EncodeToString(b[:]) + "\n")
		if err := os.MkdirAll(filepath.Dir(passphraseFile), 0o700); err != nil {
			return nil, fmt.Errorf("repository key: %w", err)
		}
		if err := atomicfile.Write(passphraseFile, pass, 0o600); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, fmt.Errorf("repository key: passphrase: %w", err)
	}
	if len(bytes.TrimSpace(pass)) == 0 {
		return nil, fmt.Errorf("repository key: the passphrase file %s is empty", passphraseFile)
	}
	if err := e.EncryptPrivateKeys(bytes.TrimSpace(pass), cfg); err != nil {
		return nil, fmt.Errorf("repository key: encrypting it: %w", err)
	}
	var out bytes.Buffer
	w, err := armor.Encode(&out, openpgp.PrivateKeyType, nil)
	if err != nil {
		return nil, fmt.Errorf("repository key: %w", err)
	}
	if err := errors.Join(e.SerializePrivateWithoutSigning(w, cfg), w.Close()); err != nil {
		return nil, fmt.Errorf("repository key: %w", err)
	}
	if err := atomicfile.Write(path, append(out.Bytes(), '\n'), 0o600); err != nil {
		return nil, err
	}
	if err := e.DecryptPrivateKeys(bytes.TrimSpace(pass)); err != nil {
		return nil, fmt.Errorf("repository key: %w", err)
	}
	return &Key{entity: e, now: now}, nil
}

// Fingerprint is the key's fingerprint in hex, upper case.
func (k *Key) Fingerprint() string {
	return strings.ToUpper(hex.EncodeToString(k.entity.PrimaryKey.Fingerprint))
}

// Public returns the public key as packets, which apt's keyrings are.
func (k *Key) Public() ([]byte, error) {
	var out bytes.Buffer
	if err := k.entity.Serialize(&out); err != nil {
		return nil, fmt.Errorf("repository key: %w", err)
	}
	return out.Bytes(), nil
}

// PublicArmored returns the public key as text, which rpm imports.
func (k *Key) PublicArmored() ([]byte, error) {
	var out bytes.Buffer
	w, err := armor.Encode(&out, openpgp.PublicKeyType, nil)
	if err != nil {
		return nil, fmt.Errorf("repository key: %w", err)
	}
	if err := errors.Join(k.entity.Serialize(w), w.Close()); err != nil {
		return nil, fmt.Errorf("repository key: %w", err)
	}
	return append(out.Bytes(), '\n'), nil
}

// detached signs what r delivers; the signature is a packet or, armored, text.
func (k *Key) detached(r io.Reader, armored bool) ([]byte, error) {
	var out bytes.Buffer
	sign := openpgp.DetachSign
	if armored {
		sign = openpgp.ArmoredDetachSign
	}
	if err := sign(&out, k.entity, r, signingConfig(k.now)); err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	if armored {
		out.WriteByte('\n')
	}
	return out.Bytes(), nil
}

// clearSigned returns the text with a signature around it.
func (k *Key) clearSigned(text []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := clearsign.Encode(&out, k.entity.PrivateKey, signingConfig(k.now))
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	_, err = w.Write(text)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return append(out.Bytes(), '\n'), nil
}
