//go:build system

package system

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// eicar is the industry's harmless test file, put together at run time so that
// this source is not detected itself.
func eicar() []byte {
	return []byte(`X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-` + `STANDARD-ANTIVIRUS-TEST-FILE!$H+H*`)
}

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func zipOf(t *testing.T, name string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// access is the outcome of a file access by a process of its own: the agent
// lets its own relatives do more, and a process that is held can be killed.
type access int

const (
	allowed access = iota
	denied         // EPERM
	absent         // ENOENT
	held           // neither, until the patience ended
	failed
)

func (a access) String() string {
	return [...]string{"allowed", "denied", "absent", "held", "failed"}[a]
}

// try runs a program and reads the outcome of its file access from what it
// says.
func try(t *testing.T, name string, args ...string) access {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), opening)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return allowed
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return held
	case errors.Is(err, os.ErrPermission), strings.Contains(string(out), "Operation not permitted"):
		return denied
	case errors.Is(err, os.ErrNotExist), strings.Contains(string(out), "No such file"):
		return absent
	}
	t.Logf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	return failed
}

func open(t *testing.T, path string) access {
	t.Helper()
	return try(t, "cat", path)
}
