package export

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bulwarkhq/bulwark/atomicfile"
)

// Key encrypts the secrets of destinations with AES-256-GCM. It is a file of its
// own: who has a copy of the control database alone has no secrets.
type Key struct {
	aead cipher.AEAD
	path string
}

const keyLength = 32

// OpenKey reads the key and makes it if absent (mode 0600).
func OpenKey(path string) (*Key, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		raw, err = makeKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("key of the export destinations: %w", err)
	}
	if len(raw) != keyLength {
		return nil, fmt.Errorf("key of the export destinations: %s has %d bytes, not %d: restore it from a backup, or remove it and enter the secrets again", path, len(raw), keyLength)
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, fmt.Errorf("key of the export destinations: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("key of the export destinations: %w", err)
	}
	return &Key{aead, path}, nil
}

// makeKey makes the file whole or not at all: half a key would make every secret
// unreadable.
func makeKey(path string) ([]byte, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	raw := make([]byte, keyLength)
	rand.Read(raw) // never fails
	if err := atomicfile.Write(path, raw, 0o600); err != nil {
		return nil, err
	}
	return raw, nil
}

// seal encrypts the secrets of the destination with that id, for no other.
func (k *Key) seal(id string, s Secrets) ([]byte, error) {
	plain, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encrypting the secrets: %w", err)
	}
	nonce := make([]byte, k.aead.NonceSize())
	rand.Read(nonce) // never fails
	return k.aead.Seal(nonce, nonce, plain, []byte(id)), nil
}

func (k *Key) open(id string, sealed []byte) (s Secrets, err error) {
	n := k.aead.NonceSize()
	if len(sealed) < n {
		return s, errors.New("the stored secrets are incomplete: enter them again")
	}
	plain, err := k.aead.Open(nil, sealed[:n], sealed[n:], []byte(id))
	if err != nil {
		return s, fmt.Errorf("the secrets cannot be read with the key in %s: restore that file, or enter the secrets again", k.path)
	}
	if err := json.Unmarshal(plain, &s); err != nil {
		return s, fmt.Errorf("the stored secrets: %w", err)
	}
	return s, nil
}
