package scan

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/scan/scanner"
	"github.com/bulwarkhq/bulwark/agent/scan/wire"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/test/need"
)

// The pool's tests start this test binary as the scanner, with an engine whose
// behaviour the scanned file asks for.
const (
	scannerVariable = "BULWARK_TEST_SCANNER"
	engineVariable  = "BULWARK_TEST_ENGINE" // with the real engine
)

func TestMain(m *testing.M) {
	if os.Getenv(scannerVariable) != "" {
		os.Exit(scanner.Run(fakeLoader{}))
	}
	if behaviour := os.Getenv(hostileVariable); behaviour != "" {
		hostileScanner(behaviour)
		os.Exit(0)
	}
	if os.Getenv(engineVariable) != "" {
		os.Exit(scanner.Main(nil))
	}
	os.Exit(m.Run())
}

type fakeLoader struct{}

// Compiled definitions of the fake are the lines of its sources: words to find.
func (fakeLoader) Open(f *os.File) (scanner.Engine, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		return nil, err
	}
	if bytes.Contains(b, []byte("does-not-load")) {
		return nil, errors.New("definitions are damaged")
	}
	return &fakeEngine{words: strings.Fields(string(b))}, nil
}

func (fakeLoader) Compile(_ context.Context, out *os.File, sources []string) (wire.Compiled, error) {
	var c wire.Compiled
	for _, dir := range sources {
		files, err := os.ReadDir(dir)
		if err != nil {
			return c, err
		}
		for _, file := range files {
			f, err := os.Open(filepath.Join(dir, file.Name()))
			if err != nil {
				return c, err
			}
			defer f.Close()
			s := bufio.NewScanner(f)
			for line := 1; s.Scan(); line++ {
				switch s.Text() {
				case "bad":
					c.Problems = append(c.Problems, wire.Problem{File: f.Name(), Line: line, Reason: "not a signature", Fatal: true})
				case "crash":
					os.Exit(7)
				}
				fmt.Fprintln(out, s.Text())
			}
		}
	}
	return c, nil
}

type fakeEngine struct {
	words []string
	held  [][]byte
}

func (e *fakeEngine) Info() wire.Info {
	return wire.Info{Engine: "fake", Definitions: strings.Join(e.words, "+"), Total: len(e.words)}
}

func (e *fakeEngine) Scan(ctx context.Context, r io.ReaderAt, size int64, opt scanner.Options) (verdict.Verdict, error) {
	b := make([]byte, size)
	if _, err := r.ReadAt(b, 0); err != nil && err != io.EOF {
		return verdict.Verdict{}, err
	}
	command, _, _ := strings.Cut(string(b), " ")
	switch command {
	case "crash":
		os.Exit(9)
	case "hang":
		select {}
	case "wait":
		<-ctx.Done()
		return verdict.Verdict{}, ctx.Err()
	case "slow":
		time.Sleep(500 * time.Millisecond)
	case "panic":
		panic("over this file")
	case "allocate":
		for hold := [][]byte{}; ; e.held = hold {
			block := make([]byte, 16<<20)
			for i := 0; i < len(block); i += 4096 {
				block[i] = 1
			}
			hold = append(hold, block)
		}
	}
	v := verdict.Verdict{Size: size, Objects: 1, Bytes: size, Definitions: e.Info().Definitions}
	for _, w := range e.words {
		if bytes.Contains(b, []byte(w)) {
			v.SHA256 = strings.Repeat("ab", 32)
			v.Matches = append(v.Matches, verdict.Match{Threat: "Found-" + w, Type: verdict.Test, Signature: w, Source: "fake", Offset: -1})
		}
	}
	return v, nil
}

// patience is for what must happen; it is no statement about speed.
const patience = 2 * time.Minute

// newTestPool runs a pool over a definitions folder with one word.
func newTestPool(t *testing.T, change func(*Config)) (*Pool, string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	sources := filepath.Join(base, "sources")
	if err := os.Mkdir(sources, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(sources, "a.txt"), "EICAR\n")
	cfg := Config{
		Log: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Dir: filepath.Join(base, "state"), Sources: []string{sources},
		Program: exe, Env: []string{scannerVariable + "=1"}, User: "nobody",
		CancelGrace: 10 * time.Second,
	}
	if need.RaceDetector { // it reserves more memory than any limit of ours
		cfg.MemoryLimit = 1 << 50
	}
	if change != nil {
		change(&cfg)
	}
	p, err := NewPool(cfg)
	if err != nil {
		t.Fatal(err)
	}
	runPool(t, p)
	return p, sources
}

func runPool(t *testing.T, p *Pool) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	for running := false; !running; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		running = p.ctx != nil
		p.mu.Unlock()
	}
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("Run does not return")
		}
	})
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// open makes a file with the content.
func open(t *testing.T, content string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	writeFile(t, path, content)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func scan(t *testing.T, p *Pool, content string) (verdict.Verdict, error) {
	t.Helper()
	f := open(t, content)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p.Scan(ctx, Request{File: f, Path: f.Name(), Priority: PriorityOpen})
}
