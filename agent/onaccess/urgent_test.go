package onaccess

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/test/need"
)

// niceOf is the priority of a thread of this process; see proc(5).
func niceOf(t *testing.T, tid string) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/task/" + tid + "/stat")
	if err != nil {
		return 0 // it has ended
	}
	f := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	nice, err := strconv.Atoi(f[16])
	if err != nil {
		t.Fatal(err)
	}
	return nice
}

// A thread is urgent only as long as it is asked to be.
func TestUrgentEnds(t *testing.T) {
	need.Root(t)
	tid := make(chan [3]int)
	go func() {
		release := urgent()
		id := unix.Gettid()
		during := niceOf(t, strconv.Itoa(id))
		release()
		tid <- [3]int{id, during, niceOf(t, strconv.Itoa(id))}
	}()
	if got := <-tid; got[1] != urgentNice || got[2] != niceOf(t, strconv.Itoa(os.Getpid())) {
		t.Errorf("priority of the thread %d: %d, then %d", got[0], got[1], got[2])
	}
}

// Readers and the loop of the deadlines go before others, workers do not.
func TestHeldProcessesGoFirst(t *testing.T) {
	r := newRig(t, nil)
	p := r.put(t, "evil", bad)
	if got := r.accessor.do(request{Op: "read", Path: p}); got.Errno != eperm {
		t.Fatalf("%q", got.Err)
	}
	first := func() (n int) {
		threads, err := filepath.Glob("/proc/self/task/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, thread := range threads {
			if niceOf(t, filepath.Base(thread)) == urgentNice {
				n++
			}
		}
		return n
	}
	// Those of watchers of earlier tests may be about to end.
	wait(t, "one urgent thread for each group and one for the deadlines", func() bool { return first() == len(r.groups)+1 })
}
