package scan

import (
	"errors"
	"os"
	"reflect"
	"testing"
)

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
