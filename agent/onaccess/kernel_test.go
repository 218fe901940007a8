package onaccess

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestNeverHold: in real-time mode nobody is held, and files are still scanned,
// until accesses may be held after all.
func TestNeverHold(t *testing.T) {
	r := newRig(t, func(c *Config) { c.NeverHold = "a bad kernel" })
	p := r.put(t, "bad", bad)
	observed := func() {
		t.Helper()
		if s := r.Stats(0); s.Holding || s.Mode != RealTime {
			t.Fatalf("holding %v in mode %s", s.Holding, s.Mode)
		}
		r.accessor.must(request{Op: "read", Path: p})
		if d := r.detection(t); d.Denied || d.Access.Held {
			t.Errorf("detection %+v, want it neither held nor denied", d)
		}
	}
	observed()
	for range 2 {
		if err := r.SetNeverHold(""); err != nil {
			t.Fatal(err)
		}
		if got := r.accessor.do(request{Op: "read", Path: p}); got.Errno != int(unix.EPERM) || !r.Stats(0).Holding {
			t.Errorf("%q, holding %v, want it refused", got.Err, r.Stats(0).Holding)
		}
		r.detection(t)
		if err := r.SetNeverHold("a bad kernel"); err != nil {
			t.Fatal(err)
		}
		observed()
	}
}
