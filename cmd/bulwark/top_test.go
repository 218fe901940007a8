package main

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

// screenBuffer is a terminal that remembers everything.
type screenBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screenBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screenBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestTopKeys drives the live view: it refreshes, s changes the order, q ends.
func TestTopKeys(t *testing.T) {
	d := runDaemon(t, true)
	screen := &screenBuffer{}
	a := newApp("bulwark", screen, screen)
	a.root = strings.TrimSuffix(d.dirs.Run, "/run/bulwark")
	defer func() { a.client.Close() }()
	keys, done := make(chan byte), make(chan error, 1)
	go func() { done <- a.topLoop(t.Context(), 0, keys) }()
	until := func(text string) {
		t.Helper()
		for end := time.Now().Add(2 * time.Minute); !strings.Contains(screen.String(), text); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("never on the screen: %q in %q", text, fitEnd(screen.String(), 500))
			}
		}
	}
	until("sorted by time")
	until("1,000 events/s") // of two frames, a second apart by their own times
	keys <- 's'
	until("sorted by files")
	keys <- 'x' // means nothing
	keys <- 's'
	until("sorted by bytes")
	keys <- 'q'
	if err := <-done; err != nil {
		t.Error(err)
	}
	if strings.Contains(screen.String(), "ma\x1b[2Jke") {
		t.Error("a process's name reached the terminal unescaped")
	}
}
