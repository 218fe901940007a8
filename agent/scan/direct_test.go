package scan

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/test/need"
)

// direct scans a file with the content over the line, waiting for its rest.
func direct(t *testing.T, p *Pool, content string, patience time.Duration) (infected, rested bool, err error) {
	t.Helper()
	f := open(t, content)
	v, rest, err := p.Direct(int(f.Fd()), int64(len(content)), f.Name())
	if rest != nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		v, err = rest.Wait(ctx)
	}
	return v.Infected(), rest != nil, err
}

func TestDirect(t *testing.T) {
	need.Root(t)
	p, sources := newTestPool(t, func(c *Config) { c.CancelGrace = 100 * time.Millisecond })
	wantMatch(t, p, "a clean file", "") // the process is there
	for _, c := range []struct {
		content  string
		infected bool
	}{{"harmless", false}, {"something EICAR", true}, {"slow EICAR", true}, {"slow", false}} {
		infected, _, err := direct(t, p, c.content, patience)
		if err != nil || infected != c.infected {
			t.Errorf("%q: infected %v, %v", c.content, infected, err)
		}
	}
	if _, rested, err := direct(t, p, "wait", 50*time.Millisecond); !rested || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a scan that ends when it is cancelled: rested %v, %v", rested, err)
	}
	if infected, _, err := direct(t, p, "EICAR", patience); err != nil || !infected {
		t.Errorf("after a cancelled scan: infected %v, %v", infected, err)
	}
	var engine *EngineError
	if _, _, err := direct(t, p, "panic", patience); !errors.As(err, &engine) {
		t.Errorf("a panic of the engine: %v", err)
	}
	// A process that dies, or does not obey, is replaced, and its line too.
	if _, _, err := direct(t, p, "crash", patience); !errors.Is(err, ErrCrashed) {
		t.Errorf("a scanner that dies: %v", err)
	}
	again := func(after string) {
		t.Helper()
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			infected, _, err := direct(t, p, "EICAR", patience)
			if err == nil && infected {
				return
			}
			if err != nil && !errors.Is(err, ErrNoLine) && !errors.Is(err, ErrCrashed) || time.Now().After(end) {
				t.Fatalf("after %s: infected %v, %v", after, infected, err)
			}
		}
	}
	again("a crash")
	if _, _, err := direct(t, p, "hang", 50*time.Millisecond); err == nil {
		t.Error("a scan that hangs gives a verdict")
	}
	again("a scan that hangs")
	// What a process died over, whichever way it came, is tried once more and no more.
	before := p.Status().Crashes
	f := open(t, "crash 2")
	if _, rest, err := p.Direct(int(f.Fd()), int64(len("crash 2")), f.Name()); err == nil {
		if _, err = rest.Wait(context.Background()); !errors.Is(err, ErrCrashed) {
			t.Errorf("a scanner that dies: %v", err)
		}
	} else if !errors.Is(err, ErrCrashed) {
		t.Errorf("a scanner that dies: %v", err)
	}
	for range 2 {
		if _, err := p.Scan(context.Background(), Request{File: f, Path: f.Name()}); !errors.Is(err, ErrCrashed) {
			t.Errorf("the second try: %v", err)
		}
		if _, _, err := p.Direct(int(f.Fd()), int64(len("crash 2")), f.Name()); !errors.Is(err, ErrNoLine) {
			t.Errorf("the third try: %v", err)
		}
	}
	again("two crashes")
	if n := p.Status().Crashes - before; n != 2 {
		t.Errorf("%d processes died over a file, want 2", n)
	}
	// One that was only there is scanned again, and is not suspected from then on.
	for try := 0; ; try++ {
		f := open(t, "slow EICAR")
		_, rest, err := p.Direct(int(f.Fd()), int64(len("slow EICAR")), f.Name())
		if err != nil || rest == nil {
			t.Fatalf("a slow scan: %v, %v", rest, err)
		}
		killer, killed := open(t, "crash 3"), make(chan error, 1)
		go func() {
			_, err := p.Scan(context.Background(), Request{File: killer, Path: killer.Name()})
			killed <- err
		}()
		_, err = rest.Wait(context.Background())
		if err := <-killed; !errors.Is(err, ErrCrashed) {
			t.Errorf("a scanner that dies: %v", err)
		}
		if err == nil && try < 20 { // it ended before the other one came
			again("a crash too late")
			continue
		}
		if !errors.Is(err, ErrCrashed) {
			t.Errorf("beside a scan that ends the scanner: %v", err)
		}
		v, err := p.Scan(context.Background(), Request{File: f, Path: f.Name()})
		if err != nil || !v.Infected() {
			t.Errorf("the innocent's second try: infected %v, %v", v.Infected(), err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		p.mu.Lock()
		if n := p.deaths[keyOf(&st)]; n != 0 {
			t.Errorf("%d deaths of an innocent file", n)
		}
		p.mu.Unlock()
		break
	}
	again("another file's crashes")
	// New definitions are in force at once, and a scan under the old ones ends.
	slow := make(chan error, 1)
	go func() {
		infected, _, err := direct(t, p, "slow EICAR", patience)
		if err == nil && !infected {
			err = errors.New("no match")
		}
		slow <- err
	}()
	waitFor(t, "the slow scan to begin", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.gen.main.child != nil && p.gen.main.child.direct > 0
	})
	writeFile(t, filepath.Join(sources, "a.txt"), "EICAR\nwicked\n")
	if _, err := p.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := <-slow; err != nil {
		t.Errorf("a scan that had begun under the definitions before: %v", err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		infected, _, err := direct(t, p, "wicked", patience)
		if err == nil {
			if !infected {
				t.Error("a verdict by the definitions before")
			}
			break
		}
		if !errors.Is(err, ErrNoLine) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if s := p.Status(); s.Scans == 0 || s.Crashes == 0 || s.Timeouts == 0 {
		t.Errorf("not counted: %+v", s)
	}
}
