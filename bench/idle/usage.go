package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/bench/measure"
)

// usage is what a process has used since its start, and the memory it has now.
type usage struct {
	pid     int
	name    string
	cpu     time.Duration // user and system
	wakeups int64         // voluntary context switches: each is a wait that has ended
	// Bytes; proportional divides what processes share among them.
	resident, proportional, private int64
	threads                         []thread
}

type thread struct {
	tid     int
	cpu     time.Duration
	wakeups int64
}

func usageOf(pid int) (usage, error) {
	u := usage{pid: pid, resident: measure.StatusBytes(pid, "VmRSS:"), proportional: measure.Proportional(pid), private: measure.StatusBytes(pid, "RssAnon:")}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return u, err
	}
	argv := strings.Split(string(line), "\x00")
	u.name = filepath.Base(argv[0])
	if len(argv) > 1 {
		u.name = strings.TrimSpace(u.name + " " + argv[1])
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return u, err
	}
	for _, t := range tasks {
		dir := fmt.Sprintf("/proc/%d/task/%s", pid, t.Name())
		tid, _ := strconv.Atoi(t.Name())
		th := thread{tid: tid}
		// proc_pid_schedstat: nanoseconds on a processor, waiting for one, turns.
		// /proc/pid/stat counts ticks of 10 ms, of which an idle agent uses few.
		text, err := os.ReadFile(dir + "/schedstat")
		if err != nil {
			continue // the thread has ended
		}
		if f := strings.Fields(string(text)); len(f) > 0 {
			ns, _ := strconv.ParseInt(f[0], 10, 64)
			th.cpu = time.Duration(ns)
		}
		status, err := os.ReadFile(dir + "/status")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if v, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				th.wakeups, _ = strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			}
		}
		u.cpu += th.cpu
		u.wakeups += th.wakeups
		u.threads = append(u.threads, th)
	}
	return u, nil
}

// since is what was used since before; memory is that of now.
func (u usage) since(before usage) usage {
	out := usage{pid: u.pid, name: u.name, resident: u.resident, proportional: u.proportional, private: u.private}
	for _, t := range u.threads {
		if i := slices.IndexFunc(before.threads, func(b thread) bool { return b.tid == t.tid }); i >= 0 {
			t.cpu -= before.threads[i].cpu
			t.wakeups -= before.threads[i].wakeups
		}
		out.cpu += t.cpu
		out.wakeups += t.wakeups
		out.threads = append(out.threads, t)
	}
	return out
}

func (u *usage) add(o usage) {
	u.cpu += o.cpu
	u.wakeups += o.wakeups
	u.resident += o.resident
	u.proportional += o.proportional
	u.private += o.private
}
