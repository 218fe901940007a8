package logging

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/test/need"
)

func open(t *testing.T, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(5 * time.Second) })
	return l
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

func TestLinesAndLevels(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l := open(t, Options{Dir: dir})
	log := l.Logger("onaccess")
	log.Debug("not shown")
	log.Info("blocked", "path", "/tmp/a b", "n", 3, slog.Group("by", "pid", 7))
	log.With("x", 1).WithGroup("g").Warn("evil\n[1][x][2026]", "name", "a\x1b[31m\nb")
	if err := l.SetLevel("verbose"); err != nil {
		t.Fatal(err)
	}
	log.Log(context.Background(), LevelVerbose, "shown now", "component", "c")
	l.File(ScanSkipFile, "scan").Info("skipped", "reason", "device")
	if err := l.Close(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(read(t, filepath.Join(dir, MainFile)), "\n"), "\n")
	form := `^\[\d+\]\[onaccess\]\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} UTC\]`
	want := []string{
		form + `\[info\]: blocked path="/tmp/a b" n=3 by\.pid=7$`,
		form + `\[warning\]: evil\\n\[1\]\[x\]\[2026\] x=1 g\.name="a\\x1b\[31m\\nb"$`,
		form + `\[verbose\]: shown now component=c$`,
	}
	if len(lines) != len(want) {
		t.Fatalf("%d lines: %q", len(lines), lines)
	}
	for i := range want {
		if !regexp.MustCompile(want[i]).MatchString(lines[i]) {
			t.Errorf("line %q is not like %s", lines[i], want[i])
		}
	}
	if got := read(t, filepath.Join(dir, ErrorFile)); strings.Count(got, "\n") != 1 || !strings.Contains(got, "evil") {
		t.Errorf("error log: %q", got)
	}
	if got := read(t, filepath.Join(dir, ScanSkipFile)); !strings.Contains(got, "reason=device") {
		t.Errorf("skip log: %q", got)
	}
	if err := l.SetLevel("loud"); err == nil || l.Level() != "verbose" {
		t.Errorf("level %s after a wrong one: %v", l.Level(), err)
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir})
	log := l.Logger("x")
	log.Info("first")
	l.SetRotation(1, 1000)
	l.SetRotation(1, 2)
	long := strings.Repeat("x", 10<<10)
	for i := range 600 { // 6 MB
		log.Info("line", "i", i, "text", long)
		for len(l.main.queue) > 1000 {
			time.Sleep(time.Millisecond)
		}
	}
	if err := l.Close(2 * time.Minute); err != nil {
		t.Fatal(err)
	}
	// Old files are removed by the rotation's own goroutine.
	var entries []os.DirEntry
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var err error
		if entries, err = os.ReadDir(dir); err != nil {
			t.Fatal(err)
		}
		if len(entries) == 3 {
			break
		}
	}
	if len(entries) != 3 {
		t.Errorf("files: %v, want the log and two rotated", entries)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Size() > 1<<20 {
			t.Errorf("%s: %v, %v", e.Name(), info, err)
		}
	}
	if st := l.Stats(); st.Written != 601 || st.Dropped+st.Failed > 0 {
		t.Errorf("stats %+v", st)
	}
}

// stuck is a file that does not take anything until it is released.
type stuck struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	release chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.release
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func TestNeverWaits(t *testing.T) {
	console := &stuck{release: make(chan struct{})}
	l := open(t, Options{Console: console})
	log := l.Logger("x")
	for i := range 3 * queueLines { // would hang here
		log.Info("line", "i", i)
	}
	if st := l.Stats(); st.Dropped < 2*queueLines-1 {
		t.Errorf("stats %+v", st)
	}
	close(console.release)
	if err := l.Close(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	if got := console.buf.String(); !strings.Contains(got, "lines were lost here lines=") && !strings.Contains(got, fmt.Sprint("i=", queueLines-1)) {
		t.Error("the loss is not written down")
	}
}

func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		need.Missing(t, "no /dev/full: %v", err)
	}
	defer full.Close()
	l := open(t, Options{Console: full, Dir: filepath.Join(t.TempDir(), "log")})
	log := l.Logger("x")
	log.Info("one")
	log.Info("two")
	if err := l.Close(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	if st := l.Stats(); st.Failed < 2 || st.Written < 2 {
		t.Errorf("stats %+v", st)
	}
	if l.Err() == nil {
		t.Error("no error")
	}
	if r := l.HealthReport(context.Background()); len(r.Issues) != 1 || !r.Issues[0].Warning || !strings.Contains(r.Issues[0].Message, "no space left") {
		t.Errorf("health: %+v", r.Issues)
	}
}

func TestUnwritableFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, Options{Dir: filepath.Join(file, "log")})
	l.Logger("x").Info("one")
	l.Close(5 * time.Second)
	if l.Err() == nil || l.Stats().Failed == 0 {
		t.Error("no error")
	}
	if DirProblem(file) == nil {
		t.Error("a file is a log folder")
	}
}

func FuzzLine(f *testing.F) {
	f.Add("message", "key", "value\n")
	f.Add("\xff", strings.Repeat("k", 9000), strings.Repeat("ä", 9000))
	f.Fuzz(func(t *testing.T, message, key, value string) {
		line := format(time.Unix(0, 0), "c", slog.LevelInfo, message, []slog.Attr{slog.String(key, value)})
		if bytes.Count(line, []byte("\n")) != 1 || line[len(line)-1] != '\n' || bytes.IndexByte(line, 0x1b) >= 0 {
			t.Fatalf("%q", line)
		}
		if len(line) > maxLine+4 {
			t.Fatalf("%d bytes", len(line))
		}
	})
}
