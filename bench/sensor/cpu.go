package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of the times in /proc/pid/stat (USER_HZ).
const tick = 10 * time.Millisecond

// cpuOf is the user and system time of processes and of their children that
// have ended.
func cpuOf(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		f, err := stat(pid)
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

// stat is the fields of /proc/pid/stat after the name: the first is the state.
func stat(pid int) ([]string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	text := string(data)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 15 {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(f))
	}
	return f, nil
}

// family is a process and those below it.
func family(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all) && len(all) < 100; i++ {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", all[i], all[i]))
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(data)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}

// meter notes the CPU time of each second.
type meter struct {
	done chan struct{}
	out  chan []time.Duration
}

func watchCPU(pids func() []int) *meter {
	m := &meter{done: make(chan struct{}), out: make(chan []time.Duration, 1)}
	go func() {
		var seconds []time.Duration
		last, at := cpuOf(pids()), time.Now()
		t := time.NewTicker(time.Second)
		defer t.Stop()
		for {
			select {
			case <-m.done:
				m.out <- seconds
				return
			case now := <-t.C:
				cpu := cpuOf(pids())
				// A late tick is a longer second.
				seconds = append(seconds, time.Duration(float64(cpu-last)/now.Sub(at).Seconds()))
				last, at = cpu, now
			}
		}
	}()
	return m
}

func (m *meter) stop() []time.Duration {
	close(m.done)
	return <-m.out
}
