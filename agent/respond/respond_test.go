package respond

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/api/response"
)

func TestStopProcess(t *testing.T) {
	h := Host{Proc: "/proc"}
	for name, c := range map[string]struct {
		pid  int32
		want string
	}{
		"the first": {1, "the system's"}, "ourselves": {int32(os.Getpid()), "the agent's"}, "none": {2_000_000_000, "no process"}, "negative": {-5, "the system's"},
	} {
		if _, err := h.StopProcess(response.ProcessParameters{ProcessID: c.pid}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	cmd := exec.Command("sleep", "300")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	if sleep, err = filepath.EvalSymlinks(sleep); err != nil {
		t.Fatal(err)
	}
	pid := int32(cmd.Process.Pid)
	if _, err := (Host{Proc: "/proc", Own: []string{exe, sleep}}).StopProcess(response.ProcessParameters{ProcessID: pid}); err == nil || !strings.Contains(err.Error(), "agent's own") {
		t.Errorf("an own program: %v", err)
	}
	if said, err := h.StopProcess(response.ProcessParameters{ProcessID: pid}); err != nil || !strings.Contains(said, "ended") {
		t.Errorf("%q, %v", said, err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it ended by itself")
	}
}

// TestCollect makes a package of a small tree and reads it.
func TestCollect(t *testing.T) {
	root := t.TempDir()
	for name, content := range map[string]string{
		"etc/passwd": "ann:x:1000:1000::/home/ann:/bin/sh\n", "etc/shadow": "secret", "home/ann/.bashrc": "x", "etc/cron.d/job": "* * * * * root x", "proc/mounts": "tmpfs /nowhere-at-all tmpfs rw 0 0\nserver:/x /mnt nfs4 rw 0 0\n",
		"proc/net/tcp": "  sl  local_address rem_address   st\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1\n",
		"proc/7/stat":  "7 (a b) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 100 0 0", "proc/7/status": "Uid:\t1000\t1000\t1000\t1000\n", "proc/7/cmdline": "prog\x00-x\x1b[2J\x00", "proc/7/comm": "prog\n",
	} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "proc/7/fd"), 0o755), os.Symlink("socket:[4242]", filepath.Join(root, "proc/7/fd/3")), os.Symlink("/tmp/x", filepath.Join(root, "proc/7/fd/4"))); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := (Collector{Root: root, Documents: map[string][]byte{"health.json": []byte("{}")}}).Collect(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	members := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		members[h.Name] = string(data)
	}
	for name, want := range map[string]string{
		"network/connections.txt": "127.0.0.1:8080", "processes.txt": `prog -x\x1b[2J`, "open_files.txt": "/tmp/x", "files/etc/cron.d/job": "root x", "agent/health.json": "{}", "persistence/startup.txt": "/home/ann/.bashrc", "disks/volumes.txt": "not asked",
	} {
		if !strings.Contains(members[name], want) {
			t.Errorf("%s lacks %q:\n%s", name, want, members[name])
		}
	}
	if !strings.Contains(members["network/connections.txt"], "7 (prog)") || !strings.Contains(members["network/connections.txt"], "LISTEN") {
		t.Errorf("connections:\n%s", members["network/connections.txt"])
	}
	if _, ok := members["files/etc/shadow"]; ok {
		t.Error("the package has the hashes of passwords")
	}
}

func FuzzProcAddress(f *testing.F) {
	f.Add("0100007F:1F90")
	f.Add("00000000000000000000000001000000:0016")
	f.Fuzz(func(t *testing.T, s string) {
		if got := procAddress(s); got == "" && s != "" {
			t.Errorf("%q became nothing", s)
		}
	})
}
