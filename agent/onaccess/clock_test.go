package onaccess

import (
	"context"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestClockJumps moves the machine's clock by days while accesses are held. It
// runs in the virtual machine of test/vm, which has a clock of its own.
func TestClockJumps(t *testing.T) {
	if os.Getenv("BULWARK_SET_CLOCK") == "" {
		t.Log("moves the machine's clock: nothing is done outside the virtual machine of test/vm (BULWARK_SET_CLOCK=1)")
		return
	}
	move := func(by time.Duration) {
		t.Helper()
		ts := unix.NsecToTimespec(time.Now().Add(by).UnixNano())
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
			t.Fatal(err)
		}
	}
	r := newRig(t, func(c *Config) {
		c.Deadline, c.ExecDeadline = MaxDeadline, MaxDeadline
		c.Guard = testGuard
	})
	others := []*process{startAccessor(t), startAccessor(t)}

	// Held when the clock jumps, answered afterwards: by what is in the file.
	for _, jump := range []time.Duration{25 * time.Hour, -49 * time.Hour, 24 * time.Hour} {
		evil, clean := r.put(t, "evil"+jump.String(), bad), r.put(t, "clean"+jump.String(), "harmless")
		hang := make(chan struct{})
		r.scanner.setBefore(func(context.Context, Access) error { <-hang; return nil })
		replies := []chan reply{make(chan reply, 1), make(chan reply, 1)}
		for i, path := range []string{evil, clean} {
			go func() { replies[i] <- others[i].do(request{Op: "read", Path: path}) }()
		}
		wait(t, "both are held", func() bool { return r.Stats(0).Held == 2 })
		move(jump)
		time.Sleep(600 * time.Millisecond) // the guard has looked twice
		if s := r.Stats(0); s.Held != 2 || s.DeadlinesMissed != 0 || s.ReleasedByGuard != 0 {
			t.Fatalf("the clock was moved by %v: %d are held, want 2; %d deadlines missed, the guard has let go %d",
				jump, s.Held, s.DeadlinesMissed, s.ReleasedByGuard)
		}
		close(hang)
		if got := <-replies[0]; got.Errno != eperm {
			t.Errorf("the clock was moved by %v: a bad file was opened: %q", jump, got.Err)
		}
		if got := <-replies[1]; got.Content != "harmless" {
			t.Errorf("the clock was moved by %v: a clean file: %q", jump, got.Err)
		}
	}

	// A scanner that hangs: nobody waits longer because the clock went back.
	hang := make(chan struct{})
	defer close(hang)
	r.scanner.setBefore(func(context.Context, Access) error { <-hang; return nil })
	const deadline = time.Second
	if err := r.SetDeadlines(deadline, deadline); err != nil {
		t.Fatal(err)
	}
	path := r.put(t, "last", "harmless too")
	got := make(chan reply, 1)
	go func() { got <- r.accessor.do(request{Op: "read", Path: path}) }()
	wait(t, "it is held", func() bool { return r.Stats(0).Held == 1 })
	move(-24 * time.Hour)
	if rep := <-got; rep.Err != "" || rep.Took < deadline || rep.Took > MaxDeadline {
		t.Errorf("held for %v with a deadline of %v (%s)", rep.Took, deadline, rep.Err)
	}
	move(24 * time.Hour)
}
