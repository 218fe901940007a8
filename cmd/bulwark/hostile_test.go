package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"
)

// TestBadInput: what cannot be is refused with a clear error, and changes
// nothing.
func TestBadInput(t *testing.T) {
	d := runDaemon(t, true)
	root := strings.TrimSuffix(d.dirs.Run, "/run/bulwark")
	local := filepath.Join(d.dirs.State, "local.json")
	if err := os.MkdirAll(d.dirs.State, 0o755); err != nil {
		t.Fatal(err)
	}
	huge := strings.Repeat("x", 1<<17)
	megabytes := `"` + strings.Repeat("y", 2<<20) + `"`
	for _, tt := range []struct {
		args     []string
		contains string
	}{
		{[]string{"exclusion", "folder", "add", "--path", "/tmp/\xff\xfe"}, "not valid UTF-8"},
		{[]string{"exclusion", "folder", "add", "--path", "/" + huge}, "4096 bytes"},
		{[]string{"exclusion", "folder", "add", "--path", "/a/../../b", "--scope", "epp\nglobal"}, "scope"},
		{[]string{"exclusion", "extension", "add", "--name", "a/b"}, "no file extension"},
		{[]string{"exclusion", "extension", "add", "--name", "."}, "no file extension"},
		{[]string{"exclusion", "process", "add", "--name", "*"}, "would exclude everything"},
		{[]string{"exclusion", "process", "remove", "--name", "no\nsuch"}, `no\nsuch`},
		{[]string{"exclusion", "file", "add", "--path", "/x", "--expires", huge}, "want a time"},
		{[]string{"threat", "get", "--id", "../../etc/passwd"}, "no threat"},
		{[]string{"threat", "get", "--id", "."}, "no valid name"},
		{[]string{"threat", "get", "--id", ""}, "no valid name"},
		{[]string{"threat", "get", "--id", "\x1b[2J"}, `\x1b[2J`},
		{[]string{"threat", "get", "--id", huge}, ""},
		{[]string{"threat", "quarantine", "remove", "--id", "unknown\n"}, `unknown\n`},
		{[]string{"threat", "quarantine", "restore", "--id", "nope"}, "no such"},
		{[]string{"threat", "allowed", "add", "--sha256", "zz"}, "64 hexadecimal"},
		{[]string{"threat", "policy", "set", "--type", "malware", "--action", "off"}, "malware"},
		{[]string{"threat", "policy", "set", "--type", "archive_bomb", "--action", "explode"}, "explode"},
		{[]string{"config", "set", "edr.groupIds", megabytes}, "1048576 bytes"},
		{[]string{"config", "set", "antivirusEngine.maximumOnDemandScanThreads", "1e99"}, "1 to 64"},
		{[]string{"config", "set", "antivirusEngine.maximumOnDemandScanThreads", "99999999999999999999999"}, "1 to 64"},
		{[]string{"config", "set", "no\nsuch.key", "1"}, `no\nsuch.key`},
		{[]string{"config", "set", "antivirusEngine.enforcementLevel", "real_time\x00"}, "real_time"},
		{[]string{"config", "set", "networkProtection.exclusions", `["relative"]`}, "no full path"},
		{[]string{"config", "set", "antivirusEngine.definitionsPath", "/"}, "no absolute folder"},
		{[]string{"config", "proxy", "set", "--value", "http://p:1/\nx"}, "proxy"},
		{[]string{"config", "maximum-on-demand-scan-threads", "--value", "-1"}, "1 to 64"},
		{[]string{"config", "show", strings.Repeat("a.", 5000)}, "no setting"},
		{[]string{"config", "scheduled-scan", "weekly-scan", "--day-of-week", "1", "--scan-type", "deep"}, "quick or full"},
		{[]string{"scan", "custom", "--path", "/no/such\nfolder"}, `no/such\nfolder`},
		{[]string{"scan", "custom", "--path", "/tmp", "--threads", "65"}, "64"},
		{[]string{"log", "level", "set", "--level", "info\n"}, "log level"},
		{[]string{"edr", "tag", "set", "--name", "GROUP", "--value", ""}, "not empty"},
		{[]string{"edr", "group-ids", "--group-id", huge}, "1024"},
		{[]string{"health", "--field", "no\x1b[2Jsuch"}, `no\x1b[2Jsuch`},
		{[]string{"health", "--details", "../scans"}, "no details"},
		{[]string{"explain", "/tmp/missing"}, "no such file"},
		{[]string{"explain", "/" + huge}, "limit"},
		{[]string{"network-protection", "exclusion", "add", "--path", "/usr/bin/\xff"}, "not valid UTF-8"},
		{[]string{"edr", "group-ids", "--group-id", "\xff"}, "not valid UTF-8"},
		{[]string{"exclusion", "file", "add", "--path", "/x", "--reason", "\xff"}, "not valid UTF-8"},
		{[]string{"config", "set", "edr.groupIds", "\xff"}, "not valid UTF-8"},
		{[]string{"threat", "allowed", "add", "--name", "\xff"}, "not valid UTF-8"},
		{[]string{"diagnostic", "create", "--path", "/x\x00y"}, "NUL"},
	} {
		before, err := os.ReadFile(local)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, output := range []string{"text", "json"} {
			var stdout, stderr bytes.Buffer
			status := run(t.Context(), "bulwark", append([]string{"--root", root, "--output", output}, tt.args...), &stdout, &stderr)
			name := fmt.Sprintf("%.80q --output %s", tt.args, output)
			said := stderr.String()
			if status != statusError || stdout.Len() > 0 {
				t.Errorf("%s: status %d: %.200s", name, status, stdout.String())
			}
			if output == "json" {
				if !json.Valid(stderr.Bytes()) {
					t.Errorf("%s: no JSON: %.200q", name, said)
				}
				continue
			}
			if !strings.Contains(said, tt.contains) || said == "" {
				t.Errorf("%s: %.200q, want %q", name, said, tt.contains)
			}
			if strings.ContainsFunc(strings.ReplaceAll(said, "\n", ""), func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) ||
				strings.Count(said, "\n") > 2 || len(said) > 1<<20 {
				t.Errorf("%s: the error has control characters or lines of its own: %.200q", name, said)
			}
		}
		after, err := os.ReadFile(local)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if !bytes.Equal(before, after) {
			t.Errorf("%.80q changed the settings to %.300s", tt.args, after)
		}
	}
}

