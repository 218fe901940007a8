package main

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/test/need"
)

// The thread whose timers are slack is one that runs no goroutine, which is the
// monitor alone.
func TestCalmMonitor(t *testing.T) {
	need.Root(t)
	if err := calmMonitor(); err != nil {
		t.Fatal(err)
	}
	slack := func(tid int) int {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/timerslack_ns")
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	monitor, err := secondThread()
	if err != nil {
		t.Fatal(err)
	}
	if got := slack(monitor); got != monitorSlack {
		t.Errorf("thread %d has a slack of %d ns, want %d", monitor, got, monitorSlack)
	}
	// Each of these has a thread of its own, at the same time.
	var wg, all sync.WaitGroup
	end := make(chan struct{})
	for range 32 {
		wg.Add(1)
		all.Add(1)
		go func() {
			defer wg.Done()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			tid := unix.Gettid()
			all.Done()
			<-end
			if tid == monitor {
				t.Errorf("thread %d runs goroutines", tid)
			}
		}()
	}
	all.Wait()
	close(end)
	wg.Wait()
}
