package account

import (
	"strconv"
	"testing"
	"time"
)

func TestWaiting(t *testing.T) {
	now := time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC)
	w := newWaiting[int](time.Minute)
	has := func(secret string, want bool) {
		t.Helper()
		if _, ok := w.get(secret, now); ok != want {
			t.Errorf("%s: %v, want %v", secret, ok, want)
		}
	}
	w.put("a", 1, now)
	w.put("a", 2, now)
	if v, ok := w.take("a", now); !ok || v != 2 {
		t.Errorf("%d, %v", v, ok)
	}
	if _, ok := w.take("a", now); ok {
		t.Error("taken twice")
	}
	w.put("a", 0, now)
	failed := func(n *int) bool { *n++; return *n < 2 }
	w.change("a", failed)
	has("a", true)
	w.change("a", failed)
	has("a", false)
	w.put("late", 1, now)
	now = now.Add(time.Minute + 1)
	has("late", false)
	if _, ok := w.take("late", now); ok {
		t.Error("taken too late")
	}
	// What has expired does not stay until it is full.
	w.put("late", 1, now)
	now = now.Add(2 * time.Minute)
	w.put("0", 0, now)
	if len(w.entries) != 1 {
		t.Errorf("%d entries after the expired one", len(w.entries))
	}
}

func TestWaitingIsBounded(t *testing.T) {
	now := time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC)
	w := newWaiting[int](time.Hour)
	w.put("oldest", 0, now)
	for i := range maxWaiting - 1 { // as put does, without its walk
		w.entries[[32]byte{1, byte(i), byte(i >> 8)}] = &waitingEntry[int]{i, now.Add(2 * time.Hour)}
	}
	w.put("oldest", 1, now)
	if len(w.entries) != maxWaiting {
		t.Errorf("%d entries: replacing one cost another", len(w.entries))
	}
	for i := range 3 {
		w.put(strconv.Itoa(i), i, now.Add(time.Second))
	}
	if _, ok := w.get("oldest", now); ok || len(w.entries) != maxWaiting {
		t.Errorf("%d entries, the oldest among them: %v", len(w.entries), ok)
	}
}
