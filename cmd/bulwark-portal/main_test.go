package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/api/onboarding"
)

// portal runs one command line and returns its exit code and what it printed.
func portalCommand(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, &o, &e)
	return code, o.String(), e.String()
}

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	settings := filepath.Join(dir, "s.yaml")
	if err := os.WriteFile(settings, []byte("nonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		args string
		code int
		want string
	}{
		{"version", 0, "bulwark-portal"},
		{"--help", 0, "Exit status"},
		{"serve --help", 0, "--listen"},
		{"nonsense", 2, "unknown command"},
		{"serve --nonsense", 2, "unknown flag"},
		{"serve extra", 2, "unexpected argument"},
		{"admin", 2, "create"},
		{"onboarding create", 2, "--out"},
		{"onboarding create --out x --expires soon", 2, "30d"},
		{"onboarding create --out x --portal-url http://x", 2, "https://"},
		{"onboarding create --out x --tag a", 2, "KEY=VALUE"},
		{"token create --name x --scope Root", 2, "unknown scope"},
		{"token create", 2, "--name"},
		{"serve --host-name https://x", 2, "neither a host name"},
		{"serve --metrics-listen 0.0.0.0:1", 2, "loopback"},
		{"serve --log-level loud", 2, "debug, info"},
		{"version --config " + settings, 2, `no option "nonsense"`},
		{"version --config /does/not/exist", 2, "no such file"},
		{"admin create --name <x>", 1, "user name"},
		{"admin reset-password --name nobody", 1, "not found"},
		{"admin reset-second-factor --name nobody", 1, "no such account"},
		{"serve --require-second-factor king", 2, "king"},
		{"serve --local-accounts=false", 2, "nobody could sign in"},
		{"serve --oidc-client-id x", 2, "without --oidc-issuer"},
		{"serve --oidc-issuer https://idp.example.org", 2, "--oidc-roles"},
		{"serve --oidc-issuer https://idp.example.org --oidc-roles soc=king", 2, "king"},
		{"serve --oidc-issuer https://idp.example.org --oidc-roles soc=analyst", 2, "--oidc-client-secret-file is missing"},
		{"serve --oidc-issuer https://idp.example.org --oidc-roles soc=analyst --oidc-client-secret-file /nowhere/secret", 2, "/nowhere/secret"},
		{"serve --oidc-issuer http://idp.example.org --oidc-client-id x --oidc-roles soc=analyst --oidc-client-secret-file " + secret, 2, "https"},
		{"admin create --data-dir " + file, 1, "not a directory"},
		{"serve --database mysql://u:geheim@h/d", 2, "postgres://"},
		{"token create --name x --database postgres://u:geheim@127.0.0.1:1/d?connect_timeout=5", 1, "control database d at 127.0.0.1"},
	} {
		args := strings.Fields(x.args)
		if !strings.Contains(x.args, "data-dir") && !strings.Contains(x.args, "help") {
			args = append(args, "--data-dir", filepath.Join(dir, "data"))
		}
		code, out, errOut := portalCommand(t, args...)
		if code != x.code || !strings.Contains(out+errOut, x.want) || strings.Contains(out+errOut, "geheim") {
			t.Errorf("%s: exit %d, want %d and %q\n%s%s", x.args, code, x.code, x.want, out, errOut)
		}
	}
}

