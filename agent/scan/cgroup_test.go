package scan

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/test/need"
)

// TestCPULimit lets a program that only computes run in the group and reads
// what the kernel says about it: it stops the group again and again with a
// limit, and never without.
func TestCPULimit(t *testing.T) {
	need.Root(t)
	own, err := ownCgroups()
	if err != nil {
		t.Fatal(err)
	}
	_, v1 := own["memory"]
	if _, cpu := own["cpu"]; !v1 || !cpu {
		// In version 2 the test would have to move everybody of its own group; the
		// virtual machine of test/vm tries that one.
		t.Log("no control groups of version 1 here")
		return
	}
	g := newCgroup(1<<30, 0)
	defer g.remove()
	if d := g.detail(); len(g.dirs) != 2 || strings.Contains(d, "CPU") {
		t.Fatalf("groups %v: %s", g.dirs, d)
	}
	burn := exec.Command("/bin/sh", "-c", "while :; do :; done")
	if err := burn.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		burn.Process.Kill()
		burn.Wait()
	}()
	if err := g.add(burn.Process.Pid); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	if n := throttled(t, g); n != 0 {
		t.Errorf("stopped %d times without a limit", n)
	}
	if err := g.limitCPU(10); err != nil {
		t.Fatal(err)
	}
	if d := g.detail(); !strings.Contains(d, "CPU to 10 %") {
		t.Errorf("detail %q", d)
	}
	for end := time.Now().Add(patience); throttled(t, g) < 3; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("a program that uses all it can get was stopped %d times in %v with a limit of 10 %%", throttled(t, g), patience)
		}
	}
	if err := g.limitCPU(0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(60 * time.Millisecond) // a pause in progress ends
	n := throttled(t, g)
	time.Sleep(100 * time.Millisecond)
	if now := throttled(t, g); now != n || strings.Contains(g.detail(), "CPU") {
		t.Errorf("stopped %d times more without a limit; %s", now-n, g.detail())
	}
}

// TestCPUFiles: what is written is what the kernel documents (cgroup-v2.rst,
// sched-bwc.rst).
func TestCPUFiles(t *testing.T) {
	for _, tc := range []struct {
		v2      bool
		percent int
		want    map[string]string
	}{
		{true, 250, map[string]string{"cpu.max": "50000 20000"}},
		{true, 0, map[string]string{"cpu.max": "max 20000"}},
		{false, 10, map[string]string{"cpu.cfs_period_us": "20000", "cpu.cfs_quota_us": "2000"}},
		{false, 0, map[string]string{"cpu.cfs_period_us": "20000", "cpu.cfs_quota_us": "-1"}},
	} {
		f := cpuFiles{t.TempDir(), tc.v2}
		for name := range tc.want { // the kernel makes them
			if err := os.WriteFile(filepath.Join(f.dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.set(tc.percent); err != nil {
			t.Fatal(err)
		}
		for name, want := range tc.want {
			if got, err := os.ReadFile(filepath.Join(f.dir, name)); err != nil || string(got) != want {
				t.Errorf("%d %%: %s is %q, %v; want %q", tc.percent, name, got, err, want)
			}
		}
	}
}

// throttled is how often the kernel has stopped the group.
func throttled(t *testing.T, g *cgroup) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(g.cpu.dir, "cpu.stat"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "nr_throttled "); ok {
			n, err := strconv.Atoi(strings.TrimSpace(v))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no nr_throttled in %q", b)
	return 0
}

func TestParseCgroups(t *testing.T) {
	for _, tc := range []struct {
		name, groups, mounts string
		want                 map[string]string
	}{
		{
			"version 2", "0::/system.slice/bulwark.service\n",
			"cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n",
			map[string]string{"": "/sys/fs/cgroup/system.slice/bulwark.service"},
		},
		{
			"version 1", "5:cpu,cpuacct:/bulwark\n4:memory:/b/bulwark\n1:name=systemd:/x\n",
			"cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n",
			map[string]string{"cpu": "/sys/fs/cgroup/cpu,cpuacct/bulwark", "memory": "/sys/fs/cgroup/memory/b/bulwark"},
		},
		{
			"both", "4:memory:/bulwark\n0::/bulwark\n",
			"cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n",
			map[string]string{"": "/sys/fs/cgroup/unified/bulwark", "memory": "/sys/fs/cgroup/memory/bulwark"},
		},
		{"nothing mounted", "0::/\n", "", map[string]string{}},
		{"rubbish", "x\n::\n1:\n", "cgroup2\n \n", map[string]string{}},
	} {
		if got := parseCgroups(tc.groups, tc.mounts); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestDescends(t *testing.T) {
	parents := map[int]int{20: 10, 30: 20, 40: 1, 50: 0, 60: 61, 61: 60}
	parent := func(pid int) (int, error) {
		if p, ok := parents[pid]; ok {
			return p, nil
		}
		return 0, errors.New("gone")
	}
	for pid, want := range map[int]bool{10: true, 20: true, 30: true, 40: false, 50: false, 60: false, 99: true} {
		if got := descends(pid, 10, parent); got != want {
			t.Errorf("process %d: %v, want %v", pid, got, want)
		}
	}
	if p, err := parentOf(os.Getpid()); err != nil || p != os.Getppid() {
		t.Errorf("our parent is %d, %v; want %d", p, err, os.Getppid())
	}
}