// TestParallelClients: fifty at once, reading and changing, all get their
// answers, and no change is lost.
func TestParallelClients(t *testing.T) {
	d := runDaemon(t, true)
	root := strings.TrimSuffix(d.dirs.Run, "/run/bulwark")
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			for _, args := range [][]string{
				{"health"},
				{"exclusion", "folder", "add", "--path", fmt.Sprintf("/srv/%d", i)},
				{"config", "show", "--origin"},
				{"config", "maximum-on-demand-scan-threads", "--value", fmt.Sprint(1 + i)},
				{"threat", "list"},
				{"exclusion", "list"},
			} {
				var stdout, stderr bytes.Buffer
				if status := run(t.Context(), "bulwark", append([]string{"--root", root}, args...), &stdout, &stderr); status != statusOK {
					t.Errorf("client %d: %v: status %d: %s", i, args, status, stderr.String())
				}
			}
		})
	}
	wg.Wait()
	if n := d.manager.Current().Exclusions().Len(); n != 50 {
		t.Errorf("%d exclusions of 50 clients", n)
	}
}

// TestLocaleAndWidth: what a program reads is the same whatever the terminal
// and the language are.
func TestLocaleAndWidth(t *testing.T) {
	d := runDaemon(t, true)
	root := strings.TrimSuffix(d.dirs.Run, "/run/bulwark")
	for _, command := range []string{"health", "exclusion list", "threat list", "scan list", "config show --origin", "diagnostic analyze", "help"} {
		outputs := map[string]bool{}
		for _, env := range []map[string]string{
			{"LC_ALL": "C", "COLUMNS": "80"},
			{"LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8", "LC_NUMERIC": "de_DE.UTF-8", "COLUMNS": "20"},
			{"LC_ALL": "tr_TR.UTF-8", "COLUMNS": "10000", "TERM": "dumb"},
			{"LC_ALL": "no such", "COLUMNS": "-1", "TERM": ""},
		} {
			for k, v := range env {
				t.Setenv(k, v)
			}
			t.Setenv("TZ", "UTC")
			var stdout, stderr bytes.Buffer
			run(t.Context(), "bulwark", append([]string{"--root", root}, strings.Fields(command)...), &stdout, &stderr)
			outputs[stdout.String()] = true
		}
		if len(outputs) != 1 {
			t.Errorf("%s: %d different outputs", command, len(outputs))
		}
	}
}

func TestWrapped(t *testing.T) {
	const text = "a finding of several words and averyveryverylongpath/that/does/not/fit/anywhere in it"
	for width, lines := range map[int]int{20: 1, 40: 4, 60: 3, 500: 1} {
		var out bytes.Buffer
		a := newApp("bulwark", &out, &out)
		a.terminal, a.width = true, width
		a.wrapped("WARNING  area  ", text)
		got := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(got) != lines {
			t.Errorf("width %d: %d lines: %q", width, len(got), got)
		}
		for i, line := range got {
			if i > 0 && !strings.HasPrefix(line, "               ") {
				t.Errorf("width %d: line %d does not begin below the first: %q", width, i, line)
			}
		}
		if joined := strings.Join(strings.Fields(out.String()), " "); joined != "WARNING area "+text {
			t.Errorf("width %d: words are lost: %q", width, joined)
		}
	}
	var out bytes.Buffer
	a := newApp("bulwark", &out, &out)
	a.width = 40 // no terminal: lines stay whole
	a.wrapped("head ", text)
	if out.String() != "head "+text+"\n" {
		t.Errorf("%q", out.String())
	}
}
