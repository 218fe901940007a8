package definitions

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/bulwarkhq/bulwark/atomicfile"
)

// roles in the order in which their metadata is made.
var roles = []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP}

// keys are the private keys by role. That of the root may be absent: it is
// needed only to make or renew the root.
type keys map[string]ed25519.PrivateKey

const maxKey = 16 << 10

// readKeys reads the keys of a folder; with create set, absent ones are made
// if none is there at all.
func readKeys(dir string, create bool) (keys, error) {
	k := keys{}
	for _, role := range roles {
		key, err := readKey(keyPath(dir, role))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		k[role] = key
	}
	if len(k) == 0 && create {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("keys of definitions: %w", err)
		}
		for _, role := range roles {
			_, key, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				return nil, fmt.Errorf("keys of definitions: %w", err)
			}
			if err := writeKey(keyPath(dir, role), key); err != nil {
				return nil, err
			}
			k[role] = key
		}
	}
	for _, role := range roles[1:] {
		if k[role] == nil {
			return nil, fmt.Errorf("the key %s is missing: bring it back, releases cannot be signed without it", keyPath(dir, role))
		}
	}
	return k, nil
}

func keyPath(dir, role string) string { return filepath.Join(dir, role+".pem") }

func readKey(path string) (ed25519.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("key of definitions: %w", err)
	}
	block, _ := pem.Decode(data[:min(len(data), maxKey)])
	if block == nil {
		return nil, fmt.Errorf("key of definitions %s: not a PEM file", path)
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("key of definitions %s: %w", path, err)
	}
	key, ok := any.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key of definitions %s: not an Ed25519 key", path)
	}
	return key, nil
}

func writeKey(path string, key ed25519.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("key of definitions: %w", err)
	}
	return atomicfile.Write(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

func signer(key ed25519.PrivateKey) (signature.Signer, error) {
	s, err := signature.LoadSigner(key, crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("key of definitions: %w", err)
	}
	return s, nil
}
