// Package measure reads from /proc what processes cost, and waits meanwhile.
package measure

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of the times in /proc/pid/stat (USER_HZ).
const tick = 10 * time.Millisecond

// mostProcesses bounds Family.
const mostProcesses = 100

// Family is a process and those below it. The children of a process are listed
// by the thread that started each (proc(5), /proc/pid/task/tid/children), and a
// Go program starts them from any.
func Family(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all) && len(all) < mostProcesses; i++ {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, list := range lists {
			text, err := os.ReadFile(list)
			if err != nil {
				continue // the thread has ended
			}
			for field := range strings.FieldsSeq(string(text)) {
				if child, err := strconv.Atoi(field); err == nil && !slices.Contains(all, child) {
					all = append(all, child)
				}
			}
		}
	}
	return all
}

// CPU is the user and system time of processes and of their children that have
// ended. A process that is gone adds nothing.
func CPU(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		f, err := Stat(pid)
		if err != nil {
			continue
		}
		for _, text := range f[11:15] { // utime, stime, cutime, cstime
			n, _ := strconv.ParseInt(text, 10, 64)
			sum += time.Duration(n) * tick
		}
	}
	return sum
}

// Threads is the user and system time of the threads of this name that the
// processes have now.
func Threads(pids []int, name string) (sum time.Duration) {
	for _, pid := range pids {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		for _, dir := range threads {
			comm, err := os.ReadFile(filepath.Join(dir, "comm"))
			if err != nil || strings.TrimSpace(string(comm)) != name {
				continue // another one, or it has ended
			}
			f, err := stat(filepath.Join(dir, "stat"))
			if err != nil {
				continue
			}
			for _, text := range f[11:13] { // utime, stime
				n, _ := strconv.ParseInt(text, 10, 64)
				sum += time.Duration(n) * tick
			}
		}
	}
	return sum
}

// Stat is the fields of /proc/pid/stat after the name: the first is the state.
func Stat(pid int) ([]string, error) { return stat(fmt.Sprintf("/proc/%d/stat", pid)) }

func stat(file string) ([]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	text := string(data)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 15 {
		return nil, fmt.Errorf("%s has %d fields", file, len(f))
	}
	return f, nil
}

// Proportional is the resident memory of a process in bytes, where a page that n
// processes share counts as its n-th part: the sum over processes is what they
// take together. 0 where the kernel does not tell it (before 4.14).
func Proportional(pid int) int64 { return kilobytes(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:") }

// StatusBytes is a field of /proc/pid/status that counts kilobytes, in bytes; 0
// when the process is gone.
func StatusBytes(pid int, field string) int64 {
	return kilobytes(fmt.Sprintf("/proc/%d/status", pid), field)
}

func kilobytes(path, field string) int64 {
	data, _ := os.ReadFile(path)
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == field {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}

// Sleep is what a measurement waits, unless ctx ends before: that is the error.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
