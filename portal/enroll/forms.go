package enroll

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"text/template"
)

// Forms of an onboarding package. The package inside is the same, byte for
// byte: the scripts carry it as base64, so that no shell, editor or transfer
// changes it.
const (
	FormJSON   = "json" // onboard.json, for configuration management tools
	FormShell  = "sh"   // a shell script, for hosts by hand
	FormPython = "py"   // the same for Python 2.7 and 3
)

// Forms are all of them.
var Forms = []string{FormJSON, FormShell, FormPython}

// File is an onboarding package as it is handed out.
type File struct {
	Name        string
	ContentType string
	Text        []byte
}

// Form puts the text of a package into a form.
func Form(form string, t Token, text []byte) (File, error) {
	switch form {
	case "", FormJSON:
		return File{"onboard.json", "application/json; charset=utf-8", text}, nil
	case FormShell:
		return script("bulwark-onboard.sh", "text/x-shellscript; charset=utf-8", shellForm, t, text)
	case FormPython:
		return script("bulwark-onboard.py", "text/x-python; charset=utf-8", pythonForm, t, text)
	}
	return File{}, fmt.Errorf("onboarding package: there is no form %.20q: use %s", form, strings.Join(Forms, ", "))
}

// Offboarding is the script that takes a host out of the portal. It holds no
// secret: who may run it as root may delete the files by hand.
func Offboarding() File {
	return File{"bulwark-offboard.sh", "text/x-shellscript; charset=utf-8", []byte(offboardForm)}
}

func script(name, contentType string, form *template.Template, t Token, text []byte) (File, error) {
	encoded := base64.StdEncoding.EncodeToString(text)
	var lines []string
	for len(encoded) > 76 {
		lines, encoded = append(lines, encoded[:76]), encoded[76:]
	}
	var out bytes.Buffer
	err := form.Execute(&out, struct{ ID, Expires, Package string }{
		t.ID, t.Expires.UTC().Format("2006-01-02 15:04 MST"), strings.Join(append(lines, encoded), "\n"),
	})
	if err != nil {
		return File{}, fmt.Errorf("onboarding package: %w", err)
	}
	return File{name, contentType, out.Bytes()}, nil
}

var shellForm = template.Must(template.New("sh").Parse(`#!/bin/sh
# Connects this host to its Bulwark portal: sudo sh bulwark-onboard.sh
# Package {{.ID}}, good until {{.Expires}}, for any number of hosts that it was
# made for. Treat it as a secret.
set -eu
if [ "$(id -u)" -ne 0 ]; then
	echo "run it as root" >&2
	exit 1
fi
umask 077
dir=/etc/opt/bulwark
mkdir -p "$dir"
chmod 755 /etc/opt "$dir"
new=$dir/.onboard.new
trap 'rm -f "$new"' EXIT
base64 -d >"$new" <<'PACKAGE'
{{.Package}}
PACKAGE
chmod 600 "$new"
mv -f "$new" "$dir/onboard.json"
echo "The onboarding package is in place: $dir/onboard.json"
if [ -x /opt/bulwark/bin/bulwark ]; then
	echo "The agent takes it by itself; this says how it went: bulwark health"
else
	echo "Install the package bulwark now."
fi
`))

var pythonForm = template.Must(template.New("py").Parse(`#!/usr/bin/env python3
# Connects this host to its Bulwark portal: sudo python3 bulwark-onboard.py
# Package {{.ID}}, good until {{.Expires}}, for any number of hosts that it was
# made for. Treat it as a secret. Python 2.7 runs it too.
from __future__ import print_function
import base64
import os
import sys

PACKAGE = """
{{.Package}}
"""

def main():
    if os.geteuid() != 0:
        print("run it as root", file=sys.stderr)
        return 1
    folder = "/etc/opt/bulwark"
    if not os.path.isdir(folder):
        os.makedirs(folder, 0o755)
    new = os.path.join(folder, ".onboard.new")
    if os.path.lexists(new):
        os.unlink(new)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as f:
        f.write(base64.b64decode("".join(PACKAGE.split())))
    os.rename(new, os.path.join(folder, "onboard.json"))
    print("The onboarding package is in place: %s/onboard.json" % folder)
    if os.path.exists("/opt/bulwark/bin/bulwark"):
        print("The agent takes it by itself; this says how it went: bulwark health")
    else:
        print("Install the package bulwark now.")
    return 0

sys.exit(main())
`))

const offboardForm = `#!/bin/sh
# Takes this host out of its Bulwark portal: sudo sh bulwark-offboard.sh
# The agent stays installed and goes on protecting; the host can be onboarded
# again at any time.
set -eu
if [ "$(id -u)" -ne 0 ]; then
	echo "run it as root" >&2
	exit 1
fi
if [ -S /run/bulwark/bulwark.sock ]; then
	exec /opt/bulwark/bin/bulwark offboard
fi
# Without a running agent, what makes the host belong to the portal is deleted;
# the agent forgets the rest when it starts.
rm -f /etc/opt/bulwark/onboard.json
echo "The onboarding package was deleted; the agent does not run."
`
