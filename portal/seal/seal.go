// Package seal encrypts what the portal must be able to read again, such as
// passwords for other systems, under a key that is a file of its own: who has a
// copy of the control database alone has none of it.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bulwarkhq/bulwark/atomicfile"
)

// Errors of Open.
var (
	ErrShort = errors.New("what is stored is incomplete")
	// ErrKey means that another key was used, for another owner, or that the
	// stored bytes were changed.
	ErrKey = errors.New("what is stored cannot be read with this key")
)

// Key encrypts with AES-256-GCM.
type Key struct {
	aead cipher.AEAD
	path string // empty for one that is kept nowhere
}

const keyLength = 32

// OpenKey reads the key and makes it if absent (mode 0600).
func OpenKey(path string) (*Key, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		raw, err = makeKey(path)
	}
	if err != nil {
		return nil, err
	}
	if len(raw) != keyLength {
		return nil, fmt.Errorf("%s has %d bytes, not %d: restore it from a backup, or remove it and enter the secrets again", path, len(raw), keyLength)
	}
	k, err := newKey(raw)
	if err != nil {
		return nil, err
	}
	k.path = path
	return k, nil
}

// NewKey makes a key that is kept nowhere: what it sealed ends with the program.
func NewKey() *Key {
	raw := make([]byte, keyLength)
	rand.Read(raw) // never fails
	k, err := newKey(raw)
	if err != nil {
		panic(err) // of the length of the key only
	}
	return k
}

func newKey(raw []byte) (*Key, error) {
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &Key{aead: aead}, nil
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

// Path is the file of the key.
func (k *Key) Path() string { return k.path }

// Seal encrypts for one owner, an id: sealed bytes that are put in another one's
// place do not open.
func (k *Key) Seal(owner string, plain []byte) []byte {
	nonce := make([]byte, k.aead.NonceSize())
	rand.Read(nonce) // never fails
	return k.aead.Seal(nonce, nonce, plain, []byte(owner))
}

// Open is the inverse of Seal.
func (k *Key) Open(owner string, sealed []byte) ([]byte, error) {
	n := k.aead.NonceSize()
	if len(sealed) < n {
		return nil, ErrShort
	}
	plain, err := k.aead.Open(nil, sealed[:n], sealed[n:], []byte(owner))
	if err != nil {
		return nil, ErrKey
	}
	return plain, nil
}
