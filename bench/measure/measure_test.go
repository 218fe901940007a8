package measure

import (
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
)

// TestFamily: a child that another thread than the first one has started, and
// its child, belong to it.
func TestFamily(t *testing.T) {
	pid := make(chan int)
	done := make(chan struct{})
	defer close(done)
	go func() {
		runtime.LockOSThread() // the list of children is that thread's
		defer runtime.UnlockOSThread()
		cmd := exec.Command("sh", "-c", "sleep 600 & echo; wait")
		out, err := cmd.StdoutPipe()
		if err != nil || cmd.Start() != nil {
			t.Error("not started", err)
			pid <- 0
			return
		}
		if _, err := out.Read(make([]byte, 1)); err != nil { // the grandchild is there
			t.Error(err)
		}
		pid <- cmd.Process.Pid
		<-done
		for _, p := range Family(cmd.Process.Pid) {
			if other, err := os.FindProcess(p); err == nil {
				_ = other.Kill()
			}
		}
		_ = cmd.Wait()
	}()
	child := <-pid
	if all := Family(os.Getpid()); all[0] != os.Getpid() || !slices.Contains(all, child) || len(all) < 3 {
		t.Errorf("%v, want %d with %d and its child", all, os.Getpid(), child)
	}
}

func TestStatus(t *testing.T) {
	self := os.Getpid()
	if n := StatusBytes(self, "VmRSS:"); n < 1<<20 || n > 1<<40 || n%1024 != 0 {
		t.Errorf("resident %d", n)
	}
	if n := StatusBytes(self, "VmNone:"); n != 0 {
		t.Errorf("a field that is not there: %d", n)
	}
	if f, err := Stat(self); err != nil || len(f) < 15 {
		t.Errorf("%v %v", f, err)
	}
	for before := CPU([]int{self}); CPU([]int{self}) == before; {
		_ = slices.Repeat([]byte{1}, 1<<20) // until it has used some
	}
}
