package respond

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/api/response"
)

// direct runs programs without the detour of the daemon.
type direct struct{}

func (direct) Command(ctx context.Context, path string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, path, args...)
}
func (direct) Start(cmd *exec.Cmd) error { return cmd.Start() }

func TestLive(t *testing.T) {
	dir, sent := t.TempDir(), map[string]string{}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "a b"), 0o755), os.WriteFile(filepath.Join(dir, "a b", "file.txt"), []byte("content"), 0o644)); err != nil {
		t.Fatal(err)
	}
	library := map[string]string{"s1": "echo \"$1|$2\"; pwd; exit $3\n", "s2": "just data"}
	l := &Live{
		Dir: filepath.Join(dir, "scripts"), Run: direct{}, Proc: "/proc", Now: time.Now,
		Send: func(_ context.Context, _, name string, f io.ReaderAt, size int64) error {
			b, err := io.ReadAll(io.NewSectionReader(f, 0, size))
			sent[name] = string(b)
			return err
		},
		Fetch: func(_ context.Context, _, sum string, _ int64, w io.Writer) error {
			_, err := io.WriteString(w, library[sum])
			return err
		},
		More: map[string]func(context.Context, []string) (string, error){
			"status": func(context.Context, []string) (string, error) { return "healthy", nil },
		},
	}
	shell := func(line string) response.LiveCommand {
		return response.LiveCommand{Type: response.LiveShell, Line: line}
	}
	do := func(session string, c response.LiveCommand) (response.LiveOutput, bool) {
		out, ok := l.Do(t.Context(), "id", response.LiveParameters{Session: session, Commands: []response.LiveCommand{c}})
		return out.Commands[0], ok
	}
	for _, c := range []struct {
		command response.LiveCommand
		ok      bool
		want    string
	}{
		{shell("cd '" + dir + "/a b'"), true, ""},
		{shell("dir"), true, `"file.txt"`},
		{shell("fileinfo file.txt"), true, "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"},
		{shell("findfile *.txt .."), true, "/a b/file.txt"},
		{shell("findfile [ ."), false, "no pattern"},
		{shell("processes -pid 1"), true, "PARENT"},
		{shell("processes -owner x"), false, "wants -name"},
		{shell("status"), true, "healthy"},
		{shell("rm -rf /"), false, "no command \"rm\""},
		{shell("cd /nowhere-at-all"), false, "no such file"},
		{shell("cd 'x"), false, "not closed"},
		{shell("fileinfo /dev/zero"), false, "no regular file"},
		{shell("help"), true, "remediate"},
		{response.LiveCommand{Type: response.LiveRunScript, Name: "x.sh", SHA256: "s1", Args: `"one two" three 0`}, true, "one two|three\n" + dir + "/a b"},
		{response.LiveCommand{Type: response.LiveRunScript, Name: "x.sh", SHA256: "s1", Args: `a b 3`}, false, "status 3"},
		{response.LiveCommand{Type: response.LiveRunScript, Name: "x.sh", SHA256: "s1", Args: "a; reboot"}, false, "not allowed"},
		{response.LiveCommand{Type: response.LivePutFile, Name: "put.bin", SHA256: "s2"}, true, "is there"},
		{response.LiveCommand{Type: response.LivePutFile, Name: "put.bin", SHA256: "s2"}, false, "there already"},
		{response.LiveCommand{Type: response.LivePutFile, Name: "put.bin", SHA256: "s2", Overwrite: true}, true, "is there"},
		{response.LiveCommand{Type: response.LiveGetFile, Path: dir + "/a b/put.bin"}, true, "9 bytes"},
		{response.LiveCommand{Type: response.LiveGetFile, Path: "/dev/zero"}, false, "no regular file"},
		{response.LiveCommand{Type: "Else"}, false, "unknown"},
	} {
		out, ok := do("s", c.command)
		if ok != c.ok || !strings.Contains(out.Output+out.Error, c.want) {
			t.Errorf("%+v: %v, %+v; want %v, %q", c.command, ok, out, c.ok, c.want)
		}
	}
	if sent["put.bin"] != "just data" {
		t.Errorf("sent: %q", sent)
	}
	// Sessions have folders of their own, and an order ends at its first failure.
	if out, _ := do("another", shell("dir")); out.Folder != "/" {
		t.Errorf("the folder of a new session is %q", out.Folder)
	}
	out, ok := l.Do(t.Context(), "id", response.LiveParameters{Session: "s", Commands: []response.LiveCommand{shell("dir"), shell("bad"), shell("dir")}})
	if ok || len(out.Commands) != 2 || out.Commands[1].Status != "Failed" {
		t.Errorf("%v %+v", ok, out)
	}
	if left, err := os.ReadDir(l.Dir); err != nil || len(left) != 0 {
		t.Errorf("scripts are left: %v, %v", left, err)
	}
}

func FuzzWords(f *testing.F) {
	f.Add(`cd "a b" 'c'`)
	f.Fuzz(func(t *testing.T, s string) {
		if out, err := words(s); err == nil && len(out) > len(s) {
			t.Errorf("%d words of %q", len(out), s)
		}
	})
}
