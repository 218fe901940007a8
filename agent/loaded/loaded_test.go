package loaded

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/test/need"
)

// modeEnv makes the test binary another process, which says when it is in the
// state wanted and then waits for the end of its input.
const modeEnv = "BULWARK_LOADED_TEST"

func TestMain(m *testing.M) {
	mode, path := os.Getenv(modeEnv), os.Getenv(modeEnv+"_PATH")
	if mode == "" {
		os.Exit(m.Run())
	}
	if path != "" {
		f, err := os.Open(path)
		if err != nil {
			panic(err)
		}
		prot := unix.PROT_READ
		if mode == "code" {
			prot |= unix.PROT_EXEC
		}
		if mode != "open" {
			if _, err := unix.Mmap(int(f.Fd()), 0, 4096, prot, unix.MAP_PRIVATE); err != nil {
				panic(err)
			}
		}
		defer f.Close()
	}
	fmt.Println("ready")
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
}

// start runs a command until the test ends and waits for its first line.
func start(t *testing.T, env []string, argv ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("%v did not start: %q %v", argv, line, err)
	}
	return cmd
}

// identify opens a file and identifies it, by the name it then has.
func identify(t *testing.T, path string) File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	id, err := FileOf(f, path)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func write(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestKill(t *testing.T) {
	need.Root(t) // map_files
	dir := t.TempDir()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	const script = "echo ready\nread x\n"
	tests := []struct {
		name  string
		start func(t *testing.T) (*exec.Cmd, string)
		how   How
	}{
		{"program", func(t *testing.T) (*exec.Cmd, string) {
			p := write(t, filepath.Join(dir, "program"), string(self))
			return start(t, []string{modeEnv + "=wait"}, p), p
		}, Program},
		{"program under another name", func(t *testing.T) (*exec.Cmd, string) {
			p := write(t, filepath.Join(dir, "named"), string(self))
			cmd := start(t, []string{modeEnv + "=wait"}, p)
			if err := os.Rename(p, p+".moved"); err != nil {
				t.Fatal(err)
			}
			return cmd, p + ".moved"
		}, Program},
		{"library", func(t *testing.T) (*exec.Cmd, string) {
			p := write(t, filepath.Join(dir, "lib.so"), string(make([]byte, 4096)))
			return start(t, []string{modeEnv + "=code", modeEnv + "_PATH=" + p}, "/proc/self/exe"), p
		}, Library},
		{"script", func(t *testing.T) (*exec.Cmd, string) {
			p := write(t, filepath.Join(dir, "script"), "#!/bin/sh\n"+script)
			return start(t, nil, p), p
		}, Interpreted},
		{"script of an interpreter, relative", func(t *testing.T) (*exec.Cmd, string) {
			p := write(t, filepath.Join(dir, "relative"), script)
			return start(t, nil, "sh", "-c", "cd "+dir+" && exec sh -u relative"), p
		}, Interpreted},
		{"mapped as data", func(t *testing.T) (*exec.Cmd, string) {
			p := write(t, filepath.Join(dir, "data"), string(make([]byte, 4096)))
			return start(t, []string{modeEnv + "=data", modeEnv + "_PATH=" + p}, "/proc/self/exe"), p
		}, ""},
		{"open", func(t *testing.T) (*exec.Cmd, string) {
			p := write(t, filepath.Join(dir, "open"), "content")
			return start(t, []string{modeEnv + "=open", modeEnv + "_PATH=" + p}, "/proc/self/exe"), p
		}, ""},
		{"argument of a script", func(t *testing.T) (*exec.Cmd, string) {
			p := write(t, filepath.Join(dir, "argument"), "content")
			return start(t, nil, "sh", write(t, filepath.Join(dir, "tool"), script), p), p
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd, path := tt.start(t)
			file := identify(t, path)
			found, err := Find(file)
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(found, func(p Process) bool { return p.PID == cmd.Process.Pid })
			if tt.how == "" {
				if len(found) != 0 {
					t.Fatalf("found %+v", found)
				}
				return
			}
			if i < 0 || len(found) != 1 || found[i].How != tt.how || found[i].Killed {
				t.Fatalf("found %+v, want process %d as %s", found, cmd.Process.Pid, tt.how)
			}
			spared, err := Kill(file, func(pid int) bool { return pid == cmd.Process.Pid })
			if err != nil || spared[0].Killed || spared[0].Err == nil {
				t.Fatalf("not spared: %+v, %v", spared, err)
			}
			killed, err := Kill(file, nil)
			if err != nil || len(killed) != 1 || !killed[0].Killed {
				t.Fatalf("killed %+v, %v", killed, err)
			}
			cmd.Wait()
			if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != unix.SIGKILL {
				t.Errorf("ended by %v", s.Signal())
			}
		})
	}
}

// TestOwnProcessIsSpared whatever it runs.
func TestOwnProcessIsSpared(t *testing.T) {
	found, err := Kill(identify(t, "/proc/self/exe"), nil)
	if err != nil || len(found) != 1 || found[0].PID != os.Getpid() || found[0].Killed {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestScriptOf(t *testing.T) {
	for want, argv := range map[string][]string{
		"a.sh": {"sh", "-x", "a.sh", "b.sh", ""},
		"x":    {"perl", "x"},
		"":     {"python3", "-c", "print()", "f"},
	} {
		if got := scriptOf(argv); got != want {
			t.Errorf("%v: %q, want %q", argv, got, want)
		}
	}
}
