package onaccess

import "testing"

// TestNeverHold: in real-time mode nobody is held, and files are still scanned.
func TestNeverHold(t *testing.T) {
	r := newRig(t, func(c *Config) { c.NeverHold = "a bad kernel" })
	if s := r.Stats(0); s.Holding || s.Mode != RealTime {
		t.Fatalf("holding %v in mode %s", s.Holding, s.Mode)
	}
	p := r.put(t, "bad", bad)
	r.accessor.must(request{Op: "read", Path: p})
	if d := r.detection(t); d.Denied || d.Access.Held {
		t.Errorf("detection %+v, want it neither held nor denied", d)
	}
}
