package export

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/bulwarkhq/bulwark/portal/seal"
)

// Key encrypts the secrets of destinations.
type Key struct{ key *seal.Key }

// OpenKey reads the key and makes it if absent (mode 0600).
func OpenKey(path string) (*Key, error) {
	k, err := seal.OpenKey(path)
	if err != nil {
		return nil, fmt.Errorf("key of the export destinations: %w", err)
	}
	return &Key{k}, nil
}

// seal encrypts the secrets of the destination with that id, for no other.
func (k *Key) seal(id string, s Secrets) ([]byte, error) {
	plain, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encrypting the secrets: %w", err)
	}
	return k.key.Seal(id, plain), nil
}

func (k *Key) open(id string, sealed []byte) (s Secrets, err error) {
	plain, err := k.key.Open(id, sealed)
	switch {
	case errors.Is(err, seal.ErrShort):
		return s, errors.New("the stored secrets are incomplete: enter them again")
	case err != nil:
		return s, fmt.Errorf("the secrets cannot be read with the key in %s: restore that file, or enter the secrets again", k.key.Path())
	}
	if err := json.Unmarshal(plain, &s); err != nil {
		return s, fmt.Errorf("the stored secrets: %w", err)
	}
	return s, nil
}
