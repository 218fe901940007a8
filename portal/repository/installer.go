package repository

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"io/fs"
	"strings"
)

// installParts are the parts of the installer, in the order of their names. The
// lines between its marks are replaced with what it must know of a repository.
//
//go:embed installer/*.sh
var installParts embed.FS

// InstallScript is the installer of no repository in particular.
func InstallScript() ([]byte, error) {
	names, err := fs.Glob(installParts, "installer/*.sh") // sorted
	if err != nil {
		return nil, fmt.Errorf("installer: %w", err)
	}
	var out []byte
	for _, name := range names {
		part, err := installParts.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("installer: %w", err)
		}
		out = append(out, part...)
	}
	return out, nil
}

const (
	installBegin = "# --- repository: the portal fills in these lines ---\n"
	installEnd   = "# --- end of the repository ---\n"
)

// installer writes install.sh with the repository's address and keys inside:
// who trusts the script needs no other trust.
func (t *tree) installer(context.Context) error {
	public, err := t.key.PublicArmored()
	if err != nil {
		return err
	}
	if strings.ContainsAny(t.url, "'\n\\") {
		return fmt.Errorf("installer: the address %q has characters that no address has", t.url)
	}
	var values bytes.Buffer
	fmt.Fprintf(&values, "REPO_URL='%s'\nREPO_KEY='%s'\n", t.url, strings.TrimSpace(string(public)))
	ca, hash := "", ""
	if len(t.ca) > 0 {
		if hash, err = subjectHash(t.ca); err != nil {
			return err
		}
		ca = strings.TrimSpace(string(t.ca))
	}
	fmt.Fprintf(&values, "REPO_CA='%s'\nREPO_CA_HASH='%s'\n", ca, hash)
	script, err := InstallScript()
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(script, []byte(installBegin))
	_, after, ok2 := bytes.Cut(rest, []byte(installEnd))
	if !ok || !ok2 {
		return fmt.Errorf("installer: the lines %q and %q are not in the script", installBegin, installEnd)
	}
	return t.put("install.sh", bytes.Join([][]byte{before, values.Bytes(), after}, nil))
}
