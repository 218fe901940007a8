package seal_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/portal/seal"
)

func TestKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "key")
	k, err := seal.OpenKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", info, err)
	}
	sealed := k.Seal("ann", []byte("secret"))
	if bytes.Contains(sealed, []byte("secret")) || bytes.Equal(sealed, k.Seal("ann", []byte("secret"))) {
		t.Error("the same text is sealed the same way, or not at all")
	}
	again, err := seal.OpenKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := again.Open("ann", sealed); err != nil || string(plain) != "secret" {
		t.Errorf("Open = %q, %v", plain, err)
	}
	if _, err := k.Open("bob", sealed); !errors.Is(err, seal.ErrKey) {
		t.Errorf("another's: %v", err)
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := k.Open("ann", sealed); !errors.Is(err, seal.ErrKey) {
		t.Errorf("changed: %v", err)
	}
	if _, err := k.Open("ann", sealed[:5]); !errors.Is(err, seal.ErrShort) {
		t.Errorf("cut off: %v", err)
	}
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.OpenKey(path); err == nil || !strings.Contains(err.Error(), "5 bytes") {
		t.Errorf("half a key: %v", err)
	}
}
