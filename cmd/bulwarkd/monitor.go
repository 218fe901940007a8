package main

import (
	"fmt"
	"os"
	"strconv"
)

// monitorSlack is how much later than asked the runtime's monitor may wake, in
// nanoseconds. The default of the kernel is 50 µs.
const monitorSlack = 500_000

// calmMonitor makes the thread of Go's runtime that looks after the others (sysmon,
// see runtime/proc.go) wake less often. It sleeps for 20 µs at a time as long as
// anything runs, which costs the agent more than the rules where events trickle in:
// they come in small batches, and with each the monitor begins anew. It takes
// processors from threads that are held in system calls, which it now does 0.5 ms
// later; it also waits up to 10 ms for that by itself.
//
// It is the first thread that the runtime starts. If that is ever another one, that
// one's timers are late by so much, as are those of threads that the monitor makes:
// they inherit it, see prctl(2).
func calmMonitor() error {
	tid, err := secondThread()
	if err != nil {
		return err
	}
	// See proc(5): the number may be that of a thread.
	return os.WriteFile(fmt.Sprintf("/proc/%d/timerslack_ns", tid), []byte(strconv.Itoa(monitorSlack)), 0)
}

// secondThread is the first one that the program's first thread made: the kernel
// lists them in the order of their creation.
func secondThread() (int, error) {
	d, err := os.Open("/proc/self/task")
	if err != nil {
		return 0, err
	}
	defer d.Close()
	names, err := d.Readdirnames(2)
	if err != nil {
		return 0, fmt.Errorf("list the threads: %w", err)
	}
	if len(names) < 2 {
		return 0, fmt.Errorf("list the threads: there is one only")
	}
	return strconv.Atoi(names[1])
}
