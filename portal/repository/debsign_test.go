package repository

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/test/need"
)

// checkDebSignature verifies the signature inside a deb of a published tree with
// debsig-verify, as docs/install/deb.md says, and with gpgv.
func checkDebSignature(t *testing.T, tree, deb string) {
	t.Helper()
	need.Command(t, "debsig-verify")
	dir := t.TempDir()
	policy := string(must(os.ReadFile(filepath.Join(tree, "keys/debsig.pol"))))
	_, id, _ := strings.Cut(policy, `id="`)
	id, _, _ = strings.Cut(id, `"`)
	for _, f := range []struct{ from, to string }{
		{"keys/debsig.pol", "policies/" + id + "/bulwark.pol"}, {"keys/bulwark.gpg", "keyrings/" + id + "/bulwark.gpg"},
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, f.to)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f.to), must(os.ReadFile(filepath.Join(tree, f.from))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verify := []string{"--policies-dir", filepath.Join(dir, "policies"), "--keyrings-dir", filepath.Join(dir, "keyrings")}
	command(t, dir, "debsig-verify", append(verify, deb)...)

	var contents bytes.Buffer
	b := must(os.ReadFile(deb))
	members, err := debMembers(bytes.NewReader(b), int64(len(b)))
	if err != nil || len(members) != 4 || members[3].name != originSignature {
		t.Fatalf("members %v, %v", members, err)
	}
	for _, m := range members[:3] {
		contents.Write(b[m.at : m.at+m.size])
	}
	signature := filepath.Join(dir, "signature")
	if err := os.WriteFile(signature, b[members[3].at:members[3].at+members[3].size], 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), need.Command(t, "gpgv"), "--keyring", filepath.Join(tree, "keys/bulwark.gpg"), signature, "-")
	cmd.Stdin = &contents
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("gpgv: %v\n%s", err, out)
	}

	// dpkg takes it, and a changed one is refused.
	if got := command(t, dir, "dpkg-deb", "--field", deb, "Package"); got != "sample\n" {
		t.Errorf("dpkg-deb reads %q", got)
	}
	command(t, dir, "dpkg-deb", "--extract", deb, filepath.Join(dir, "files"))
	changed := filepath.Join(dir, "changed.deb")
	b[members[2].at+members[2].size-9] ^= 1
	if err := os.WriteFile(changed, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "debsig-verify", append(verify, changed)...).CombinedOutput(); err == nil {
		t.Errorf("debsig-verify takes a changed deb: %s", out)
	}
}

// A deb that is signed already gets one signature, the new one; one that has not
// three members, none.
func TestSignDeb(t *testing.T) {
	key, err := OpenKey(filepath.Join("testdata", "signing-key.asc"), filepath.Join("testdata", "passphrase"), "test", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	first := must(os.ReadFile(makeDeb(t, "1.0-1")))
	sign := func(b []byte) ([]byte, error) {
		var out bytes.Buffer
		err := signDeb(&out, bytes.NewReader(b), int64(len(b)), key)
		return out.Bytes(), err
	}
	once, err := sign(first)
	if err != nil || !bytes.HasPrefix(once, first) {
		t.Fatalf("signing changed the members: %v", err)
	}
	twice, err := sign(once)
	if err != nil || bytes.Count(twice, []byte(originSignature)) != 1 {
		t.Errorf("signed again: %d signatures, %v", bytes.Count(twice, []byte(originSignature)), err)
	}
	members, err := debMembers(bytes.NewReader(first), int64(len(first)))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"without data": first[:members[2].begin], "nothing": nil, "two archives": append(bytes.Clone(first), first[len(arMagic):]...),
	} {
		if err := signDeb(io.Discard, bytes.NewReader(b), int64(len(b)), key); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}
