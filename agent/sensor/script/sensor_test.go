package script

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/sensor/sensortest"
	"github.com/bulwarkhq/bulwark/event"
)

func TestArgument(t *testing.T) {
	for _, tc := range [][3]string{
		{"bash", "bash -x -e /a/b.sh -c x", "/a/b.sh"},
		{"bash", "bash -c /a/b.sh", ""},
		{"bash", "bash -xc true", ""},
		{"bash", "bash -o pipefail x.sh", "x.sh"},
		{"bash", "bash --rcfile /r x.sh", "x.sh"},
		{"bash", "bash -- -odd", "-odd"},
		{"bash", "-bash", ""},
		{"bash", "bash", ""},
		{"dash", "sh -s arg", ""},
		{"python3.11", "python3 -m http.server", ""},
		{"python3.11", "python3 -W ignore -u /x.py", "/x.py"},
		{"python3.11", "python3 -Wignore /x.py", "/x.py"},
		{"python3", "python3 -", ""},
		{"perl", "perl -I/lib -w a.pl", "a.pl"},
		{"perl", "perl -ne print a.txt", ""},
		{"php8.2", "php -d x=y -f a.php", "a.php"},
		{"cat", "cat /etc/passwd", ""},
	} {
		if got := argument(tc[0], tc[1]); got != tc[2] {
			t.Errorf("%s: %q, want %q", tc[1], got, tc[2])
		}
	}
}

func TestSensor(t *testing.T) {
	dir := t.TempDir()
	put := func(name, content string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		return p
	}
	small, large := put("small.sh", "#!/bin/sh\necho hi \xff\n"), put("large.py", "# "+strings.Repeat("x", 3*MaxContent))
	binary := put("app.pyz", "PK\x00\x01")
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(sensortest.Log(t))
	sink := sensortest.Start(t, s)
	run := func(p event.Process) {
		s.See(&event.Event{Class: event.ClassProcess, Action: event.ProcessCreated, Process: p})
	}
	of := func(path string) func(*event.Event) bool {
		return func(e *event.Event) bool { return e.File.FolderPath == path }
	}
	run(event.Process{PID: 1, FolderPath: "/usr/bin/dash", FileName: "dash", Script: small, CommandLine: "/bin/sh " + small})
	run(event.Process{PID: 2, FolderPath: "/usr/bin/dash", FileName: "dash", Script: small, CommandLine: "/bin/sh " + small})
	run(event.Process{PID: 3, FolderPath: "/usr/bin/bash", FileName: "bash", CommandLine: "bash " + pipe})
	run(event.Process{PID: 4, FolderPath: "/usr/bin/cat", FileName: "cat", CommandLine: "cat " + small})
	run(event.Process{PID: 5, FolderPath: "/usr/bin/python3.11", FileName: "python3.11", CommandLine: "python3 app.pyz", WorkingDir: dir})
	run(event.Process{PID: 6, FolderPath: "/usr/bin/python3.11", FileName: "python3.11", CommandLine: "python3 -u large.py", WorkingDir: dir})
	e := sink.Wait(t, 1, "the last", of(large))[0]
	if c := e.Additional["ScriptContent"]; len(c) != MaxContent || e.Additional["ScriptContentCut"] != "true" || e.File.Size != 3*MaxContent+2 || e.Initiating.PID != 6 {
		t.Errorf("%d bytes of content, %+v", len(c), e.File)
	}
	first := sink.Find(of(small))
	sum := sha256.Sum256([]byte("#!/bin/sh\necho hi \xff\n"))
	if len(first) != 1 || first[0].Additional["ScriptContent"] != "#!/bin/sh\necho hi \uFFFD\n" || first[0].File.SHA256 != hex.EncodeToString(sum[:]) || first[0].Initiating.PID != 1 {
		t.Errorf("%+v", first)
	}
	if b := sink.Find(of(binary)); len(b) != 1 || b[0].Additional["ContentType"] != "binary" || b[0].Additional["ScriptContent"] != "" {
		t.Errorf("%+v", b)
	}
	if p := sink.Find(of(pipe)); len(p) != 0 {
		t.Errorf("a pipe was read: %+v", p)
	}
	// A script that changed is told again.
	put("small.sh", "#!/bin/sh\necho other\n")
	run(event.Process{PID: 7, FolderPath: "/usr/bin/dash", FileName: "dash", Script: small})
	sink.Wait(t, 2, "the changed one", of(small))
	if st := s.Stats(); st.Seen != 5 || st.Delivered != 4 || st.Filtered != 1 {
		t.Errorf("%+v", st)
	}
}

func FuzzArgument(f *testing.F) {
	f.Add("bash", "bash -o x y")
	f.Add("python3", "python3 -W x -- y")
	f.Fuzz(func(_ *testing.T, program, line string) { _ = argument(program, line) })
}
