//go:build system

package system

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestRandomFaults kills and stops the agent's processes at random points while
// clean files are opened without a pause. No clean open may fail or stay held,
// and after each fault the agent gets well by itself and takes away what is bad.
// BULWARK_FAULTS makes it as long as wanted.
func TestRandomFaults(t *testing.T) {
	p := start(t)
	length, err := time.ParseDuration(os.Getenv("BULWARK_FAULTS"))
	long := err == nil
	if !long {
		length = 8 * time.Second
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))

	stop := make(chan struct{})
	var opens, longest atomic.Int64
	var openers sync.WaitGroup
	for w := range 3 {
		openers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				f := filepath.Join(p.watch, fmt.Sprintf("clean-%d-%d", w, i))
				if err := os.WriteFile(f, []byte(strings.Repeat(f, 100)), 0o600); err != nil {
					t.Error(err)
					return
				}
				began := time.Now()
				if got := open(t, f); got != allowed {
					t.Errorf("open of a clean file: %v", got)
				}
				longest.Store(max(longest.Load(), int64(time.Since(began))))
				opens.Add(1)
				_ = os.Remove(f)
			}
		})
	}
	processes := []struct {
		name    string
		program string
		args    []string
		signals []syscall.Signal
	}{
		{"daemon", "bulwarkd", []string{"run"}, []syscall.Signal{syscall.SIGKILL, syscall.SIGKILL, syscall.SIGSTOP}},
		{"scanner", "bulwarkd", []string{"scanner"}, []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP}},
		{"guard", "bulwark-guard", nil, []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP}},
	}
	faults := 0
	daemons := make([]time.Time, 8) // when the last ones ended
	for end := time.Now().Add(length); time.Now().Before(end) || faults < 3; faults++ {
		victim := processes[(faults+rnd.IntN(2))%len(processes)]
		if victim.name == "daemon" {
			// The supervisor gives up after ten starts in five minutes.
			if time.Since(daemons[0]) < 5*time.Minute {
				victim = processes[1]
			} else {
				daemons = append(daemons[1:], time.Now())
			}
		}
		signal := victim.signals[rnd.IntN(len(victim.signals))]
		if !long && victim.name != "guard" {
			signal = syscall.SIGKILL // a stopped one is found out by a time-out of half a minute
		}
		time.Sleep(time.Duration(rnd.IntN(1500)) * time.Millisecond)
		for _, pid := range p.processes(victim.program, victim.args...) {
			t.Logf("%s %d: %v", victim.name, pid, signal)
			if err := syscall.Kill(pid, signal); err != nil {
				t.Logf("%v", err) // it has ended meanwhile
			}
			if victim.name == "guard" && signal == syscall.SIGSTOP {
				// Nobody needs it now; it goes on later.
				defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
			}
		}
		p.untilHealthy()
		bad := p.detect(fmt.Sprintf("fault-%d.com", faults))
		if got := open(t, bad); got != absent {
			t.Errorf("%s after its verdict: %v", bad, got)
		}
	}
	close(stop)
	openers.Wait()
	t.Logf("%d faults, %d opens of clean files, the longest %v with a deadline of 2 s", faults, opens.Load(), time.Duration(longest.Load()))
}