func TestSettings(t *testing.T) {
	dir := t.TempDir()
	settings := filepath.Join(dir, "s.yaml")
	// listen belongs to another command and is left alone.
	if err := os.WriteFile(settings, []byte("name: from-file\nlisten: 127.0.0.1:1\ndata-dir: "+dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	create := func(args ...string) string {
		t.Helper()
		code, out, errOut := portalCommand(t, append([]string{"admin", "create", "--config", settings}, args...)...)
		if code != 0 {
			t.Fatalf("exit %d: %s", code, errOut)
		}
		return out
	}
	if out := create(); !strings.Contains(out, "from-file") {
		t.Errorf("the file is not used:\n%s", out)
	}
	t.Setenv("BULWARK_PORTAL_NAME", "from-environment")
	if out := create(); !strings.Contains(out, "from-environment") {
		t.Errorf("the environment does not win over the file:\n%s", out)
	}
	if out := create("--name", "from-line"); !strings.Contains(out, "from-line") {
		t.Errorf("the command line does not win:\n%s", out)
	}
}

func FuzzSettings(f *testing.F) {
	for _, s := range []string{"listen: 127.0.0.1:1\nretention: 30d", "a: [1]", "a: &x [*x]", "{", "a: {b: c}", "? x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(_ *testing.T, text []byte) {
		if len(text) <= maxSettings {
			_, _ = parseSettings("f", text) // it must not panic or hang
		}
	})
}

func TestDays(t *testing.T) {
	for in, want := range map[string]time.Duration{"30d": 720 * time.Hour, "12h": 12 * time.Hour, "0d": 0} {
		var d days
		if err := d.Set(in); err != nil || time.Duration(d) != want {
			t.Errorf("%s: %v %v", in, time.Duration(d), err)
		}
	}
	for _, bad := range []string{"", "d", "-1d", "1w", "-1h", "99999999d"} {
		var d days
		if d.Set(bad) == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// The offline commands work beside a portal that serves; a second portal on
// the same data is refused; it stops cleanly.
func TestServe(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int, 1)
	var log bytes.Buffer
	go func() {
		done <- run(ctx, []string{"serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--host-name", "localhost,127.0.0.1", "--metrics-listen", "127.0.0.1:0"}, &log, &log)
	}()
	ended := false
	defer func() {
		cancel()
		if !ended {
			<-done
		}
	}()
	var at served
	eventually(t, "the portal does not serve", func() error {
		text, err := os.ReadFile(servedPath(dir))
		if err == nil {
			err = json.Unmarshal(text, &at)
		}
		if err != nil {
			return err
		}
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(at.URL, "https://"))
		if err != nil {
			return err
		}
		return c.Close()
	})
	code, out, errOut := portalCommand(t, "admin", "create", "--data-dir", dir)
	if code != 0 || !strings.Contains(out, at.URL) || !regexp.MustCompile(`One-time password: \S{23}\n`).MatchString(out) {
		t.Errorf("admin create: %d\n%s%s", code, out, errOut)
	}
	if code, _, errOut := portalCommand(t, "admin", "create", "--data-dir", dir); code != 1 || !strings.Contains(errOut, "reset-password") {
		t.Errorf("the same administrator again: %d %s", code, errOut)
	}
	if code, out, errOut := portalCommand(t, "token", "create", "--data-dir", dir, "--name", "t"); code != 0 || !strings.HasPrefix(out, "bwa_") {
		t.Errorf("token create: %d\n%s%s", code, out, errOut)
	}
	file := filepath.Join(dir, "onboard.json")
	if code, _, errOut := portalCommand(t, "onboarding", "create", "--data-dir", dir, "--out", file, "--expires", "2d", "--tag", "GROUP=blue"); code != 0 {
		t.Fatalf("onboarding create: %d %s", code, errOut)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := onboarding.Parse(text)
	if err != nil || p.Portal != at.URL || len(p.Tags) != 1 {
		t.Errorf("the package: %+v %v", p, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the package's mode: %v %v", info.Mode(), err)
	}
	if code, _, errOut := portalCommand(t, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0"); code != 1 || !strings.Contains(errOut, "another portal runs") {
		t.Errorf("a second portal: %d %s", code, errOut)
	}
	cancel()
	select {
	case code := <-done:
		ended = true
		if code != 0 {
			t.Errorf("the portal ended with %d\n%s", code, &log)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("the portal does not stop")
	}
}

// Administrators are told every option with its origin, and no password.
func TestShownOptions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s.yaml")
	if err := os.WriteFile(file, []byte("retention: 7d\nevent-memory: 300\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	root := rootCommand()
	cmd, args, err := root.Find([]string{"serve", "--config", file, "--listen", "127.0.0.1:0", "--event-memory", "400"})
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"BULWARK_PORTAL_DATABASE": "postgres://ann:s3cr@t:x@db1,db2:5433/bulwark?sslmode=verify-full&sslpassword=s3cret"}
	if err := applySettings(cmd, func(name string) (string, bool) { v, ok := env[name]; return v, ok }); err != nil {
		t.Fatal(err)
	}
	got := map[string][2]string{}
	for _, o := range shownOptions(cmd.Flags()) {
		got[o.Name] = [2]string{o.Value, o.Origin}
		if strings.Contains(o.Value, "s3cr") || o.Help == "" {
			t.Errorf("%+v", o)
		}
	}
	for name, want := range map[string][2]string{
		"retention": {"7d", file}, "event-memory": {"400", "command line"}, "listen": {"127.0.0.1:0", "command line"}, "log-level": {"info", "default"},
		"database": {"postgres://ann:***@db1,db2:5433/bulwark?sslmode=verify-full&sslpassword=***", "environment variable BULWARK_PORTAL_DATABASE"},
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	if _, there := got["help"]; there || len(got) < 25 {
		t.Errorf("%d options", len(got))
	}
}

func TestWithoutSecrets(t *testing.T) {
	for value, want := range map[string]string{
		"30d": "30d", "": "", "https://portal.example.org:8443": "https://portal.example.org:8443",
		"clickhouse://portal@ch1,ch2/bulwark?cluster=c&password_file=/etc/p": "clickhouse://portal@ch1,ch2/bulwark?cluster=c&password_file=/etc/p",
		"clickhouse://portal:a/b@c:d%3F@ch1/bulwark?max_bytes=5":             "clickhouse://portal:***@ch1/bulwark?max_bytes=5",
		"postgres://h/db?user=a&PassWord=x&sslkey=/k":                        "postgres://h/db?user=a&PassWord=***&sslkey=***",
		"postgres://u:p@h/db?application_name=a@b":                           "postgres://u:***@b",
		"s3://bucket/prefix": "s3://bucket/prefix",
	} {
		if got := withoutSecrets(value); got != want {
			t.Errorf("%s: %s, want %s", value, got, want)
		}
	}
}
